"""Wasserstein GANs: with clipped weights (Arjovsky et al. 2017, arXiv 1701.07875), and with a gradient penalty in
place of the clipping (WGAN-GP: Gulrajani et al. 2017, arXiv 1704.00028). The networks are DCGAN's; the critic that is
penalised has no batch norm, as the penalty is each image's own.
"""

from __future__ import annotations

from torch import nn

from ganrt_training.gans import dcgan
from ganrt_training.recipe import Recipe


def _build(recipe: Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    return (
        dcgan.build_generator(recipe, channels, classes),
        dcgan.Discriminator(
            recipe.name, recipe.image_size, recipe.width, channels, classes, norm=not recipe.gradient_penalty
        ),
    )


def wgan_28() -> Recipe:
    """28x28 WGAN: a critic whose weights are clipped to 0.01, five steps of it for one of the generator."""
    return Recipe(
        name="wgan_28",
        build=_build,
        image_size=28,
        conditional=False,
        loss="wasserstein",
        d_steps=5,
        clip=0.01,
        optimizer="rmsprop",
        lr_generator=5e-5,
        lr_discriminator=5e-5,
        total_kimg=4000.0,
    )


def _penalised(name: str, image_size: int, width: int) -> Recipe:
    return Recipe(
        name=name,
        build=_build,
        image_size=image_size,
        width=width,
        conditional=False,
        loss="wasserstein",
        d_steps=5,
        gradient_penalty=10.0,
        lr_generator=2e-4,
        lr_discriminator=2e-4,
        betas=(0.0, 0.9),
        total_kimg=4000.0,
    )


def wgan_gp_28() -> Recipe:
    """28x28 WGAN-GP: a gradient penalty in place of the clipping."""
    return _penalised("wgan_gp_28", 28, 32)


def wgan_gp_64() -> Recipe:
    """64x64 WGAN-GP."""
    return _penalised("wgan_gp_64", 64, 64)
