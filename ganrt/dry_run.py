"""What a run would write, told from a probe, before anything is written."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from ganrt.engine import Maker, failure, make_shard
from ganrt.errors import StorageFull
from ganrt.generation import prepare
from ganrt.generator import Generator
from ganrt.layouts import layout_of
from ganrt.ledger import check_root
from ganrt.planning import PlanOptions
from ganrt.shards import DatasetPlan, Shard, require
from ganrt.workers import MAX_PROCESSES

_BLOCK = 4096  # bytes; what most file systems give out
_LEDGER_BYTES = 45  # a file's size and digest in a ledger line
_OWN_FILES = 3  # README, manifest, ledger
_PROBE_BATCHES = 3


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would do: ``images`` to make and ``already`` there, files and inodes, the images' bytes as they add
    up and all bytes as the disk counts them, bytes and inodes free (None where the file system does not say),
    seconds."""

    images: int
    already: int
    files: int
    inodes: int
    bytes: int
    bytes_on_disk: int
    bytes_free: int
    inodes_free: int | None
    seconds: float
    images_per_second: float
    device: str
    processes: int
    workers: int
    threads: int | None
    batch: int
    out: str

    def to_dict(self) -> dict[str, Any]:
        """The forecast as JSON values."""
        return asdict(self)


def forecast(
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
    **options: Unpack[PlanOptions],
) -> Forecast:
    """What :func:`ganrt.generate` with the same arguments would write; nothing is written under ``out``.

    A few batches are made in a temporary folder. Raises what generate would raise at its start, and
    StorageFull when the dataset cannot fit.
    """
    processes = require("processes", processes, 1, MAX_PROCESSES)
    job = prepare(model, n, out, workers, threads, device, provider_options, shard, overwrite, options, processes)
    try:
        part = check_root(job.root, job.plan, job.n, overwrite) if job.root.exists() else None
        if overwrite:
            part = None  # it will be removed
        if part:
            part.n = job.n  # a last shard that was short will be made again
        k, m = job.machine
        finished = [len(shard) for shard, _ in part.records() if shard.number % m == k] if part else []
        shards, own = job.plan.share(job.n, job.machine)
        shards, todo = shards - len(finished), own - sum(finished)
        workers, threads = job.arrange(-(-todo // processes))
        maker = job.load(threads)
        loose, size, on_disk, seconds = _probe(maker, job.plan)
        free, inodes_free = _free(job.root)
    except (OSError, MemoryError) as error:
        raise failure(error, job.plan) from error
    layout = layout_of(job.plan)
    rate = min(workers * processes, max(1, -(-todo // job.plan.batch))) / seconds
    files = todo if loose else len(layout.common(0)) or shards
    files += _OWN_FILES + processes - 1 if todo else 0  # each process has a ledger
    result = Forecast(
        images=todo,
        already=own - todo,
        files=files,
        inodes=files + (len(job.plan.per_class(0)) if loose else 0) + 1,
        bytes=round(todo * size),
        bytes_on_disk=round(todo * on_disk),
        bytes_free=free,
        inodes_free=inodes_free,
        seconds=round(todo / rate, 3),
        images_per_second=round(rate, 1),
        device=maker.device,
        processes=processes,
        workers=workers,
        threads=maker.threads,
        batch=job.plan.batch,
        out=os.fspath(out),
    )
    if result.bytes_on_disk > free:
        raise StorageFull(
            f"{todo:,} images need about {result.bytes_on_disk:,} bytes; {free:,} are free",
            "Make room, or a smaller --n.",
        )
    if inodes_free is not None and result.inodes > inodes_free:
        raise StorageFull(
            f"{todo:,} images need about {result.inodes:,} inodes; {inodes_free:,} are free",
            "Use --layout webdataset or npy, which have few files.",
        )
    return result


def _probe(maker: Maker, plan: DatasetPlan) -> tuple[bool, float, float, float]:
    """Whether each image is a file of its own; bytes, bytes on disk and seconds of one worker, per image."""
    layout = layout_of(plan)
    first = plan.start - plan.start % plan.batch
    shard = Shard(0, plan.start, first + plan.batch * _PROBE_BATCHES)
    with tempfile.TemporaryDirectory(prefix="ganrt-") as folder:
        root = Path(folder)
        layout.prepare(root)
        # Once for what only happens once (first run of the network), once for the time.
        make_shard(maker, layout, root, Shard(0, plan.start, first + plan.batch))
        began = time.perf_counter()
        record = make_shard(maker, layout, root, shard)
        seconds = time.perf_counter() - began
    count = len(shard)
    loose = len(record.sizes) == count
    on_disk = sum(-(-s // _BLOCK) * _BLOCK for s in record.sizes) if loose else sum(record.sizes)
    return loose, sum(record.sizes) / count, on_disk / count + _LEDGER_BYTES, seconds / count


def _free(root: Path) -> tuple[int, int | None]:
    """Bytes and inodes that may still be written where ``root`` is or will be."""
    there = root.resolve()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if not hasattr(os, "statvfs"):
        return free, None
    stat = os.statvfs(there)
    return free, stat.f_favail if stat.f_files else None
