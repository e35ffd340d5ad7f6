"""How fast a generator makes datasets on this machine, and what limits it."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganrt.contract import read_model
from ganrt.encode import encoder
from ganrt.errors import GanrtError, StorageError, UsageError
from ganrt.files import storage_error, write_loose
from ganrt.generation import generate
from ganrt.generator import Draw, Generator, load_checked
from ganrt.latents import MAX_INDEX
from ganrt.layouts import LAYOUTS, layout_kind
from ganrt.models import find_model
from ganrt.network import MAX_THREADS
from ganrt.providers import cpu_count, parse_device
from ganrt.samples import Samples, check_samples
from ganrt.shards import DEFAULT_BATCH, MAX_BATCH, require
from ganrt.values import check_hooks, path_of, told
from ganrt.workers import MAX_WORKERS, arrange, in_threads

_PARTS = 256  # images whose encoding and writing are timed
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class LayoutSpeed:
    """A layout's images/s of the whole path, that over the network's alone, and what takes most of the time.

    ``limit`` is ``network``, ``encoding``, ``files``, or ``turns``, where the workers wait for one another (Python's
    interpreter lock, the file system's).
    """

    images_per_second: float
    of_network: float
    limit: str


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What :func:`ganrt.bench` measured.

    ``network`` is images/s of all workers calling the network and nothing else; ``network_us``, ``encoding_us`` and
    ``files_us`` are microseconds an image of one worker, PNG and loose files; ``png_bytes`` a PNG's mean size.
    """

    model: str
    device: str
    processors: int
    workers: int
    threads: int | None
    batch: int
    network: float
    network_us: float
    encoding_us: float
    files_us: float
    png_bytes: float
    layouts: dict[str, LayoutSpeed]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return asdict(self)


def bench(
    model: str | os.PathLike[str] = "fashion",
    *,
    device: str = "auto",
    batch: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    seconds: float = 2.0,
    out: str | os.PathLike[str] | None = None,
    cancel: threading.Event | None = None,
) -> Speed:
    """Measures a generator on this machine, for about ``seconds`` a figure.

    Files are written into a temporary folder under ``out`` (the system's own unless given) and removed. Setting
    ``cancel`` stops it after the batches in work.

    Raises the errors of :func:`ganrt.load`, UsageError, StorageError, Cancelled.
    """
    batch = require("batch", DEFAULT_BATCH if batch is None else batch, 1, MAX_BATCH)
    workers = None if workers is None else require("workers", workers, 1, MAX_WORKERS)
    threads = None if threads is None else require("threads", threads, 1, MAX_THREADS)
    parse_device(device)
    check_hooks(None, cancel)
    out = None if out is None else path_of("out", out)
    if out is not None and not os.path.isdir(out):
        raise StorageError(f"no folder {out}", "Name one that is there, and that you may write to.")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 3600:
        raise UsageError(f"seconds {told(seconds)}", "Expected a number above 0, up to 3600.")
    path = find_model(model)
    checked = read_model(path)
    callers, each = arrange(workers, threads, MAX_INDEX)
    generator = load_checked(checked, path, device, batch, each)
    samples = check_samples(generator.card)
    try:
        with tempfile.TemporaryDirectory(prefix="ganrt-", dir=out) as folder:
            calls(generator, samples, batch, 1, cancel=cancel)  # what only happens once
            alone = calls(generator, samples, batch, 1, seconds=seconds / 2, cancel=cancel)
            network = calls(generator, samples, batch, callers, seconds=seconds, cancel=cancel)
            encoding, files, png_bytes = _parts(generator, Path(folder))
            network_us, rows = 1e6 / alone, {}
            hands = min(callers, cpu_count())
            for layout in LAYOUTS:
                of = {"network": network_us}
                if layout_kind(layout).format:
                    of |= {"encoding": encoding}
                if layout == "folder":
                    of |= {"files": files}
                apart = hands * 1e6 / sum(of.values())  # if none had to wait for another
                possible = min(network, apart)
                report = generate(
                    path,
                    n=batch * max(callers, round(possible * seconds / batch)),  # work for all of them
                    out=Path(folder) / layout,
                    device=generator.device,
                    workers=workers,
                    threads=threads,
                    layout=layout,
                    batch=batch,
                    cancel=cancel,
                )
                limit = max(of, key=lambda part: of[part]) if apart < network else "network"
                if report.images_per_second < possible / 2:
                    limit = "turns"
                rows[layout] = LayoutSpeed(
                    images_per_second=report.images_per_second,
                    of_network=round(report.images_per_second / network, 3),
                    limit=limit,
                )
    except GanrtError as error:
        error.__notes__ = []  # of what is kept of a dataset: here nothing is
        raise
    except OSError as error:
        raise storage_error(error) from error
    return Speed(
        model=generator.card.name,
        device=generator.device,
        processors=cpu_count(),
        workers=callers,
        threads=generator.threads,
        batch=batch,
        network=round(network, 1),
        network_us=round(network_us, 2),
        encoding_us=round(encoding, 2),
        files_us=round(files, 2),
        png_bytes=round(png_bytes, 1),
        layouts=rows,
    )


def calls(
    generator: Generator,
    samples: Samples,
    batch: int,
    callers: int,
    *,
    n: int | None = None,
    seconds: float = 0.0,
    cancel: threading.Event | None = None,
) -> float:
    """Images/s of some threads that call the network of one generator and do nothing else, for ``n`` images or for
    some seconds, one call at least. Raises InferenceError, Cancelled."""
    [draw] = generator.draws(samples, 0, batch, batch)
    made, began = 0, time.perf_counter()

    def draws() -> Iterator[Draw]:
        nonlocal made
        while not made or (made < n if n is not None else time.perf_counter() - began < seconds):
            made += batch
            yield draw

    def call(draw: Draw) -> None:
        generator.network(draw, samples.psi)

    in_threads(call, draws(), callers, threading.Event(), cancel)
    return made / (time.perf_counter() - began)


def _parts(generator: Generator, folder: Path) -> tuple[float, float, float]:
    """Of one thread, microseconds to encode an image as PNG and to write its file, and its bytes."""
    images = generator.sample(_PARTS)
    encode, data = encoder("png", None, True), list[bytes]()
    encoding, files = [], []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        data = list(encode(images))
        between = time.perf_counter()
        for number, each in enumerate(data):
            write_loose(f"{folder}/{number:08d}.png", each)
        files.append(time.perf_counter() - between)
        encoding.append(between - began)
    us = 1e6 / len(images)
    return min(encoding) * us, min(files) * us, sum(map(len, data)) / len(data)
