"""What is installed, which devices really work, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import time
from dataclasses import dataclass

from ganrt import __version__
from ganrt.errors import GanrtError
from ganrt.generator import Generator, load_checked
from ganrt.providers import cpu_count, gpus, installed_runtimes, mend_runtimes, runtime

_PACKAGES = ("numpy", "pillow", "isal", "typer")
_EXTRAS = {
    "train": ("torch", "onnx", "onnxscript", "safetensors"),
}


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is well (None: it is no fault that it is missing), and what to do if not."""

    name: str
    well: bool | None
    found: str
    hint: str = ""


def examine() -> list[Check]:
    """Tries what a run needs: imports, the shipped generator, a batch on every device."""
    checks = [
        Check(
            "ganrt",
            True,
            f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ),
        Check("processors", True, f"{cpu_count()} may be used"),
        _packages(),
        _runtimes(),
    ]
    checks.append(_device("cpu"))
    try:
        names = gpus()
    except GanrtError as error:
        checks.append(Check("cuda", None, error.message, error.hint or ""))
    else:
        checks += [_device(f"cuda:{number}", name) for number, name in enumerate(names)]
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        found = f"{', '.join(missing)} not installed" if missing else "installed"
        checks.append(
            Check(
                f"extra {extra}", None if missing else True, found, f"pip install 'ganrt[{extra}]'" if missing else ""
            )
        )
    return checks


def _packages() -> Check:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", False, f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Check("packages", True, ", ".join(found))


def _runtimes() -> Check:
    found = installed_runtimes()
    shown = ", ".join(f"{name} {version}" for name, version in found.items()) or "none"
    if len(found) > 1:
        return Check("onnxruntime", False, f"installed over each other: {shown}", mend_runtimes(found))
    try:
        providers = runtime().get_available_providers()
    except GanrtError as error:
        return Check("onnxruntime", False, error.message, error.hint or "")
    return Check(
        "onnxruntime", True, f"{shown} (built with {', '.join(p.removesuffix('ExecutionProvider') for p in providers)})"
    )


def _device(device: str, name: str = "") -> Check:
    """Runs the shipped generator there: what is listed as available need not work."""
    from ganrt.contract import read_model
    from ganrt.models import find_model

    try:
        path = find_model("fashion")
        generator: Generator = load_checked(read_model(path), path, device, None, None)
        generator.sample(generator.batch)
        began = time.perf_counter()
        batches = 5
        generator.sample(batches * generator.batch, start=generator.batch)
        rate = batches * generator.batch / (time.perf_counter() - began)
    except GanrtError as error:
        return Check(device, False if device == "cpu" else None, error.message, error.hint or "")
    called = f"{name}, " if name else ""
    return Check(device, True, f"works: {called}{rate:,.0f} images/s in one call after another ({path.stem})")


def well(checks: list[Check]) -> bool:
    """Whether images can be made here."""
    return not any(check.well is False for check in checks)
