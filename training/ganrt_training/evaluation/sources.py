"""What is evaluated: the samples of a generator, of a file or a run, or the images of a dataset."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ganrt.card import Card
from ganrt.errors import UsageError
from ganrt.generator import Generator, load
from ganrt.grid import names_a_model
from ganrt.latents import MAX_SEED
from ganrt.models import find_model, is_path
from ganrt.samples import check_samples
from ganrt.shards import CHANNELS
from ganrt_training.checkpoint import find_snapshot
from ganrt_training.data import ImageData
from ganrt_training.evaluation.sets import called, draws, read_dataset, stratified, subset
from ganrt_training.run_folder import BEST, RECIPE

Confident: TypeAlias = Callable[[ImageData], NDArray[np.bool_]]
"""Which of labelled images a classifier is sure enough of."""

Tell: TypeAlias = Callable[[str, int, int], object]

MOST_TRIES = 50  # images looked at for each that is wanted
HOPELESS = 2000  # images of a class of which none was sure: the next ones will not be either
_LOOKED_AT = 2048  # at a time


def _silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


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

    def take(self, n: int, *, again: bool = False, tell: Tell = _silent) -> ImageData:
        """The samples 0 to n - 1 of the seed, or, ``again``, of the next seed: other images for another use."""
        return self._samples(0, n, again, lambda done: tell("making images", done, n))

    def take_confident(
        self, n: int, confident: Confident, *, again: bool = False, tell: Tell = _silent
    ) -> tuple[ImageData, float]:
        """As many of each class as :meth:`take` gives, but only such as the classifier is sure of; the share it is of.

        The filter of GaFi (arXiv 2305.10118). Raises UsageError for a class of which 50 times as many images do not
        give enough, or 2,000 none.
        """
        classes = len(self.class_names)
        quota = np.bincount(np.arange(n) % classes, minlength=classes)
        kept: list[ImageData] = []
        have, looked, sure, start = np.zeros(classes, np.int64), 0, 0, 0

        def heard(made: int) -> None:
            tell("making images that a classifier is sure of", int(have.sum()), n)

        while (have < quota).any():
            hopeless = start >= HOPELESS * classes and not have[quota > 0].all()
            if start >= MOST_TRIES * max(n, classes) or hopeless:
                poorest = int(np.argmin(have / np.maximum(quota, 1)))
                raise UsageError(
                    f"confidence: of class {self.class_names[poorest]!r} {have[poorest]} images of {quota[poorest]} "
                    f"were found among {start // classes:,}",
                    "Take a lower --confidence: the classifier does not see this class in what the generator makes.",
                )
            made = self._samples(start, min(n + -n % classes, _LOOKED_AT), again, heard)
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

    def _samples(self, start: int, count: int, again: bool, heard: Callable[[int], object]) -> ImageData:
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
            heard(int(batch.indices[-1]) + 1 - start)
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

    def take(self, n: int, *, again: bool = False, tell: Tell = _silent) -> ImageData:
        """So many of them, each class with its share; all where there are no more.

        Those that a classifier is trained on may be the same: ``again`` makes no difference.
        """
        if n >= len(self.data):
            return self.data
        return subset(self.data, np.sort(stratified(self.data.labels, n, draws(self.seed, 0))))


Source: TypeAlias = ModelImages | DatasetImages


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
    path, named = Path(source), not is_path(str(source))
    folder = path.is_dir() and not names_a_model(source)
    samples_of = partial(
        _of_model, seed=seed, psi=psi, latent_std=latent_std, mode=mode, device=device, threads=threads
    )
    if (folder and ((path / RECIPE).is_file() or (path / BEST).is_file())) or (
        path.is_file() and path.suffix == ".safetensors"
    ):
        return _of_run(path, stack, samples_of)
    if folder or (path.is_file() and path.suffix.lower() != ".onnx"):
        for name, value in (("psi", psi), ("latent-std", latent_std)):
            if value is not None:
                raise UsageError(f"{name} does not apply to a dataset", "Leave it out: the images are made already.")
        return DatasetImages(read_dataset(path, mode), called(path), seed, {"kind": "dataset"})
    return samples_of(find_model(str(source) if named else path), str(source) if named else path.stem, "model")


def _of_run(path: Path, stack: ExitStack, samples_of: Callable[[Path, str, str], ModelImages]) -> ModelImages:
    from ganrt_training.export import export_run

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ganrt-")))
    name = called(path if path.is_dir() else path.absolute().parent)
    snapshot = find_snapshot(path)
    made = export_run(snapshot, folder / "generator.onnx", name=name or "run")
    if len(made) > 1:
        raise UsageError(f"{path}: trains generators of images from images", "Those of latents can be evaluated.")
    images = samples_of(next(iter(made)), name, "run")
    return replace(images, about=images.about | {"snapshot": snapshot.stem, "kimg": images.generator.card.kimg})


def _of_model(
    path: Path,
    name: str,
    kind: str,
    *,
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
    about = {"kind": kind, "digest": f"sha256:{generator.digest}"}
    if card.snapshot_digest:
        about["snapshot_digest"] = card.snapshot_digest
    if kind == "run" or card.recipe:
        about["ema"] = "averaged generator"
    return ModelImages(generator, name, seed, samples.psi, samples.latent_std, samples.mode, about)
