"""What the command line shows while it works."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import typer
from typer.core import TyperGroup

from ganrt.errors import Cancelled, UsageError
from ganrt.values import told

if TYPE_CHECKING:
    from ganrt.engine import Progress, Report

DIGITS = 20  # of a whole number in a text: more than any that is taken, and fewer than Python refuses to read
_BAR = 28
_QUIET_INTERVAL = 5.0  # seconds between lines where stderr is no terminal
_PATIENCE = 1.5  # seconds an interrupted run may take to end by itself


class Group(TyperGroup):
    """The command ``ganrt``: what the parser says of a value it cannot take shows the value too."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command asked for."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # Newer versions of Typer repeat pydantic's message, which says only what was expected.
            causes: list[Any] = getattr(error.__cause__, "errors", list)()
            if causes and "input" in causes[0]:
                error.message = f"{told(causes[0]['input'])}: {error.message}"
            raise


def path(text: str) -> Path:
    """A path given on the command line."""
    if not text:
        raise typer.BadParameter("'' is no path. Is it a variable of the shell that was not set?")
    return Path(text)


PathOption: Any = partial(typer.Option, parser=path)
PathArgument: Any = partial(typer.Argument, parser=path)


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as a word of a command that is suggested: one that begins with a dash would be an option there."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def open_streams() -> None:
    """Makes stdin, stdout and stderr fit to be written to, whatever the process was started with.

    Where one is closed, the next file opened would take its number, and get what libraries print there. What the
    terminal's encoding lacks is written as Python escapes it, instead of ending the run.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(null)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class ProgressBar:
    """A bar with rate and remaining time on a terminal, a line every few seconds elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._next = time.monotonic() + (0 if self._live else _QUIET_INTERVAL)
        self._shown = False

    def show(self, done: int, total: int, rate: float) -> None:
        """Shows the state, not more often than is useful."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.1 if self._live else _QUIET_INTERVAL)
        left = f", {duration_text((total - done) / rate)} left" if rate > 0 and done < total else ""
        text = f"{done:,}/{total:,} images  {rate:,.0f}/s{left}"
        if self._live:
            filled = _BAR * done // max(1, total)
            self._stream.write(f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {text}\x1b[K")
            self._shown = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Takes the bar off the terminal."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


@contextmanager
def stoppable(goes_on: bool = True) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a Cancelled that follows gets the signal's exit code.

    A second signal, or a run that takes too long to end, ends the process at once: what is finished is on
    the disk already, and nothing else is lost. ``goes_on`` says whether the same command goes on from there.
    """
    said = "; the same command goes on from what is finished" if goes_on else ""
    cancel, signals = threading.Event(), list[int]()

    def handle(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        cancel.set()

    with _ending((signal.SIGINT, signal.SIGTERM), f"\nended at once{said}\n"):
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield cancel
        except Cancelled as error:
            error.exit_code = 128 + signals[0]
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def endable() -> Iterator[None]:
    """Ctrl-C ends the process soon, also while a network loads or runs; there is nothing to go on from."""
    with _ending((signal.SIGINT,), "\nended at once\n"):
        yield


@contextmanager
def _ending(numbers: Collection[int], said: str) -> Iterator[None]:
    """Ends the process at a second of these signals, or if it has not ended some time after the first.

    Python's own handlers run between two lines of Python: not while ONNX Runtime is at work in this thread.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)  # it is written to by a signal handler
    over = threading.Event()

    def watch() -> None:
        came = list[int]()
        while len(came) < 2 and (data := _received(heard)):
            came += [number for number in data if number in numbers]
            if came:
                heard.settimeout(_PATIENCE)
        if came and not over.is_set():
            sys.stderr.write(said)
            sys.stderr.flush()
            os._exit(128 + came[-1])

    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="ganrt-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        told.close()
        watcher.join()
        heard.close()


def _received(from_signals: socket.socket) -> bytes:
    """The numbers of signals that came; none when the time is over, or all is."""
    try:
        return from_signals.recv(64)
    except OSError:
        return b""


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration_text(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def plain(value: Any) -> str:
    """A value of a card on one line."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else " ".join(str(value).split())


def short(text: str) -> str:
    """Text of a foreign file on one line."""
    text = shown(" ".join(text.split()))
    return text if len(text) <= 120 else text[:119] + "…"


def shown(text: str) -> str:
    """Text that may hold foreign names, without what a terminal would obey or a stream cannot take."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class _Once(logging.Filter):
    """Nothing is told twice: where several networks run, each takes the device."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self._told
        self._told.add(text)
        return new or record.levelno > logging.INFO


def before_running(device: str, quiet: bool) -> None:
    """What a command does before it runs a generator: ``auto`` will say which device it took, and memory is bounded."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("ganrt: %(message)s"))
    handler.addFilter(_Once())
    logger = logging.getLogger("ganrt")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    from ganrt.providers import own_process

    own_process()
    bound_memory(device)


def bound_memory(device: str) -> None:
    """Lets this process, on a CPU under Linux, take no more memory than there is: what asks for more is an error.

    Otherwise the system would end some process once a network fills memory that it was promised. CUDA is left alone.
    """
    from ganrt.errors import DeviceUnavailable
    from ganrt.providers import cuda_driver, free_memory

    free = free_memory()
    if free is None or device.startswith("cuda"):
        return
    if device == "auto":
        with suppress(DeviceUnavailable):
            cuda_driver()
            return
    import resource

    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    soft, hard = _given_limits()
    limits = [taken + free, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))


@cache
def _given_limits() -> tuple[int, int]:
    """Of memory, soft and hard, as this process was given them."""
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


def parsed_size(text: str | None) -> int | tuple[int, int] | None:
    """The side or (width, height) that ``64`` or ``64x48`` says. Raises UsageError."""
    if text is None:
        return None
    numbers = text.lower().split("x")
    if len(numbers) > 2 or not all(number.strip().isdecimal() and len(number) <= DIGITS for number in numbers):
        raise UsageError(f"size {told(text)}", "Expected a side or WIDTHxHEIGHT in pixels, as in 64 or 64x48.")
    sides = [int(number) for number in numbers]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def with_progress(run: Callable[[Callable[[Progress], None] | None, threading.Event], Report], quiet: bool) -> Report:
    """The report of ``run(progress, cancel)``, with a progress bar unless ``quiet``, and stopped by signals."""
    bar = ProgressBar()

    def show(progress: Progress) -> None:
        bar.show(progress.done, progress.total, progress.images_per_second)

    with stoppable() as cancel:
        try:
            return run(None if quiet else show, cancel)
        finally:
            bar.clear()


def report_text(report: Report) -> str:
    """What a run did, for people, and what comes next."""
    out = quoted(report.out)
    if report.device is None:
        lines = [f"nothing to do: {report.already:,} images are in {report.out}"]
    else:
        already = f" ({report.already:,} were there already)" if report.already else ""
        lines = [
            f"{report.images:,} images{already} in {report.seconds:.1f} s, {report.images_per_second:,.0f} images/s, "
            f"{report.device} with {crew(report.processes, report.workers)}",
            f"in {report.out}: layout {report.layout}" + (f", {report.format}" if report.format else ""),
        ]
    if report.complete:
        lines.append(f"next: ganrt preview {out} --out preview.png, or ganrt verify {out}")
    else:
        lines.append("not complete yet: other shares are missing; the machine that ends last completes it")
    return shown("\n".join(lines))


def crew(processes: int, workers: int) -> str:
    """Who made a dataset."""
    return f"{workers} workers" if processes == 1 else f"{processes} processes of {workers} workers"
