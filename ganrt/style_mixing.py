"""Style mixing: images whose layers take their styles from two sources.

Karras et al. 2018, "A style-based generator architecture for GANs", arXiv 1812.04948, figure 3.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ganrt.arguments import check_has_w
from ganrt.card import LATENTS, check_kind
from ganrt.encode import Pixels
from ganrt.errors import UsageError
from ganrt.generator import Generator, load
from ganrt.grid import arrange, check_png, write_picture
from ganrt.shards import require
from ganrt.values import several
from ganrt.walks import images_at, keyframes, styles_of

GROUPS = ("coarse", "middle", "fine")


@dataclass(frozen=True)
class StyleMix:
    """A figure of mixtures.

    ``grid`` uint8 [height, width, C] is the picture: sources of the columns above, of the rows at the left.
    ``rows`` uint8 [R, H, W, C] and ``cols`` uint8 [C, H, W, C] are the sources, ``mixed`` uint8 [R, C, H, W, C] the
    mixtures; ``layers`` those whose style comes from the column.
    """

    grid: Pixels
    rows: Pixels
    cols: Pixels
    mixed: Pixels
    layers: tuple[int, ...]


def style_mix(
    model: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    rows: Sequence[int] = (0, 1, 2),
    cols: Sequence[int] = (3, 4, 5, 6),
    layers: str | Sequence[int] = "coarse",
    classes: Sequence[str | int] | None = None,
    psi: float | None = None,
    device: str = "auto",
) -> StyleMix:
    """Mixtures of the samples 0 of some seeds; their grid is written to ``out``, .png, if given.

    The styles of ``layers`` come from the column's source, the rest from the row's. ``layers`` are numbers from 0
    (the smallest map), or text: ``0-3``, ``0,2,5``, and ``coarse``, ``middle`` and ``fine``, the thirds of all layers,
    as :func:`choose_layers` divides them. ``model`` is what :func:`ganrt.load` takes, or a generator. ``classes`` is
    one for all (the first of the card unless given), or one a source in turn, rows first.

    Raises UsageError, also for a generator without w; UnknownClass, StorageError, and what :func:`ganrt.load` raises.
    """
    path = None if out is None else check_png(out)
    rows, cols = several("rows", rows), several("cols", cols)
    if not rows or not cols:
        raise UsageError(f"{len(rows)} rows and {len(cols)} columns", "Give a seed for each: --rows 0,1 --cols 2,3")
    generator = model if isinstance(model, Generator) else load(model, device)
    check_kind(generator.card, LATENTS)
    check_has_w(generator.card)
    chosen = choose_layers(layers, generator.card.num_ws)
    keys = keyframes(generator, [*rows, *cols], classes, psi)
    w = np.concatenate([styles_of(generator, key) for key in keys])
    of_rows, of_cols = w[: len(rows)], w[len(rows) :]
    pairs = np.repeat(of_rows[:, None], len(cols), axis=1)
    pairs[:, :, list(chosen)] = of_cols[None, :, list(chosen)]
    mixed = images_at(generator, pairs.reshape(-1, *w.shape[1:]))
    mixed = mixed.reshape(len(rows), len(cols), *mixed.shape[1:])
    sources = np.concatenate([key.image for key in keys])
    above, left = sources[len(rows) :], sources[: len(rows)]
    corner = np.full_like(sources[0], 255)
    grid = arrange([[corner, *above], *([source, *row] for source, row in zip(left, mixed, strict=True))])
    if path is not None:
        write_picture(path, grid)
    return StyleMix(grid, left, above, mixed, chosen)


def choose_layers(layers: str | Sequence[int], num_ws: int) -> tuple[int, ...]:
    """The layers named, in order, of ``num_ws``. Raises UsageError.

    ``coarse`` ends before layer ceil(num_ws / 3), ``middle`` before ceil(2 num_ws / 3), ``fine`` has the rest. (Of 18
    layers, 1024x1024 pixels, the paper's figure calls the first 4 coarse and the next 4 middle; of the 7 for 32x32,
    coarse are here, as there, those of 4x4 and 8x8.)
    """
    if not isinstance(layers, str):
        return tuple(sorted({require("layer", layer, 0, num_ws - 1) for layer in several("layers", layers)}))
    bounds = (0, -(-num_ws // 3), -(-2 * num_ws // 3), num_ws)
    groups = dict(zip(GROUPS, itertools.pairwise(bounds), strict=True))
    found: set[int] = set()
    for part in layers.split(","):
        name = part.strip().lower()
        numbers = re.fullmatch(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?", name)
        if name in groups:
            first, stop = groups[name]
        elif numbers:
            first = int(numbers[1])
            stop = int(numbers[2] or numbers[1]) + 1
        else:
            raise UsageError(f"layers {part!r}", f"Expected {', '.join(GROUPS)}, or numbers as in 0-3 or 0,2,5.")
        if not first < stop <= num_ws:
            raise UsageError(f"layers {part!r}", f"There are the layers 0 to {num_ws - 1}.")
        found.update(range(first, stop))
    return tuple(sorted(found))
