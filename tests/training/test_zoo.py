"""Every recipe of the zoo at minimum width. test_zoo_slow.py does the whole way from images to a dataset."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ganrt
from ganrt.card import IMAGES
from ganrt_training.checkpoint import load_checkpoint, load_generator, save_checkpoint
from ganrt_training.export import export_run
from ganrt_training.gans import RECIPES
from ganrt_training.gans.cyclegan import Generators
from ganrt_training.losses import LOSSES
from ganrt_training.players import restore, state_of
from tests.training.zoo import FAMILIES, batch_of, class_names, players_of, smallest, snapshot_of, stepper

COMMON = [name for name in RECIPES if not RECIPES[name]().translation]


@pytest.mark.parametrize("name", COMMON)
def test_networks_have_the_shapes_they_promise_with_classes_and_without(name: str) -> None:
    for conditional, channels in (("true", 1), ("false", 3)):
        recipe = smallest(name, f"conditional={conditional}")
        players = players_of(recipe, channels)
        images, y = batch_of(recipe, channels)
        z = torch.randn(recipe.batch_size, recipe.z_dim)
        with torch.no_grad():
            made, logits = players.generator(z, y), players.discriminator(images, y)
        assert (made.shape, made.dtype) == (images.shape, torch.float32)
        assert logits.shape == (recipe.batch_size,)
        if y is not None:  # the label matters, to both
            other = (y + 1) % 3
            players.generator.eval()
            with torch.no_grad():
                assert not torch.equal(players.generator(z, y), players.generator(z, other))
                assert not torch.equal(logits, players.discriminator(images, other))


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_finite_and_change_every_parameter(name: str) -> None:
    recipe = smallest(name, "width=4", *([] if name.startswith("mlp") else ["image_size=16"]))
    players = players_of(recipe)
    networks = {"generator": players.generator, "discriminator": players.discriminator}
    before = {(n, name): p.detach().clone() for n, net in networks.items() for name, p in net.named_parameters()}
    averaged = [p.clone() for p in players.averaged.parameters()]
    step = stepper(recipe, players)
    # Three turns of the generator: what starts at zero hides from its neighbours for one.
    for number in range(3 * recipe.d_steps):
        assert all(map(math.isfinite, step(number).values()))
    after = {(n, name): p.detach() for n, net in networks.items() for name, p in net.named_parameters()}
    # A constant added to all logits is nothing to a loss that only compares them.
    moot = set() if LOSSES[recipe.loss].centred else {("discriminator", "verdict.to_logit.bias")}
    assert {key for key in before if torch.equal(before[key], after[key])} <= moot
    assert not any(map(torch.equal, averaged, players.averaged.parameters()))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("cyclegan_64", "srgan_x2")])
def test_the_discriminator_learns_to_tell_and_then_the_generator_to_fool_it(name: str) -> None:
    size = [] if name.startswith("mlp") else ["image_size=8"]
    recipe = smallest(name, *size, "width=4", "d_steps=1", "r1=0", "r2=0", "path_length=0", "optimizer=adam", "clip=0")
    players = players_of(recipe)
    for module in players.discriminator.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1  # with so few units half of them are needed
    step = stepper(recipe, players)
    _rates(players, generator=0.0, discriminator=5e-3)
    for number in range(50):
        told = step(number)
    assert (told["real_accuracy"], told["fake_accuracy"]) == (1, 1)
    _rates(players, generator=1e-2, discriminator=0.0)
    for number in range(50, 100):
        fooled = step(number)
    assert fooled["generator_loss"] < told["generator_loss"] - 0.1
    assert fooled["fake_accuracy"] < 0.5


def test_cyclegan_and_srgan_play_the_same_game() -> None:
    for name, judge, maker in (
        ("cyclegan_64", "discriminator_loss", "generator_loss"),
        ("srgan_x2", "discriminator_loss", "generator_loss"),
    ):
        more = ["cycle=0", "identity=0"] if name.startswith("cycle") else ["adversarial=1"]
        recipe = smallest(name, "image_size=16", "width=4", *more)
        players = players_of(recipe)
        step = stepper(recipe, players)
        _rates(players, generator=0.0, discriminator=1e-2)
        first = step(0)
        for number in range(1, 25):
            told = step(number)
        assert told[judge] < first[judge] - 0.05
        _rates(players, generator=1e-2, discriminator=0.0)
        for number in range(25, 50):
            fooled = step(number)
        assert fooled[maker] < told[maker] - 0.05


def test_cyclegan_may_learn_what_to_change_alone() -> None:
    recipe = smallest("cyclegan_64", "image_size=16", "residual=true", "identity=0")
    players = players_of(recipe)
    images, y = batch_of(recipe)
    assert y is not None
    assert isinstance(players.generator, Generators)
    with torch.no_grad():
        torch.testing.assert_close(players.generator.forth(images), images)  # at first nothing
    figures = stepper(recipe, players)(0)
    assert figures["cycle"] < 1e-6
    assert "identity" not in figures
    with torch.no_grad():
        assert not torch.equal(players.generator.forth(images), images)


def _rates(players: object, *, generator: float, discriminator: float) -> None:
    players.generator_optimizer.param_groups[0]["lr"] = generator  # type: ignore[attr-defined]
    players.discriminator_optimizer.param_groups[0]["lr"] = discriminator  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_brings_everything_back(name: str, tmp_path: Path) -> None:
    recipe = smallest(name, *([] if name.startswith("mlp") else ["image_size=16"]))
    players, others = players_of(recipe), players_of(recipe)
    step = stepper(recipe, players)
    for number in range(recipe.d_steps + 1):
        step(number)
    save_checkpoint(tmp_path / "c.pt", state_of(players) | {"step": 6, "seconds": 1.5, "augment_p": 0.25, "best": 3.0})
    rest = restore(load_checkpoint(tmp_path / "c.pt"), others)
    assert rest == {"step": 6, "seconds": 1.5, "augment_p": 0.25, "best": 3.0}
    other_step = stepper(recipe, others)
    for number in range(recipe.d_steps + 1, 2 * recipe.d_steps + 2):
        assert step(number) == other_step(number)
    for mine, theirs in zip(state_of(players).values(), state_of(others).values(), strict=True):
        assert str(mine) == str(theirs)


@pytest.mark.parametrize("name", ["stylegan2_32", "srgan_x2"])  # psi, any size; the others in test_zoo_slow.py
def test_a_generator_is_exported_and_makes_the_images_of_its_snapshot(name: str, tmp_path: Path) -> None:
    recipe = smallest(name, "image_size=16")
    players = players_of(recipe, 3)
    step = stepper(recipe, players, 3)
    for number in range(2 * recipe.d_steps):
        step(number)
    made = export_run(snapshot_of(recipe, players, tmp_path, 3), tmp_path / "x.onnx")
    trained = load_generator(tmp_path / "best.safetensors").generator
    if recipe.translation:
        networks = recipe.translation.translators(trained, class_names(recipe))
        assert len(made) == len(networks)
        for (path, card), network in zip(made.items(), networks.values(), strict=True):
            translator = ganrt.load_translator(path, device="cpu")
            assert (card.kind, card.scale, translator.dynamic) == (IMAGES, recipe.translation.scale, card.scale == 2)
            side = 16 // card.scale
            x = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
            given = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.no_grad():
                expected = (network(given) * 127.5 + 128).clamp(0, 255).permute(0, 2, 3, 1).numpy()
            assert np.abs(translator(x) - expected).max() <= 1.01
        return
    [(path, card)] = made.items()
    generator = ganrt.load(path, device="cpu")
    assert (card.class_names, card.psi) == (class_names(recipe), name.startswith("stylegan2"))
    z, y = torch.randn(5, recipe.z_dim), torch.arange(5) % 3
    assert (card.num_ws, card.w_dim) == ((5, recipe.z_dim) if card.psi else (0, 0))
    for psi in (None, 0.3) if card.psi else (None,):
        with torch.no_grad():
            images = trained(z, y) if psi is None else trained(z, y, torch.tensor(psi))
        expected = (images * 127.5 + 128).clamp(0, 255).permute(0, 2, 3, 1).numpy()
        assert np.abs(generator(z.numpy(), y.numpy(), psi) - expected).max() <= 1.01
