"""The networks and optimisers of a run: made by a recipe, brought back from a checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganrt.errors import TrainingError, UsageError
from ganrt_training.checkpoint import Trained, differences
from ganrt_training.readers.source import shown
from ganrt_training.recipe import Recipe
from ganrt_training.step import Players

_MEASURED = 1000  # images


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


def take_over(players: Players, begin: Trained, z_dim: int) -> None:
    """Begins with the weights of a trained generator. Raises TrainingError when it is of another kind.

    What the new one measures of itself in training, and the other has not (``noise``), is measured at once.
    """
    generator, weights = players.generator, begin.generator.state_dict()
    missing = [name for name, _ in generator.named_buffers() if name not in weights]
    if wrong := differences({k: v for k, v in generator.state_dict().items() if k not in missing}, weights):
        raise TrainingError(
            f"the generator to start from, a {begin.recipe.name}, is of another kind: {'; '.join(wrong[:3])}",
            "Give the settings that its run had: they are in that run's recipe.json.",
        )
    generator.load_state_dict(weights, strict=False)
    if missing:
        device, classes = next(generator.parameters()).device, len(begin.class_names)
        y = torch.arange(_MEASURED, device=device) % classes if classes else None
        with torch.no_grad():
            generator(torch.randn(_MEASURED, z_dim, device=device), y)
        generator.load_state_dict(weights, strict=False)  # batch norms have seen another batch
    players.averaged.load_state_dict(generator.state_dict())


def _optimizer(recipe: Recipe, network: nn.Module, rate: float) -> torch.optim.Optimizer:
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), rate)
    # On a GPU its counters stay there, so that steps can be replayed (cuda_graphs.py).
    on_gpu = next(network.parameters()).device.type == "cuda"
    adam = torch.optim.Adam(network.parameters(), rate, recipe.betas, capturable=on_gpu)
    adam._warned_capturable_if_run_uncaptured = True  # it would tell of every step that is not
    return adam


def set_rates(recipe: Recipe, players: Players, done: float) -> None:
    """Learning rates when a share ``done`` of the run is over."""
    left = min(1.0, (1 - done) / recipe.lr_decay) if recipe.lr_decay else 1.0
    for optimizer, rate in (
        (players.generator_optimizer, recipe.lr_generator),
        (players.discriminator_optimizer, recipe.lr_discriminator),
    ):
        group = optimizer.param_groups[0]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate * left)
        else:
            group["lr"] = rate * left


def state_of(players: Players) -> dict[str, Any]:
    """What a checkpoint holds of them."""
    state = {name: part.state_dict() for name, part in vars(players).items()}
    for name in ("generator_optimizer", "discriminator_optimizer"):
        for group in state[name]["param_groups"]:
            group["lr"] = float(group["lr"])
    return state


def restore(state: dict[str, Any], players: Players, path: Path | None = None) -> dict[str, Any]:
    """Brings the players back and returns what else the checkpoint holds, the numbers of where the run stood.

    Raises TrainingError, naming the file, when it is not theirs.
    """
    try:
        for name, part in vars(players).items():
            if isinstance(part, torch.optim.Optimizer):
                _check_optimizer(state[name], part)
                for group, own in zip(state[name]["param_groups"], part.param_groups, strict=True):
                    if "capturable" in own:  # by where it was trained; it goes on here
                        group["capturable"] = own["capturable"]
            part.load_state_dict(state[name])
        found = {
            "step": int(state["step"]),
            "seconds": float(state["seconds"]),
            "augment_p": float(state["augment_p"]),
            "best": float(state["best"]),
        }
        if not (found["step"] >= 0 and 0 <= found["seconds"] < 1e12 and 0 <= found["augment_p"] <= 1):
            raise ValueError(f"it stood at {found}")
        if not found["best"] > -1e12:
            raise ValueError(f"best is {found['best']}")
    except (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{f'{path}: ' if path else ''}the checkpoint does not fit the recipe: {shown(str(error))}",
            "Name another --run-dir to start anew.",
        ) from error
    return found


def _check_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError for a state that would make the next step fail, which load_state_dict does not look at."""
    sizes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state["state"].items():
        if not 0 <= number < len(sizes) or set(kept) not in _KEPT:
            raise ValueError(f"an optimizer keeps {', '.join(map(str, kept))} of parameter {number}")
        for name, value in kept.items():
            if not isinstance(value, torch.Tensor) or value.shape not in (sizes[number], ()):
                raise ValueError(f"an optimizer's {name} of parameter {number} is none")
    for group, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        if wrong := [
            key for key in own if key not in ("params", "lr", "capturable") and group.get(key, own[key]) != own[key]
        ]:
            raise ValueError(f"an optimizer has other {', '.join(wrong)}")


_KEPT = ({"step", "exp_avg", "exp_avg_sq"}, {"step", "square_avg"})  # by Adam, by RMSprop
