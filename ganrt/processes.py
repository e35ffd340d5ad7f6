"""One run shared by several processes of this machine: one a GPU, or more than Python's interpreter lock lets one do.

Each process is a machine of the dataset (see :class:`ganrt.shards.Plan`) with a ledger of its own, and ends when
its parent does. Parent and child speak JSON lines over the child's stdin and stdout: the request, then anything
that means stop; progress, then a report or an error. The end of stdin means that the parent has gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ganrt.errors
from ganrt.engine import Job, Progress, Report, make_dataset
from ganrt.errors import Cancelled, GanrtError, ModelError
from ganrt.files import storage_error
from ganrt.generation import prepare
from ganrt.ledger import Ledger
from ganrt.manifest import withdraw
from ganrt.planning import PlanOptions
from ganrt.providers import gpus, own_process

logger = logging.getLogger("ganrt")

_TICK = 0.1  # seconds
_PATIENCE = 1.5  # seconds that a process whose parent has gone may take to end by itself


def share_out(
    job: Job,
    processes: int,
    request: dict[str, Any],
    overwrite: bool,
    progress: Callable[[Progress], None] | None,
    cancel: threading.Event | None,
) -> Report:
    """Makes a job's dataset by several processes, each of which is given ``request``, the plan and its share.

    Raises what any of them raises, when all have ended; Cancelled.
    """
    began = time.monotonic()
    devices = _devices(str(request["device"]))
    k, m = job.machine
    shares = [(k + m * p, m * processes) for p in range(processes)]
    try:
        made_root = not job.root.exists()
        # Refuses what has to be refused before any process starts, and leaves a ledger: that the folder is ganrt's.
        Ledger.claim(job.root, job.plan, shares[0], job.n, overwrite).close()
    except OSError as error:
        raise storage_error(error) from error
    options = {name: getattr(job.plan, name) for name in PlanOptions.__annotations__}
    common = {**request, "options": {**options, "classes": options["classes"] or None}, "among": processes}
    own = job.plan.share(job.n, job.machine)[1]
    children: list[_Child] = []
    try:
        for p, share in enumerate(shares):
            children.append(_Child({**common, "device": devices[p % len(devices)], "shard": share}))
        running = True
        while running:
            running = any(child.is_alive() for child in children)
            if progress:
                progress(_sum([child.progress for child in children], own, time.monotonic() - began))
            if (cancel and cancel.is_set()) or any(child.error for child in children):
                for child in children:
                    child.stop()
            if running:
                time.sleep(_TICK)
    finally:
        for child in children:
            child.stop()
        for child in children:
            child.join()
    made = [child.report for child in children if child.report]
    errors = [child.error for child in children if child.error]
    told = [error for error in errors if not isinstance(error, Cancelled)]
    if told:
        if isinstance(told[0], ModelError):
            with contextlib.suppress(GanrtError, OSError):
                withdraw(job.root, job.plan, shares, made_root)
        raise told[0]
    if errors:
        stopped = Cancelled("stopped before the end")
        stopped.add_note("finished images are kept; the same command goes on from there.")
        raise stopped
    seconds = time.monotonic() - began
    images = sum(report.images for report in made)
    working = next((report for report in made if report.device), made[0])
    if request["provider_options"] and working.device == "cpu":
        logger.info("device cpu (no CUDA); the provider options are not used")
    return replace(
        working,
        images=images,
        already=sum(report.already for report in made),
        seconds=round(seconds, 3),
        images_per_second=round(images / seconds, 1),
        bytes=sum(report.bytes for report in made),
        complete=any(report.complete for report in made),
        device=",".join(sorted({report.device for report in made if report.device})) or None,
        processes=processes,
    )


def _devices(device: str) -> list[str]:
    """Where the processes work in turn: on every GPU, unless one is named."""
    return [f"cuda:{number}" for number in range(len(gpus()))] if device == "cuda" else [device]


def _sum(parts: list[Progress], own: int, seconds: float) -> Progress:
    made = sum(part.made for part in parts)
    return Progress(sum(part.done for part in parts), own, made, seconds)


@contextlib.contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Ctrl-C, and what else is sent to the whole group, is for the parent, which says when to stop.

    Children inherit the mask, so that none is hit before it can say so itself.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Child:
    """A process with a share of the run, and the thread that listens to it."""

    def __init__(self, request: dict[str, Any]) -> None:
        here = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.progress, self.report = Progress(0, 0, 0, 0.0), None
        self.error: GanrtError | None = None
        self._stopped = False
        text = json.dumps(request) + "\n"
        try:
            with _signals_kept_from_children():
                self._process = subprocess.Popen(
                    # -P: modules of the working folder are not for us.
                    [sys.executable or "", "-P", "-m", "ganrt.processes"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": path},
                    text=True,
                    encoding="utf-8",
                )
        except OSError as error:
            raise GanrtError(
                f"no process can be started with {sys.executable!r}: {error.strerror}", "Use fewer --processes, or one."
            ) from error
        self._say(text)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    progress: Progress
    report: Report | None

    def _listen(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        try:
            for line in self._process.stdout:
                kind, values = json.loads(line)
                if kind == "progress":
                    self.progress = Progress(**values)
                elif kind == "report":
                    self.report = Report(**values)
                    done = self.report.already + self.report.images
                    self.progress = Progress(done, done, self.report.images, self.report.seconds)
                else:
                    self.error = _error(**values)
        except (OSError, ValueError, TypeError) as error:
            self.error = self.error or GanrtError(f"a process of the run cannot be understood: {error}")
            self._process.kill()  # nobody reads on, so it may wait for ever
        status = self._process.wait()
        if not self.report and not self.error:
            self.error = GanrtError(
                f"a process of the run ended with status {status}",
                "Give the same command again; finished images are kept. Was it out of memory?",
            )
        self._process.stdout.close()
        with contextlib.suppress(OSError):  # what it never read
            self._process.stdin.close()

    def _say(self, text: str) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # it has gone: _listen knows
            self._process.stdin.write(text)
            self._process.stdin.flush()

    def stop(self) -> None:
        """Asks it to end after the batches in work."""
        if not self._stopped:
            self._stopped = True
            self._say("stop\n")

    def is_alive(self) -> bool:
        """Whether more may come from it."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Waits for its end."""
        self._thread.join()


def _error(kind: str, message: str, hint: str | None, notes: list[str]) -> GanrtError:
    found = getattr(ganrt.errors, kind, GanrtError)
    error: GanrtError = found(message, hint)
    for note in notes:
        error.add_note(note)
    return error


def main() -> None:
    """The child: reads a request, makes its share, tells how it goes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    own_process()
    cancel = threading.Event()
    heard = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - a thread waits on it until the process ends
    told = open(os.dup(1), "w", encoding="utf-8")  # noqa: SIM115 - likewise open to the end
    with contextlib.suppress(OSError):  # there is no stderr
        os.dup2(2, 1)  # what libraries print is not for the parent

    def tell(kind: str, values: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the parent has gone
            told.write(json.dumps([kind, values]) + "\n")
            told.flush()

    def watch() -> None:
        heard.readline()
        cancel.set()
        while heard.read(1):
            pass
        time.sleep(_PATIENCE)
        os._exit(1)

    asked = heard.readline()
    if not asked:
        return  # the parent has gone
    request = json.loads(asked)
    threading.Thread(target=watch, daemon=True).start()
    try:
        options = request.pop("options")
        shard = tuple(request.pop("shard"))
        job = prepare(**request, shard=shard, overwrite=False, options=options)
        report = make_dataset(job, lambda progress: tell("progress", asdict(progress)), cancel)
        tell("report", report.to_dict())
    except GanrtError as error:
        notes = list(getattr(error, "__notes__", ()))
        kind = type(error).__name__
        tell("error", {"kind": kind, "message": error.message, "hint": error.hint, "notes": notes})


if __name__ == "__main__":
    main()
