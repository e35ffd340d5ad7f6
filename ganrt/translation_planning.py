"""Options, as people give them, and images → the frozen plan of a translation."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from ganrt.contract import CheckedModel
from ganrt.encode import DEFAULT_RESAMPLE, RESAMPLE
from ganrt.errors import UsageError
from ganrt.inputs import Inputs
from ganrt.layouts import LAYOUTS
from ganrt.planning import check_storing
from ganrt.shards import MAX_SIZE, require
from ganrt.translation_plan import MAX_MULTIPLE, RESIZE, TranslationPlan, check_names
from ganrt.translator import Translator
from ganrt.values import choice

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
    if resize is not None:
        choice("resize", resize, RESIZE, " or ".join(RESIZE))
    if resample is not None and resize is None:
        raise UsageError("resample does not apply without resize", "Give resize too, or leave it out.")
    if resample is not None:
        choice("resample", resample, RESAMPLE)
    if overlap is not None and tile is None:
        raise UsageError("overlap does not apply without tile", "Give tile too, or leave it out.")
    choice("layout", layout, LAYOUTS)
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
        overlap = tile // 4 if overlap is None else require("overlap", overlap, 0, MAX_SIZE)
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
        multiple=1 if multiple is None else require("multiple", multiple, 1, MAX_MULTIPLE),
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
