"""From images to a dataset, by an image-to-image generator: ``ganrt.translate`` and ``ganrt.upscale``."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from PIL import Image

from ganrt.card import IMAGES, check_kind
from ganrt.contract import CheckedModel, read_model
from ganrt.encode import DEFAULT_RESAMPLE, RESAMPLE, Pixels, to_mode
from ganrt.engine import Job, Progress, Report, make_dataset
from ganrt.errors import InferenceError, UsageError
from ganrt.generator import Batch
from ganrt.inputs import Inputs, read_inputs
from ganrt.layouts import layout_of
from ganrt.models import find_model
from ganrt.network import MAX_THREADS, load_checked_network
from ganrt.planning import check_storing
from ganrt.providers import parse_device
from ganrt.shards import MAX_SIZE, require
from ganrt.tiles import in_tiles, padded
from ganrt.translation_plan import RESIZE, TranslationPlan, check_names
from ganrt.translator import Translator
from ganrt.workers import MAX_WORKERS

MAX_PIXELS = 178_956_970  # of an image made: beyond it Pillow, and who reads by it, suspects a bomb
_MOST_SIDE = {"webp": 16_383, "jpeg": 65_500}
_BATCH_BYTES = 1 << 25  # of a batch's results, beyond which a batch has fewer images unless it is said


class TranslationOptions(TypedDict, total=False):
    """The options that decide what a translated dataset holds: any other value makes another dataset.

    resize: ``crop`` or ``stretch`` to the one size that the network takes (None: they must have it). resample:
    nearest, bilinear or lanczos, with resize (lanczos). tile: give the network pieces of so many pixels a side,
    where it takes any size (None: whole images). overlap: by how many pixels tiles overlap (a quarter of the
    tile). multiple: pad sides to multiples of it, and crop the result (1). layout: folder, webdataset or npy
    (folder). format: png, jpeg or webp, not with npy (png). quality: 1 … 100, with jpeg and webp (90). mark: a
    short synthetic-media mark in each image, not with npy (True). shard_size: images a shard, a multiple of
    batch. batch: images a call of the network (16, fewer for large ones).
    """

    resize: str | None
    resample: str | None
    tile: int | None
    overlap: int | None
    multiple: int | None
    layout: str
    format: str | None
    quality: int | None
    mark: bool | None
    shard_size: int | None
    batch: int | None


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
    job = _prepare(model, images, out, workers, threads, device, overwrite, options, False, cancel)
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
    job = _prepare(model, images, out, workers, threads, device, overwrite, options, True, cancel)
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
    cancel: threading.Event | None,
) -> Job:
    """Checks a request as a whole, and looks at all images, before anything is written or loaded."""
    workers = None if workers is None else require("workers", workers, 1, MAX_WORKERS)
    threads = None if threads is None else require("threads", threads, 1, MAX_THREADS)
    parse_device(device)
    path = find_model(model)
    checked = read_model(path)
    check_kind(checked.card, IMAGES)
    if enlarging and checked.card.scale == 1:
        raise UsageError(
            f"generator {checked.card.name} makes images of the size it is given: it enlarges nothing",
            "Use ganrt translate.",
        )
    check_apart(Path(images), Path(out))
    # What a run before has begun was decoded then.
    inputs = read_inputs(images, cancel, decode=overwrite or not list(Path(out).glob("ganrt*.ledger")))
    plan = make_translation_plan(checked, inputs, Path(images), **options)
    layout_of(plan)  # here, before anything is written: it refuses class names that cannot be folders
    return Job(
        root=Path(out),
        out=os.fspath(out),
        plan=plan,
        n=plan.count,
        machine=(0, 1),
        workers=workers,
        threads=threads,
        among=1,
        load=lambda threads: load_translation(checked, path, device, threads, plan, inputs),
    )


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


def make_translation_plan(
    model: CheckedModel,
    inputs: Inputs,
    where: Path,
    *,
    resize: str | None = None,
    resample: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    multiple: int | None = None,
    layout: str = "folder",
    format: str | None = None,
    quality: int | None = None,
    mark: bool | None = None,
    shard_size: int | None = None,
    batch: int | None = None,
) -> TranslationPlan:
    """The plan that options make of a generator and images; :class:`TranslationOptions` describes them.

    Raises UsageError for a value that cannot be meant, for an option that does not apply, and for images that the
    network does not take.
    """
    card = model.card
    height, width, in_channels = card.in_shape
    if resize is not None and resize not in RESIZE:
        raise UsageError(f"resize {resize!r}", f"Expected {' or '.join(RESIZE)}.")
    if resample is not None and resize is None:
        raise UsageError("resample does not apply without resize", "Give resize too, or leave it out.")
    if resample is not None and resample not in RESAMPLE:
        raise UsageError(f"resample {resample!r}", f"Expected {', '.join(RESAMPLE)}.")
    if overlap is not None and tile is None:
        raise UsageError("overlap does not apply without tile", "Give tile too, or leave it out.")
    check_names(inputs.names, inputs.labels, layout)
    sizes = set(inputs.sizes)
    if model.dynamic:
        if resize is not None:
            raise UsageError(f"resize does not apply: generator {card.name} takes any size", "Leave it out.")
        size = sizes.pop() if len(sizes) == 1 else None
    else:
        for name, value in (("tile", tile), ("multiple", multiple)):
            if value is not None:
                raise UsageError(
                    f"{name} does not apply: generator {card.name} takes images of {width}x{height} alone",
                    "Leave it out." if resize else "Leave it out; --resize crop or stretch makes images fit.",
                )
        size = (width, height)
        if resize is None:
            _check_fit(card.name, size, inputs, where)
    if layout == "npy" and size is None:
        first = inputs.sizes[0]
        other = next(k for k, s in enumerate(inputs.sizes) if s != first)
        raise UsageError(
            f"layout npy needs images of one size: {inputs.names[0]} is {_by(first)}, "
            f"{inputs.names[other]} {_by(inputs.sizes[other])}",
            "Use folder or webdataset.",
        )
    largest = max(w * h for w, h in (inputs.sizes if size is None else [size])) * card.scale**2
    usual = max(1, min(Translator.BATCH, _BATCH_BYTES // (largest * card.channels)))
    storing = check_storing(layout, format, quality, mark, shard_size, batch, usual)
    _check_writable(inputs, size, card.scale, storing.format, where)
    if tile is not None:
        tile = require("tile", tile, 1, MAX_SIZE)
        overlap = tile // 4 if overlap is None else overlap
    return TranslationPlan(
        model=card.name,
        model_digest=model.digest,
        class_names=inputs.class_names,
        in_channels=in_channels,
        channels=card.channels,
        scale=card.scale,
        names=inputs.names,
        label_list=inputs.labels,
        inputs=inputs.digest,
        size=size,
        resize=resize,
        resample=(resample or DEFAULT_RESAMPLE) if resize else None,
        tile=tile,
        overlap=overlap,
        multiple=1 if multiple is None else multiple,
        **asdict(storing),
    )


def _check_fit(model: str, size: tuple[int, int], inputs: Inputs, where: Path) -> None:
    """Raises UsageError that counts the images of another size than the network takes, and names the first."""
    wrong = [k for k, found in enumerate(inputs.sizes) if found != size]
    if not wrong:
        return
    named = ", ".join(f"{inputs.names[k]} is {_by(inputs.sizes[k])}" for k in wrong[:3])
    raise UsageError(
        f"generator {model} takes images of {_by(size)}; {len(wrong):,} of {len(inputs.names):,} in {where} have "
        f"another size: {named}{', …' if len(wrong) > 3 else ''}",
        "Let them be made to fit: --resize crop keeps the middle, --resize stretch all of it.",
    )


def _check_writable(inputs: Inputs, size: tuple[int, int] | None, scale: int, format: str | None, where: Path) -> None:
    """Raises UsageError for an image that would become too large for its format, or for those who read it."""
    for name, (width, height) in zip(inputs.names, inputs.sizes, strict=True):
        made = tuple(side * scale for side in size or (width, height))
        limit = _MOST_SIDE.get(format or "", MAX_PIXELS)
        if max(made) > limit or math.prod(made) > MAX_PIXELS:
            most = (
                f"{limit:,} a side, as {format} has" if max(made) > limit else f"{MAX_PIXELS:,}, as most readers take"
            )
            raise UsageError(
                f"{where / name} would become {made[0]}x{made[1]} pixels: more than {most}",
                "Leave it out, or cut it into several.",
            )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


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
        return to_mode(image[None], "l" if plan.in_channels == 1 else "rgb")[0]


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
