"""Faults at file operations: a process is killed, or gets an error, at the k-th of those below a folder.

What counts is what changes a disk: opening to write, writing, syncing, renaming, removing, making folders, cutting.
``install`` wraps them where Python code calls them, so that every one has a number and a name.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
ALL = -1  # every step is told, and nothing happens
KILL, KILL_IN_THE_MIDDLE = "kill", "kill in the middle"
UNREADABLE = "EIO on reading"
ERRORS = ("ENOSPC", "EDQUOT", "EIO")
FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM = ("open", "write", "mkdir")  # operations that a full disk goes on to refuse
SEEN = 0.25  # seconds after which a signal has been seen, and the run told to stop


@dataclass(frozen=True)
class Fault:
    """What happens before step ``step``, from 0.

    ``what`` is KILL, KILL_IN_THE_MIDDLE (half of what is to be written is written), the name of an error that the step
    fails with, or of one or two signals that the process gets: ``SIGINT``, ``SIGTERM SIGTERM``. For UNREADABLE the
    steps are those at which a file is opened to be read.
    """

    step: int
    what: str


class Steps:
    """Counts the steps of this process below ``root``, and strikes at one. ``told`` is called with each step's name."""

    def __init__(self, root: str, fault: Fault | None, told: Callable[[str], None]) -> None:
        self._root, self._fault, self._told = os.path.join(root, ""), fault, told
        self._reading = fault is not None and fault.what == UNREADABLE
        self._count, self._full = 0, 0
        self._guard = threading.Lock()
        self._paths: dict[int, str] = {}  # of open files

    def watches(self, path: Any) -> bool:
        """Whether a path is the root, or lies below it."""
        return isinstance(path, str | os.PathLike) and os.path.join(os.fspath(path), "").startswith(self._root)

    def opened(self, number: int, path: Any) -> None:
        """Keeps in mind what a descriptor is of."""
        self._paths[number] = os.fspath(path) if self.watches(path) else ""

    def path(self, number: int) -> str:
        """What a descriptor is of; empty for what is not below the root."""
        return self._paths.get(number, "")

    def do(self, operation: str, path: Any, act: Callable[[], T], half: Callable[[], Any] | None = None) -> T:
        """A step, by its true function. ``half`` does half of it."""
        if not self.watches(path) or (operation == "read") != self._reading:
            return act()
        with self._guard:
            number, self._count = self._count, self._count + 1
        name = f"{operation} of {os.path.relpath(path, self._root)}"
        fault = self._fault
        if fault is None or fault.step in (ALL, number):
            self._told(name)
        if fault and number == fault.step:
            self._strike(fault.what, os.fspath(path), half)
        elif self._full and operation in ROOM:
            raise OSError(self._full, os.strerror(self._full), os.fspath(path))
        return act()

    def _strike(self, what: str, path: str, half: Callable[[], Any] | None) -> None:
        if what in (KILL, KILL_IN_THE_MIDDLE):
            if what == KILL_IN_THE_MIDDLE and half:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        elif what.startswith("SIG"):
            for number in what.split():
                os.kill(os.getpid(), getattr(signal, number))
                time.sleep(SEEN)
        else:
            number = getattr(errno, what.split()[0])
            self._full = number if number in FULL else 0
            if half and self._full:
                half()  # what there was room for
            raise OSError(number, os.strerror(number), path)

    def install(self) -> None:
        """Wraps the operations of this process, for good."""
        steps, real, real_open = self, {name: getattr(os, name) for name in dir(os)}, builtins.open

        def of_path(name: str, operation: str) -> None:
            def wrapped(path: Any, *arguments: Any, **options: Any) -> Any:
                return steps.do(operation, path, lambda: real[name](path, *arguments, **options))

            setattr(os, name, wrapped)

        def of_two(name: str) -> None:
            def wrapped(source: Any, target: Any, **options: Any) -> None:
                steps.do("replace", target, lambda: real[name](source, target, **options))

            setattr(os, name, wrapped)

        def open_(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            def act() -> int:
                return int(real["open"](path, flags, *arguments, **options))

            number = steps.do("open", path, act) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else act()
            steps.opened(number, path)
            return number

        def write(number: int, data: Any) -> int:
            def half() -> int:
                return int(real["write"](number, memoryview(data)[: len(data) // 2]))

            return steps.do("write", steps.path(number), lambda: int(real["write"](number, data)), half)

        def fsync(number: int) -> None:
            steps.do("fsync", steps.path(number), lambda: real["fsync"](number))

        def ftruncate(number: int, size: int) -> None:
            steps.do("truncate", steps.path(number), lambda: real["ftruncate"](number, size))

        class Watched(io.FileIO):
            """A file whose writes are steps."""

            def __init__(self, path: Any, mode: str) -> None:
                super().__init__(path, mode)
                self.where = path
                steps.opened(self.fileno(), path)

            def write(self, data: Any) -> int:
                true, view = super().write, memoryview(data)
                return steps.do("write", self.where, lambda: true(data), lambda: true(view[: view.nbytes // 2]))

            def truncate(self, size: int | None = None) -> int:
                true = super().truncate
                return steps.do("truncate", self.where, lambda: true(size))

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+"):
                return steps.do("read", file, lambda: real_open(file, mode, buffering, *rest, **options))
            if not steps.watches(file):
                return real_open(file, mode, buffering, *rest, **options)
            raw = steps.do("open", file, lambda: Watched(file, mode.replace("b", "").replace("t", "")))
            if buffering == 0:
                return raw
            whole = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return whole if "b" in mode else io.TextIOWrapper(whole, *rest, **options)

        for name in ("unlink", "remove"):
            of_path(name, "unlink")
        for name in ("mkdir", "rmdir"):
            of_path(name, name)
        for name in ("replace", "rename"):
            of_two(name)
        os.open, os.write, os.fsync, os.ftruncate = open_, write, fsync, ftruncate  # type: ignore[assignment]
        builtins.open = io.open = opened  # pathlib has the latter
