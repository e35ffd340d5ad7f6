"""Runs commands in children of a process that has imported everything: a run costs what it does, and no start.

``python -m tests.faults.nursery`` is that process. It reads requests as JSON lines, forks, and says how each ended.
It has no session of ONNX Runtime and no thread of its own, which a fork would not survive.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.datasets import ROOT, environment
from tests.faults.inject import Fault, Steps

GENERATING = (
    *("ganrt.cli", "ganrt.generation", "ganrt.translation", "ganrt.verification", "ganrt.providers"),
    *("onnxruntime", "isal.isal_zlib", "PIL.PngImagePlugin"),
)
TRAINING = (
    *("ganrt.cli", "ganrt_training.loop", "ganrt_training.data", "ganrt_training.describe"),
    *("torch._dynamo", "accelerate", "PIL.Image"),  # which optimisers import when they are made
)
PATIENCE = 120  # seconds that a child may take


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``status`` is negative when a signal killed it. ``steps``: those it told of."""

    status: int
    out: str
    err: str
    steps: list[str]


class Nursery:
    """The process that forks, and the way to it."""

    def __init__(self, modules: Sequence[str]) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "training")])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.nursery", *modules],
            env=environment() | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: Sequence[str], root: Path, fault: Fault | None = None) -> Ended:
        """Runs ``ganrt WORDS`` with a fault at a step below ``root``; without one, all steps are told."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"words": [*map(str, words)], "root": str(root), "fault": asdict(fault) if fault else None}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


@functools.cache
def nursery(modules: Sequence[str] = GENERATING) -> Nursery:
    """The one of this process; it ends when this process does."""
    found = Nursery(modules)
    atexit.register(found.close)
    return found


def _child(request: dict[str, Any], files: dict[str, Any]) -> None:
    """Runs the command, and never returns."""
    signal.alarm(PATIENCE)
    for number, name in ((0, None), (1, "out"), (2, "err")):
        os.dup2(files[name].fileno() if name else os.open(os.devnull, os.O_RDONLY), number)
    told, write = files["steps"].fileno(), os.write
    fault = Fault(**request["fault"]) if request["fault"] else None

    def tell(name: str) -> None:
        write(told, f"{name}\n".encode())

    Steps(request["root"], fault, tell).install()
    from ganrt.cli import main

    sys.argv = ["ganrt", *request["words"]]
    status = 70
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _warm() -> None:
    """Builds the command line once for all, and lets it import what it does when it is first used."""
    import typer.main
    from PIL import Image

    from ganrt.cli import app, main

    Image.init()
    command = typer.main.get_command(app)
    mock.patch.object(typer.main, "get_command", lambda _: command).start()
    sys.argv = ["ganrt", "generate", "--n", "all"]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main()


def _serve() -> None:
    warnings.simplefilter("ignore")
    for module in sys.argv[1:]:
        importlib.import_module(module)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    _warm()
    gc.collect()
    gc.freeze()  # children leave these objects alone, and their pages shared
    for line in sys.stdin:
        files = {name: tempfile.TemporaryFile() for name in ("out", "err", "steps")}  # noqa: SIM115 - closed below
        child = os.fork()
        if not child:
            _child(json.loads(line), files)
        _, status = os.waitpid(child, 0)
        texts = {}
        for name, file in files.items():
            with file:
                file.seek(0)
                texts[name] = file.read().decode("utf-8", "replace")
        steps = texts.pop("steps").splitlines()
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), **texts, "steps": steps}), flush=True)


if __name__ == "__main__":
    _serve()
