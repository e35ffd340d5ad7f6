"""One training step of an adversarial pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganrt_training import ema
from ganrt_training.recipe import Recipe


@dataclass
class Players:
    """The networks of a run, the averaged generator and the two optimisers."""

    generator: nn.Module
    discriminator: nn.Module
    averaged: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer


def adversarial_step(
    recipe: Recipe,
    players: Players,
    images: Tensor,
    y: Tensor,
    draw_z: Callable[[int], Tensor],
    ema_decay: float,
) -> dict[str, Tensor]:
    """Updates the discriminator, then the generator, then the average. Fakes wear the labels of the reals.

    images float [N, C, H, W] in [-1, 1], y int64 [N]. Returns scalars: both losses and the shares of
    reals and fakes that the discriminator tells rightly.
    """
    count, device = len(images), images.device.type

    def autocast() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16")

    with autocast():
        with torch.no_grad():
            fakes = players.generator(draw_z(count), y)
        logits = players.discriminator(torch.cat([images, fakes.to(images)]), torch.cat([y, y])).float()
    real_logits, fake_logits = logits[:count], logits[count:]
    discriminator_loss = recipe.loss.discriminator(real_logits, fake_logits)
    players.discriminator_optimizer.zero_grad(set_to_none=True)
    discriminator_loss.backward()  # type: ignore[no-untyped-call]
    players.discriminator_optimizer.step()

    players.discriminator.requires_grad_(False)
    with autocast():
        logits = players.discriminator(players.generator(draw_z(count), y), y).float()
    generator_loss = recipe.loss.generator(logits)
    players.generator_optimizer.zero_grad(set_to_none=True)
    generator_loss.backward()  # type: ignore[no-untyped-call]
    players.generator_optimizer.step()
    players.discriminator.requires_grad_(True)

    ema.update(players.averaged, players.generator, ema_decay)
    return {
        "discriminator_loss": discriminator_loss.detach(),
        "generator_loss": generator_loss.detach(),
        "real_accuracy": (real_logits.detach() > 0).float().mean(),
        "fake_accuracy": (fake_logits.detach() < 0).float().mean(),
    }
