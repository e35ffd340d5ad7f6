"""The networks and optimisers of a run: made by a recipe, brought back from a checkpoint."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ganrt.errors import TrainingError, UsageError
from ganrt_training.recipe import Recipe
from ganrt_training.step import Players


def make_players(recipe: Recipe, channels: int, classes: int, device: torch.device) -> Players:
    """New networks on a device, as the global random state has them."""
    generator, discriminator = recipe.build(recipe, channels, classes)
    if recipe.path_length and not hasattr(generator, "styles"):
        raise UsageError(
            f"recipe {recipe.name}: path_length={recipe.path_length:g}", "Only StyleGAN2 has it; set it to 0."
        )
    for network in (generator, discriminator):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Players(
        generator,
        discriminator,
        copy.deepcopy(generator).requires_grad_(False),
        _optimizer(recipe, generator, recipe.lr_generator),
        _optimizer(recipe, discriminator, recipe.lr_discriminator),
        torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16"),
    )


def _optimizer(recipe: Recipe, network: nn.Module, rate: float) -> torch.optim.Optimizer:
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), rate)
    return torch.optim.Adam(network.parameters(), rate, recipe.betas)


def set_rates(recipe: Recipe, players: Players, done: float) -> None:
    """Learning rates when a share ``done`` of the run is over."""
    left = min(1.0, (1 - done) / recipe.lr_decay) if recipe.lr_decay else 1.0
    players.generator_optimizer.param_groups[0]["lr"] = recipe.lr_generator * left
    players.discriminator_optimizer.param_groups[0]["lr"] = recipe.lr_discriminator * left


def state_of(players: Players) -> dict[str, Any]:
    """What a checkpoint holds of them."""
    return {name: part.state_dict() for name, part in vars(players).items()}


def restore(state: dict[str, Any], players: Players) -> dict[str, Any]:
    """Brings the players back and returns what else the checkpoint holds, the numbers of where the run stood.

    Raises TrainingError when it is not theirs.
    """
    try:
        for name, part in vars(players).items():
            part.load_state_dict(state[name])
        return {
            "step": int(state["step"]),
            "seconds": float(state["seconds"]),
            "augment_p": float(state["augment_p"]),
            "best": float(state["best"]),
        }
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint does not fit the recipe: {error}", "Name another --run-dir to start anew."
        ) from error
