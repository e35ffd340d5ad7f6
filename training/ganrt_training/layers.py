"""Layers that the generators share, exportable by construction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrt.errors import UsageError


def upsamplings(name: str, size: int) -> tuple[int, int]:
    """The side that a generator starts with, 4 to 7, and how often it doubles. Raises UsageError."""
    first, times = size, 0
    while first > 7 and first % 2 == 0:
        first, times = first // 2, times + 1
    if not 4 <= first <= 7 or not times:
        raise UsageError(
            f"recipe {name}: image_size is {size}", "Expected 4, 5, 6 or 7 doubled at least once, as 28, 32, 40 or 64."
        )
    return first, times


class LabelledLatent(nn.Module):
    """z float [N, z_dim] and, with classes, an embedding of y int64 [N] beside it (Mirza & Osindero 2014, arXiv
    1411.1784) → float [N, ``features``]."""

    def __init__(self, z_dim: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, z_dim) if classes else None
        self.features = 2 * z_dim if classes else z_dim

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z if self.embedding is None else torch.cat([z, self.embedding(y)], dim=1)


class Verdict(nn.Module):
    """features float [N, ``features``] → logits float [N]; with classes by projection: the features' product with an
    embedding of y is added (Miyato & Koyama 2018, arXiv 1802.05637)."""

    def __init__(self, features: int, classes: int, normalise: Callable[[nn.Module], nn.Module] = lambda m: m) -> None:
        super().__init__()
        self.to_logit = normalise(nn.Linear(features, 1))
        self.embedding = normalise(nn.Embedding(classes, features)) if classes else None

    def forward(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.to_logit(features).squeeze(1)
        return logits if self.embedding is None else logits + (self.embedding(y) * features).sum(dim=1)


class LatentNoise(nn.Module):
    """Adds a latent of its own to each unit or channel: x float [N, C] or [N, C, H, W], noise float [N, C] → as x.

    It is ``strength`` times as large as the unit's or channel's own deviation, a running mean of what it was in
    training; over a map it is the same everywhere. So images vary in as many ways as there are units, more than the
    latents that were mixed into them. (StyleGAN adds noise to maps, Karras et al. 2018, arXiv 1812.04948, section 3.2;
    here it is part of z, so that z decides the image.)
    """

    deviation: Tensor
    batches: Tensor

    def __init__(self, units: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.register_buffer("deviation", torch.ones(units))
        self.register_buffer("batches", torch.zeros(()))  # that the deviation was learnt from

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.batches += 1
                now = x.float().std(dim=[d for d in range(x.ndim) if d != 1], unbiased=False)
                self.deviation.lerp_(now, (1 / self.batches).clamp(min=0.01))
        added = self.strength * self.deviation * noise
        return x + added.reshape(*added.shape, *[1] * (x.ndim - 2))


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation whose scale and shift are chosen by the label (Dumoulin et al. 2017, arXiv 1610.07629).

    x float [N, channels, H, W], y int64 [N] → float [N, channels, H, W]. Without classes y is left out, and it is plain
    batch normalisation. Without training statistics in play the layer is an affine map per class,
    and :meth:`folded` returns it as one.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(max(1, classes), channels)
        self.shift = nn.Embedding(max(1, classes), channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        if y is None:
            return torch.addcmul(self.shift.weight[..., None, None], x, self.scale.weight[..., None, None])
        return torch.addcmul(self.shift(y)[:, :, None, None], x, self.scale(y)[:, :, None, None])

    def folded(self) -> ClassAffine:
        """The layer as it acts at inference."""
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        mean, var = self.norm.running_mean.double(), self.norm.running_var.double()
        scale = self.scale.weight.detach().double() / torch.sqrt(var + self.norm.eps)
        shift = self.shift.weight.detach().double() - mean * scale
        return ClassAffine(scale.float(), shift.float())


class ClassAffine(nn.Module):
    """x · scale[y] + shift[y], with tables float [classes, channels]; y is left out where they have one row."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, :, None, None].clone())
        self.register_buffer("shift", shift[:, :, None, None].clone())

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return x * self.scale[0] + self.shift[0]
        # index_select rather than scale[y]: it becomes one Gather in ONNX.
        return x * self.scale.index_select(0, y) + self.shift.index_select(0, y)


class Affine(nn.Module):
    """x · scale + shift, with a scale and a shift per channel: float [channels] each."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, None, None].clone())
        self.register_buffer("shift", shift[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def group_deviation(x: Tensor, group: int = 4) -> Tensor:
    """The deviation within each group of consecutive images, averaged over channels: a feature against mode collapse.

    x float [N, C, H, W] → float [N, 1, H, W] (Karras et al. 2017, arXiv 1710.10196, section 3; kept for each position,
    so that a group's shapes can be told apart too). Where ``group`` does not divide N, groups are smaller.
    """
    group = math.gcd(len(x), group)
    grouped = x.float().reshape(-1, group, *x.shape[1:])
    deviation = torch.sqrt(grouped.var(dim=1, unbiased=False) + 1e-8).mean(dim=1, keepdim=True)
    return deviation.repeat_interleave(group, dim=0).to(x.dtype)


def doubled(x: Tensor) -> Tensor:
    """Bilinear interpolation to twice the sides, which is what the filter (1, 3, 3, 1) does inside of an image."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halved(x: Tensor) -> Tensor:
    """Half the sides through the filter (1, 3, 3, 1): three averages of two in each direction."""
    return F.avg_pool2d(F.avg_pool2d(F.avg_pool2d(x, 2, stride=1, padding=1), 2, stride=1), 2)


class InstanceNorm2d(nn.Module):
    """Each channel of each image with mean 0 and deviation 1 (Ulyanov et al. 2016, arXiv 1607.08022).

    PyTorch's own layer is exported as a batch normalisation in training mode, which no generator may hold.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean((2, 3), keepdim=True)
        return x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + 1e-5)
