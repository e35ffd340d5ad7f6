"""The images that an evaluation compares: those of a model, a run or a dataset, and the real ones."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ganrt.card import Card
from ganrt.encode import to_mode
from ganrt.errors import UsageError
from ganrt.generator import Generator, load
from ganrt.grid import names_a_model
from ganrt.inputs import read_inputs
from ganrt.latents import MAX_SEED
from ganrt.models import find_model, is_path
from ganrt.names import file_stem
from ganrt.parts import read_parts
from ganrt.samples import check_samples
from ganrt.shards import CHANNELS
from ganrt_training.data import ImageData, digest, has_split, read_images, sizes_of
from ganrt_training.run_folder import BEST, RECIPE

Indices: TypeAlias = NDArray[np.int64]
Confident: TypeAlias = Callable[[ImageData], NDArray[np.bool_]]
"""Which of labelled images a classifier is sure enough of."""

LEAST = 20  # images of a set
HELD_OUT = 0.2  # of the training images, where there is no test split
MOST_TRIES = 50  # images looked at for each that is wanted
_MODES = {channels: mode for mode, channels in CHANNELS.items()}


@dataclass(frozen=True)
class ModelImages:
    """The samples of a generator, of a file or a run."""

    generator: Generator
    name: str
    seed: int
    psi: float | None
    latent_std: float
    mode: str
    about: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Side and channels of an image."""
        return self.generator.card.height, CHANNELS[self.mode]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty without classes."""
        return self.generator.card.class_names

    def take(self, n: int, *, again: bool = False) -> ImageData:
        """The samples 0 to n - 1 of the seed, or, ``again``, of the next seed: other images for another use."""
        return self._samples(0, n, again)

    def take_confident(self, n: int, confident: Confident, *, again: bool = False) -> tuple[ImageData, float]:
        """As many of each class as :meth:`take` gives, but only such as the classifier is sure of; the share it is of.

        Discriminator-like rejection by a classifier, as in GaFi (arXiv 2305.10118). Raises UsageError for a class of
        which 50 times as many images do not give enough.
        """
        classes = len(self.class_names)
        quota = np.bincount(np.arange(n) % classes, minlength=classes)
        kept: list[ImageData] = []
        have, looked, sure, start = np.zeros(classes, np.int64), 0, 0, 0
        while (have < quota).any():
            if start >= MOST_TRIES * max(n, classes):
                poorest = int(np.argmin(have / np.maximum(quota, 1)))
                raise UsageError(
                    f"confidence: of class {self.class_names[poorest]!r} {have[poorest]} images of {quota[poorest]} "
                    f"were found among {start // classes:,}",
                    "Take a lower --confidence: the classifier does not see this class in what the generator makes.",
                )
            made = self._samples(start, min(n + -n % classes, 20 * 1024), again)
            start += len(made)
            good = confident(made)
            looked, sure = looked + len(made), sure + int(good.sum())
            chosen = []
            for index in np.flatnonzero(good):
                label = made.labels[index]
                if have[label] < quota[label]:
                    have[label] += 1
                    chosen.append(index)
            kept.append(ImageData(made.images[chosen], made.labels[chosen], made.class_names))
        images = np.concatenate([part.images for part in kept])
        return ImageData(images, np.concatenate([part.labels for part in kept]), self.class_names), sure / looked

    def _samples(self, start: int, count: int, again: bool) -> ImageData:
        side, channels = self.shape
        images, labels = np.empty((count, side, side, channels), np.uint8), np.zeros(count, np.int64)
        for batch in self.generator.stream(
            count,
            (self.seed + again) % (MAX_SEED + 1),
            start,
            psi=1.0 if self.psi is None else self.psi,
            latent_std=self.latent_std,
            mode=self.mode,
        ):
            images[batch.indices - start] = batch.images
            if batch.labels is not None:
                labels[batch.indices - start] = batch.labels
        return ImageData(images, labels, self.class_names)


@dataclass(frozen=True)
class DatasetImages:
    """The images of a dataset's folder or file."""

    data: ImageData
    name: str
    seed: int
    about: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Side and channels of an image."""
        return self.data.images.shape[1], self.data.images.shape[3]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty without classes."""
        return self.data.class_names

    def take(self, n: int, *, again: bool = False) -> ImageData:
        """So many of them, each class with its share; all where there are no more.

        Those that a classifier is trained on may be the same: ``again`` makes no difference.
        """
        if n >= len(self.data):
            return self.data
        return subset(self.data, np.sort(stratified(self.data.labels, n, draws(self.seed, 0))))


Source: TypeAlias = ModelImages | DatasetImages


@dataclass(frozen=True)
class RealImages:
    """Real images: ``train`` is all that a generator may have been trained on.

    ``known`` are those of them that classifiers are trained on here, ``held`` are images kept from both: the test
    split, where there is one (``has_test``), else a fifth of the training images. ``half_a`` and ``half_b`` are
    indices into ``known``, equally many, with the same share of each class.
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


def open_source(
    source: str | Path,
    stack: ExitStack,
    *,
    seed: int = 0,
    psi: float | None = None,
    latent_std: float | None = None,
    mode: str | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> Source:
    """What is to be evaluated: a generator by name or path, a run's folder or snapshot, or a dataset.

    Of a run the best snapshot is exported to a temporary file, which goes with ``stack``: what is measured is what
    would be used. A dataset is one that ganrt wrote, in any layout, or what :func:`read_images` takes, of square
    images of one size. Raises UsageError, and what reading raises.
    """
    path = Path(source)
    if path.is_dir() and not names_a_model(source) and ((path / RECIPE).is_file() or (path / BEST).is_file()):
        return _of_run(path, stack, seed, psi, latent_std, mode, device, threads)
    if path.is_file() and path.suffix == ".safetensors":
        return _of_run(path, stack, seed, psi, latent_std, mode, device, threads)
    if (path.is_dir() and not names_a_model(source)) or (path.is_file() and path.suffix.lower() != ".onnx"):
        for name, value in (("psi", psi), ("latent-std", latent_std)):
            if value is not None:
                raise UsageError(f"{name} does not apply to a dataset", "Leave it out: the images are made already.")
        return DatasetImages(_dataset(path, mode), called(path), seed, {"kind": "dataset"})
    model = find_model(str(source) if not is_path(str(source)) else path)
    name = str(source) if not is_path(str(source)) else path.stem
    return _of_model(model, name, "model", seed, psi, latent_std, mode, device, threads)


def read_real(path: Path, side: int, channels: int, n: int, *, mode: str | None, seed: int) -> RealImages:
    """The real images at the size of the generated ones, as training reads them (short side, middle kept).

    ``n`` is how many of each half are wanted. Raises UsageError where they are of another mode or too few.
    """
    if path.is_dir() and read_parts(path):
        train, has_test = _dataset(path, mode), False
        if train.images.shape[1] != side:
            raise UsageError(
                f"generated images of {side}x{side}, real ones of {train.images.shape[2]}x{train.images.shape[1]}",
                "Compare images of one size; ganrt generate --size makes datasets of another.",
            )
    else:
        train = read_images(path, side, mode=mode)
        has_test = has_split(path, "test")
    held = read_images(path, side, mode=mode or _MODES[train.images.shape[3]], split="test") if has_test else train
    if train.images.shape[3] != channels:
        words = {1: "grey", 3: "RGB"}
        raise UsageError(
            f"the generated images are {words[channels]}, the real ones {words[train.images.shape[3]]}",
            "Say --mode l to compare both in grey, or --mode rgb.",
        )
    if has_test:
        known, held = train, aligned(held, train.class_names, "the test split")
    else:
        out = np.sort(stratified(train.labels, round(HELD_OUT * len(train)), draws(seed, 1)))
        known, held = subset(train, np.setdiff1d(np.arange(len(train)), out)), subset(train, out)
    half_a, half_b = halves(known.labels, n, draws(seed, 2))
    if len(half_a) < LEAST or len(held) < LEAST:
        raise UsageError(
            f"too few real images: {len(half_a)} in each half, {len(held)} held out", f"Expected at least {LEAST} each."
        )
    about = {"name": called(path), "digest": digest(train), "images": len(train), "held_out": len(held)}
    about["split"] = "training and test split" if has_test else f"no test split: {len(held):,} training images held out"
    return RealImages(called(path), train, known, held, has_test, half_a, half_b, about)


def aligned(data: ImageData, class_names: tuple[str, ...], whose: str) -> ImageData:
    """Labelled images with the labels of others' class names; folders' names for classes are known.

    Images without classes stay as they are. Raises UsageError for a class that is none of the others'.
    """
    if not data.class_names or data.class_names == class_names:
        return data
    numbers = {file_stem(name): number for number, name in enumerate(class_names)}
    numbers |= {name: number for number, name in enumerate(class_names)}
    if unknown := [name for name in data.class_names if name not in numbers]:
        have = ", ".join(class_names[:12]) + (", …" if len(class_names) > 12 else "")
        raise UsageError(
            f"{whose}: class {unknown[0]!r} is none of the real images'",
            f"They have {have}. Evaluate against data of the same classes.",
        )
    to = np.array([numbers[name] for name in data.class_names], np.int64)
    return ImageData(data.images, to[data.labels], class_names, data.skipped)


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


def _of_run(
    path: Path,
    stack: ExitStack,
    seed: int,
    psi: float | None,
    latent_std: float | None,
    mode: str | None,
    device: str,
    threads: int | None,
) -> ModelImages:
    from ganrt_training.export import export_run

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ganrt-")))
    name = called(path if path.is_dir() else path.absolute().parent)
    made = export_run(path, folder / "generator.onnx", name=name or "run")
    if len(made) > 1:
        raise UsageError(f"{path}: trains generators of images from images", "Those of latents can be evaluated.")
    return _of_model(next(iter(made)), name, "run", seed, psi, latent_std, mode, device, threads)


def _of_model(
    path: Path,
    name: str,
    kind: str,
    seed: int,
    psi: float | None,
    latent_std: float | None,
    mode: str | None,
    device: str,
    threads: int | None,
) -> ModelImages:
    generator = load(path, device, threads=threads)
    card: Card = generator.card
    samples = check_samples(card, seed, psi=psi, latent_std=1.0 if latent_std is None else latent_std, mode=mode)
    if card.width != card.height:
        raise UsageError(
            f"{name} makes images of {card.width}x{card.height}",
            "Square ones can be evaluated: real images are cut so.",
        )
    with open(path, "rb") as file:
        about = {"kind": kind, "digest": f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"}
    if card.snapshot_digest:
        about["snapshot_digest"] = card.snapshot_digest
    if kind == "run" or card.recipe:
        about["ema"] = "averaged generator"
    return ModelImages(generator, name, seed, samples.psi, samples.latent_std, samples.mode, about)


def _dataset(path: Path, mode: str | None) -> ImageData:
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
