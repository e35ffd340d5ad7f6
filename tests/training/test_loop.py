from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ganrt.errors import Cancelled, TrainingError, UsageError
from ganrt_training import augment, losses
from ganrt_training.checkpoint import find_snapshot, load_checkpoint, load_generator, load_snapshot, save_checkpoint
from ganrt_training.data import ImageData
from ganrt_training.gans import find_recipe
from ganrt_training.loop import Stats, train
from ganrt_training.losses import Loss
from ganrt_training.players import make_players
from ganrt_training.recipe import Recipe
from ganrt_training.showing import Eye, Seen
from ganrt_training.step import Players, Turn, adversarial_step
from tests.training.tiny import QUICK_SNAPSHOT, SNAPSHOT, quick_data, quick_recipe, tiny_data, tiny_recipe

REPOSITORY = Path(__file__).parents[2]
NOISY = ("stylegan2_32", "augment=on", "augment_kimg=0.03", "flip=true", "lr_discriminator=0.05")  # chance everywhere


def ticks(run: Path) -> list[Stats]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def steps(run: Path) -> list[int]:
    return [tick["step"] for tick in ticks(run)]


def watched(recipe: Recipe, step: Callable[[Turn], dict[str, float]]) -> Recipe:
    """The recipe with a step that trains nothing, and only looks."""

    def look(recipe: Recipe, players: Players, turn: Turn) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in step(turn).items()}

    return dataclasses.replace(recipe, step=look)


@pytest.fixture
def sight(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Pairs of distance and diversity that the next ticks are to have, in place of what is seen."""
    pairs: list[tuple[float, float]] = []
    real = Eye.look

    def look(eye: Eye, averaged: nn.Module) -> Seen:
        seen = real(eye, averaged)
        return dataclasses.replace(seen, distance=pairs[0][0], diversity=pairs.pop(0)[1]) if pairs else seen

    monkeypatch.setattr(Eye, "look", look)
    return pairs


# A run ---------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_folder_that_explains_itself(finished_run: Path) -> None:
    weights = {"checkpoint.pt", "best.safetensors", SNAPSHOT}
    expected = {"recipe.json", "stats.jsonl", "samples-000001.png", "report.html"} | weights
    assert {path.name for path in finished_run.iterdir()} == expected
    about = json.loads((finished_run / "recipe.json").read_text())
    assert about["recipe"] == tiny_recipe().settings()
    assert about["class_names"] == ["band 0", "band 1", "band 2"]
    assert (about["kind"], about["images"], about["channels"], about["seed"]) == ("latent-to-image", 200, 1, 0)
    assert steps(finished_run) == [10, 20, 30, 40]
    for tick in ticks(finished_run):
        assert all(math.isfinite(value) for value in tick.values() if not isinstance(value, str))
        assert tick.keys() >= {"kimg", "quality", "diversity", "discriminator_loss", "generator_loss", "augment_p"}
    assert ticks(finished_run)[-1]["quality"] < ticks(finished_run)[0]["quality"]
    assert Image.open(finished_run / "samples-000001.png").size == (10 * 28, 3 * 28)


@pytest.mark.parametrize(
    "recipe",
    [
        NOISY,
        ("mlp_28", "precision=fp16"),  # with dropout
        ("wgan_28", "d_steps=3", "precision=bf16", "accumulate=2"),
        ("cgan_projection_28", "balanced=true", "lr_decay=0.5"),
    ],
    ids=lambda recipe: recipe[0],
)
def test_a_run_stopped_at_every_tick_ends_as_an_uninterrupted_one(recipe: tuple[str, ...], tmp_path: Path) -> None:
    whole = train(quick_recipe(*recipe), quick_data(), tmp_path / "whole")
    run = tmp_path / "run"
    for done in (2, 4, 6, 8):
        assert not (run / QUICK_SNAPSHOT).exists()
        train(quick_recipe(*recipe), quick_data(), run, minutes=0)
        assert steps(run)[-1] == done
    assert_same(run, whole)


def assert_same(run: Path, whole: Path) -> None:
    for name in (QUICK_SNAPSHOT, "best.safetensors", "samples-000000.png", "recipe.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    passing = ("seconds", "images_per_second")
    told = [[{k: v for k, v in tick.items() if k not in passing} for tick in ticks(folder)] for folder in (run, whole)]
    assert told[0] == told[1]
    assert not list(run.glob("*.part"))


def test_a_cancelled_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = train(quick_recipe("dcgan_28"), quick_data(), tmp_path / "whole")
    run, cancel, seen = tmp_path / "run", threading.Event(), list[int]()

    def step(recipe: Recipe, players: Players, turn: Turn) -> dict[str, Tensor]:
        seen.append(turn.number)
        if turn.number == 4:
            cancel.set()
        return adversarial_step(recipe, players, turn)

    recipe = dataclasses.replace(quick_recipe("dcgan_28", "tick_kimg=0.032"), step=step)
    with pytest.raises(Cancelled, match=r"^stopped at 0\.0 kimg\nThe same command goes on from its last checkpoint"):
        train(recipe, quick_data(), run, cancel=cancel)
    assert (seen, steps(run)) == ([0, 1, 2, 3, 4], [4])
    train(quick_recipe("dcgan_28", "tick_kimg=0.032"), quick_data(), run)
    assert load_snapshot(run / QUICK_SNAPSHOT)[0].keys() == load_snapshot(whole / QUICK_SNAPSHOT)[0].keys()
    for name, tensor in load_snapshot(run / QUICK_SNAPSHOT)[0].items():
        assert torch.equal(tensor, load_snapshot(whole / QUICK_SNAPSHOT)[0][name]), name


def test_a_run_does_not_depend_on_the_global_random_state_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    snapshots = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        run = train(quick_recipe("mlp_28", "total_kimg=0.016"), quick_data(), tmp_path / str(seed))
        assert torch.equal(torch.random.get_rng_state(), before)
        snapshots.append((run / QUICK_SNAPSHOT).read_bytes())
    assert snapshots[0] == snapshots[1]
    other = train(quick_recipe("mlp_28", "total_kimg=0.016"), quick_data(), tmp_path / "other", seed=1)
    assert (other / QUICK_SNAPSHOT).read_bytes() != snapshots[0]


def test_statistics_written_after_the_last_checkpoint_and_what_a_crash_tore_are_dropped(tmp_path: Path) -> None:
    train(quick_recipe("dcgan_28"), quick_data(), tmp_path, minutes=0)
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('\0\0\0\n{"step": 4}\n{"step": 6')
    train(quick_recipe("dcgan_28"), quick_data(), tmp_path)
    assert steps(tmp_path) == [2, 4, 6, 8]


def test_a_finished_run_is_left_as_it_is(finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    train(tiny_recipe(), tiny_data(), run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_another_run_in_the_same_folder_is_refused_with_what_differs(finished_run: Path) -> None:
    with pytest.raises(TrainingError, match="holds another run: it differs in seed, width, z_dim\nName another --run"):
        train(tiny_recipe("width=3", "z_dim=5"), tiny_data(), finished_run, seed=1)
    with pytest.raises(TrainingError, match="it differs in class_names, data\n"):
        train(tiny_recipe(), tiny_data(classes=2), finished_run)
    with pytest.raises(TrainingError, match="it differs in class_names, conditional"):
        train(tiny_recipe("conditional=false"), tiny_data(), finished_run)


def test_a_run_goes_on_with_the_same_images_only(finished_run: Path) -> None:
    data = tiny_data()
    data.images[199, 27, 27] += 1
    with pytest.raises(TrainingError, match="holds another run: it differs in data\n"):
        train(tiny_recipe(), data, finished_run)
    with pytest.raises(TrainingError, match="holds another run: it differs in data, images\n"):
        train(tiny_recipe(), tiny_data(198), finished_run)


def test_a_recipe_json_that_is_none_is_told(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"recipe": 3}'):
        (tmp_path / "recipe.json").write_text(text)
        with pytest.raises(TrainingError, match=r"recipe.json is not what a run writes"):
            train(tiny_recipe(), tiny_data(), tmp_path)


def test_images_that_do_not_fit_the_recipe_are_refused(tmp_path: Path) -> None:
    data = tiny_data()
    cut = dataclasses.replace(data, images=np.ascontiguousarray(data.images[:, :20]))
    with pytest.raises(TrainingError, match=r"images of 28x20 pixels\n.* wants 28x28"):
        train(tiny_recipe(), cut, tmp_path)
    with pytest.raises(TrainingError, match=r"8 images\n.* a batch of 16"):
        train(tiny_recipe(), tiny_data(8), tmp_path)


def test_a_batch_that_does_not_fall_into_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a batch_size of 8 in 3 parts\n"):
        train(quick_recipe("dcgan_28", "accumulate=3"), quick_data(), tmp_path)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_recipe_between_two_kinds_of_images_wants_two_kinds(tmp_path: Path, classes: int) -> None:
    message = f"{classes} classes of images\nRecipe cyclegan_64 wants a folder with 2 of them"
    with pytest.raises(TrainingError, match=message):
        train(quick_recipe("cyclegan_64"), quick_data(classes=classes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_longer_finite_ends_the_run_and_keeps_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quick_recipe("dcgan_28", "loss=hinge", "snapshot_kimg=0.016")
    train(recipe, quick_data(), tmp_path, minutes=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() >= {"checkpoint.pt", "best.safetensors", QUICK_SNAPSHOT, "stats.jsonl"}
    calls: list[int] = []

    def broken(real: Tensor, fake: Tensor) -> Tensor:
        calls.append(len(calls))
        return (real - fake).mean() / (0 if len(calls) == 2 else 1)

    monkeypatch.setitem(losses.LOSSES, "hinge", Loss(broken, losses.LOSSES["hinge"].generator))
    with pytest.raises(TrainingError) as raised:
        train(recipe, quick_data(), tmp_path)
    assert str(raised.value).startswith("a loss is no longer finite since step 3 (0.0 kimg): {'discriminator_loss': ")
    assert "\nThe checkpoint of step 2 and all snapshots are kept. A lower learning rate" in str(raised.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    train(recipe, quick_data(), tmp_path)
    assert steps(tmp_path) == [2, 4, 6, 8]


# What is shown -------------------------------------------------------------------------------------------------------


def test_an_epoch_shows_every_image_once_with_its_label_and_the_next_in_another_order(tmp_path: Path) -> None:
    data = quick_data(40)
    data.images[:, 7, 7, 0] = np.arange(40)
    shown: list[list[int]] = []

    def look(turn: Turn) -> dict[str, float]:
        assert turn.y is not None
        numbers = ((turn.images[:, 0, 7, 7] + 1) * 127.5).round().int().tolist()
        assert turn.y.tolist() == [data.labels[number] for number in numbers]
        assert turn.y.tolist() == sorted(turn.y.tolist())  # neighbours are of one class
        shown.append(numbers)
        return {"content": 0.0}

    train(watched(quick_recipe("cgan_28", "total_kimg=0.08", "tick_kimg=0.08"), look), data, tmp_path)
    epochs = [[number for batch in half for number in batch] for half in (shown[:5], shown[5:])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 2
    assert {frozenset(batch) for batch in shown[:5]} != {frozenset(batch) for batch in shown[5:]}


@pytest.mark.parametrize("balanced", [True, False])
def test_classes_are_shown_equally_if_that_is_asked_for(balanced: bool, tmp_path: Path) -> None:
    data = dataclasses.replace(quick_data(40), labels=(np.arange(40) < 4).astype(np.int64))
    batches: list[int] = []

    def look(turn: Turn) -> dict[str, float]:
        assert turn.y is not None
        batches.append(int(turn.y.sum()))
        return {"content": 0.0}

    train(
        watched(quick_recipe("cgan_28", f"balanced={balanced}", "total_kimg=0.072", "tick_kimg=1"), look),
        data,
        tmp_path,
    )
    if balanced:
        assert batches == [4] * 9
    else:
        assert sum(batches[:5]) == 4


@pytest.mark.parametrize("flip", [True, False])
def test_half_of_the_images_are_flipped_if_that_is_asked_for(flip: bool, tmp_path: Path) -> None:
    data = quick_data()
    data.images[:, :, :4], data.images[:, :, 4:] = 250, 0
    turned: list[bool] = []

    def look(turn: Turn) -> dict[str, float]:
        left, right = turn.images[:, 0, 0, 0], turn.images[:, 0, 0, 7]
        assert torch.equal(left, -turn.images[:, 0, 3, 4].sign() * left.abs())
        turned.extend((left < right).tolist())
        return {"content": 0.0}

    train(watched(quick_recipe("dcgan_28", f"flip={flip}", "tick_kimg=1"), look), data, tmp_path)
    assert len(turned) == 64
    assert 16 <= sum(turned) <= 48 if flip else sum(turned) == 0


def test_a_recipe_without_labels_trains_on_labelled_images_as_if_they_had_none(tmp_path: Path) -> None:
    seen: list[Turn] = []

    def step(recipe: Recipe, players: Players, turn: Turn) -> dict[str, Tensor]:
        seen.append(turn)
        return adversarial_step(recipe, players, turn)

    recipe = dataclasses.replace(quick_recipe("cgan_28", "conditional=false", "total_kimg=0.016"), step=step)
    train(recipe, quick_data(), tmp_path)
    assert [turn.y for turn in seen] == [None, None]
    trained = load_generator(find_snapshot(tmp_path))
    assert trained.class_names == ()
    assert trained.generator(torch.zeros(3, 4)).shape == (3, 1, 8, 8)
    assert Image.open(tmp_path / "samples-000000.png").size == (80, 80)


def test_images_without_classes_train_a_recipe_that_would_use_them(tmp_path: Path) -> None:
    data = ImageData(quick_data().images, np.zeros(40, np.int64), ())
    train(quick_recipe("cgan_projection_28", "total_kimg=0.016"), data, tmp_path)
    trained = load_generator(find_snapshot(tmp_path))
    assert (trained.class_names, trained.recipe.conditional) == ((), True)
    assert trained.generator(torch.zeros(3, 4)).shape == (3, 1, 8, 8)


# Variation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "few", "on"), [("auto", 41, True), ("auto", 40, False), ("on", 40, True), ("off", 41, False)]
)
def test_few_images_are_varied_unless_the_recipe_says_otherwise(
    setting: str, few: int, on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert augment.FEW == 10_000
    monkeypatch.setattr(augment, "FEW", few)  # there are 40 images
    varied: list[bool] = []

    def look(turn: Turn) -> dict[str, float]:
        varied.append(not torch.equal(turn.augment(turn.images), turn.images))
        return {"real_accuracy": 1.0}

    train(watched(quick_recipe("dcgan_28", f"augment={setting}", "augment_kimg=0.032"), look), quick_data(), tmp_path)
    assert [tick.get("augment_p") for tick in ticks(tmp_path)] == ([0, 0.5, 0.85, 0.85] if on else [None] * 4)
    assert varied == [False] * 2 + [on] * 6


# Looking at it -------------------------------------------------------------------------------------------------------


def test_the_best_snapshot_stays_when_images_get_worse_and_is_the_one_that_is_taken(
    tmp_path: Path, sight: list[tuple[float, float]]
) -> None:
    recipe = quick_recipe("dcgan_28", "snapshot_kimg=0.016")
    sight[:] = [(30.0, 1.0), (10.0, 1.0), (20.0, 1.0)]
    for _ in range(3):
        train(recipe, quick_data(), tmp_path, minutes=0)
    assert [tick["quality"] for tick in ticks(tmp_path)] == [30, 10, 20]
    assert find_snapshot(tmp_path).name == "best.safetensors"
    best = load_generator(find_snapshot(tmp_path))
    assert best.kimg == 0.032
    latest = load_generator(tmp_path / QUICK_SNAPSHOT)
    assert latest.kimg == 0.048
    assert any(
        not torch.equal(mine, theirs)
        for mine, theirs in zip(best.generator.parameters(), latest.generator.parameters(), strict=True)
    )
    sight[:] = [(9.0, 1.0)]
    train(recipe, quick_data(), tmp_path)
    assert load_generator(find_snapshot(tmp_path)).kimg == 0.064


def test_what_is_wrong_with_a_run_is_told_and_written_down(tmp_path: Path, sight: list[tuple[float, float]]) -> None:
    told: list[dict[str, Any]] = []
    sight[:] = [(30.0, 0.9), (30.0, 0.9), (30.0, 0.9), (30.0, 0.1), (20.0, 0.9)]
    train(quick_recipe("dcgan_28", "total_kimg=0.08"), quick_data(), tmp_path, progress=told.append)
    warnings = [tick.get("warning", "") for tick in ticks(tmp_path)]
    assert warnings[3].startswith("mode collapse: generated images vary 10% as much as real ones. Try r1=1")
    assert [bool(text) for text in warnings] == [False, False, False, True, False]
    assert [stats.get("warning", "") for stats in told] == warnings


def test_a_warning_looks_at_ticks_from_before_the_run_was_stopped(
    tmp_path: Path, sight: list[tuple[float, float]]
) -> None:
    sight[:] = [(30.0, 0.1)] * 4
    train(quick_recipe("dcgan_28"), quick_data(), tmp_path, minutes=0)
    train(quick_recipe("dcgan_28"), quick_data(), tmp_path)
    assert ["warning" in tick for tick in ticks(tmp_path)] == [False, False, False, True]


# Checkpoints --------------------------------------------------------------------------------------------------------


def test_images_in_the_order_of_their_classes_train_a_translation_too(tmp_path: Path) -> None:
    data = quick_data()
    order = np.argsort(data.labels, kind="stable")
    sorted_data = dataclasses.replace(data, images=np.tile(data.images[order], (1, 2, 2, 1)), labels=data.labels[order])
    settings = ("image_size=16", "width=2", "blocks=1", "batch_size=4", "total_kimg=0.008", "tick_kimg=0.004")
    train(find_recipe("cyclegan_64").with_overrides([*settings, "snapshot_kimg=0.004"]), sorted_data, tmp_path)
    assert (tmp_path / "best.safetensors").is_file()
    assert all(json.loads(line)["quality"] > 0 for line in (tmp_path / "stats.jsonl").read_text().splitlines())


def test_weights_that_are_not_finite_do_not_get_into_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quick_recipe("dcgan_28")
    train(recipe, quick_data(), tmp_path, minutes=0)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def ruined(recipe: Recipe, players: Players, turn: Turn) -> dict[str, torch.Tensor]:
        figures = adversarial_step(recipe, players, turn)
        for parameter in players.averaged.parameters():
            parameter.fill_(torch.nan)
        return figures

    monkeypatch.setattr("ganrt_training.loop.adversarial_step", ruined)
    with pytest.raises(TrainingError, match=r"averaged generator makes numbers that are not finite .*\n.*are kept"):
        train(recipe, quick_data(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert "NaN" not in (tmp_path / "stats.jsonl").read_text()


@pytest.mark.parametrize(
    "settings", [("conditional=false",), ("balanced=false",), ("accumulate=16",), ("batch_size=16", "accumulate=16")]
)
def test_a_batch_without_one_of_the_two_kinds_is_refused(settings: tuple[str, ...], tmp_path: Path) -> None:
    data = quick_data()
    data = dataclasses.replace(data, images=np.tile(data.images, (1, 2, 2, 1)))
    recipe = find_recipe("cyclegan_64").with_overrides(["image_size=16", *settings])
    with pytest.raises(TrainingError, match="as many of each of the 2 classes"):
        train(recipe, data, tmp_path)


def test_settings_that_a_network_cannot_have_are_refused(tmp_path: Path) -> None:
    for name, setting, message in (
        ("dcgan_28", "path_length=1", "Only StyleGAN2 has it"),
        ("srgan_x2", "image_size=8", "Expected an even 16 or more"),
        ("cyclegan_64", "image_size=8", "Expected 16 or more, by fours"),
    ):
        with pytest.raises(UsageError, match=message):
            make_players(find_recipe(name).with_overrides([setting]), 1, 2, torch.device("cpu"))


@pytest.mark.parametrize("damage", [lambda data: b"nonsense", lambda data: data[:-1000], lambda data: b""])
def test_a_damaged_checkpoint_is_told_and_not_overwritten(finished_run: Path, tmp_path: Path, damage: object) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    checkpoint = run / "checkpoint.pt"
    damaged = damage(checkpoint.read_bytes())  # type: ignore[operator]
    checkpoint.write_bytes(damaged)
    with pytest.raises(TrainingError, match=r"checkpoint.pt: not a checkpoint: .*\nRemove it to start"):
        train(tiny_recipe(), tiny_data(), run)
    assert checkpoint.read_bytes() == damaged


@pytest.mark.parametrize(
    "change",
    [{"step": "many"}, {"generator": {}}, {"augment_p": None}, {"discriminator_optimizer": 3}, {"best": "much"}],
)
def test_a_checkpoint_of_something_else_does_not_fit(
    finished_run: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    save_checkpoint(run / "checkpoint.pt", load_checkpoint(run / "checkpoint.pt") | change)
    with pytest.raises(TrainingError, match="the checkpoint does not fit the recipe"):
        train(tiny_recipe(), tiny_data(), run)


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    checkpoint, trace = tmp_path / "checkpoint.pt", tmp_path / "ran"
    for write in (torch.save, _pickle):
        write({"step": _Runs(trace)}, checkpoint)
        with pytest.raises(TrainingError, match=r"not a checkpoint: it holds Python objects .*\((posix|nt)\.mkdir\)"):
            load_checkpoint(checkpoint)
        assert not trace.exists()


def _pickle(state: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(state, protocol=2))


def test_an_image_size_that_the_generator_cannot_make_is_told() -> None:
    recipe = tiny_recipe("image_size=30")
    with pytest.raises(UsageError, match="image_size is 30\nExpected a multiple of 4"):
        recipe.build(recipe, 1, 2)


# Snapshots -----------------------------------------------------------------------------------------------------------


def test_a_snapshot_gives_back_generator_and_recipe(finished_run: Path) -> None:
    trained = load_generator(finished_run / SNAPSHOT)
    assert trained.recipe == tiny_recipe()
    assert (trained.channels, trained.class_names, trained.kimg) == (1, ("band 0", "band 1", "band 2"), 0.64)
    assert trained.digest == f"sha256:{hashlib.sha256((finished_run / SNAPSHOT).read_bytes()).hexdigest()}"
    images = trained.generator(torch.zeros(2, 4), torch.tensor([0, 2]))
    assert images.shape == (2, 1, 28, 28)
    assert not trained.generator.training


def test_the_best_snapshot_of_a_folder_is_taken_else_the_latest(tmp_path: Path) -> None:
    for name in ("snapshot-000900", "snapshot-001000", "snapshot-000100", "snapshot-best"):
        (tmp_path / f"{name}.safetensors").touch()
    assert find_snapshot(tmp_path).name == "snapshot-001000.safetensors"
    assert find_snapshot(tmp_path / "snapshot-000100.safetensors").name == "snapshot-000100.safetensors"
    (tmp_path / "best.safetensors").touch()
    assert find_snapshot(tmp_path).name == "best.safetensors"


def test_no_snapshot_and_no_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no snapshot-\*.safetensors in it"):
        find_snapshot(tmp_path)
    with pytest.raises(TrainingError, match="none: no such file or folder"):
        find_snapshot(tmp_path / "none")
