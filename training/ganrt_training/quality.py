"""A cheap look at generated images, for every tick: how far they are from real ones, and how much they vary.

Sliced Wasserstein distance (Karras et al. 2017, arXiv 1710.10196, section 5) between patches of the levels of a
Laplacian pyramid, and between whole images at the coarsest level. It needs no network, so it is the same on every
machine and favours none; it does not know what the images show.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGES = 1024  # that are looked at
COARSEST = 8  # pixels, at most, of the side of a whole image
_PATCH, _PATCHES, _SLICES = 7, 16, 128
_LEAST = 0.01  # deviation of real images that counts: about a grey level


@dataclass(frozen=True)
class Look:
    """``distance`` x 1000 to real images, less is better; ``diversity`` as a share of theirs, 1 is as varied."""

    distance: float
    diversity: float


class Reference:
    """Real images, as what generated ones are held against: float [N, C, H, W] in [-1, 1] and labels int64 [N].

    ``look(fakes, labels)`` takes as many images with the same labels.
    """

    def __init__(self, reals: Tensor, labels: Tensor) -> None:
        self._labels = labels
        self._levels = _levels(reals)
        self._scales = [(level.mean((0, 1)), level.std((0, 1)).clamp(min=_LEAST)) for level in self._levels]
        self._sorted = [self._slices(i, level) for i, level in enumerate(self._levels)]
        self._spread = _spread(reals, labels)

    def look(self, fakes: Tensor, labels: Tensor | None = None) -> Look:
        distances = [
            (self._slices(i, level) - real).abs().mean()
            for i, (level, real) in enumerate(zip(_levels(fakes), self._sorted, strict=True))
        ]
        spread = _spread(fakes, self._labels if labels is None else labels)
        diversity = spread / self._spread if self._spread > _LEAST else 1.0  # nothing to be as varied as
        return Look(float(torch.stack(distances).mean()) * 1000, diversity)

    def _slices(self, number: int, level: Tensor) -> Tensor:
        """Descriptors [N, patches, C, D] seen from random directions, in order: [N x patches, slices]."""
        mean, deviation = self._scales[number]
        flat = ((level - mean) / deviation).flatten(2).flatten(0, 1)
        directions = torch.randn(flat.shape[1], _SLICES, generator=torch.Generator().manual_seed(number))
        directions = directions / directions.norm(dim=0)
        return (flat @ directions).sort(dim=0).values


def _levels(images: Tensor) -> list[Tensor]:
    """Descriptors by level, finest first: patches [N, patches, C, 49] each, then whole images [N, 1, C, D]."""
    levels = []
    random = torch.Generator().manual_seed(1)
    while min(images.shape[2:]) >= 2 * _PATCH:
        coarse = F.avg_pool2d(images, 2, ceil_mode=True)
        detail = images - F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
        levels.append(_patches(detail, random))
        images = coarse
    side = min(COARSEST, *images.shape[2:])
    return [*levels, F.adaptive_avg_pool2d(images, side).flatten(2)[:, None]]


def _patches(images: Tensor, random: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    rows = torch.randint(height - _PATCH + 1, (count, _PATCHES), generator=random)
    columns = torch.randint(width - _PATCH + 1, (count, _PATCHES), generator=random)
    windows = images.unfold(2, _PATCH, 1).unfold(3, _PATCH, 1)  # [N, C, y, x, 7, 7]
    return windows[torch.arange(count)[:, None], :, rows, columns].flatten(3)


def _spread(images: Tensor, labels: Tensor) -> float:
    """The mean distance of two images of the same class, each as a few pixels."""
    small = F.adaptive_avg_pool2d(images, min(COARSEST, *images.shape[2:])).flatten(1)
    order = torch.argsort(labels, stable=True)
    small, labels = small[order], labels[order]
    total, pairs = 0.0, 0
    for apart in range(1, 9):
        same = labels[apart:] == labels[:-apart]
        distances = (small[apart:] - small[:-apart]).norm(dim=1)[same]
        total, pairs = total + float(distances.sum()), pairs + len(distances)
    return total / max(1, pairs)
