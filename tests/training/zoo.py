"""Every recipe at its smallest: what the tests of the zoo share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ganrt_training import ema
from ganrt_training.checkpoint import save_snapshot
from ganrt_training.gans import RECIPES, find_recipe
from ganrt_training.players import make_players
from ganrt_training.recipe import Recipe
from ganrt_training.step import Players, Turn, adversarial_step

FAMILIES = [
    *("mlp_28", "dcgan_32", "wgan_28", "wgan_gp_28", "cgan_28", "cgan_projection_28", "biggan_32"),
    *("stylegan2_32", "r3gan_28", "cyclegan_64", "srgan_x2"),
]
_OF = {
    "mlp_28": "width=1",
    "biggan": "z_dim=9",
    "stylegan2": "mapping_layers=2",
    "r3gan": "blocks=1",
    "cyclegan": "blocks=1 pool=4",
    "srgan": "blocks=1 warmup_kimg=0",
}


def smallest(name: str, *overrides: str) -> Recipe:
    """A recipe of the zoo with as few channels as it can have."""
    own = next((text for start, text in _OF.items() if name.startswith(start)), "")
    return find_recipe(name).with_overrides(["width=2", "z_dim=6", "batch_size=8", *own.split(), *overrides])


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """The classes of a test's data that a recipe makes use of."""
    if recipe.translation:
        return ("a", "b")[: recipe.translation.domains]
    return ("a", "b", "c") if recipe.conditional else ()


def players_of(recipe: Recipe, channels: int = 1) -> Players:
    torch.manual_seed(0)
    return make_players(recipe, channels, len(class_names(recipe)), torch.device("cpu"))


def batch_of(recipe: Recipe, channels: int = 1) -> tuple[Tensor, Tensor | None]:
    """Images whose upper half is bright, and labels."""
    size, count = recipe.image_size, recipe.batch_size
    images = 0.2 * torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1)) - 0.5
    images[:, :, : size // 2] += 1
    names = class_names(recipe)
    return images.clamp(-1, 1), torch.arange(count) % len(names) if names else None


def stepper(recipe: Recipe, players: Players, channels: int = 1) -> Callable[[int], dict[str, float]]:
    """Takes the step of a number on a batch that is always the same, with latents that are always the same."""
    images, y = batch_of(recipe, channels)
    z = torch.randn(recipe.batch_size, recipe.z_dim, generator=torch.Generator().manual_seed(2))

    def step(number: int) -> dict[str, float]:
        torch.manual_seed(number)
        figures = (recipe.step or adversarial_step)(recipe, players, Turn(number, images, y, lambda n: z[:n], 0.5))
        return {name: float(value) for name, value in figures.items()}

    return step


def snapshot_of(recipe: Recipe, players: Players, folder: Path, channels: int = 1) -> Path:
    """The averaged generator as a run's best snapshot, in a folder that can be exported."""
    names = class_names(recipe)
    model = ema.standing_statistics(players.averaged, recipe.z_dim, len(names), batches=2)
    about = {"recipe": recipe.settings(), "channels": channels, "class_names": list(names), "kimg": 1.0}
    save_snapshot(folder / "best.safetensors", model.state_dict(), {"run": json.dumps(about)})
    return folder


__all__ = ["FAMILIES", "RECIPES", "batch_of", "class_names", "players_of", "smallest", "snapshot_of", "stepper"]
