"""R3GAN, the modern baseline (Huang et al. 2024, arXiv 2501.05441): a relativistic pairing loss with R1 and R2, and a
residual network with nothing to normalise.

Blocks are 1x1, grouped 3x3 and 1x1 convolutions around a widened middle (as in ResNeXt), with no norm: their last
convolution starts at zero and the others small (Fixup: Zhang et al. 2019, arXiv 1901.09321). Resampling is bilinear.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrt_training.layers import LabelledLatent, Verdict, doubled, halved, upsamplings
from ganrt_training.recipe import Recipe

GROUP = 16  # channels that a grouped convolution sees together
EXPANSION = 2  # of a block's middle


class Block(nn.Module):
    """float [N, C, H, W] → the same. ``of`` is how many blocks the network has."""

    def __init__(self, channels: int, of: int) -> None:
        super().__init__()
        middle = EXPANSION * channels
        self.widen = nn.Conv2d(channels, middle, 1)
        self.mix = nn.Conv2d(middle, middle, 3, padding=1, groups=max(1, middle // GROUP))
        self.narrow = nn.Conv2d(middle, channels, 1, bias=False)
        for conv in (self.widen, self.mix):
            _initialise(conv, GAIN * of**-0.25)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.widen(x), 0.2)
        return x + self.narrow(F.leaky_relu(self.mix(y), 0.2))


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N] → images float [N, channels, size, size], about [-1, 1]."""

    def __init__(self, side: int, z_dim: int, widths: list[int], blocks: int, channels: int, classes: int) -> None:
        super().__init__()
        self.latent = LabelledLatent(z_dim, classes)
        self.basis = nn.Parameter(torch.randn(widths[0], side, side))
        self.dense = nn.Linear(self.latent.features, widths[0], bias=False)
        _initialise(self.dense, 1.0)
        total = blocks * len(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(*_change(before, after), *(Block(after, total) for _ in range(blocks)))
            for before, after in zip([widths[0], *widths], widths, strict=False)
        )
        self.to_image = nn.Conv2d(widths[-1], channels, 1)
        _initialise(self.to_image, 1.0)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.stages[0](self.basis * self.dense(self.latent(z, y))[:, :, None, None])
        for stage in list(self.stages)[1:]:
            change, *blocks = stage.children()
            x = doubled(change(x))
            for block in blocks:
                x = block(x)
        return self.to_image(x)


class Discriminator(nn.Module):
    """images float [N, channels, size, size], y int64 [N] → logits float [N]."""

    def __init__(self, side: int, widths: list[int], blocks: int, channels: int, classes: int) -> None:
        super().__init__()
        self.from_image = nn.Conv2d(channels, widths[0], 1)
        _initialise(self.from_image, 1.0)
        total = blocks * len(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(before, total) for _ in range(blocks)), *_change(before, after))
            for before, after in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.basis = nn.Conv2d(widths[-1], widths[-1], side, groups=widths[-1], bias=False)
        _initialise(self.basis, 1.0)
        self.verdict = Verdict(widths[-1], classes)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.from_image(images)
        for stage in list(self.stages)[:-1]:
            *blocks, change = stage.children()
            for block in blocks:
                x = block(x)
            x = change(halved(x))
        return self.verdict(self.basis(self.stages[-1](x)).flatten(1), y)


GAIN = (2 / (1 + 0.2**2)) ** 0.5  # of a leaky rectifier of slope 0.2


def _change(before: int, after: int) -> list[nn.Module]:
    """To another number of channels. An Identity where they are equal, so that stages look alike."""
    if before == after:
        return [nn.Identity()]
    conv = nn.Conv2d(before, after, 1, bias=False)
    _initialise(conv, 1.0)
    return [conv]


def _initialise(layer: nn.Conv2d | nn.Linear, gain: float) -> None:
    nn.init.normal_(layer.weight, 0, gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@dataclass(frozen=True, kw_only=True)
class R3GANRecipe(Recipe):
    """A recipe with R3GAN's own setting."""

    bounds = (("blocks", 1, 64),)

    blocks: int = 2  # a stage


def _build(recipe: R3GANRecipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    side, times = upsamplings(recipe.name, recipe.image_size)
    widths = [recipe.width * min(8, 1 << i) for i in range(times + 1)]
    return (
        Generator(side, recipe.z_dim, widths[::-1], recipe.blocks, channels, classes),
        Discriminator(side, widths, recipe.blocks, channels, classes),
    )


def _recipe(name: str, image_size: int, width: int, weight: float, rate: float) -> R3GANRecipe:
    return R3GANRecipe(
        name=name,
        build=_build,
        image_size=image_size,
        z_dim=64,
        width=width,
        loss="relativistic",
        r1=weight,
        r2=weight,
        # The paper's 2e-4 is for batches of 256 and more: with it, small networks need some times as many images.
        lr_generator=rate,
        lr_discriminator=rate,
        lr_decay=0.5,
        total_kimg=2000.0,
    )


def r3gan_28() -> Recipe:
    """28x28 R3GAN: relativistic loss with R1 and R2, no norms and no tricks; what to start with."""
    return _recipe("r3gan_28", 28, 16, 1.0, 1e-3)


def r3gan_32() -> Recipe:
    """32x32 R3GAN."""
    return _recipe("r3gan_32", 32, 16, 0.5, 1e-3)


def r3gan_64() -> Recipe:
    """64x64 R3GAN."""
    return _recipe("r3gan_64", 64, 32, 2.0, 5e-4)
