"""Reads what may do harm in a process of its own, forked from one that has imported all that reading needs.

The process has little memory and a few seconds. What it answers says how it ended, how long it took and what it
needed, so that a test can hold every reader to the same: what is documented, or a typed error.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.datasets import ROOT

SECONDS, MEGABYTES = 2.0, 500  # what a reader may take for a file of a few kilobytes
_KILLED_AFTER = 20.0  # so that a hang is told as such, on a busy machine too
_ROOM = 3 << 30  # of addresses: an allocation beyond it fails, and the machine stays usable


@dataclass(frozen=True)
class Outcome:
    """How a call ended: ``done``, ``typed`` (a GanrtError), ``raised`` (anything else), ``died`` or ``hung``."""

    kind: str
    text: str  # what it returned, the error with its hint, or a traceback
    seconds: float  # of its own processor time
    megabytes: float  # more than it began with

    def complaint(self, says: str | None, name: str | None = None) -> str | None:
        """What is wrong with it, where ``says`` is expected in a typed error (None: in no error at all)."""
        if self.kind not in ("done", "typed"):
            return f"{self.kind}: {self.text}"
        if (self.kind == "typed") != (says is not None):
            return f"expected {'an error' if says is not None else 'none'}, got {self.text!r:.300}"
        if says is not None and (says not in self.text or (name or "") not in self.text):
            return f"expected an error that says {name or ''} {says!r}, got {self.text!r:.300}"
        if self.seconds > SECONDS:
            return f"took {self.seconds:.1f} s"
        if self.megabytes > MEGABYTES:
            return f"took {self.megabytes:.0f} MB"
        return None


class Confined:
    """A process that forks children for calls. Only a module's function may be called, with values that pickle."""

    def __init__(self, *modules: str) -> None:
        words = [sys.executable, "-m", "tests.faults.confined", *modules]
        paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'training'}", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            words, cwd=ROOT, env=os.environ | paths, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Outcome:
        assert self._process.stdin and self._process.stdout
        _send(self._process.stdin, (function, arguments, named))
        return Outcome(*_receive(self._process.stdout))

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@contextlib.contextmanager
def confined(*modules: str) -> Iterator[Confined]:
    """A process that has imported these modules."""
    process = Confined(*modules)
    try:
        yield process
    finally:
        process.close()


def _send(file: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value)
    file.write(struct.pack("<Q", len(data)) + data)
    file.flush()


def _receive(file: IO[bytes]) -> Any:
    head = file.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(file.read(*struct.unpack("<Q", head)))


def _memory(key: str) -> int:
    """Bytes, of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def _child(pipe: int, call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> None:
    from ganrt.errors import GanrtError

    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + _ROOM,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = _memory("VmRSS")
    function, arguments, named = call
    try:
        kind, text = "done", str(function(*arguments, **named))
    except GanrtError as error:
        kind, text = "typed", str(error)
    except BaseException:
        kind, text = "raised", traceback.format_exc()
    used = resource.getrusage(resource.RUSAGE_SELF)
    answer = (kind, text[-4000:], used.ru_utime + used.ru_stime, (_memory("VmHWM") - before) / 1e6)
    with open(pipe, "wb") as file:
        _send(file, answer)


def _serve(modules: list[str]) -> None:
    for module in modules:
        __import__(module)
    while True:
        try:
            call = _receive(sys.stdin.buffer)
        except EOFError:
            return
        reading, writing = os.pipe()
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.close(reading)
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):  # libtiff and others tell there what they meet
                os.dup2(null, number)
            _child(writing, call)
            os._exit(0)
        os.close(writing)
        answer: Any = ("hung", f"no end after {_KILLED_AFTER:.0f} s", _KILLED_AFTER, 0.0)
        with open(reading, "rb") as file:
            if select.select([file], [], [], _KILLED_AFTER)[0]:
                try:
                    answer = _receive(file)
                except EOFError:
                    answer = None
            else:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if answer is None:
            answer = ("died", f"ended with status {status}", time.monotonic() - started, 0.0)
        _send(sys.stdout.buffer, answer)


if __name__ == "__main__":
    _serve(sys.argv[1:])
