"""BigGAN (Brock et al. 2018, arXiv 1809.11096), at the size of small images.

Residual blocks whose batch norms are chosen by a shared embedding of the label together with a part of z of their own;
self-attention (Zhang et al. 2018, arXiv 1805.08318) at half the image's side; spectral norm on both sides; hinge loss,
orthogonal initialisation and regularisation; the label by projection in the discriminator.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganrt.errors import UsageError
from ganrt_training.layers import Verdict, upsamplings
from ganrt_training.recipe import Recipe


class Attention(nn.Module):
    """Each position looks at all others of its image. float [N, C, H, W] → the same; H and W are even."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, values = max(1, channels // 8), max(1, channels // 2)
        self.query = spectral_norm(nn.Conv2d(channels, inner, 1, bias=False))
        self.key = spectral_norm(nn.Conv2d(channels, inner, 1, bias=False))
        self.value = spectral_norm(nn.Conv2d(channels, values, 1, bias=False))
        self.out = spectral_norm(nn.Conv2d(values, channels, 1, bias=False))
        self.share = nn.Parameter(torch.full((), 0.01))  # not 0, from where nothing above would learn at first

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # [N, inner, H W]
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=2)  # [N, H W, H W / 4]
        seen = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.share * self.out(seen)


class ConditionedNorm(nn.Module):
    """Batch norm whose scale and shift are linear in a condition. float [N, C, H, W], [N, condition] → [N, C, H, W]."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = spectral_norm(nn.Linear(condition, channels, bias=False))
        self.shift = spectral_norm(nn.Linear(condition, channels, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.norm(x) * (1 + self.scale(condition)[..., None, None]) + self.shift(condition)[..., None, None]


class UpBlock(nn.Module):
    """Twice the sides. float [N, before, H, W], [N, condition] → float [N, after, 2 H, 2 W]."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.norm1 = ConditionedNorm(before, condition)
        self.conv1 = spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.norm2 = ConditionedNorm(after, condition)
        self.conv2 = spectral_norm(nn.Conv2d(after, after, 3, padding=1))
        self.short = spectral_norm(nn.Conv2d(before, after, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = F.interpolate(F.relu(self.norm1(x, condition)), scale_factor=2, mode="nearest")
        y = self.conv2(F.relu(self.norm2(self.conv1(y), condition)))
        # A 1x1 convolution and a repetition of pixels change places freely; before it there is a quarter of the work.
        return y + F.interpolate(self.short(x), scale_factor=2, mode="nearest")


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N] → images float [N, channels, size, size] in [-1, 1]."""

    def __init__(self, name: str, size: int, z_dim: int, widths: list[int], channels: int, classes: int) -> None:
        super().__init__()
        self.first_size, times = upsamplings(name, size)
        self.chunk = z_dim // (times + 1)
        if not self.chunk:
            raise UsageError(f"recipe {name}: z_dim is {z_dim}", f"Expected at least {times + 1}: a part a block.")
        self.rest = z_dim - self.chunk * times  # what the first layer gets
        self.embedding = nn.Embedding(classes, 4 * widths[-1]) if classes else None
        condition = self.chunk + (4 * widths[-1] if classes else 0)
        self.dense = spectral_norm(nn.Linear(self.rest, widths[0] * self.first_size**2))
        self.blocks = nn.ModuleList(UpBlock(before, after, condition) for before, after in pairwise(widths))
        # After the last block but one: at half the image's side.
        self.attention = Attention(widths[-2]) if times > 1 else nn.Identity()
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = spectral_norm(nn.Conv2d(widths[-1], channels, 3, padding=1))
        self.apply(_orthogonal)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *chunks = torch.split(z, [self.rest, *[self.chunk] * len(self.blocks)], dim=1)
        x = self.dense(first).unflatten(1, (-1, self.first_size, self.first_size))
        label = None if self.embedding is None else self.embedding(y)
        for i, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
            if i == len(self.blocks) - 1:
                x = self.attention(x)
            x = block(x, chunk if label is None else torch.cat([label, chunk], dim=1))
        return torch.tanh(self.to_image(F.relu(self.norm(x))))


class DownBlock(nn.Module):
    """float [N, before, H, W] → float [N, after, H / 2, W / 2], or the same sides."""

    def __init__(self, before: int, after: int, *, down: bool = True, first: bool = False) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(after, after, 3, padding=1))
        self.short = spectral_norm(nn.Conv2d(before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.first else F.relu(x)  # an image's negative half is not to be lost
        y = self.conv2(F.relu(self.conv1(y)))
        x = F.avg_pool2d(x, 2) if self.down else x
        return self.short(x) + (F.avg_pool2d(y, 2) if self.down else y)


class Discriminator(nn.Module):
    """images float [N, channels, size, size], y int64 [N] → logits float [N]."""

    def __init__(self, widths: list[int], channels: int, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [DownBlock(channels, widths[-1], first=True)]
        if len(widths) > 2:
            blocks.append(Attention(widths[-1]))
        for before, after in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True):
            blocks.append(DownBlock(before, after, down=len(blocks) < len(widths)))
        self.blocks = nn.Sequential(*blocks)
        self.verdict = Verdict(widths[0], classes, spectral_norm)
        self.apply(_orthogonal)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        return self.verdict(F.relu(self.blocks(images)).sum((2, 3)), y)


def _orthogonal(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
        spectral = hasattr(layer, "parametrizations")
        weight = layer.parametrizations.weight.original if spectral else layer.weight  # type: ignore[union-attr]
        nn.init.orthogonal_(weight)  # type: ignore[arg-type]


def _build(recipe: Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    _, times = upsamplings(recipe.name, recipe.image_size)
    widths = [recipe.width * min(4, 1 << i) for i in reversed(range(times + 1))]
    return (
        Generator(recipe.name, recipe.image_size, recipe.z_dim, widths, channels, classes),
        Discriminator(widths, channels, classes),
    )


def _recipe(name: str, image_size: int, width: int) -> Recipe:
    return Recipe(
        name=name,
        build=_build,
        image_size=image_size,
        width=width,
        loss="hinge",
        d_steps=2,
        orthogonal=1e-4,
        lr_generator=2e-4,
        lr_discriminator=2e-4,
        betas=(0.0, 0.999),
        ema_decay=0.9995,
        total_kimg=3000.0,
    )


def biggan_32() -> Recipe:
    """32x32 BigGAN: self-attention, split z, class-conditional batch norm, orthogonal regularisation."""
    return _recipe("biggan_32", 32, 32)


def biggan_64() -> Recipe:
    """64x64 BigGAN."""
    return _recipe("biggan_64", 64, 48)
