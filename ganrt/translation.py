"""From images to a dataset, by an image-to-image generator: ``ganrt.translate`` and ``ganrt.upscale``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Unpack

import numpy as np
from PIL import Image

from ganrt.card import IMAGES, check_kind
from ganrt.contract import CheckedModel, read_model
from ganrt.encode import DEFAULT_RESAMPLE, RESAMPLE, Pixels, to_mode
from ganrt.engine import Job, Progress, Report, make_dataset
from ganrt.errors import InferenceError, UsageError
from ganrt.files import storage_error
from ganrt.generator import Batch
from ganrt.inputs import Inputs, read_inputs
from ganrt.layouts import layout_of
from ganrt.models import find_model
from ganrt.network import MAX_THREADS, load_checked_network
from ganrt.parts import ledgers
from ganrt.providers import parse_device
from ganrt.shards import require
from ganrt.tiles import in_tiles, padded
from ganrt.translation_plan import TranslationPlan
from ganrt.translation_planning import TranslationOptions, make_translation_plan
from ganrt.translator import Translator
from ganrt.values import check_hooks, flag, path_of
from ganrt.workers import MAX_WORKERS


def translate(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    workers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    **options: Unpack[TranslationOptions],
) -> Report:
    """Writes what an image-to-image generator makes of images as a dataset under ``out``.

    ``images`` is a folder of images, or of a folder a class, or a dataset of ganrt's in any layout; classes are
    carried over, and in the layout ``folder`` the files' names too. :class:`TranslationOptions` says how.

    The same call goes on where an interrupted one stopped, and a complete dataset is left as it is; a folder
    that was made of other images is refused. ``model`` is a name or path. ``workers``, ``threads``, ``device``,
    ``overwrite``, ``progress`` and ``cancel`` are as for :func:`ganrt.generate`.

    Raises the errors of :func:`ganrt.load_translator`, UsageError, DatasetError for an image that cannot be
    read, DatasetMismatch, DatasetLocked, DatasetDamaged, StorageError, StorageFull, InferenceError, Cancelled.
    """
    job = _prepare(model, images, out, workers, threads, device, overwrite, options, False, progress, cancel)
    return make_dataset(job, progress, cancel, overwrite)


def upscale(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    workers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    **options: Unpack[TranslationOptions],
) -> Report:
    """As :func:`ganrt.translate`, with a generator that makes images larger; any other is a UsageError."""
    job = _prepare(model, images, out, workers, threads, device, overwrite, options, True, progress, cancel)
    return make_dataset(job, progress, cancel, overwrite)


def _prepare(
    model: str | os.PathLike[str],
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    workers: int | None,
    threads: int | None,
    device: str,
    overwrite: bool,
    options: TranslationOptions,
    enlarging: bool,
    progress: Callable[[Progress], None] | None,
    cancel: threading.Event | None,
) -> Job:
    """Checks a request as a whole, and looks at all images, before anything is written or loaded."""
    workers = None if workers is None else require("workers", workers, 1, MAX_WORKERS)
    threads = None if threads is None else require("threads", threads, 1, MAX_THREADS)
    parse_device(device)
    check_hooks(progress, cancel)
    source, root = path_of("images", images), path_of("out", out)
    path = find_model(model)
    checked = read_model(path)
    check_kind(checked.card, IMAGES)
    if enlarging and checked.card.scale == 1:
        raise UsageError(
            f"generator {checked.card.name} makes images of the size it is given: it enlarges nothing",
            "Use ganrt translate.",
        )
    flag("overwrite", overwrite)
    inputs = _look(source, root, cancel, overwrite)
    plan = make_translation_plan(checked, inputs, source, **options)
    layout_of(plan)  # here, before anything is written: it refuses class names that cannot be folders
    return Job(
        root=root,
        out=os.fspath(out),
        plan=plan,
        n=plan.count,
        machine=(0, 1),
        workers=workers,
        threads=threads,
        among=1,
        load=lambda threads: load_translation(checked, path, device, threads, plan, inputs),
    )


def _look(images: Path, out: Path, cancel: threading.Event | None, overwrite: bool) -> Inputs:
    """The images, which are decoded too unless a run before has begun: it did that."""
    try:
        check_apart(images, out)
        return read_inputs(images, cancel, decode=overwrite or not ledgers(out))
    except OSError as error:
        raise storage_error(error) from error


def check_apart(images: Path, out: Path) -> None:
    """Raises UsageError when one of two folders lies in the other."""
    a, b = images.resolve(), out.resolve()
    if a == b:
        raise UsageError(f"{out} is the folder of the images itself", "Name another folder for the dataset.")
    if a.is_relative_to(b) or b.is_relative_to(a):
        inner, outer = (out, images) if b.is_relative_to(a) else (images, out)
        raise UsageError(
            f"{inner} lies in {outer}", "Images and dataset would be mixed up: name a folder beside that of the images."
        )


def load_translation(
    model: CheckedModel, path: Path, device: str, threads: int | None, plan: TranslationPlan, inputs: Inputs
) -> Translation:
    """The network of a plan, loaded, with the images that it is given."""
    return Translation(load_checked_network(Translator, model, path, device, plan.batch, threads, None), plan, inputs)


@dataclass(frozen=True)
class Window:
    """A batch of the plan: the indices first … stop-1."""

    first: int
    stop: int


@dataclass(frozen=True)
class Translation:
    """A translator with its images: what makes a dataset of them."""

    translator: Translator
    plan: TranslationPlan
    inputs: Inputs

    @property
    def device(self) -> str:
        """Where the translator runs."""
        return self.translator.device

    @property
    def threads(self) -> int | None:
        """How many threads a call has on a CPU."""
        return self.translator.threads

    @property
    def provider_options(self) -> dict[str, str]:
        """The CUDA provider's options that were asked for."""
        return self.translator.provider_options

    def draws(self, start: int, stop: int) -> Iterator[Window]:
        """The windows of the samples start … stop-1; images are read where they are made."""
        batch = self.plan.batch
        for first in range(start - start % batch, stop, batch):
            yield Window(first, min(first + batch, self.plan.count))

    def make(self, drawn: Window, start: int, stop: int) -> Iterator[Batch]:
        """The samples of a window, those of one size that follow one another at a time.

        So it depends on the window alone which images the network gets together. Shards begin and end where
        windows do, and so do the samples asked for.
        """
        one = self.plan.size
        for _, run in groupby(range(drawn.first, drawn.stop), lambda index: one or self.inputs.sizes[index]):
            group = list(run)
            made = self._made(group)
            y = self.plan.labels(group[0], group[-1] + 1) if self.plan.labelled else None
            yield Batch(made, y, np.array(group, np.int64))

    def _made(self, group: list[int]) -> Pixels:
        """What the network makes of images of one size."""
        plan = self.plan
        images = [self._read(index) for index in group]
        height, width, _ = images[0].shape
        fit = [padded(image, plan.multiple) for image in images]
        try:
            if plan.tile is None or max(fit[0].shape[:2]) <= plan.tile:
                made = self.translator(np.stack(fit))
            else:
                assert plan.overlap is not None
                tile, batch = plan.tile, self.translator.batch
                made = np.stack(
                    [in_tiles(self.translator, im, plan.scale, tile, plan.overlap, plan.multiple, batch) for im in fit]
                )
        except InferenceError as error:
            raise InferenceError(
                f"{self.inputs.names[group[0]]} ({width}x{height}): {error.message}", self._hint(error)
            ) from error
        return np.ascontiguousarray(made[:, : height * plan.scale, : width * plan.scale])

    def _hint(self, error: InferenceError) -> str | None:
        if not self.translator.dynamic:
            return error.hint
        more = "--multiple 32 pads the sides, --tile 256 runs the image in pieces."
        return f"{error.hint} {more}" if error.hint else more

    def _read(self, index: int) -> Pixels:
        """An image as the network is given it: uint8 [H, W, C]."""
        plan = self.plan
        image = self.inputs.read(index)
        if plan.resize and plan.size and (image.shape[1], image.shape[0]) != plan.size:
            image = fitted(image, plan.size, plan.resize, plan.resample or DEFAULT_RESAMPLE)
        fit: Pixels = to_mode(image[None], "l" if plan.in_channels == 1 else "rgb")[0]
        return fit


def fitted(image: Pixels, size: tuple[int, int], how: str, resample: str) -> Pixels:
    """uint8 [H, W, C] → [height, width, C] for size (width, height): the middle of it (``crop``), or all of it."""
    height, width, channels = image.shape
    box = (0.0, 0.0, float(width), float(height))
    if how == "crop":
        scale = min(width / size[0], height / size[1])
        wide, tall = size[0] * scale, size[1] * scale
        box = ((width - wide) / 2, (height - tall) / 2, (width + wide) / 2, (height + tall) / 2)
        box = (max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3]))
    whole = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    made: Pixels = np.empty((size[1], size[0], channels), np.uint8)
    made[:] = np.asarray(whole.resize(size, RESAMPLE[resample], box=box)).reshape(made.shape)
    return made
