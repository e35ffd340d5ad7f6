"""The wheel: what is in it, and that it works where nothing else is installed, outside the checkout."""

from __future__ import annotations

import email
import hashlib
import json
import os
import subprocess
import sys
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import ganrt

ROOT = Path(__file__).resolve().parent.parent
# pip's own settings stay; what would let the checkout in does not.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "GANRT_MODELS")}


def run(*command: object, cwd: Path) -> str:
    """A command's stdout; its stderr is shown when it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a user's pip would build it, with the build tool that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an empty virtual environment into which the wheel was installed, as a user would do it."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = (programs / "python", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    return programs


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"ganrt-{ganrt.__version__}.dist-info/METADATA"))


def test_the_wheel_holds_both_packages_the_generators_and_the_licence(wheel: Path) -> None:
    assert wheel.name == f"ganrt-{ganrt.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for path in ROOT.glob("exported/**/*.onnx"):
            assert archive.read(f"ganrt/{path.relative_to(ROOT).as_posix()}") == path.read_bytes()
    assert {"ganrt/exported/fashion.onnx", "ganrt/exported/features/fashion.onnx"} <= names
    assert {"ganrt/py.typed", "ganrt_training/py.typed"} <= names
    assert f"ganrt-{ganrt.__version__}.dist-info/licenses/LICENSE" in names
    for package, source in (("ganrt", ROOT / "ganrt"), ("ganrt_training", ROOT / "training" / "ganrt_training")):
        wanted = {f"{package}/{path.relative_to(source).as_posix()}" for path in source.rglob("*.py")}
        assert {n for n in names if n.startswith(f"{package}/") and n.endswith(".py")} == wanted
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"ganrt", "ganrt_training", f"ganrt-{ganrt.__version__}.dist-info"}


def test_each_shipped_model_is_named_with_its_digest(wheel: Path) -> None:
    exported = ROOT / "exported"
    wanted = {
        path.relative_to(exported).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in exported.rglob("*.onnx")
    }
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read("ganrt/shipped.sha256").decode().splitlines()
    assert {name: digest for digest, name in (line.split("  ") for line in lines)} == wanted


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of git: what belongs to the tree is not known")
def test_the_same_tree_gives_the_same_wheel_and_sdist_byte_for_byte(tmp_path: Path) -> None:
    """Whenever it is built, in whatever folder, with whatever permissions, whoever builds it."""
    digests = []
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for number, (mask, moment) in enumerate([("022", 10**9), ("077", 2 * 10**9)]):
        source = tmp_path / ("a" * (number + 1)) / "tree"
        for name in filter(None, names.split("\0")):
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                path.write_bytes((ROOT / name).read_bytes())
                path.chmod(0o666 & ~int(mask, 8))
                os.utime(path, (moment, moment))
        out = source.parent / "out"
        build = "from hatchling.builders.{0} import {1}; next({1}(sys.argv[1]).build(directory=sys.argv[2]))"
        for kind in (("wheel", "WheelBuilder"), ("sdist", "SdistBuilder")):
            code = f"import os, sys; os.umask(0o{mask}); " + build.format(*kind)
            run(sys.executable, "-c", code, source, out, cwd=tmp_path)
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()})
    assert len(digests[0]) == 2
    assert digests[0] == digests[1]


def test_the_runtime_asks_for_nothing_of_training(wheel: Path) -> None:
    about = metadata(wheel)
    needed = [line for line in about.get_all("Requires-Dist") or [] if "extra ==" not in line]
    names = {line.split(";")[0].split(">")[0].split("[")[0].strip() for line in needed}
    assert names == {"isal", "numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "typer"}
    assert set(about.get_all("Provides-Extra") or []) == {"cuda", "evaluate", "keras", "test", "train", "video"}
    assert about["License-Expression"] == "Apache-2.0"


def test_the_wheel_makes_images_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    report = json.loads(run(installed / "ganrt", "generate", "--n", 64, "--out", "x", "--json", cwd=tmp_path))
    assert (report["images"], report["model"], report["complete"]) == (64, "fashion", True)
    assert len(list(tmp_path.glob("x/*/*.png"))) == 64
    assert "fashion" in run(installed / "ganrt", "models", cwd=tmp_path)
    assert "every file is as it was written" in run(installed / "ganrt", "verify", "x", cwd=tmp_path)
    run(installed / "ganrt", "preview", "x", "--out", "x.png", cwd=tmp_path)
    run(installed / "ganrt", "doctor", cwd=tmp_path)


def test_the_library_works_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    code = "import ganrt, sys; print(ganrt.__file__, ganrt.load('fashion').sample(4).shape, 'torch' in sys.modules)"
    shown = run(installed / "python", "-c", code, cwd=tmp_path)
    assert shown.split()[0].startswith(str(installed.parent))
    assert shown.split(maxsplit=1)[1].strip() == "(4, 28, 28, 1) False"


def test_the_empty_environment_holds_what_was_asked_for_and_no_more(installed: Path, tmp_path: Path) -> None:
    pip = (installed / "python", "-m", "pip", "--disable-pip-version-check")
    names = {entry["name"].lower() for entry in json.loads(run(*pip, "list", "--format", "json", cwd=tmp_path))}
    assert "ganrt" in names
    assert not names & {"torch", "onnx", "onnxscript", "safetensors", "datasets", "pytest"}
    run(*pip, "check", cwd=tmp_path)
