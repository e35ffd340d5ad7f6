"""Run folders of training that are damaged, mixed up or tampered with: each is named, nothing written over."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ganrt.errors import GanrtError, TrainingError
from ganrt_training.checkpoint import load_checkpoint, load_snapshot, save_checkpoint
from ganrt_training.export import export_run
from ganrt_training.loop import train
from tests.datasets import contents
from tests.faults.conftest import Tally
from tests.training.tiny import QUICK_SNAPSHOT, quick_data, quick_recipe

CHECKPOINT = "checkpoint.pt"


@pytest.fixture(scope="module")
def half_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after half of it."""
    folder = tmp_path_factory.mktemp("runs") / "half"
    train(quick_recipe("mlp_28"), quick_data(), folder, minutes=0)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(quick_recipe("mlp_28"), quick_data(), folder)


def refused(tally: Tally, row: str, run: Path, names: str, what: str = "") -> None:
    """Going on with a run is a typed error that names the file, and leaves all of it as it is."""
    before = contents(run)
    try:
        train(quick_recipe("mlp_28"), quick_data(), run)
    except GanrtError as error:
        if names not in error.message:
            tally.lost(row, f"{what}: names no {names}: {error}")
        elif contents(run) != before:
            tally.lost(row, f"{what}: something was written")
        else:
            tally.survived(row)
    except Exception as error:
        tally.lost(row, f"{what}: {type(error).__name__}: {error}")
    else:
        tally.lost(row, f"{what}: it went on")


def copied(run: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(run, to))


@pytest.mark.parametrize("times", [12, pytest.param(150, marks=pytest.mark.faults)])
def test_a_checkpoint_that_is_cut_or_changed_is_named(times: int, half_run: Path, tally: Tally, tmp_path: Path) -> None:
    data = (half_run / CHECKPOINT).read_bytes()
    draws = random.Random(0)
    run = copied(half_run, tmp_path / "run")
    for _ in range(times):
        cut = draws.randrange(len(data))
        (run / CHECKPOINT).write_bytes(data[:cut])
        refused(tally, "cut checkpoint of a run", run, CHECKPOINT, f"at {cut}")
    # Of a zip's directory some bytes have no meaning: with them the checkpoint is the same.
    state = load_checkpoint(half_run / CHECKPOINT)
    for _ in range(times):
        at = draws.randrange(len(data))
        (run / CHECKPOINT).write_bytes(data[:at] + bytes([data[at] ^ 1 << draws.randrange(8)]) + data[at + 1 :])
        try:
            same = _equal(load_checkpoint(run / CHECKPOINT), state)
        except TrainingError as error:
            assert CHECKPOINT in error.message
            tally.survived("flipped bit in a checkpoint of a run")
        else:
            if same:
                tally.survived("flipped bit in a checkpoint of a run")
            else:
                tally.lost("flipped bit in a checkpoint of a run", f"at {at}: other numbers were read")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("times", [12, pytest.param(150, marks=pytest.mark.faults)])
def test_a_snapshot_that_is_cut_or_changed_is_named(times: int, finished: Path, tally: Tally, tmp_path: Path) -> None:
    data = (finished / QUICK_SNAPSHOT).read_bytes()
    right, about = load_snapshot(finished / QUICK_SNAPSHOT)
    draws, path = random.Random(0), tmp_path / "s.safetensors"
    header = 8 + int.from_bytes(data[:8], "little")
    for number in range(times):
        # Half of the flips in the header, which is a hundredth of the file.
        at = draws.randrange(header if number % 2 else len(data))
        for row, broken in (
            ("cut snapshot of a run", data[:at]),
            (
                "flipped bit in a snapshot of a run",
                data[:at] + bytes([data[at] ^ 1 << draws.randrange(8)]) + data[at + 1 :],
            ),
        ):
            path.write_bytes(broken)
            try:
                export_run(path, tmp_path / "x.onnx")
            except TrainingError as error:
                if str(path) in error.message or "recipe" in error.message:
                    tally.survived(row)
                else:
                    tally.lost(row, f"at {at}: {error}")
            except Exception as error:
                tally.lost(row, f"at {at}: {type(error).__name__}: {error}")
            else:
                weights, metadata = load_snapshot(path)
                said = {key: v for key, v in json.loads(metadata["run"]).items() if key in json.loads(about["run"])}
                if _equal(weights, right) and said.items() <= json.loads(about["run"]).items():
                    tally.survived(row)  # the name of the digest itself was changed
                else:
                    tally.lost(row, f"at {at}: it was exported")


def state_with(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def make(run: Path) -> None:
        state = load_checkpoint(run / CHECKPOINT)
        change(state)
        save_checkpoint(run / CHECKPOINT, state)

    return make


def kept(state: dict[str, Any]) -> dict[str, Any]:
    """What the generator's optimizer keeps of its first parameter."""
    found: dict[str, Any] = state["generator_optimizer"]["state"][0]
    return found


def file_with(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(data)


def replaced_by(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return change


ROW, MIXED = "run folder that was changed", "run folder with another's checkpoint"
RECIPE, STATS = "recipe.json", "stats.jsonl"
CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "step below zero": (state_with(lambda s: s.update(step=-5)), CHECKPOINT),
    "step without end": (state_with(lambda s: s.update(step=float("inf"))), CHECKPOINT),
    "best is no number": (state_with(lambda s: s.update(best=float("nan"))), CHECKPOINT),
    "probability of nine": (state_with(lambda s: s.update(augment_p=9.0)), CHECKPOINT),
    "negative time": (state_with(lambda s: s.update(seconds=-1.0)), CHECKPOINT),
    "no generator": (state_with(lambda s: s.pop("generator")), CHECKPOINT),
    "optimizer of another shape": (state_with(lambda s: kept(s).update(exp_avg=torch.zeros(3))), CHECKPOINT),
    "optimizer of vast shape": (
        state_with(lambda s: kept(s).update(exp_avg=torch.zeros(1, dtype=torch.int8).expand(1 << 25))), CHECKPOINT),
    "optimizer without a mean": (state_with(lambda s: kept(s).pop("exp_avg")), CHECKPOINT),
    "optimizer of text": (state_with(lambda s: kept(s).update(exp_avg="x")), CHECKPOINT),
    "optimizer of no such parameter": (
        state_with(lambda s: s["generator_optimizer"]["state"].update({999: kept(s)})), CHECKPOINT),
    "optimizer with other betas": (
        state_with(lambda s: s["generator_optimizer"]["param_groups"][0].update(betas="x")), CHECKPOINT),
    "optimizer without groups": (state_with(lambda s: s["generator_optimizer"].update(param_groups=[])), CHECKPOINT),
    "a list for a state": (lambda run: torch.save([1, 2], run / CHECKPOINT), CHECKPOINT),
    "a network for a state": (lambda run: torch.save(torch.nn.Linear(1, 1), run / CHECKPOINT), CHECKPOINT),
    "a snapshot for a checkpoint": (lambda run: shutil.copy(run / "best.safetensors", run / CHECKPOINT), CHECKPOINT),
    "a folder for a recipe": (replaced_by(RECIPE, Path.mkdir), RECIPE),
    "a recipe of other bytes": (file_with(RECIPE, b"\xff\xfe\xfd"), RECIPE),
    "a recipe that is cut": (lambda run: os.truncate(run / RECIPE, 50), RECIPE),
    "a recipe that is empty": (file_with(RECIPE, b""), RECIPE),
    "a recipe nested deeply": (file_with(RECIPE, b"[" * 100_000), RECIPE),
    "a recipe that is a list": (file_with(RECIPE, b"[1]"), RECIPE),
    "another seed": (lambda run: (run / RECIPE).write_text(
        (run / RECIPE).read_text().replace('"seed": 0', '"seed": 1')), "seed"),
    "statistics of other bytes": (file_with(STATS, b"\xff\xfe\n"), STATS),
    "statistics of lists": (file_with(STATS, b"[1]\n"), STATS),
    "statistics without a step": (file_with(STATS, b"{}\n"), STATS),
    "statistics of text": (file_with(STATS, b'{"step": "1"}\n'), STATS),
    "statistics with a figure of text": (file_with(STATS, b'{"step": 1, "quality": "good"}\n'), STATS),
    "statistics nested deeply": (file_with(STATS, b"[" * 100_000 + b"\n"), STATS),
    "a folder for statistics": (replaced_by(STATS, Path.mkdir), STATS),
}  # fmt: skip


def test_a_run_folder_that_was_changed_is_told_and_left_as_it_is(half_run: Path, tally: Tally, tmp_path: Path) -> None:
    for what, (change, names) in CHANGES.items():
        run = copied(half_run, tmp_path / "run")
        change(run)
        refused(tally, ROW, run, names, what)


@pytest.mark.parametrize(
    "recipe", ["mlp_28", *(pytest.param(name, marks=pytest.mark.faults) for name in ("dcgan_28", "wgan_28"))]
)
def test_the_checkpoint_of_another_run_is_told(recipe: str, half_run: Path, tally: Tally, tmp_path: Path) -> None:
    train(quick_recipe(recipe, "width=3"), quick_data(), tmp_path / "other", minutes=0)
    run = copied(half_run, tmp_path / "run")
    shutil.copy(tmp_path / "other" / CHECKPOINT, run / CHECKPOINT)
    refused(tally, MIXED, run, CHECKPOINT, recipe)


@pytest.mark.faults
def test_what_only_the_report_needs_may_be_missing_or_broken(half_run: Path, tally: Tally, tmp_path: Path) -> None:
    for what in (STATS, "report.html", "best.safetensors"):
        run = copied(half_run, tmp_path / "run")
        (run / what).unlink(missing_ok=True)
        assert train(quick_recipe("mlp_28"), quick_data(), run) == run
        tally.survived("run folder that lacks a file")
    run = copied(half_run, tmp_path / "run")
    (run / CHECKPOINT).unlink()  # it begins again
    train(quick_recipe("mlp_28"), quick_data(), run)
    assert json.loads((run / STATS).read_text().splitlines()[-1])["step"] == 8
    assert load_snapshot(run / QUICK_SNAPSHOT)
    tally.survived("run folder that lacks a file")
