"""Conditional GANs: by concatenation, and by projection.

``cgan_*``: DCGAN with the label beside z in the generator, and as one-hot channels of the image in the discriminator
(Mirza & Osindero 2014, arXiv 1411.1784).

``cgan_projection_*``: a DCGAN (Radford et al. 2015, arXiv 1511.06434) whose batch norms are class-conditional, after
a hidden layer that mixes z with an embedding of the label. Discriminator: spectrally normalised
convolutions (Miyato et al. 2018, arXiv 1802.05957), the label by projection (Miyato & Koyama 2018, arXiv
1802.05637), and the deviation within small groups of one class (Karras et al. 2017, arXiv 1710.10196).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganrt.errors import UsageError
from ganrt_training.gans import dcgan
from ganrt_training.layers import ConditionalBatchNorm2d, LabelledLatent, LatentNoise, Verdict, group_deviation
from ganrt_training.recipe import Recipe

_ON_MAPS = 0.2  # of the noise's strength, which is that in hidden units


class Block(nn.Module):
    """Features and what a convolution adds to them. float [N, C, H, W], y int64 [N] → float [N, C, H, W]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm2d(channels, classes)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x + self.conv(F.relu(self.norm(x, y)))


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N] → images float [N, channels, size, size] in [-1, 1]."""

    def __init__(
        self, size: int, z_dim: int, width: int, channels: int, classes: int, blocks: int = 0, noise: float = 0.0
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.first_size = size // 4
        self.first_channels = 4 * width
        if noise:  # the others are added to what comes of them: one to each hidden unit, one to each channel after up1
            z_dim = (z_dim - 2 * width) // 3
        self.mixed = z_dim
        # Batch norm by class only scales channels; without this all classes would share one set of shapes.
        self.latent = LabelledLatent(z_dim, classes)
        self.mix = nn.Linear(self.latent.features, 2 * z_dim)
        self.noise0 = LatentNoise(2 * z_dim, noise) if noise else None
        self.noise1 = LatentNoise(2 * width, _ON_MAPS * noise) if noise else None
        self.dense = nn.Linear(2 * z_dim, self.first_channels * self.first_size**2)
        self.norm0 = ConditionalBatchNorm2d(4 * width, classes)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False)
        self.norm1 = ConditionalBatchNorm2d(2 * width, classes)
        self.up2 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False)
        self.norm2 = ConditionalBatchNorm2d(width, classes)
        self.blocks1 = nn.ModuleList(Block(2 * width, classes) for _ in range(blocks))
        self.blocks2 = nn.ModuleList(Block(width, classes) for _ in range(blocks))
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = F.leaky_relu(self.mix(self.latent(z[:, : self.mixed], y)), 0.2)
        if self.noise0 is not None:
            x = self.noise0(x, z[:, self.mixed : 3 * self.mixed])
        x = self.dense(x).view(-1, self.first_channels, self.first_size, self.first_size)
        x = F.relu(self.norm0(x, y))
        x = self.up1(x)
        if self.noise1 is not None:
            x = self.noise1(x, z[:, 3 * self.mixed :])
        for block in self.blocks1:
            x = block(x, y)
        x = self.up2(F.relu(self.norm1(x, y)))
        for block in self.blocks2:
            x = block(x, y)
        x = F.relu(self.norm2(x, y))
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    """images float [N, channels, size, size] in [-1, 1], y int64 [N] → logits float [N].

    Most groups of four consecutive images should be of one class: what lacks variety within a class is told from
    their deviation.
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
        self.verdict = Verdict(4 * width, classes, spectral_norm)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.features(images)
        x = torch.cat([x, group_deviation(x)], dim=1)
        return self.verdict(F.leaky_relu(self.last(x), 0.1).sum(dim=(2, 3)), y)


class LabelMaps(nn.Module):
    """A discriminator of one more channel a class: that of the label holds 1, the others 0. Without classes, itself.

    They are constant: against maps that are learnt, noise of the images' size at first, the generator's images of a
    class became one within 100 kimg (docs/zoo.md).
    """

    def __init__(self, discriminator: nn.Module, classes: int) -> None:
        super().__init__()
        self.discriminator, self.classes = discriminator, classes

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        if y is not None and self.classes:
            maps = F.one_hot(y, self.classes).to(images)[:, :, None, None].expand(-1, -1, *images.shape[2:])
            images = torch.cat([images, maps], dim=1)
        logits: Tensor = self.discriminator(images)
        return logits


def _build(recipe: Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    size = recipe.image_size
    judge = dcgan.Discriminator(recipe.name, size, recipe.width, channels + classes, 0)
    return dcgan.build_generator(recipe, channels, classes), LabelMaps(judge, classes)


@dataclass(frozen=True, kw_only=True)
class ProjectionRecipe(Recipe):
    """A recipe with the projection GAN's own settings."""

    bounds = (("d_width", 0, 1 << 14), ("blocks", 0, 64), ("noise", 0, 100))

    d_width: int = 0  # the discriminator's; 0: as the generator's
    blocks: int = 0  # more convolutions in the generator, at half and at full size
    noise: float = 0.0  # latents of their own for hidden units and channels, so strong beside their own deviation


def _build_projection(recipe: ProjectionRecipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    size = recipe.image_size
    if size % 4:
        raise UsageError(f"recipe {recipe.name}: image_size is {size}", "Expected a multiple of 4.")
    if recipe.noise and ((mixed := recipe.z_dim - 2 * recipe.width) < 3 or mixed % 3):
        raise UsageError(
            f"recipe {recipe.name}: z_dim is {recipe.z_dim} with noise={recipe.noise:g}",
            f"Expected {2 * recipe.width} (two for each of width={recipe.width}) and three times the latents that are "
            f"mixed: {3 * 64 + 2 * recipe.width} for 64.",
        )
    return (
        Generator(size, recipe.z_dim, recipe.width, channels, classes, recipe.blocks, recipe.noise),
        Discriminator(size, recipe.d_width or recipe.width, channels, classes),
    )


def cgan_28() -> Recipe:
    """28x28 conditional DCGAN: the label beside z, and as one-hot channels of the image."""
    return Recipe(name="cgan_28", build=_build, image_size=28, z_dim=100, betas=(0.5, 0.999))


def _projection(name: str, image_size: int) -> ProjectionRecipe:
    return ProjectionRecipe(
        name=name,
        build=_build_projection,
        loss="hinge",
        image_size=image_size,
        total_kimg=1100.0,
        lr_discriminator=4e-4,
        lr_decay=0.25,
    )


def cgan_projection_28() -> Recipe:
    """28x28 conditional GAN: class-conditional DCGAN against a projection discriminator, hinge loss."""
    return _projection("cgan_projection_28", 28)


def cgan_projection_32() -> Recipe:
    """32x32 conditional GAN with a projection discriminator."""
    return _projection("cgan_projection_32", 32)
