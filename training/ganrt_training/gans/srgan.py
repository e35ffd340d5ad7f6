"""SRGAN (Ledig et al. 2016, arXiv 1609.04802): images of twice the sides, from images that were halved.

A residual network whose last layer turns channels into pixels (Shi et al. 2016, arXiv 1609.05158); it adds to what
bilinear interpolation gives, and has no batch norm, which hurts here (Lim et al. 2017, arXiv 1707.02921). The content
loss is the pixels' own (the paper's SRGAN-MSE): the features of a classifier of photographs would be a second network
to download, and of no use for other pictures. ``adversarial=0`` trains for the smallest error alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrt.errors import UsageError
from ganrt_training import ema
from ganrt_training.losses import find_loss, told_rightly
from ganrt_training.recipe import ImageToImage, Recipe, Shown
from ganrt_training.step import Players, Turn, add, autocast, backward, update

SCALE = 2


class Residual(nn.Module):
    """float [N, C, H, W] → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Enlarger(nn.Module):
    """images float [N, channels, H, W] in [-1, 1] → float [N, channels, 2 H, 2 W]; any H and W."""

    def __init__(self, width: int, blocks: int, channels: int) -> None:
        super().__init__()
        self.from_image = nn.Conv2d(channels, width, 5, padding=2)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1))
        self.to_pixels = nn.Sequential(
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, channels * SCALE**2, 3, padding=1),
            nn.PixelShuffle(SCALE),
        )
        nn.init.zeros_(self.to_pixels[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.to_pixels[1].bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        x = self.from_image(images)
        base = F.interpolate(images, scale_factor=SCALE, mode="bilinear", align_corners=False)
        enlarged: Tensor = base + self.to_pixels(x + self.blocks(x))
        return enlarged


class Discriminator(nn.Module):
    """images float [N, channels, H, W] → logits float [N]."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.to_logit = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.to_logit(self.layers(images).mean((2, 3))).squeeze(1)


@dataclass(frozen=True, kw_only=True)
class SRGANRecipe(Recipe):
    """A recipe with super-resolution's own settings."""

    bounds = (("blocks", 0, 64), ("adversarial", 0, 1e6), ("warmup_kimg", 0, 1e9))

    blocks: int = 6  # residual ones of the generator
    adversarial: float = 1e-3  # weight of the adversarial loss beside that of the pixels
    warmup_kimg: float = 50.0  # at first the pixels alone count


def shrunk(images: Tensor) -> Tensor:
    """Half the sides by the bicubic filter that Pillow has too, in whole grey levels: float [N, C, H, W] in [-1, 1]."""
    small = F.interpolate(images, scale_factor=1 / SCALE, mode="bicubic", align_corners=False, antialias=True)
    return ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def enlarging_step(recipe: SRGANRecipe, players: Players, turn: Turn) -> dict[str, Tensor]:
    """Updates the discriminator (after the warm-up), the generator and the average."""
    loss = find_loss(recipe.loss, recipe.label_smoothing)
    fighting = recipe.adversarial > 0 and turn.number * recipe.batch_size >= recipe.warmup_kimg * 1000
    figures: dict[str, Tensor] = {}
    generator, discriminator = players.generator, players.discriminator

    if fighting:
        players.discriminator_optimizer.zero_grad(set_to_none=True)
        for images, _ in turn.parts(recipe.accumulate):
            with autocast(recipe, images):
                with torch.no_grad():
                    fakes = generator(shrunk(images)).to(images)
                real_logits = discriminator(turn.augment(images)).float()
                fake_logits = discriminator(turn.augment(fakes)).float()
            told = loss.discriminator(real_logits, fake_logits)
            backward(players, told, recipe.accumulate)
            real, fake = told_rightly(loss, real_logits, fake_logits)
            shares = {"discriminator_loss": told, "real_accuracy": real, "fake_accuracy": fake}
            add(figures, shares, recipe.accumulate)
        turn.share(discriminator)
        update(players, players.discriminator_optimizer)

    discriminator.requires_grad_(False)
    players.generator_optimizer.zero_grad(set_to_none=True)
    for images, _ in turn.parts(recipe.accumulate):
        with autocast(recipe, images):
            fakes = generator(shrunk(images))
        content = F.mse_loss(fakes.float(), images)
        terms, total = {"content": content}, content
        if fighting:
            with autocast(recipe, images):
                fake_logits = discriminator(turn.augment(fakes)).float()
            adversarial = loss.generator(fake_logits, fake_logits)
            terms["generator_loss"], total = adversarial, content + recipe.adversarial * adversarial
        backward(players, total, recipe.accumulate)
        add(figures, terms, recipe.accumulate)
    turn.share(generator)
    update(players, players.generator_optimizer)
    discriminator.requires_grad_(True)
    ema.update(players.averaged, generator, turn.ema_decay)
    return figures


def _show(recipe: Recipe, generator: nn.Module, images: Tensor, y: Tensor) -> Shown:
    small = shrunk(images)
    large = generator(small).clamp(-1, 1)
    error = float((large - images).square().mean().sqrt()) * 127.5  # grey levels
    repeated = F.interpolate(small, scale_factor=SCALE, mode="nearest")
    return Shown(large, images, (repeated, large, images), error)


def _translators(generator: nn.Module, class_names: Sequence[str]) -> Mapping[str, nn.Module]:
    return {"": generator}


def _build(recipe: SRGANRecipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    if recipe.image_size < 16 or recipe.image_size % SCALE:
        raise UsageError(f"recipe {recipe.name}: image_size is {recipe.image_size}", "Expected an even 16 or more.")
    return Enlarger(recipe.width, recipe.blocks, channels), Discriminator(recipe.width, channels)


def srgan_x2() -> Recipe:
    """Super-resolution: images of twice the sides; trained on 64x64, works at any size."""
    return SRGANRecipe(
        name="srgan_x2",
        build=_build,
        step=enlarging_step,
        translation=ImageToImage(show=_show, translators=_translators, scale=SCALE, any_size=True),
        image_size=64,
        batch_size=16,
        conditional=False,
        lr_generator=5e-4,
        betas=(0.9, 0.99),
        lr_decay=0.5,
        ema_decay=0.995,
        augment="off",
        total_kimg=300.0,
        tick_kimg=2.0,
        snapshot_kimg=20.0,
    )
