"""The sets of an evaluation: real images and their halves, datasets, shares of classes."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ganrt.encode import to_mode
from ganrt.errors import UsageError
from ganrt.inputs import read_inputs
from ganrt.names import file_stem
from ganrt.parts import read_parts
from ganrt.shards import CHANNELS
from ganrt_training.data import ImageData, NoSplit, digest, read_images, sizes_of

logger = logging.getLogger("ganrt.training")

Indices: TypeAlias = NDArray[np.int64]

LEAST = 20  # images of a set
HELD_OUT = 0.2  # of the training images, where there is no test split
_MODES = {channels: mode for mode, channels in CHANNELS.items()}


@dataclass(frozen=True)
class RealImages:
    """Real images: ``train`` is all that a generator may have been trained on.

    ``known`` are those of them that classifiers are trained on here, ``held`` are images kept from those: the test
    split, where there is one (``has_test``), else a fifth of the training images, which a generator may have seen.
    ``half_a`` and ``half_b`` are indices into ``known``, equally many, with the same share of each class.
    """

    name: str
    train: ImageData
    known: ImageData
    held: ImageData
    has_test: bool
    half_a: Indices
    half_b: Indices
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty without classes."""
        return self.train.class_names


def read_real(
    path: Path,
    side: int,
    channels: int,
    n: int,
    *,
    mode: str | None,
    seed: int,
    background: str = "white",
    on_corrupt: str = "stop",
) -> RealImages:
    """The real images at the size of the generated ones, as training reads them (short side, middle kept).

    ``n`` is how many of each half are wanted. Images that are skipped are told of by the logger. Raises UsageError
    where they are of another mode or too few, and what reading raises: for a test split that is broken too.
    """
    train, test = _splits(path, side, mode, background, on_corrupt)
    skipped = train.skipped + (test.skipped if test else ())
    for name in skipped:
        logger.warning("skipped: %s", name)
    if train.images.shape[3] != channels:
        words = {1: "grey", 3: "RGB"}
        raise UsageError(
            f"the generated images are {words[channels]}, the real ones {words[train.images.shape[3]]}",
            "Say --mode l to compare both in grey, or --mode rgb.",
        )
    split = "training and test split" if test else "no test split"
    if test and train.class_names and not test.class_names:
        test, split = None, "a test split without classes, left out"
    if test:
        known, held = train, aligned(test, train.class_names, "the test split")
    else:
        out = np.sort(stratified(train.labels, round(HELD_OUT * len(train)), draws(seed, 1)))
        known, held = subset(train, np.setdiff1d(np.arange(len(train)), out)), subset(train, out)
        split += f": {len(held):,} training images held out"
    half_a, half_b = halves(known.labels, n, draws(seed, 2))
    if len(half_a) < LEAST or len(held) < LEAST:
        raise UsageError(
            f"too few real images: {len(half_a)} in each half, {len(held)} held out", f"Expected at least {LEAST} each."
        )
    about = {"name": called(path), "digest": digest(train), "images": len(train), "held_out": len(held)}
    about |= {"split": split} | ({"skipped": len(skipped)} if skipped else {})
    return RealImages(called(path), train, known, held, test is not None, half_a, half_b, about)


def _splits(
    path: Path, side: int, mode: str | None, background: str, on_corrupt: str
) -> tuple[ImageData, ImageData | None]:
    """The training split, or all there is, and the test split where the data has one."""
    if path.is_dir() and read_parts(path):
        data = read_dataset(path, mode)
        if data.images.shape[1] != side:
            raise UsageError(
                f"generated images of {side}x{side}, real ones of {data.images.shape[2]}x{data.images.shape[1]}",
                "Compare images of one size; ganrt generate --size makes datasets of another.",
            )
        return data, None
    train = read_images(path, side, mode=mode, background=background, on_corrupt=on_corrupt)
    mode = mode or _MODES[train.images.shape[3]]
    try:
        return train, read_images(path, side, mode=mode, background=background, on_corrupt=on_corrupt, split="test")
    except NoSplit:
        return train, None


def aligned(data: ImageData, class_names: tuple[str, ...], whose: str) -> ImageData:
    """Labelled images with the labels of others' class names; folders' names for classes are known.

    Where either side has no classes, there are none. Raises UsageError for a class that is none of the others'.
    """
    to = numbers_of(data.class_names, class_names, whose)
    if not len(to):
        return ImageData(data.images, np.zeros_like(data.labels), (), data.skipped)
    return ImageData(data.images, to[data.labels], class_names, data.skipped)


def numbers_of(names: tuple[str, ...], class_names: tuple[str, ...], whose: str) -> Indices:
    """Of each class its number among others' classes; none where either side has no classes. Raises as above."""
    if not names or not class_names:
        return np.empty(0, np.int64)
    numbers = {file_stem(name): number for number, name in enumerate(class_names)}
    numbers |= {name: number for number, name in enumerate(class_names)}
    if unknown := [name for name in names if name not in numbers]:
        have = ", ".join(class_names[:12]) + (", …" if len(class_names) > 12 else "")
        raise UsageError(
            f"{whose}: class {unknown[0]!r} is none of the real images'",
            f"They have {have}. Evaluate against data of the same classes.",
        )
    return np.array([numbers[name] for name in names], np.int64)


def subset(data: ImageData, indices: Indices) -> ImageData:
    """Some of the images."""
    return ImageData(data.images[indices], data.labels[indices], data.class_names)


def draws(seed: int, purpose: int) -> np.random.Generator:
    """Random numbers by (seed, purpose)."""
    return np.random.Generator(np.random.Philox(key=(seed << 32) + purpose))


def stratified(labels: Indices, count: int, random: np.random.Generator) -> Indices:
    """So many indices, drawn at random of each class with its share; rounding goes to those that lose most by it."""
    values, sizes = np.unique(labels, return_counts=True)
    shares = sizes * (count / max(1, len(labels)))
    quota = np.floor(shares).astype(np.int64)
    quota[np.argsort(quota - shares, kind="stable")[: count - quota.sum()]] += 1
    chosen = [
        random.permutation(np.flatnonzero(labels == value))[:many] for value, many in zip(values, quota, strict=True)
    ]
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)


def halves(labels: Indices, n: int, random: np.random.Generator) -> tuple[Indices, Indices]:
    """Two lots of indices, none in both, of equally many of each class; at most ``n`` each, in order."""
    first, second = [], []
    for value in np.unique(labels):
        mine = random.permutation(np.flatnonzero(labels == value))
        first.append(mine[: len(mine) // 2])
        second.append(mine[len(mine) // 2 : 2 * (len(mine) // 2)])
    a, b = np.concatenate(first), np.concatenate(second)
    some = stratified(labels[a], min(n, len(a)), random)  # the same places of both: they hold the same labels
    return np.sort(a[some]), np.sort(b[some])


def called(path: Path) -> str:
    """A file's or folder's own name."""
    return path.resolve().name if path.is_dir() else path.stem


def read_dataset(path: Path, mode: str | None) -> ImageData:
    """All images of a dataset, in their own size, which is one and square. Raises UsageError."""
    if path.is_dir() and read_parts(path):
        found = read_inputs(path)
        _check_sizes(path, set(found.sizes))
        images = None
        for index in range(len(found.names)):
            image = found.read(index)
            if images is None:
                images = np.empty((len(found.names), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UsageError(f"{path}: grey and RGB images", "Say --mode l or --mode rgb.")
            images[index] = image
        assert images is not None
        labels = np.array(found.labels or [0] * len(images), np.int64)
        return ImageData(images if mode is None else to_mode(images, mode), labels, found.class_names)
    sizes = sizes_of(path)
    _check_sizes(path, sizes)
    return read_images(path, next(iter(sizes))[0], mode=mode)


def _check_sizes(path: Path, sizes: set[tuple[int, int]]) -> None:
    if len(sizes) == 1 and all(width == height for width, height in sizes):
        return
    told = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:4]) + (", …" if len(sizes) > 4 else "")
    raise UsageError(
        f"{path}: images of {told}",
        "Square images of one size can be evaluated: ganrt generate --size 64 makes them so.",
    )


def share_of_classes(data: ImageData) -> dict[str, float]:
    """Class names and their shares of the images."""
    counts = Counter(data.labels.tolist())
    return {name: counts[number] / len(data) for number, name in enumerate(data.class_names)}
