"""Conditional GAN with a projection discriminator.

Generator: a DCGAN (Radford et al. 2015, arXiv 1511.06434) whose batch norms are class-conditional, after
a hidden layer that mixes z with an embedding of the label. Discriminator: spectrally normalised
convolutions (Miyato et al. 2018, arXiv 1802.05957), the label by projection (Miyato & Koyama 2018, arXiv
1802.05637), and the deviation within small groups of one class (Karras et al. 2017, arXiv 1710.10196).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganrt.errors import UsageError
from ganrt_training import losses
from ganrt_training.layers import ConditionalBatchNorm2d, group_deviation
from ganrt_training.recipe import Recipe

GROUP = 4


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N] → images float [N, channels, size, size] in [-1, 1]."""

    def __init__(self, size: int, z_dim: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.first_size = size // 4
        self.first_channels = 4 * width
        # Batch norm by class only scales channels; without this all classes would share one set of shapes.
        self.embedding = nn.Embedding(classes, z_dim)
        self.mix = nn.Linear(2 * z_dim, 2 * z_dim)
        self.dense = nn.Linear(2 * z_dim, self.first_channels * self.first_size**2)
        self.norm0 = ConditionalBatchNorm2d(4 * width, classes)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False)
        self.norm1 = ConditionalBatchNorm2d(2 * width, classes)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False)
        self.norm2 = ConditionalBatchNorm2d(width, classes)
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = F.leaky_relu(self.mix(torch.cat([z, self.embedding(y)], dim=1)), 0.2)
        x = self.dense(x).view(-1, self.first_channels, self.first_size, self.first_size)
        x = F.relu(self.norm0(x, y))
        x = F.relu(self.norm1(self.up1(x), y))
        x = F.relu(self.norm2(self.up2(x), y))
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    """images float [N, channels, size, size] in [-1, 1], y int64 [N] → logits float [N].

    N is a multiple of GROUP, and most groups of consecutive images should be of one class: what lacks
    variety within a class is told from their deviation.
    """

    def __init__(self, size: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, width, 3, padding=1)),
            nn.LeakyReLU(0.1, inplace=True),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.1, inplace=True),
            spectral_norm(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
            nn.LeakyReLU(0.1, inplace=True),
            spectral_norm(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.1, inplace=True),
        )
        self.last = spectral_norm(nn.Conv2d(4 * width + 1, 4 * width, 3, padding=1))
        self.to_logit = spectral_norm(nn.Linear(4 * width, 1))
        self.embedding = spectral_norm(nn.Embedding(classes, 4 * width))

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        x = self.features(images)
        x = torch.cat([x, group_deviation(x, GROUP)], dim=1)
        x = F.leaky_relu(self.last(x), 0.1).sum(dim=(2, 3))
        logits: Tensor = self.to_logit(x).squeeze(1) + (self.embedding(y) * x).sum(dim=1)
        return logits


def _build(recipe: Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    size = recipe.image_size
    if size % 4:
        raise UsageError(f"recipe {recipe.name}: image_size is {size}", "Expected a multiple of 4.")
    if recipe.batch_size % GROUP:
        raise UsageError(f"recipe {recipe.name}: batch_size is {recipe.batch_size}", f"Expected a multiple of {GROUP}.")
    return (
        Generator(size, recipe.z_dim, recipe.width, channels, classes),
        Discriminator(size, recipe.width, channels, classes),
    )


def cgan_projection_28() -> Recipe:
    """28x28 conditional GAN: class-conditional DCGAN against a projection discriminator, hinge loss."""
    return Recipe(
        name="cgan_projection_28", build=_build, loss=losses.hinge, image_size=28, total_kimg=1100.0, lr_decay=0.25
    )
