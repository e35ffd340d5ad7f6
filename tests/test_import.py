"""What importing ganrt, and ONNX Runtime through it, does to a process."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import ganrt


def child(code: str, folder: Path, **environment: str) -> str:
    """What a fresh interpreter prints; modules in ``folder`` come first."""
    variables = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    variables |= {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **environment}
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_telemetry_is_off_before_onnx_runtime_is_imported(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "import os\nprint(os.environ.get('ORT_DISABLE_TELEMETRY'))\nclass InferenceSession: pass\n"
    )
    code = "import os, ganrt; assert os.environ.get('ORT_DISABLE_TELEMETRY') in (None, '0')\n"
    code += "from ganrt.providers import runtime; runtime()"
    assert child(code, tmp_path) == "1"
    assert child(code, tmp_path, ORT_DISABLE_TELEMETRY="0") == "0"  # the user's own word


def test_importing_ganrt_loads_nothing_else(tmp_path: Path) -> None:
    code = "import sys, ganrt; assert callable(ganrt.UsageError); dir(ganrt)\n"
    code += (
        "print(*({'numpy', 'onnxruntime', 'onnx', 'torch', 'PIL', 'isal', 'typer', 'ganrt_training'} & {*sys.modules}))"
    )
    assert child(code, tmp_path) == ""


def test_no_module_stands_in_the_way_of_a_public_name() -> None:
    """A submodule becomes an attribute of the package when it is imported, whoever imports it."""
    modules = {module.name for module in pkgutil.iter_modules(ganrt.__path__)}
    assert modules & set(ganrt.__all__) == set()
    for name in ganrt.__all__:
        assert callable(getattr(ganrt, name)), name
