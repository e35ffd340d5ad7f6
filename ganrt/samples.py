"""What is drawn of a generator: settings as people give them, checked against its card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import SupportsIndex

from ganrt.card import LATENTS, Card, check_kind
from ganrt.encode import DEFAULT_RESAMPLE, RESAMPLE
from ganrt.errors import UsageError
from ganrt.latents import MAX_INDEX, MAX_SEED
from ganrt.shards import CHANNELS, MAX_SIZE, require
from ganrt.values import choice, several, told


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What is drawn for each index, and what is done to the pixels."""

    seed: int
    classes: tuple[int, ...]
    psi: float | None
    latent_std: float
    size: tuple[int, int] | None
    resample: str
    mode: str


def check_run(n: int, start: int) -> tuple[int, int]:
    """A run of indices, start … start+n-1, as (n, start). Raises UsageError."""
    n, start = require("n", n, 0, MAX_INDEX), require("start", start, 0, MAX_INDEX)
    require("start + n", start + n, 0, MAX_INDEX)
    return n, start


def check_samples(
    card: Card,
    seed: int = 0,
    classes: Sequence[str | int] | None = None,
    psi: float | None = None,
    size: int | tuple[int, int] | None = None,
    latent_std: float = 1.0,
    resample: str | None = None,
    mode: str | None = None,
) -> Samples:
    """Settings for :meth:`Generator.batches`, checked against a card. Raises UsageError and UnknownClass."""
    check_kind(card, LATENTS)
    seed = require("seed", seed, 0, MAX_SEED)
    if not _is_number(latent_std) or not 0 < latent_std <= 100:
        raise UsageError(f"latent std {told(latent_std)}", "Expected a number above 0, up to 100; 1.0 is as trained.")
    if resample is not None and size is None:
        raise UsageError("resample does not apply without a size", "Give a size too, or leave it out.")
    if resample is not None:
        choice("resample", resample, RESAMPLE)
    if mode is not None:
        choice("mode", mode, CHANNELS, "l (grey) or rgb")
    return Samples(
        seed=seed,
        classes=choose_classes(card, classes),
        psi=check_psi(card, psi),
        latent_std=float(latent_std),
        size=check_size(size),
        resample=resample or DEFAULT_RESAMPLE,
        mode=mode or ("l" if card.channels == 1 else "rgb"),
    )


def check_psi(card: Card, psi: float | None) -> float | None:
    """The psi to run with: None where the generator takes none. Raises UsageError."""
    if psi is not None and (not _is_number(psi) or not 0 <= psi <= 1):
        raise UsageError(f"psi {told(psi)}", "Expected a number of 0 (the mean image) to 1 (no truncation).")
    if card.psi:
        return 1.0 if psi is None else float(psi)
    if psi is not None and psi != 1:
        raise UsageError(f"psi {psi}: generator {card.name} takes no truncation", "Leave psi out.")
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """A side or (width, height) in pixels as (width, height). Raises UsageError."""
    if size is None:
        return None
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, SupportsIndex) for side in sides):
        raise UsageError(f"size {told(size)}", "Expected a side in pixels, or (width, height).")
    return require("width", sides[0], 1, MAX_SIZE), require("height", sides[1], 1, MAX_SIZE)


def choose_classes(card: Card, classes: Sequence[str | int] | None) -> tuple[int, ...]:
    """The cycle of labels: the classes named, all unless any is named.

    A text that is no class itself may name several, with commas. Raises UnknownClass and UsageError.
    """
    if classes is None:
        return tuple(range(len(card.class_names)))
    wanted: list[str | int] = []
    for name in [classes] if isinstance(classes, str) else several("classes", classes):
        listed = isinstance(name, str) and "," in name and name not in card.class_names
        wanted += [part.strip() for part in str(name).split(",") if part.strip()] if listed else [name]
    chosen = tuple(card.label(name) for name in wanted)
    if len(set(chosen)) < len(chosen):
        twice = next(y for y, times in Counter(chosen).items() if times > 1)
        raise UsageError(f"class {card.class_names[twice]!r} is named twice", "Name each class once.")
    if not chosen:
        raise UsageError("no class is named", "Name at least one, or leave the classes out to have them all.")
    return chosen
