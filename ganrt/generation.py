"""From a generator to a dataset: plan, skip what is done, make shards, record them, report."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import isal
import PIL

from ganrt import __version__
from ganrt.contract import read_model
from ganrt.errors import GanrtError, UsageError
from ganrt.files import storage_error
from ganrt.generator import Draw, Generator, load_checked
from ganrt.latents import MAX_INDEX
from ganrt.layouts import Layout, ShardWriter, layout_of
from ganrt.ledger import Ledger, Machine, Part
from ganrt.manifest import complete
from ganrt.models import find_model
from ganrt.network import MAX_THREADS
from ganrt.planning import PlanOptions, make_plan, parse_shard
from ganrt.providers import check_provider_options, installed_runtimes, parse_device
from ganrt.samples import Samples
from ganrt.shards import Plan, Record, Shard, require
from ganrt.workers import MAX_PROCESSES, MAX_WORKERS, InOrder, Stopped, arrange, in_threads

RECHECKED = 4  # shards whose digests are compared on resume
WORKERS_A_SHARD = 8
FEW_WORKERS = 2  # always help, where there are processors for them
WORKERS_A_LOCK = 2.5  # how many can do at a time what is not the network
PROBED = 6  # batches until it is told whether more do
PROBE_SECONDS = 0.03  # after which the network is slow enough for all


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


def generate(
    model: str | os.PathLike[str] | Generator = "fashion",
    *,
    n: int,
    out: str | os.PathLike[str],
    processes: int = 1,
    workers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    provider_options: Mapping[str, Any] | None = None,
    shard: str | tuple[int, int] = (0, 1),
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    **options: Unpack[PlanOptions],
) -> Report:
    """Writes ``n`` samples of a generator as a dataset under ``out``; :class:`PlanOptions` says which and how.

    The same call goes on where an interrupted one stopped, a larger ``n`` extends the dataset, and a
    complete one is left as it is. ``model`` is a name or path, or a generator loaded from one.

    ``workers`` is how many threads make batches, ``threads`` how many each has within a call of the network on a
    CPU; unless given, what is fastest as a rule, which the report tells. ``processes`` share the work, each with
    workers of its own, and with the device ``cuda`` each with the next GPU. None of them changes an image's bytes.
    ``provider_options`` go to ONNX Runtime's CUDA provider, as in :func:`ganrt.load`. ``shard`` is ``"K/M"`` or
    (K, M): of M machines this is the K-th from 0, and makes every M-th shard. ``overwrite`` removes what ganrt
    wrote there for this part before it starts.

    ``progress`` is called a few times a second, in this thread. Setting ``cancel`` stops the run after the
    batches in work; what is finished is kept, and Cancelled is raised.

    Raises the errors of :func:`ganrt.load`, UsageError, DatasetMismatch, DatasetLocked, DatasetDamaged,
    StorageError, StorageFull, InferenceError, Cancelled.
    """
    processes = require("processes", processes, 1, MAX_PROCESSES)
    job = prepare(model, n, out, workers, threads, device, provider_options, shard, overwrite, options, processes)
    if processes == 1:
        return make_dataset(job, progress, cancel, overwrite)
    from ganrt.processes import share_out

    assert not isinstance(model, Generator)
    request = {
        "model": os.path.abspath(find_model(model)),
        "n": job.n,
        "out": os.fspath(out),
        "workers": job.workers,
        "threads": job.threads,
        "device": device,
        "provider_options": check_provider_options(provider_options, device),
    }
    return share_out(job, processes, request, overwrite, progress, cancel)


def make_dataset(
    job: Job,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    overwrite: bool = False,
) -> Report:
    """Makes what is missing of a checked request, in this process. Raises as :func:`generate` does."""
    began = time.monotonic()
    try:
        with Ledger.claim(job.root, job.plan, job.machine, job.n, overwrite) as ledger:
            run = _Run(job, ledger, _trusted(job, ledger.part))
            if run.found < run.own:
                run.make(progress, cancel)
            finished = complete(job.root, job.plan.part)
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


def make_shard(
    generator: Generator,
    samples: Samples,
    batch: int,
    layout: Layout,
    root: Path,
    shard: Shard,
    only: Collection[str] | None = None,
) -> Record:
    """Makes one shard, batch by batch: draws its samples, writes its files, says what it wrote.

    With ``only`` no loose files but those are written. :func:`generate` does the same with several threads
    on one shard.
    """
    writer = layout.begin(root, shard, only)
    try:
        for made in generator.batches(samples, shard.start, shard.stop, batch):
            writer.append(writer.stage(made))
        return writer.close()
    except BaseException:
        writer.abort()
        raise


@dataclass(frozen=True, kw_only=True)
class Job:
    """A checked request: what to make, where, with what."""

    root: Path
    out: str  # the root as it was given
    plan: Plan
    n: int
    machine: Machine
    workers: int | None
    threads: int | None
    among: int  # processes that share this machine's processors
    load: Callable[[int], Generator]  # with so many threads a call; put off until something is to do

    def arrange(self, todo: int) -> tuple[int, int]:
        """Workers and threads for so many images."""
        return arrange(self.workers, self.threads, -(-todo // self.plan.batch), self.among)


def prepare(
    model: str | os.PathLike[str] | Generator,
    n: int,
    out: str | os.PathLike[str],
    workers: int | None,
    threads: int | None,
    device: str,
    provider_options: Mapping[str, Any] | None,
    shard: str | tuple[int, int],
    overwrite: bool,
    options: PlanOptions,
    among: int = 1,
) -> Job:
    """Checks a request as a whole before anything is written or loaded. Raises as :func:`generate` does."""
    n = require("n", n, 0, MAX_INDEX)
    workers = None if workers is None else require("workers", workers, 1, MAX_WORKERS)
    threads = None if threads is None else require("threads", threads, 1, MAX_THREADS)
    parse_device(device)
    check_provider_options(provider_options, device)
    machine = parse_shard(shard)
    if overwrite and machine[1] > 1:
        raise UsageError("overwrite would remove what the other machines wrote", "Empty the folder before they start.")
    if isinstance(model, Generator):
        given, card, digest = model, model.card, model.digest
        if among > 1:
            raise UsageError("a generator given cannot go to other processes", "Give its name or path.")
        if device != "auto":
            raise UsageError("device belongs to the generator given", "Name it where the generator is loaded.")
        if threads is not None or provider_options:
            raise UsageError(
                "threads and provider options belong to the generator given", "Name them where the generator is loaded."
            )
        if digest is None:
            raise UsageError("a generator made from a session has no file to name in the manifest", "Load its file.")
        if options.get("batch") is None:
            options = {**options, "batch": given.batch}

        load = given.with_threads
    else:
        path = find_model(model)
        checked = read_model(path)
        card, digest = checked.card, checked.digest

        def load(threads: int) -> Generator:
            return load_checked(checked, path, device, options.get("batch"), threads, provider_options)

    plan = make_plan(card, digest, **options)
    require("start + n", plan.start + n, 0, MAX_INDEX)
    layout = layout_of(plan)  # here, before anything is written: it refuses class names that cannot be folders
    if machine[1] > 1 and not layout.divisible:
        raise UsageError(f"layout {plan.layout} cannot be made by several machines", "Use folder or webdataset.")
    if among > 1 and not layout.divisible:
        raise UsageError(
            f"layout {plan.layout} cannot be made by several processes", "Use folder or webdataset, or one process."
        )
    return Job(
        root=Path(out),
        out=os.fspath(out),
        plan=plan,
        n=n,
        machine=machine,
        workers=workers,
        threads=threads,
        among=among,
        load=load,
    )


def samples_of(plan: Plan) -> Samples:
    """What a plan draws for each index."""
    return Samples(
        seed=plan.seed,
        classes=plan.classes,
        psi=plan.psi,
        latent_std=plan.latent_std,
        size=plan.size,
        resample=plan.resample or "",
        mode=plan.mode,
    )


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
        self.order = InOrder(writer.append, shard.start // batch, -(-shard.stop // batch), ahead, stop)


class _Run:
    """The state of one call of generate: who makes shards, and how many images are made."""

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
        self._layout, self._samples = layout_of(job.plan), samples_of(job.plan)
        self._open: set[_OpenShard] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()

    def make(self, progress: Callable[[Progress], None] | None, cancel: threading.Event | None) -> None:
        """Makes and records the shards that are not trusted. An error carries a note of what is kept."""
        job = self._job
        workers, threads = job.arrange(self.own - self.found)
        self._most = workers
        self._generator = job.load(threads)
        self.threads = self._generator.threads
        self.device = self._generator.device
        self._ledger.note(made_with(self._generator))
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
        except (GanrtError, OSError) as error:
            raised = storage_error(error) if isinstance(error, OSError) else error
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

    def _tasks(self) -> Iterator[tuple[_OpenShard, Draw]]:
        """Every batch that is to be made, with its shard. Called under a lock.

        The workers share the shards in work, so that none is idle at the end; a few are in work at a time, since
        writing in order takes one thread a shard.
        """
        job, lanes = self._job, deque[Iterator[tuple[_OpenShard, Draw]]]()
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

    def _tasks_of(self, shard: Shard) -> Iterator[tuple[_OpenShard, Draw]]:
        job = self._job
        writer = self._layout.begin(job.root, shard)
        opened = _OpenShard(shard, writer, job.plan.batch, self._most, self._stop)
        with self._guard:
            self._open.add(opened)
        for draw in self._generator.draws(self._samples, shard.start, shard.stop, job.plan.batch):
            yield opened, draw

    def _work(self, task: tuple[_OpenShard, Draw]) -> None:
        (opened, draw), shard, began = task, task[0].shard, time.perf_counter()
        batch = self._generator.make(self._samples, draw, shard.start, shard.stop)
        if self._stop.is_set():
            raise Stopped
        network = time.perf_counter() - began
        is_last = opened.order.give(draw.first // self._job.plan.batch, opened.writer.stage(batch))
        with self._guard:
            self.made += len(batch.images)
            if len(self._probes) < PROBED:
                self._probes.append((network, time.perf_counter() - began - network))
                if len(self._probes) == PROBED:
                    self._probed.set()
        if is_last:
            record = opened.writer.close()
            self._ledger.append(record)
            with self._guard:
                self._open.remove(opened)
                self.committed += len(shard)
                self.bytes += sum(record.sizes)


def made_with(generator: Generator) -> dict[str, str]:
    """The software that decides bytes, and the kind of device with its options, for the record."""
    versions = {"ganrt": __version__, "isal": isal.__version__, "pillow": PIL.__version__, **installed_runtimes()}
    return {**versions, "device": generator.device.partition(":")[0], **generator.provider_options}
