from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from ganrt.errors import TrainingError, UsageError
from ganrt_training.gans import RECIPES, find_recipe, recipe_from_settings


def one_other(name: str) -> list[str]:
    """An override of every setting there is, each with another value that can be meant."""
    choices = {
        "loss": "minimax",
        "optimizer": "adam" if find_recipe(name).optimizer == "rmsprop" else "rmsprop",
        "augment": "on",
        "precision": "bf16",
        "betas": "0.25,0.75",
        "label_smoothing": "0.125",
        "image_size": "56",
        "accumulate": "2",
    }
    overrides = []
    for key, value in find_recipe(name).settings().items():
        if key == "name":
            continue
        if isinstance(value, bool):
            other = "false" if value else "true"
        elif isinstance(value, int):
            other = str(value * 2 or 3)
        else:
            other = str(value / 2 + 0.07) if isinstance(value, float) else ""
        overrides.append(f"{key}={choices.get(key, other)}")
    return overrides


# Overrides -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("width=5", 5),
        ("r1=2", 2.0),
        ("lr_generator=1e-3", 0.001),
        ("flip=true", True),
        ("flip=False", False),
        ("conditional=FALSE", False),
        ("betas=0.5,0.9", (0.5, 0.9)),
        ("loss=hinge", "hinge"),
        ("augment=off", "off"),
        ("optimizer=rmsprop", "rmsprop"),
        ("precision=fp16", "fp16"),
    ],
)
def test_an_override_is_typed_as_its_setting(override: str, value: object) -> None:
    found = getattr(find_recipe("dcgan_28").with_overrides([override]), override.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


def test_overrides_leave_everything_else_and_the_last_of_the_same_counts() -> None:
    recipe = find_recipe("dcgan_28")
    changed = recipe.with_overrides(["width=5", "r1=1", "width=6"])
    assert changed == dataclasses.replace(recipe, width=6, r1=1.0)
    assert recipe == find_recipe("dcgan_28")


@pytest.mark.parametrize("override", ["lr=1", "width", "", "=3", "name=x", "build=x", "step=x", "translation=x"])
def test_what_is_no_setting_lists_those_there_are(override: str) -> None:
    with pytest.raises(UsageError) as raised:
        find_recipe("dcgan_28").with_overrides([override])
    first, second = str(raised.value).split("\n")
    assert first == f"{override!r} is not a setting of recipe dcgan_28"
    settings = [key for key in find_recipe("dcgan_28").settings() if key != "name"]
    assert second == f"Write key=value with one of: {', '.join(sorted(settings))}."


def test_a_recipe_has_its_own_settings_and_no_others() -> None:
    assert find_recipe("stylegan2_32").with_overrides(["mapping_layers=3"]).settings()["mapping_layers"] == 3
    with pytest.raises(UsageError, match=r"one of: .*mapping_layers.*style_mixing"):
        find_recipe("stylegan2_32").with_overrides(["cycle=3"])
    with pytest.raises(UsageError, match=r"'mapping_layers=3' is not a setting of recipe dcgan_28\n") as raised:
        find_recipe("dcgan_28").with_overrides(["mapping_layers=3"])
    assert "mapping_layers" not in str(raised.value.hint)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("width=big", "width='big': a whole number expected\nThe recipe has width=32."),
        ("width=2.5", "width='2.5': a whole number expected\nThe recipe has width=32."),
        ("r1=", "r1='': a number expected\nThe recipe has r1=0.0."),
        ("flip=1", "flip='1': true or false expected\nThe recipe has flip=False."),
        ("betas=0.5;0.9", "betas='0.5;0.9': numbers with commas expected\nThe recipe has betas=0.5,0.999."),
        ("betas=0.5", "recipe dcgan_28: betas is (0.5,)\nExpected two numbers of 0 to below 1."),
        ("betas=0.5,1", "recipe dcgan_28: betas is (0.5, 1.0)\nExpected two numbers of 0 to below 1."),
        ("width=0", "recipe dcgan_28: width is 0\nExpected a number of 1 to 16384."),
        ("label_smoothing=0.6", "recipe dcgan_28: label_smoothing is 0.6\nExpected a number of 0 to 0.5."),
        ("total_kimg=nan", "recipe dcgan_28: total_kimg is nan\nExpected a number of 0.001 to 1e+09."),
        ("r1=-1", "recipe dcgan_28: r1 is -1.0\nExpected a number of 0 to 1e+06."),
        ("batch_size=1", "recipe dcgan_28: batch_size is 1\nExpected a number of 2 to 1.04858e+06."),
        ("penalty_interval=0", "recipe dcgan_28: penalty_interval is 0\nExpected a number of 1 to 10000."),
        ("accumulate=0", "recipe dcgan_28: accumulate is 0\n"),
        ("accumulate=3", "recipe dcgan_28: a batch_size of 64 in 3 parts\nExpected accumulate to divide batch_size."),
        ("precision=half", "recipe dcgan_28: precision is 'half'\nExpected fp32, bf16 or fp16."),
        ("optimizer=sgd", "recipe dcgan_28: optimizer is 'sgd'\nExpected adam or rmsprop."),
        ("augment=true", "recipe dcgan_28: augment is 'true'\nExpected auto, on or off."),
        ("loss=gan", "loss is 'gan'\nExpected hinge, least_squares, minimax, non_saturating, relativistic, wasser"),
    ],
)
def test_a_value_that_cannot_be_meant_is_told(override: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        find_recipe("dcgan_28").with_overrides([override])
    assert str(raised.value).startswith(message)


def test_label_smoothing_is_refused_with_a_loss_that_has_no_labels() -> None:
    with pytest.raises(UsageError, match="the hinge loss has no label to smooth"):
        find_recipe("dcgan_28").with_overrides(["label_smoothing=0.1", "loss=hinge"])
    assert find_recipe("dcgan_28").with_overrides(["label_smoothing=0.1"]).label_smoothing == 0.1


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_its_settings(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe_from_settings(json.loads(json.dumps(recipe.settings()))) == recipe
    changed = recipe.with_overrides(one_other(name))
    same = [key for key, value in changed.settings().items() if value == recipe.settings()[key]]
    assert same == ["name"]
    assert recipe_from_settings(json.loads(json.dumps(changed.settings()))) == changed


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_in_a_line_what_it_is(name: str) -> None:
    line = (RECIPES[name].__doc__ or "").strip().split("\n")[0]
    assert line.endswith(".")
    assert len(line) > 10
    recipe = find_recipe(name)
    if not recipe.translation:
        assert line.startswith(f"{recipe.image_size}x{recipe.image_size} ")


def test_settings_that_an_older_run_lacks_are_the_recipes_own() -> None:
    assert recipe_from_settings({"name": "dcgan_28", "width": 3}) == find_recipe("dcgan_28").with_overrides(["width=3"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "the run's recipe has no name"),
        ({"name": 3}, "the run's recipe has no name"),
        ({"name": "gan_7"}, "the run was trained with recipe 'gan_7', which this ganrt lacks\nThere are: biggan_32"),
        (
            {"width": "3"},
            "the run's recipe has width='3', which dcgan_28 of this ganrt cannot have\nIts own value is 32",
        ),
        ({"width": True}, "the run's recipe has width='True'"),
        ({"width": 2.5}, "the run's recipe has width='2.5'"),
        ({"flip": 1}, "the run's recipe has flip='1'"),
        ({"betas": [0.5]}, "the run's recipe has betas='[0.5]'"),
        ({"betas": [0.5, "a"]}, "the run's recipe has betas="),
        (
            {"blocks": 3},
            "the run's recipe has blocks='3', which dcgan_28 of this ganrt cannot have\nUse the ganrt that",
        ),
        ({"build": "os.system"}, "the run's recipe has build='os.system'"),
        ({"r1": math.nan}, "recipe dcgan_28: r1 is nan\nExpected a number"),
        ({"width": 10**9}, "recipe dcgan_28: width is 1000000000\n"),
        ({"loss": "mine"}, "loss is 'mine'\n"),
    ],
)
def test_settings_that_nobody_vouches_for_are_refused(settings: object, message: str) -> None:
    given = {"name": "dcgan_28", **settings} if isinstance(settings, dict) else settings
    with pytest.raises(TrainingError) as raised:
        recipe_from_settings(given)
    assert str(raised.value).startswith(message)


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="^no recipe named 'dcgan'\nThere are: biggan_32, biggan_64, cgan_28, "):
        find_recipe("dcgan")


def test_the_recipes_are_those_of_the_files() -> None:
    folder = Path(__file__).parents[2] / "training" / "ganrt_training" / "gans"
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    assert sorted(name for name in RECIPES if f"def {name}() -> Recipe:" in text) == sorted(RECIPES)
    assert text.count("() -> Recipe:\n") == len(RECIPES)


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("stylegan2_32", "mapping_layers=0"),
        ("stylegan2_64", "style_mixing=nan"),
        ("r3gan_28", "blocks=1000000000000"),
        ("cyclegan_64", "pool=-1"),
        ("cyclegan_64", "cycle=nan"),
        ("srgan_x2", "adversarial=-1"),
    ],
)
def test_a_gans_own_settings_have_bounds_too(name: str, override: str) -> None:
    with pytest.raises(UsageError, match=r"Expected a number of \d"):
        find_recipe(name).with_overrides([override])
