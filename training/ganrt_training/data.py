"""Training images: reading them, telling them apart, the order in which they are shown."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganrt.card import MAX_CLASSES, MAX_SIDE
from ganrt.decoding import size_of
from ganrt.errors import TrainingError, UsageError
from ganrt.shards import CHANNELS, require
from ganrt_training.readers.cifar import is_cifar, read_cifar, read_cifar_archive
from ganrt_training.readers.idx import FASHION_CLASSES, is_mnist_family, read_idx, read_mnist_family
from ganrt_training.readers.listing import read_folder, read_zip
from ganrt_training.readers.npz import is_npz, read_npz
from ganrt_training.readers.pixels import Colour, colour, decoded, fitted, is_grey
from ganrt_training.readers.source import (
    ACCEPTED,
    Encoded,
    ImageData,
    Labels,
    NoSplit,
    Pixels,
    Unusable,
    check_file,
    shown,
    unreadable,
)

__all__ = [
    "FASHION_CLASSES",
    "ImageData",
    "NoSplit",
    "balanced_order",
    "digest",
    "epoch_order",
    "read_idx",
    "read_images",
    "read_mnist_family",
    "sizes_of",
]

_MAX_NAME = 200  # characters, as the card has it
_MAX_WORKERS = 8
_CHUNK = 64  # images at a time

Progress = Callable[[int, int], object]
_Result = TypeVar("_Result")


def read_images(
    path: Path,
    size: int,
    *,
    mode: str | None = None,
    background: str = "white",
    on_corrupt: str = "stop",
    split: str = "train",
    progress: Progress | None = None,
) -> ImageData:
    """Reads what ``path`` holds, told by its content, as images of ``size`` x ``size``.

    It may be a folder or a zip of image files, with a folder a class or without classes, below folders ``train``
    and ``test`` or not; a folder with the MNIST family's IDX files (readers/idx.py); CIFAR-10 or CIFAR-100, with its
    fine labels, as archive or extracted (readers/cifar.py); an .npz (readers/npz.py). Links in folders are followed.

    The short side becomes ``size`` (Lanczos' filter), of the long one the middle stays; an image that has that size
    already stays as it is. ``mode`` is ``l`` (grey), ``rgb``, or None: grey if every pixel of every image is.
    Transparent images are laid on ``background``. ``on_corrupt`` is ``stop`` or ``skip``, which leaves images out that
    cannot be decoded and says so in ``skipped``. ``split`` is ``train`` or ``test``. ``progress(done, total)`` is
    called in this thread. Images come in a fixed order: by class folder and name, or as the arrays have them.

    Raises UsageError for arguments that cannot be meant, TrainingError for what cannot be read; NoSplit, which is one,
    where the names in it tell that it has no such split.
    """
    require("size", size, 1, MAX_SIDE)
    for name, value, choices in (
        ("mode", mode, (None, *CHANNELS)),
        ("on_corrupt", on_corrupt, ("stop", "skip")),
        ("split", split, ("train", "test")),
    ):
        if value not in choices:
            raise UsageError(f"{name} {value!r}", f"Expected {' or '.join(str(c) for c in choices if c)}.")
    behind = colour(background)
    with ExitStack() as stack:
        try:
            source = _source(Path(path), split, stack)
        except MemoryError as error:
            raise TrainingError(f"{path}: does not fit into memory", "Take fewer images.") from error
        _check_names(source.class_names, path)
        show = progress or (lambda done, total: None)
        try:
            if isinstance(source, ImageData):
                return _fit(source, size, mode, behind, show)
            return _decode(source, size, mode, behind, on_corrupt == "skip", show)
        except MemoryError as error:
            raise TrainingError(
                f"{path}: {len(source):,} images of {size}x{size} do not fit into memory",
                "Take a smaller size or fewer images.",
            ) from error


def sizes_of(path: Path, split: str = "train") -> set[tuple[int, int]]:
    """The sizes (width, height) of the images that ``path`` holds, as :func:`read_images` takes it.

    Raises TrainingError.
    """
    with ExitStack() as stack:
        source = _source(Path(path), split, stack)
        if isinstance(source, ImageData):
            return {(source.images.shape[2], source.images.shape[1])}
        found = set()
        for index in range(len(source)):
            try:
                found.add(size_of(source.load(index)))
            except Exception as error:  # decoders raise errors of all types on damaged files
                reason = str(error).partition("\n")[0]
                raise TrainingError(f"{shown(source.name(index))}: {reason}", "Mend or remove it.") from error
        return found


def _source(path: Path, split: str, stack: ExitStack) -> Encoded | ImageData:
    """What a path holds, told by its content; what must stay open is on the stack."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                files = {entry.name for entry in entries if entry.is_file()}
            if is_mnist_family(files):
                return read_mnist_family(path, split)
            return read_cifar(path, split) if is_cifar(files) else read_folder(path, split)
        check_file(path)
        with open(path, "rb") as file:
            start = file.read(512)
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            archive = stack.enter_context(zipfile.ZipFile(path))
            return read_npz(archive, path, split) if is_npz(archive) else read_zip(archive, path, split)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise unreadable(path, error) from error
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return read_cifar_archive(path, split)
    raise TrainingError(f"{path}: nothing that can be trained on, to go by its first bytes", ACCEPTED)


def _check_names(names: tuple[str, ...], path: Path) -> None:
    """Classes become those of the generator's card, which has rules for them."""
    if len(names) > MAX_CLASSES:
        raise TrainingError(f"{path}: {len(names):,} classes", f"A generator has up to {MAX_CLASSES:,}.")
    for name in names:
        if not name.isprintable() or not name.strip() or len(name) > _MAX_NAME:
            raise TrainingError(
                f"{path}: class {name!r} cannot be a class's name",
                f"Rename it: 1 to {_MAX_NAME} characters, all of them printable.",
            )
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise TrainingError(f"{path}: two classes are called {twice!r}", "Rename one.")


def _fit(data: ImageData, size: int, mode: str | None, behind: Colour, progress: Progress) -> ImageData:
    total, height, width, channels = data.images.shape
    images = data.images
    if (height, width) != (size, size) or channels == 4 or mode not in (None, "l" if channels == 1 else "rgb"):
        images = np.empty((total, size, size, CHANNELS[mode or ("l" if channels == 1 else "rgb")]), np.uint8)
        for start in range(0, total, _CHUNK):
            stop = min(start + _CHUNK, total)
            images[start:stop] = fitted(data.images[start:stop], size, mode, behind)
            progress(stop, total)
    else:
        progress(total, total)
    if mode is None and images.shape[3] == 3 and all(is_grey(images[i : i + _CHUNK]) for i in range(0, total, _CHUNK)):
        images = images[..., :1].copy()
    return ImageData(images, data.labels, data.class_names)


def _decode(source: Encoded, size: int, mode: str | None, behind: Colour, skip: bool, progress: Progress) -> ImageData:
    """Decodes in threads, and holds little more than the result."""
    total = len(source)
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    chunk = max(1, min(_CHUNK, (1 << 20) // (3 * size * size), total // (4 * workers)))

    def work(start: int) -> list[Pixels | Unusable]:
        done: list[Pixels | Unusable] = []
        for index in range(start, min(start + chunk, total)):
            try:
                done.append(decoded(source.load(index), size, mode, behind))
            except Unusable as error:
                done.append(error)
        return done

    images = np.empty((total, size, size, 3 if mode == "rgb" else 1), np.uint8)
    kept: list[int] = []
    skipped: list[str] = []
    with closing(_in_order(work, range(0, total, chunk), workers)) as results:
        for index, image in enumerate(itertools.chain.from_iterable(results)):
            if isinstance(image, Unusable):
                reason = f"{shown(source.name(index))}: {image}"
                if not skip:
                    raise TrainingError(
                        reason, "Mend or remove it; on-corrupt skip leaves out all that cannot be used, and says which."
                    ) from image
                skipped.append(reason)
            else:
                if image.shape[2] > images.shape[3]:  # the first that is not grey
                    grey, images = images, np.empty((total, size, size, 3), np.uint8)
                    images[: len(kept)] = grey[: len(kept)]
                images[len(kept)] = image
                kept.append(index)
            progress(index + 1, total)
    labels = source.labels[kept]
    if not kept:
        raise TrainingError(f"none of {total:,} images can be used; {skipped[0]}", ACCEPTED)
    bare = set(range(len(source.class_names))) - set(np.unique(labels).tolist())
    if bare:
        name = source.class_names[min(bare)]
        raise TrainingError(f"no image of class {name} can be used; {skipped[0]}", "Mend or remove its folder.")
    return ImageData(images[: len(kept)], labels, source.class_names, tuple(skipped))


def _in_order(work: Callable[[int], _Result], items: range, workers: int) -> Generator[_Result, None, None]:
    """``work`` of every item in threads, results in order, and few of them at a time."""
    Image.init()  # once, before threads would do it at the same time
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ganrt-images")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def digest(data: ImageData) -> str:
    """``sha256:…`` over shape, class names, labels and pixels: what tells training data apart."""
    about = {"shape": list(data.images.shape), "class_names": data.class_names}
    state = hashlib.sha256(json.dumps(about, separators=(",", ":")).encode() + b"\n")
    state.update(data.labels.astype("<i8").tobytes())
    for start in range(0, len(data), 1024):
        state.update(np.ascontiguousarray(data.images[start : start + 1024]).data)
    return f"sha256:{state.hexdigest()}"


def epoch_order(count: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """The order in which an epoch shows ``count`` images: a permutation by (seed, epoch)."""
    return _draws(epoch, seed).permutation(count)


def balanced_order(labels: Labels, epoch: int, seed: int) -> NDArray[np.int64]:
    """An epoch that shows every class as often as the largest: indices by (seed, epoch).

    Position i shows the (i mod classes)-th of the classes that have images, so any batch is balanced. Of a smaller
    class each image comes once before any comes again, in a fresh permutation.
    """
    draws = _draws(epoch, seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, members), default=0)
    columns = []
    for mine in members:
        rounds = [draws.permutation(mine) for _ in range(-(-most // len(mine)))]
        columns.append(np.concatenate(rounds)[:most])
    return np.stack(columns, axis=1).reshape(-1) if columns else np.empty(0, np.int64)


def _draws(epoch: int, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=(seed << 32) + epoch))
