from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganrt.errors import TrainingError, UsageError
from ganrt_training.checkpoint import find_snapshot, load_checkpoint, load_generator, save_checkpoint
from ganrt_training.gans import find_recipe
from ganrt_training.layers import group_deviation
from ganrt_training.loop import _players, to_float, train
from ganrt_training.losses import Loss
from ganrt_training.recipe import Recipe
from ganrt_training.step import Players, adversarial_step
from tests.training.tiny import SNAPSHOT, tiny_data, tiny_recipe

REPOSITORY = Path(__file__).parents[2]


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "stats.jsonl").read_text().splitlines()]


# A step --------------------------------------------------------------------------------------------------------------


def players_of(recipe: Recipe) -> tuple[Players, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    data = tiny_data(recipe.batch_size)
    players = _players(recipe, 1, len(data.class_names), "cpu")
    return players, to_float(torch.from_numpy(data.images)), torch.from_numpy(data.labels)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_step_changes_every_parameter_and_moves_the_average_towards_the_generator(precision: str) -> None:
    recipe = tiny_recipe(f"precision={precision}")
    players, images, y = players_of(recipe)
    networks = {"generator": players.generator, "discriminator": players.discriminator}
    before = {(n, name): p.detach().clone() for n, net in networks.items() for name, p in net.named_parameters()}
    adversarial_step(recipe, players, images, y, lambda count: torch.randn(count, recipe.z_dim), 0.75)
    after = {(n, name): p.detach() for n, net in networks.items() for name, p in net.named_parameters()}
    assert [key for key in before if torch.equal(before[key], after[key])] == []
    for name, averaged in players.averaged.named_parameters():
        expected = 0.75 * before["generator", name] + 0.25 * after["generator", name]
        torch.testing.assert_close(averaged, expected)


def test_the_discriminator_learns_to_tell_and_then_the_generator_to_fool_it() -> None:
    recipe = tiny_recipe("lr_generator=0", "lr_discriminator=0.01")
    players, images, y = players_of(recipe)
    z = torch.randn(recipe.batch_size, recipe.z_dim)

    def step() -> dict[str, float]:
        figures = adversarial_step(recipe, players, images, y, lambda count: z, recipe.ema_decay)
        return {name: float(value) for name, value in figures.items()}

    first = step()
    for _ in range(60):
        told = step()
    assert told["discriminator_loss"] < 0.5 < first["discriminator_loss"]
    assert (told["real_accuracy"], told["fake_accuracy"]) == (1, 1)

    players.discriminator_optimizer.param_groups[0]["lr"] = 0
    players.generator_optimizer.param_groups[0]["lr"] = 0.01
    for _ in range(60):
        fooled = step()
    assert fooled["generator_loss"] < told["generator_loss"] - 0.5
    assert fooled["fake_accuracy"] < 0.5


# A run ---------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_folder_that_explains_itself(finished_run: Path) -> None:
    expected = {"recipe.json", "stats.jsonl", "checkpoint.pt", SNAPSHOT, "samples-000001.png"}
    assert {path.name for path in finished_run.iterdir()} == expected
    about = json.loads((finished_run / "recipe.json").read_text())
    assert about["recipe"] == tiny_recipe().settings()
    assert about["class_names"] == ["band 0", "band 1", "band 2"]
    assert steps(finished_run) == [10, 20, 30, 40]
    assert Image.open(finished_run / "samples-000001.png").size == (10 * 28, 3 * 28)


def test_a_run_stopped_at_every_tick_ends_as_an_uninterrupted_one(finished_run: Path, tmp_path: Path) -> None:
    for done in (10, 20, 30, 40):
        assert not (tmp_path / "run" / SNAPSHOT).exists()
        train(tiny_recipe(), tiny_data(), tmp_path / "run", minutes=0)
        assert steps(tmp_path / "run")[-1] == done
    assert (tmp_path / "run" / SNAPSHOT).read_bytes() == (finished_run / SNAPSHOT).read_bytes()
    assert steps(tmp_path / "run") == steps(finished_run)


def test_a_run_killed_in_the_middle_ends_as_an_uninterrupted_one(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "training")])}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.training.tiny", str(run)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "0.16"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not (run / SNAPSHOT).exists()
    train(tiny_recipe(), tiny_data(), run)
    assert (run / SNAPSHOT).read_bytes() == (finished_run / SNAPSHOT).read_bytes()
    assert steps(run) == steps(finished_run)
    assert not list(run.glob("*.part"))


def test_statistics_written_after_the_last_checkpoint_are_dropped(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_recipe(), tiny_data(), run, minutes=0)
    with open(run / "stats.jsonl", "a") as file:
        file.write('{"step": 20}\n{"step": 3')
    train(tiny_recipe(), tiny_data(), run)
    assert steps(run) == steps(finished_run)


def test_a_finished_run_is_left_as_it_is(finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    train(tiny_recipe(), tiny_data(), run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_another_run_in_the_same_folder_is_refused_with_what_differs(finished_run: Path) -> None:
    with pytest.raises(TrainingError, match="holds another run: it differs in seed, width, z_dim\nName another --run"):
        train(tiny_recipe("width=3", "z_dim=5"), tiny_data(), finished_run, seed=1)
    with pytest.raises(TrainingError, match="it differs in class_names"):
        train(tiny_recipe(), tiny_data(classes=2), finished_run)


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


def test_a_loss_that_is_no_longer_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    train(recipe, tiny_data(), tmp_path, minutes=0)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    broken = Loss("hinge", lambda real, fake: (real - fake).mean() / 0, recipe.loss.generator)
    with pytest.raises(TrainingError, match=r"no longer finite at 0.3 kimg.*\n.*last checkpoint"):
        train(dataclasses.replace(recipe, loss=broken), tiny_data(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


# Checkpoints and recipes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lambda data: b"nonsense", lambda data: data[:-1000], lambda data: b""])
def test_a_damaged_checkpoint_is_told_and_not_overwritten(finished_run: Path, tmp_path: Path, damage: object) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    checkpoint = run / "checkpoint.pt"
    damaged = damage(checkpoint.read_bytes())  # type: ignore[operator]
    checkpoint.write_bytes(damaged)
    with pytest.raises(TrainingError, match=r"checkpoint.pt: not a checkpoint: .*\nRemove it to start"):
        train(tiny_recipe(), tiny_data(), run)
    assert checkpoint.read_bytes() == damaged


@pytest.mark.parametrize("change", [{"step": "many"}, {"generator": {}}, {"draws": torch.zeros(3)}])
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
        with pytest.raises(TrainingError, match="not a checkpoint: UnpicklingError"):
            load_checkpoint(checkpoint)
        assert not trace.exists()


def _pickle(state: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(state, protocol=2))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=1", "'lr=1' is not a setting of recipe cgan_projection_28\nWrite key=value with one of: batch_size,"),
        ("width", "'width' is not a setting"),
        ("width=big", "width='big': int expected\nThe recipe has width=32"),
        ("width=0", "width is 0\nExpected a number of 1 to 16384"),
        ("total_kimg=nan", "total_kimg is nan"),
        ("precision=fp16", "precision is 'fp16'\nExpected bf16 or fp32"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_told(override: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        find_recipe("cgan_projection_28").with_overrides([override])
    assert message in str(raised.value)


def test_an_image_size_that_the_generator_cannot_make_is_told() -> None:
    recipe = tiny_recipe("image_size=30")
    with pytest.raises(UsageError, match="image_size is 30\nExpected a multiple of 4"):
        recipe.build(recipe, 1, 2)


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="no recipe named 'dcgan'\nThere are: cgan_projection_28"):
        find_recipe("dcgan")


# Snapshots -----------------------------------------------------------------------------------------------------------


def test_a_snapshot_gives_back_generator_and_recipe(finished_run: Path) -> None:
    trained = load_generator(find_snapshot(finished_run))
    assert trained.recipe == tiny_recipe()
    assert (trained.channels, trained.class_names, trained.kimg) == (1, ("band 0", "band 1", "band 2"), 0.64)
    assert trained.digest == f"sha256:{hashlib.sha256((finished_run / SNAPSHOT).read_bytes()).hexdigest()}"
    images = trained.generator(torch.zeros(2, 4), torch.tensor([0, 2]))
    assert images.shape == (2, 1, 28, 28)
    assert not trained.generator.training


def test_the_latest_snapshot_of_a_folder_is_taken(tmp_path: Path) -> None:
    for name in ("snapshot-000900", "snapshot-001000", "snapshot-000100", "snapshot-best"):
        (tmp_path / f"{name}.safetensors").touch()
    assert find_snapshot(tmp_path).name == "snapshot-001000.safetensors"


def test_no_snapshot_and_no_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no snapshot-\*.safetensors in it"):
        find_snapshot(tmp_path)
    with pytest.raises(TrainingError, match="none: no such file or folder"):
        find_snapshot(tmp_path / "none")


def test_groups_without_variety_are_told_from_groups_with_it() -> None:
    varied = torch.randn(8, 3, 5, 5)
    same = varied[::4].repeat_interleave(4, dim=0)
    deviation = group_deviation(torch.cat([varied, same]), 4)
    assert deviation.shape == (16, 1, 5, 5)
    assert deviation[:8].mean() > 0.5
    assert deviation[8:].max() < 1e-3
    expected = varied[4:].var(dim=0, unbiased=False).sqrt().mean(dim=0)
    torch.testing.assert_close(deviation[5, 0], expected, atol=1e-4, rtol=1e-4)


def test_a_batch_that_does_not_fall_into_groups_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size is 10\n?.*multiple of 4"):
        _players(tiny_recipe("batch_size=10"), 1, 3, "cpu")
