"""The dense GAN of Goodfellow et al. 2014 (arXiv 1406.2661): no convolution anywhere.

Generator: rectifiers and a tanh in place of the paper's sigmoid, as images lie in [-1, 1]. Discriminator: maxout
(Goodfellow et al. 2013, arXiv 1302.4389) with dropout.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ganrt_training.layers import LabelledLatent, Verdict
from ganrt_training.recipe import Recipe

PIECES = 3  # that a unit of maxout takes the largest of


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N] → images float [N, channels, size, size] in [-1, 1]."""

    def __init__(self, size: int, z_dim: int, units: int, channels: int, classes: int) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.latent = LabelledLatent(z_dim, classes)
        self.dense1 = nn.Linear(self.latent.features, units)
        self.dense2 = nn.Linear(units, units)
        self.to_image = nn.Linear(units, math.prod(self.shape))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = F.relu(self.dense1(self.latent(z, y)))
        x = F.relu(self.dense2(x))
        return self.to_image(x).tanh().view(-1, *self.shape)


class Maxout(nn.Module):
    """float [N, features] → the largest of PIECES linear maps each: float [N, units]."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, units * PIECES)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x).unflatten(1, (-1, PIECES)).amax(2)


class Discriminator(nn.Module):
    """images float [N, channels, size, size], y int64 [N] → logits float [N]."""

    def __init__(self, size: int, units: int, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.2),
            Maxout(channels * size * size, units),
            nn.Dropout(0.5),
            Maxout(units, units),
            nn.Dropout(0.5),
        )
        self.verdict = Verdict(units, classes)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        return self.verdict(self.layers(images), y)


def _build(recipe: Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    return (
        Generator(recipe.image_size, recipe.z_dim, 16 * recipe.width, channels, classes),
        Discriminator(recipe.image_size, 4 * recipe.width, channels, classes),
    )


def mlp_28() -> Recipe:
    """28x28 dense GAN: the first of them, rectifiers against maxout with dropout; the fastest to train."""
    return Recipe(
        name="mlp_28",
        build=_build,
        image_size=28,
        width=64,
        conditional=False,
        batch_size=128,
        total_kimg=10_000.0,
        betas=(0.5, 0.999),
        tick_kimg=50.0,
        snapshot_kimg=500.0,
    )
