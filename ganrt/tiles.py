"""Large images in pieces: tiles that overlap, of which the seams are cropped away.

A network sees no further than its receptive field. Of two tiles that overlap each gives the half that is its
own, so that what it made near its border, where it saw less than there is, is thrown away: where half the
overlap covers the receptive field's radius, the result is that of the whole image, byte for byte. (Blending would
mix right pixels with wrong ones.) What looks at the whole image, as instance normalisation does, sees the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from ganrt.encode import Pixels

Network = Callable[[Pixels], Pixels]  # uint8 [N, H, W, C] → [N, H * scale, W * scale, C']


def padded(image: Pixels, multiple: int) -> Pixels:
    """uint8 [H, W, C] with sides that are multiples: the last row and column again, below and at the right."""
    height, width, _ = image.shape
    if not (height % multiple or width % multiple):
        return image
    return np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def pieces(side: int, tile: int, overlap: int, multiple: int = 1) -> list[tuple[int, int, int]]:
    """How a side falls into tiles: where each begins, and from where to where its result is kept.

    All are ``tile`` long, and overlap by ``overlap`` at least, the last by more. ``side`` and ``tile`` are
    multiples of ``multiple``, and so is where tiles begin. A side that is no longer than a tile is one.
    """
    if side <= tile:
        return [(0, 0, side)]
    step = (tile - overlap) // multiple * multiple
    starts = [*range(0, side - tile, step), side - tile]
    seams = [(after + before + tile) // 2 for before, after in pairwise(starts)]
    return list(zip(starts, [0, *seams], [*seams, side], strict=True))


def in_tiles(
    network: Network, image: Pixels, scale: int, tile: int, overlap: int, multiple: int = 1, batch: int = 1
) -> Pixels:
    """What a network makes of an image uint8 [H, W, C], given it in tiles, ``batch`` at a time."""
    height, width, _ = image.shape
    rows, cols = pieces(height, tile, overlap, multiple), pieces(width, tile, overlap, multiple)
    made: Pixels | None = None
    for group in _groups([(row, col) for row in rows for col in cols], batch):
        stack = np.stack([image[top : top + tile, left : left + tile] for (top, _, _), (left, _, _) in group])
        for ((top, up, down), (left, first, last)), out in zip(group, network(stack), strict=True):
            if made is None:
                made = np.empty((height * scale, width * scale, out.shape[2]), np.uint8)
            made[up * scale : down * scale, first * scale : last * scale] = out[
                (up - top) * scale : (down - top) * scale, (first - left) * scale : (last - left) * scale
            ]
    assert made is not None
    return made


Piece = tuple[int, int, int]


def _groups(items: list[tuple[Piece, Piece]], size: int) -> Iterator[list[tuple[Piece, Piece]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
