"""What makes any dataset: skip what is done, make shards by several threads, record them, report."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import isal
import PIL

from ganrt import __version__
from ganrt.errors import GanrtError, InferenceError, ModelError, StorageError
from ganrt.files import storage_error
from ganrt.generator import Batch
from ganrt.layouts import Layout, ShardWriter, layout_of
from ganrt.ledger import Ledger
from ganrt.manifest import complete, withdraw
from ganrt.parts import Machine, Part
from ganrt.providers import installed_runtimes
from ganrt.shards import DatasetPlan, Record, Shard, Staged
from ganrt.workers import InOrder, Stopped, arrange, in_threads

RECHECKED = 4  # shards whose digests are compared on resume
WORKERS_A_SHARD = 8
FEW_WORKERS = 2  # always help, where there are processors for them
WORKERS_A_LOCK = 2.5  # how many can do at a time what is not the network
PROBED = 6  # batches until it is told whether more do
PROBE_SECONDS = 0.03  # after which the network is slow enough for all


class Drawn(Protocol):
    """What one batch is made of; a maker knows what."""

    @property
    def first(self) -> int:
        """The index of its first sample, a multiple of the plan's batch."""


class Maker(Protocol):
    """A loaded network with all that it makes samples of. Several threads may call it at a time."""

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:N``, or another provider's name."""

    @property
    def threads(self) -> int | None:
        """How many threads a call of the network has on a CPU; None for a session given."""

    @property
    def provider_options(self) -> dict[str, str]:
        """The options of ONNX Runtime's CUDA provider that were asked for."""

    def draws(self, start: int, stop: int) -> Iterator[Drawn]:
        """What the batches of the samples start … stop-1 are made of, in order. Quick: called under a lock."""

    def make(self, drawn: Any, start: int, stop: int) -> Iterator[Batch]:
        """Those of the samples start … stop-1 that lie in one batch, at least one, in order: a Batch a size."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. ``done`` of ``total`` are this run's share, what it found finished included."""

    done: int
    total: int
    made: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of this run, so far."""
        return self.made / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did.

    ``images`` were made by it and ``already`` were there; ``complete`` says whether all ``total`` are, from
    every machine and part. ``device`` is None when nothing was to do. ``images_per_second`` is of making
    and writing, ``seconds`` of the whole call. So many ``workers`` a process made them, each with so many
    ``threads`` in a call of the network (None for a session that was given).
    """

    images: int
    already: int
    total: int
    seconds: float
    images_per_second: float
    bytes: int
    complete: bool
    device: str | None
    processes: int
    workers: int
    threads: int | None
    batch: int
    shard_size: int
    layout: str
    format: str | None
    model: str
    out: str

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A checked request: what to make, where, with what."""

    root: Path
    out: str  # the root as it was given
    plan: DatasetPlan
    n: int
    machine: Machine
    workers: int | None
    threads: int | None
    among: int  # processes that share this machine's processors
    load: Callable[[int], Maker]  # with so many threads a call; put off until something is to do

    def arrange(self, todo: int) -> tuple[int, int]:
        """Workers and threads for so many images."""
        return arrange(self.workers, self.threads, -(-todo // self.plan.batch), self.among)


def make_dataset(
    job: Job,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    overwrite: bool = False,
) -> Report:
    """Makes what is missing of a checked request, in this process. Raises as :func:`ganrt.generate` does."""
    began, made = time.monotonic(), False
    try:
        made = not job.root.exists()
        with Ledger.claim(job.root, job.plan, job.machine, job.n, overwrite) as ledger:
            run = _Run(job, ledger, _trusted(job, ledger.part))
            if run.found < run.own:
                run.make(progress, cancel)
            ledger.check()
            finished = complete(job.root, job.plan.part)
    except ModelError:  # the same command would fail again, and another must find the folder as it was
        with contextlib.suppress(GanrtError, OSError):  # it is the first error that is told
            withdraw(job.root, job.plan, [job.machine], made)
        raise
    except OSError as error:
        raise storage_error(error) from error
    return Report(
        images=run.made,
        already=run.found,
        total=job.n,
        seconds=round(time.monotonic() - began, 3),
        images_per_second=round(run.made / run.seconds, 1) if run.seconds else 0.0,
        bytes=run.bytes,
        complete=finished,
        device=run.device,
        processes=1,
        workers=run.workers,
        threads=run.threads,
        batch=job.plan.batch,
        shard_size=job.plan.shard_size,
        layout=job.plan.layout,
        format=job.plan.format,
        model=job.plan.model,
        out=job.out,
    )


def make_shard(maker: Maker, layout: Layout, root: Path, shard: Shard, only: Collection[str] | None = None) -> Record:
    """Makes one shard, batch by batch: draws its samples, writes its files, says what it wrote.

    With ``only`` no loose files but those are written. :func:`make_dataset` does the same with several threads
    on one shard.
    """
    writer = layout.begin(root, shard, only)
    try:
        for drawn in maker.draws(shard.start, shard.stop):
            for batch in maker.make(drawn, shard.start, shard.stop):
                writer.append(writer.stage(batch))
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _trusted(job: Job, part: Part) -> dict[int, int]:
    """The shards of this machine that are finished and whose files are there, with their numbers of images."""
    k, m = job.machine
    layout = layout_of(job.plan)
    trusted: dict[int, int] = {}
    latest: deque[tuple[Shard, Record]] = deque(maxlen=0 if layout.durable else RECHECKED)
    for shard, record in part.records():
        if shard.number % m == k and layout.is_there(job.root, shard, record):
            trusted[shard.number] = len(shard)
            latest.append((shard, record))
    for shard, record in latest:
        # After a power cut the ledger may be ahead of the files that were written just before it.
        if next(layout.damage(job.root, shard, record), None):
            del trusted[shard.number]
    return trusted


class _OpenShard:
    """A shard in work: any thread makes any of its batches; they are written in their order."""

    def __init__(self, shard: Shard, writer: ShardWriter, batch: int, ahead: int, stop: threading.Event) -> None:
        self.shard, self.writer = shard, writer
        self.order = InOrder(self._append, shard.start // batch, -(-shard.stop // batch), ahead, stop)

    def _append(self, staged: list[Staged]) -> None:
        for batch in staged:
            self.writer.append(batch)


class _Run:
    """The state of one call: who makes shards, and how many images are made."""

    def __init__(self, job: Job, ledger: Ledger, trusted: dict[int, int]) -> None:
        self._job, self._ledger, self._trusted = job, ledger, trusted
        self.own = job.plan.share(job.n, job.machine)[1]
        self.found = sum(trusted.values())
        self.made = self.committed = self.bytes = 0
        self.seconds = 0.0
        self.device: str | None = None
        self.workers = 0
        self.threads: int | None = None
        self._probes: list[tuple[float, float]] = []  # seconds in the network, and after it, of the first batches
        self._probed = threading.Event()
        self._layout = layout_of(job.plan)
        self._open: set[_OpenShard] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()

    def make(self, progress: Callable[[Progress], None] | None, cancel: threading.Event | None) -> None:
        """Makes and records the shards that are not trusted. An error carries a note of what is kept."""
        job = self._job
        workers, threads = job.arrange(self.own - self.found)
        self._most = workers
        self._maker = job.load(threads)
        self.threads = self._maker.threads
        self.device = self._maker.device
        self._ledger.note(made_with(self._maker))
        gone = {number for number in self._ledger.part.finished if number % job.machine[1] == job.machine[0]}
        complete(job.root, job.plan.part, gone - self._trusted.keys())  # the manifest says: not complete
        self._layout.prepare(job.root)
        began = time.perf_counter()

        def tick() -> None:
            self.seconds = time.perf_counter() - began
            if progress:
                progress(Progress(self.found + self.made, self.own, self.made, self.seconds))

        try:
            in_threads(self._work, self._tasks(), workers, self._stop, cancel, tick, self._admit)
            tick()
        except (GanrtError, OSError, MemoryError) as error:
            raised = failure(error, job.plan)
            if isinstance(raised, StorageError):
                self._ledger.check()  # says more than that a file is not there
            raised.add_note(
                f"{self.found + self.committed:,} of {self.own:,} images are finished and kept; "
                "the same command goes on from there."
            )
            raise raised from (error if raised is not error else None)
        finally:
            for shard in self._open:
                shard.writer.abort()

    def _admit(self, number: int) -> bool:
        """Whether one worker more would help; unless the user said how many.

        Threads of Python take turns outside the network, and for more than a third of that time or so: beyond that
        they only stand in each other's way (docs/performance.md). Slow networks are not waited for.
        """
        if self._job.workers is None and number >= FEW_WORKERS and self._probed.wait(PROBE_SECONDS):
            network, rest = (statistics.median(times) for times in zip(*self._probes, strict=True))
            if number >= WORKERS_A_LOCK * (network + rest) / rest:
                return False
        self.workers += 1
        return True

    def _tasks(self) -> Iterator[tuple[_OpenShard, Drawn]]:
        """Every batch that is to be made, with its shard. Called under a lock.

        The workers share the shards in work, so that none is idle at the end; a few are in work at a time, since
        writing in order takes one thread a shard.
        """
        job, lanes = self._job, deque[Iterator[tuple[_OpenShard, Drawn]]]()
        shards = (s for s in job.plan.shards(job.n, job.machine) if s.number not in self._trusted)
        while True:
            while len(lanes) <= self._most // WORKERS_A_SHARD and (shard := next(shards, None)):
                lanes.append(self._tasks_of(shard))
            if not lanes:
                return
            lane = lanes.popleft()
            if task := next(lane, None):
                yield task
                lanes.append(lane)

    def _tasks_of(self, shard: Shard) -> Iterator[tuple[_OpenShard, Drawn]]:
        job = self._job
        self._ledger.check()
        writer = self._layout.begin(job.root, shard)
        opened = _OpenShard(shard, writer, job.plan.batch, self._most, self._stop)
        with self._guard:
            self._open.add(opened)
        for drawn in self._maker.draws(shard.start, shard.stop):
            yield opened, drawn

    def _work(self, task: tuple[_OpenShard, Drawn]) -> None:
        (opened, drawn), shard, began = task, task[0].shard, time.perf_counter()
        staged, count, staging = list[Staged](), 0, 0.0
        for batch in self._maker.make(drawn, shard.start, shard.stop):
            if self._stop.is_set():
                raise Stopped
            self._ledger.check()
            at = time.perf_counter()
            staged.append(opened.writer.stage(batch))
            staging += time.perf_counter() - at
            count += len(batch.images)
        network = time.perf_counter() - began - staging
        is_last = opened.order.give(drawn.first // self._job.plan.batch, staged)
        with self._guard:
            self.made += count
            if len(self._probes) < PROBED:
                self._probes.append((network, time.perf_counter() - began - network))
                if len(self._probes) == PROBED:
                    self._probed.set()
        if is_last:
            self._ledger.check()
            record = opened.writer.close()
            self._ledger.append(record)
            with self._guard:
                self._open.remove(opened)
                self.committed += len(shard)
                self.bytes += sum(record.sizes)


def made_with(maker: Maker) -> dict[str, str]:
    """The software that decides bytes, and the kind of device with its options, for the record."""
    versions = {"ganrt": __version__, "isal": isal.__version__, "pillow": PIL.__version__, **installed_runtimes()}
    return {**versions, "device": maker.device.partition(":")[0], **maker.provider_options}


def failure(error: GanrtError | OSError | MemoryError, plan: DatasetPlan) -> GanrtError:
    """What went wrong while images were made and written, as an error that says what to do."""
    if isinstance(error, MemoryError):
        of = f" of {plan.pixels[1]}x{plan.pixels[0]}" if plan.pixels else ""
        return InferenceError(
            f"batches of {plan.batch} images{of} do not fit into memory", "Use a smaller --batch, or fewer --workers."
        )
    return storage_error(error) if isinstance(error, OSError) else error
