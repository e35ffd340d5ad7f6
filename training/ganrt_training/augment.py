"""Adaptive discriminator augmentation: what the discriminator sees of few images is varied, reals and fakes alike.

The transforms are DiffAugment's (Zhao et al. 2020, arXiv 2006.10738): brightness, saturation, contrast, translation,
cutout; how often each is applied to an image follows from how far the discriminator overfits (Karras et al. 2020,
arXiv 2006.06676). Gradients flow through, so the generator learns to make images that look right when varied, and does
not learn to make varied ones as long as the probability stays below about 0.8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 10_000  # images: with fewer the discriminator learns them by heart
TARGET = 0.6  # of the mean sign of the real logits, by the paper
MOST = 0.85  # above, transforms leak into what is generated


def augment(images: Tensor, probability: float | Tensor) -> Tensor:
    """images float [N, C, H, W] in [-1, 1], each transform applied to each image with ``probability``."""
    if not isinstance(probability, Tensor) and probability <= 0:
        return images

    def chosen() -> Tensor:
        return (torch.rand(len(images), 1, 1, 1, device=images.device) < probability).to(images.dtype)

    def amount(low: float, high: float) -> Tensor:
        return torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype) * (high - low) + low

    images = images + chosen() * amount(-0.5, 0.5)
    if images.shape[1] > 1:
        mean = images.mean(1, keepdim=True)
        images = mean + (images - mean) * (1 + chosen() * amount(-1, 1))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + chosen() * amount(-0.5, 0.5))
    images = _translated(images, chosen())
    return images * (1 - chosen() * _box(images))


def next_probability(probability: float, real_accuracy: float, kimg: float, adjust_kimg: float) -> float:
    """The probability after ``kimg`` more thousand images in which so many reals were told rightly.

    It can go from 0 to 1 within ``adjust_kimg``.
    """
    sign = 1 if 2 * real_accuracy - 1 > TARGET else -1
    return min(MOST, max(0.0, probability + sign * kimg / adjust_kimg))


def _translated(images: Tensor, chosen: Tensor, ratio: float = 0.125) -> Tensor:
    """Each image moved by up to an eighth of its side, what comes in from outside is grey."""
    count, _, height, width = images.shape
    device, one = images.device, chosen[:, 0, 0, 0].long()

    def moved(side: int) -> Tensor:
        reach = max(1, int(side * ratio))
        shift = torch.randint(-reach, reach + 1, (count,), device=device) * one
        # Indices into the image with a border of one; whatever lies outside takes the border.
        return (torch.arange(side, device=device) + shift[:, None] + 1).clamp(0, side + 1)

    bordered = F.pad(images, (1, 1, 1, 1))
    rows, columns = moved(height), moved(width)
    at = torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]
    return bordered.permute(0, 2, 3, 1)[at].permute(0, 3, 1, 2)


def _box(images: Tensor, ratio: float = 0.5) -> Tensor:
    """1 inside a box of half the side at a random place, [N, 1, H, W]."""
    count, _, height, width = images.shape
    inside = []
    for side in (height, width):
        at = torch.randint(0, side, (count, 1), device=images.device)
        inside.append((torch.arange(side, device=images.device) - at).abs() * 2 <= side * ratio)
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.dtype)
