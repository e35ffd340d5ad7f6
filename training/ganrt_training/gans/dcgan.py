"""DCGAN (Radford et al. 2015, arXiv 1511.06434): transposed convolutions against strided ones, batch norm in both.

``label_smoothing=0.1`` makes real images' target 0.9 (Salimans et al. 2016, arXiv 1606.03498). With classes, the
generator sees an embedding of the label beside z, and the discriminator judges by projection.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ganrt_training.layers import LabelledLatent, Verdict, upsamplings
from ganrt_training.recipe import Recipe


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N] → images float [N, channels, size, size] in [-1, 1]."""

    def __init__(self, name: str, size: int, z_dim: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.first_size, times = upsamplings(name, size)
        widths = [width << i for i in reversed(range(times))]
        self.latent = LabelledLatent(z_dim, classes)
        self.dense = nn.Linear(self.latent.features, widths[0] * self.first_size**2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(features) for features in widths)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=before == width)
            for before, after in zip(widths, [*widths[1:], channels], strict=True)
        )
        self.apply(_initialise)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.dense(self.latent(z, y)).unflatten(1, (-1, self.first_size, self.first_size))
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(F.relu(norm(x)))
        return x.tanh()


class Discriminator(nn.Module):
    """images float [N, channels, size, size], y int64 [N] → logits float [N]. ``norm``: with batch norms."""

    def __init__(self, name: str, size: int, width: int, channels: int, classes: int, *, norm: bool = True) -> None:
        super().__init__()
        last_size, times = upsamplings(name, size)
        layers: list[nn.Module] = []
        before = channels
        for i in range(times):
            layers.append(nn.Conv2d(before, width << i, 4, stride=2, padding=1, bias=i == 0 or not norm))
            if norm and i:
                layers.append(nn.BatchNorm2d(width << i))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = width << i
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.verdict = Verdict(before * last_size**2, classes)
        self.apply(_initialise)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        return self.verdict(self.layers(images), y)


def _initialise(layer: nn.Module) -> None:
    """Weights of deviation 0.02, as the paper has them; embeddings small beside z, or a class's images start alike."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, 0, 0.02)
    elif isinstance(layer, nn.Embedding):
        nn.init.normal_(layer.weight, 0, 0.1)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, 0.02)


def build_generator(recipe: Recipe, channels: int, classes: int) -> Generator:
    """The generator that a recipe describes."""
    return Generator(recipe.name, recipe.image_size, recipe.z_dim, recipe.width, channels, classes)


def _build(recipe: Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    return (
        build_generator(recipe, channels, classes),
        Discriminator(recipe.name, recipe.image_size, recipe.width, channels, classes),
    )


def dcgan_28() -> Recipe:
    """28x28 DCGAN: transposed convolutions and batch norm, non-saturating loss."""
    return Recipe(name="dcgan_28", build=_build, image_size=28, z_dim=100, conditional=False, betas=(0.5, 0.999))


def dcgan_32() -> Recipe:
    """32x32 DCGAN: one more doubling, from 4x4."""
    return Recipe(name="dcgan_32", build=_build, image_size=32, z_dim=100, conditional=False, betas=(0.5, 0.999))


def dcgan_64() -> Recipe:
    """64x64 DCGAN: the one of the paper and of most tutorials, with its 64 to 512 channels."""
    return Recipe(
        name="dcgan_64",
        build=_build,
        image_size=64,
        z_dim=100,
        width=64,
        conditional=False,
        batch_size=128,
        betas=(0.5, 0.999),
        total_kimg=2000.0,
    )
