"""From a generator to a dataset: what is asked for, checked, and what the engine makes it with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from ganrt.contract import read_model
from ganrt.engine import Job, Progress, Report, make_dataset
from ganrt.errors import UsageError
from ganrt.generator import Batch, Draw, Generator, load_checked
from ganrt.latents import MAX_INDEX
from ganrt.layouts import layout_of
from ganrt.models import find_model
from ganrt.network import MAX_THREADS
from ganrt.planning import PlanOptions, make_plan, parse_shard
from ganrt.providers import check_provider_options, parse_device
from ganrt.samples import Samples
from ganrt.shards import Plan, require
from ganrt.values import check_hooks, flag, path_of
from ganrt.workers import MAX_PROCESSES, MAX_WORKERS


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
    check_hooks(progress, cancel)
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
    root = path_of("out", out)
    if flag("overwrite", overwrite) and machine[1] > 1:
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

        loaded = given.with_threads
    else:
        path = find_model(model)
        checked = read_model(path)
        card, digest = checked.card, checked.digest

        def loaded(threads: int) -> Generator:
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
        root=root,
        out=os.fspath(out),
        plan=plan,
        n=n,
        machine=machine,
        workers=workers,
        threads=threads,
        among=among,
        load=lambda threads: Sampler(loaded(threads), samples_of(plan), plan.batch),
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


@dataclass(frozen=True)
class Sampler:
    """A generator with what is drawn of it: what makes a dataset of latents."""

    generator: Generator
    samples: Samples
    batch: int

    @property
    def device(self) -> str:
        """Where the generator runs."""
        return self.generator.device

    @property
    def threads(self) -> int | None:
        """How many threads a call has on a CPU."""
        return self.generator.threads

    @property
    def provider_options(self) -> dict[str, str]:
        """The CUDA provider's options that were asked for."""
        return self.generator.provider_options

    def draws(self, start: int, stop: int) -> Iterator[Draw]:
        """The latents of the samples start … stop-1, a batch at a time."""
        return self.generator.draws(self.samples, start, stop, self.batch)

    def make(self, drawn: Draw, start: int, stop: int) -> Iterator[Batch]:
        """The samples of one batch."""
        yield self.generator.make(self.samples, drawn, start, stop)
