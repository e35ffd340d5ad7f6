"""Runs ``ganrt`` many times a second, each time in a process of its own with limits.

``python -m tests.faults.forked`` imports once what ganrt needs, makes no session and starts no thread, and then forks
for each line of JSON that it reads: the child sets its limits and is the real command line. What became of it is
written back as a line of JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MEMORY = 500 << 20  # bytes of address space that a child may take beyond what it begins with
CPU_SECONDS = 20  # of a child, before the kernel ends it
WALL_SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """What became of a child: its exit code (minus a signal's number), the class of its error, what it printed."""

    code: int
    error: str
    out: str
    err: str
    cpu: float  # seconds
    grown: int  # bytes that its resident memory grew by, at most


class Forks:
    """The process that forks; made by :func:`forks`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ganrt(self, *words: str, memory: int = MEMORY, cwd: Path | None = None) -> Ended:
        """One command, to its end. It may take so many bytes of ``memory`` more than an idle ganrt has."""
        return self._ask({"words": words, "memory": memory, "cwd": str(cwd or Path.cwd())})

    def sample(self, path: Path) -> Ended:
        """Loads a generator of either kind and calls it once: exit code 0, or 1 for a typed error."""
        return self._ask({"words": [str(path)], "memory": MEMORY, "cwd": str(path.parent), "alone": True})

    def _ask(self, request: dict[str, Any]) -> Ended:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in and pipe_out
        pipe_in.write(json.dumps(request) + "\n")
        pipe_in.flush()
        return Ended(**json.loads(pipe_out.readline()))


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    """Starts the process that forks, and ends it."""
    from tests.datasets import environment

    quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.forked"],
        env=environment() | quiet,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Forks(process)
    finally:
        assert process.stdin and process.stdout
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def _serve() -> None:
    import numpy.random  # noqa: F401
    import onnxruntime  # noqa: F401
    import PIL.PngImagePlugin  # noqa: F401

    import ganrt.dry_run
    import ganrt.engine
    import ganrt.explanation
    import ganrt.generation
    import ganrt.translation  # noqa: F401
    from ganrt import cli

    sys.argv = ["ganrt", "generate", "--n", "1", "--out", "none", "--model", "none.onnx", "--device", "cpu"]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main()  # what the command line imports lazily; it finds no model
    for line in sys.stdin:
        print(json.dumps(_forked(**json.loads(line))), flush=True)


def _forked(words: list[str], memory: int, cwd: str, alone: bool = False) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as said:
        before = _resident()
        child = os.fork()
        if child == 0:
            _child(words, memory, cwd, alone, out, err, said)
        status, usage = _wait(child)
        texts = []
        for file in (out, err, said):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return {
        "code": os.waitstatus_to_exitcode(status),
        "error": texts[2],
        "out": texts[0],
        "err": texts[1],
        "cpu": usage.ru_utime + usage.ru_stime,
        "grown": max(0, usage.ru_maxrss * 1024 - before),
    }


def _wait(child: int) -> tuple[int, resource.struct_rusage]:
    ends = time.monotonic() + WALL_SECONDS
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            ends = float("inf")
        time.sleep(0.001)


def _child(
    words: list[str], memory: int, cwd: str, alone: bool, out: IO[bytes], err: IO[bytes], said: IO[bytes]
) -> None:
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.chdir(cwd)
        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["ganrt", *words]
        from ganrt.cli import main

        if alone:
            _sample(Path(words[0]))
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        said.write(type(ended.__context__).__name__.encode() if ended.__context__ else b"")
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            said.flush()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _sample(path: Path) -> None:
    """One call of a generator; ends the process with code 0, or with 1 for a typed error."""
    import numpy as np

    import ganrt
    from ganrt.card import IMAGES
    from ganrt.contract import read_model

    try:
        card = read_model(path).card
        if card.kind == IMAGES:
            height, width, channels = card.in_shape
            x = np.random.default_rng(0).integers(0, 256, (2, min(height, 64), min(width, 64), channels), np.uint8)
            ganrt.load_translator(path, device="cpu", threads=1)(x)
        else:
            ganrt.load(path, device="cpu", batch=4, threads=1).sample(4)
    except ganrt.GanrtError as error:
        raise SystemExit(1) from error
    raise SystemExit(0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    _serve()
