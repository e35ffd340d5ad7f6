"""Conditional GAN with a projection discriminator.

Generator: a DCGAN (Radford et al. 2015, arXiv 1511.06434) whose batch norms are class-conditional.
Discriminator: spectrally normalised convolutions (Miyato et al. 2018, arXiv 1802.05957) and the
label by projection (Miyato & Koyama 2018, arXiv 1802.05637).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganrt.errors import UsageError
from ganrt_training import losses
from ganrt_training.layers import ConditionalBatchNorm2d
from ganrt_training.recipe import Recipe


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N] → images float [N, channels, size, size] in [-1, 1]."""

    def __init__(self, size: int, z_dim: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.first_size = size // 4
        self.first_channels = 4 * width
        self.dense = nn.Linear(z_dim, self.first_channels * self.first_size**2)
        self.norm0 = ConditionalBatchNorm2d(4 * width, classes)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False)
        self.norm1 = ConditionalBatchNorm2d(2 * width, classes)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False)
        self.norm2 = ConditionalBatchNorm2d(width, classes)
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = self.dense(z).view(-1, self.first_channels, self.first_size, self.first_size)
        x = F.relu(self.norm0(x, y))
        x = F.relu(self.norm1(self.up1(x), y))
        x = F.relu(self.norm2(self.up2(x), y))
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    """images float [N, channels, size, size] in [-1, 1], y int64 [N] → logits float [N]."""

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
            spectral_norm(nn.Conv2d(4 * width, 4 * width, 3, padding=1)),
            nn.LeakyReLU(0.1, inplace=True),
        )
        self.to_logit = spectral_norm(nn.Linear(4 * width, 1))
        self.embedding = spectral_norm(nn.Embedding(classes, 4 * width))

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        x = self.features(images).sum(dim=(2, 3))
        logits: Tensor = self.to_logit(x).squeeze(1) + (self.embedding(y) * x).sum(dim=1)
        return logits


def _build(recipe: Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    size = recipe.image_size
    if size % 4:
        raise UsageError(f"recipe {recipe.name}: image_size is {size}", "Expected a multiple of 4.")
    return (
        Generator(size, recipe.z_dim, recipe.width, channels, classes),
        Discriminator(size, recipe.width, channels, classes),
    )


def cgan_projection_28() -> Recipe:
    """28x28 conditional GAN: class-conditional DCGAN against a projection discriminator, hinge loss."""
    return Recipe(
        name="cgan_projection_28", build=_build, loss=losses.hinge, image_size=28, total_kimg=1600.0, lr_decay=0.25
    )
