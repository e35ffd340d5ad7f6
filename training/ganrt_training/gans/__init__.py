"""The GANs, one file each: networks and recipes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ganrt.errors import TrainingError, UsageError
from ganrt_training.gans.biggan import biggan_32, biggan_64
from ganrt_training.gans.cgan import cgan_28, cgan_projection_28, cgan_projection_32
from ganrt_training.gans.cyclegan import cyclegan_64
from ganrt_training.gans.dcgan import dcgan_28, dcgan_32, dcgan_64
from ganrt_training.gans.mlp import mlp_28
from ganrt_training.gans.r3gan import r3gan_28, r3gan_32, r3gan_64
from ganrt_training.gans.srgan import srgan_x2
from ganrt_training.gans.stylegan2 import stylegan2_32, stylegan2_64
from ganrt_training.gans.wgan import wgan_28, wgan_gp_28, wgan_gp_64
from ganrt_training.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        mlp_28,
        dcgan_28,
        dcgan_32,
        dcgan_64,
        wgan_28,
        wgan_gp_28,
        wgan_gp_64,
        cgan_28,
        cgan_projection_28,
        cgan_projection_32,
        biggan_32,
        biggan_64,
        stylegan2_32,
        stylegan2_64,
        r3gan_28,
        r3gan_32,
        r3gan_64,
        cyclegan_64,
        srgan_x2,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises UsageError, listing the names there are."""
    if name not in RECIPES:
        raise UsageError(f"no recipe named {name!r}", f"There are: {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]()


def recipe_from_settings(settings: Any) -> Recipe:
    """The recipe that ``Recipe.settings()`` described, from JSON values that nobody vouches for.

    Settings that are missing have the named recipe's values, so that older runs stay readable.
    Raises TrainingError when they name no recipe of here or hold a value that cannot be meant.
    """
    if not isinstance(settings, dict) or not isinstance(name := settings.get("name"), str):
        raise TrainingError("the run's recipe has no name", "Expected what a run folder's recipe.json holds.")
    try:
        recipe = find_recipe(name)
    except UsageError as error:
        raise TrainingError(f"the run was trained with recipe {name!r}, which this ganrt lacks", error.hint) from None
    known = recipe.settings()
    changes: dict[str, Any] = {}
    for key, value in settings.items():
        expected = known.get(key)
        numbers = (int, float) if isinstance(expected, float) else (type(expected),)
        fits = key in known and isinstance(value, numbers) and isinstance(value, bool) == isinstance(expected, bool)
        if fits and isinstance(expected, list):
            fits = len(value) == len(expected) and all(isinstance(item, (int, float)) for item in value)
        if not fits:
            raise TrainingError(
                f"the run's recipe has {key}={str(value)[:60]!r}, which {name} of this ganrt cannot have",
                f"Its own value is {expected!r}." if key in known else "Use the ganrt that trained it.",
            )
        changes[key] = tuple(value) if isinstance(value, list) else value
    try:
        return replace(recipe, **changes)
    except UsageError as error:
        raise TrainingError(error.message, error.hint) from None
