"""Options, as people give them, → the frozen plan of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

from ganrt.card import Card
from ganrt.encode import DEFAULT_QUALITY, FORMATS
from ganrt.errors import UsageError
from ganrt.latents import MAX_INDEX
from ganrt.layouts import LAYOUTS, layout_kind
from ganrt.samples import check_samples
from ganrt.shards import DEFAULT_BATCH, MAX_BATCH, Plan, require
from ganrt.values import choice, flag, told


class PlanOptions(TypedDict, total=False):
    """The options that decide what a dataset holds: any other value makes another dataset.

    seed: 0 … 2^64-1 (0). start: index of the first sample (0). classes: names or numbers that take turns
    (all). psi: truncation 0 … 1, where the generator takes one (1.0, none). latent_std: deviation of z
    (1.0, as trained). size: side or (width, height) in pixels to resize to (the generator's own).
    resample: nearest, bilinear or lanczos, with a size (lanczos). mode: l or rgb (the generator's own).
    layout: folder, webdataset or npy (folder). format: png, jpeg or webp, not with npy (png). quality:
    1 … 100, with jpeg and webp (90). mark: a short synthetic-media mark in each image, not with npy
    (True). shard_size: images a shard, a multiple of batch. batch: samples a call of the network (64).
    part: a name, where several plans share one root.
    """

    seed: int
    start: int
    classes: Sequence[str | int] | None
    psi: float | None
    latent_std: float
    size: int | tuple[int, int] | None
    resample: str | None
    mode: str | None
    layout: str
    format: str | None
    quality: int | None
    mark: bool | None
    shard_size: int | None
    batch: int | None
    part: str


def make_plan(
    card: Card,
    digest: str,
    *,
    seed: int = 0,
    start: int = 0,
    classes: Sequence[str | int] | None = None,
    psi: float | None = None,
    latent_std: float = 1.0,
    size: int | tuple[int, int] | None = None,
    resample: str | None = None,
    mode: str | None = None,
    layout: str = "folder",
    format: str | None = None,
    quality: int | None = None,
    mark: bool | None = None,
    shard_size: int | None = None,
    batch: int | None = None,
    part: str = "",
) -> Plan:
    """The plan that options make of a generator; :class:`PlanOptions` describes them.

    Raises UsageError for a value that cannot be meant and for an option that does not apply.
    """
    samples = check_samples(card, seed, classes, psi, size, latent_std, resample, mode)
    storing = check_storing(layout, format, quality, mark, shard_size, batch)
    return Plan(
        part=part,
        model=card.name,
        model_digest=digest,
        class_names=card.class_names,
        width=card.width,
        height=card.height,
        channels=card.channels,
        seed=samples.seed,
        start=require("start", start, 0, MAX_INDEX),
        classes=samples.classes,
        psi=samples.psi,
        latent_std=samples.latent_std,
        size=samples.size,
        resample=samples.resample if samples.size else None,
        mode=samples.mode,
        **asdict(storing),
    )


@dataclass(frozen=True, kw_only=True)
class Storing:
    """How a plan's images are stored, and in what pieces they are made."""

    layout: str
    format: str | None
    quality: int | None
    mark: bool
    shard_size: int
    batch: int


def check_storing(
    layout: str,
    format: str | None,
    quality: int | None,
    mark: bool | None,
    shard_size: int | None,
    batch: int | None,
    usual_batch: int = DEFAULT_BATCH,
) -> Storing:
    """The options that every plan has, with what stands in for those not given.

    Raises UsageError for a value that cannot be meant and for an option that does not apply.
    """
    choice("layout", layout, LAYOUTS)
    mark = None if mark is None else flag("mark", mark)
    kind = layout_kind(layout)
    if kind.format is None:
        given = [
            name for name, value in (("format", format), ("quality", quality), ("mark", mark)) if value is not None
        ]
        if given:
            raise UsageError(f"{given[0]} does not apply to layout {layout}", "It holds plain arrays: leave it out.")
    else:
        format = choice("format", kind.format if format is None else format, FORMATS)
        if format in DEFAULT_QUALITY:
            quality = require("quality", DEFAULT_QUALITY[format] if quality is None else quality, 1, 100)
        elif quality is not None:
            raise UsageError(f"quality does not apply to {format}, which loses nothing", "Leave it out.")
    batch = require("batch", usual_batch if batch is None else batch, 1, MAX_BATCH)
    usual = -(-kind.shard_size // batch) * batch
    return Storing(
        layout=layout,
        format=format,
        quality=quality,
        mark=kind.format is not None and mark is not False,
        shard_size=require("shard size", usual if shard_size is None else shard_size, 1, MAX_INDEX),
        batch=batch,
    )


def parse_shard(shard: str | tuple[int, int]) -> tuple[int, int]:
    """``"K/M"`` or (K, M), with K from 0 to M-1, as (K, M). Raises UsageError."""
    try:
        k, m = (int(number) for number in (shard.split("/") if isinstance(shard, str) else shard))
        if 0 <= k < m <= 1_000_000:
            return k, m
    except (TypeError, ValueError):
        pass
    raise UsageError(f"shard {told(shard)}", "Expected K/M: of M machines the K-th from 0, as in 0/4, 1/4, 2/4, 3/4.")
