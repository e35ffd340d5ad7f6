"""A training run is killed, stopped or out of space at any step: the same command ends with the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganrt_training.loop import train
from ganrt_training.report import write_report
from tests.datasets import ROOT, contents, environment
from tests.faults.conftest import Tally
from tests.faults.inject import ERRORS, KILL, KILL_IN_THE_MIDDLE, Fault
from tests.faults.nursery import TRAINING, nursery
from tests.faults.scenarios import Case, forks
from tests.faults.test_kills import note
from tests.faults.test_power_cuts import unsynced
from tests.training.test_loop import NOISY, assert_same, ticks
from tests.training.test_loop import steps as steps_of
from tests.training.tiny import QUICK_SNAPSHOT, quick_data, quick_recipe

pytestmark = forks

RECIPE = ("cgan_28", *["image_size=8", "width=2", "z_dim=4", "batch_size=8", "tick_kimg=0.016", "snapshot_kimg=0.032"])
REAL: dict[str, Any] = {
    "env": environment() | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'training'}", "OMP_NUM_THREADS": "1"},
    **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
}
PASSING = ("seconds", "images_per_second")  # figures of a machine


def command(run: Path, images: Path, kimg: float = 0.032) -> list[str]:
    """Four steps in two ticks, unless said otherwise."""
    return ["train", *RECIPE, f"total_kimg={kimg}", "--data", str(images), "--run-dir", str(run), "--device", "cpu"]


def pictures(folder: Path) -> Path:
    """Images of two classes, of which one has a bright line."""
    draw = np.random.default_rng(0)
    for k in range(16):
        pixels = draw.integers(0, 60, (8, 8), np.uint8)
        pixels[2 * (k % 2)] += 180
        (folder / f"in/{k % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"in/{k % 2}/{k}.png")
    return folder / "in"


def told(data: bytes) -> list[dict[str, Any]]:
    """What a run says of each tick, but for the machine's speed."""
    return [{k: v for k, v in json.loads(line).items() if k not in PASSING} for line in data.splitlines()]


def unlike(run: Path, whole: Path) -> str | None:
    """In what a run's folder is not as that of an uninterrupted one."""
    found, wanted = contents(run), contents(whole)
    if found.keys() != wanted.keys():
        return f"there are {', '.join(sorted(found.keys() ^ wanted.keys()))}"
    if told(found["stats.jsonl"]) != told(wanted["stats.jsonl"]):
        return f"other ticks: {found['stats.jsonl']!r}"
    same = found.keys() - {"stats.jsonl", "checkpoint.pt", "report.html"}  # which tell the machine's speed
    if differing := [name for name in sorted(same) if found[name] != wanted[name]]:
        return f"differs in {', '.join(differing)}"
    (run / "report.html").unlink()
    if write_report(run).read_bytes() != found["report.html"]:
        return "the report is not of these files"
    return None


def training_case(folder: Path) -> Case:
    """A training in a folder of a test. It is run once without faults."""
    images, whole = pictures(folder), folder / "whole"
    ended = nursery(TRAINING).run(command(whole, images), whole)
    assert ended.status == 0, ended.err
    known = contents(whole)

    def half(run: Path) -> str | None:
        for name, data in contents(run).items() if run.is_dir() else ():
            if (
                name.startswith(("snapshot", "samples", "recipe"))
                and not name.endswith(".part")
                and data != known[name]
            ):
                return f"{name} is half made"
        return None

    return Case(
        "training",
        folder,
        lambda run: command(run, images),
        ended.steps,
        half,
        lambda run: unlike(run, whole),
        modules=TRAINING,
    )


def test_faults_at_some_steps(tmp_path: Path, tally: Tally) -> None:
    case = training_case(tmp_path)
    report = len(case.steps) - 1 - case.steps[::-1].index("open of report.html.part")  # the last
    grid = case.steps.index("write of samples-000000.png.part")
    line = case.steps.index("write of stats.jsonl")  # before there is a checkpoint
    chosen = [Fault(number, KILL_IN_THE_MIDDLE) for number in (line, grid)]
    chosen += [Fault(number, KILL) for number in (line + 2, report)]
    for fault in (*chosen, *case.faults("SIGTERM", KILL, "ENOSPC", every=20)):
        what = "SIGKILL" if fault.what.startswith(KILL) else fault.what
        note(tally, f"{what} at some steps: training", case.tried(fault))


def test_a_full_disk_ends_a_training_and_its_checkpoint_is_kept(tmp_path: Path, tally: Tally) -> None:
    images, run = pictures(tmp_path), tmp_path / "run"
    steps = nursery(TRAINING).run(command(tmp_path / "other", images), tmp_path / "other").steps
    full = nursery(TRAINING).run(command(run, images), run, Fault(steps.index("fsync of checkpoint.pt.part"), "ENOSPC"))
    assert (full.status, full.steps, full.out) == (4, ["fsync of checkpoint.pt.part"], "")
    assert full.err.startswith(f"ganrt: no space or inodes left ({run}/checkpoint.pt.part)\n")
    assert full.err.endswith("  Make room and give the same command again; checkpoint and snapshots are kept.\n")
    tally.survived("ENOSPC at some steps: training")


def test_what_a_checkpoint_knows_is_on_the_disk_before_it_is(tmp_path: Path, tally: Tally) -> None:
    images, run = pictures(tmp_path), tmp_path / "run"
    steps = nursery(TRAINING).run(command(run, images), run).steps
    ends = [number for number, step in enumerate(steps) if step == "replace of checkpoint.pt"]
    assert (
        len(ends) == 2 and [unsynced(steps[:end]) for end in ends] == [({"recipe.json"}, set())] * 2
    )  # opened, for its lock
    tally.survived("power cut: training", 2)


@pytest.mark.faults
def test_killed_at_any_step_a_training_ends_as_an_uninterrupted_one(tmp_path: Path, tally: Tally) -> None:
    case = training_case(tmp_path)
    for fault in case.faults(KILL, KILL_IN_THE_MIDDLE):
        note(tally, "SIGKILL at every step: training", case.tried(fault))


@pytest.mark.faults
def test_an_error_or_a_signal_at_any_step_of_a_training(tmp_path: Path, tally: Tally) -> None:
    case = training_case(tmp_path)
    kinds = (*ERRORS, "SIGINT", "SIGTERM", "SIGINT SIGTERM", "SIGTERM SIGTERM")
    for number in range(len(case.steps)):
        what = kinds[number % len(kinds)]
        note(tally, f"{what.replace(' ', ', then ')} at any step: training", case.tried(Fault(number, what)))


@pytest.mark.faults
def test_a_training_with_augmentation_killed_in_the_middle(tmp_path: Path, tally: Tally) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-m", "tests.training.tiny", str(run), *NOISY], cwd=ROOT, **REAL)
    assert process.stdout and process.stdout.readline().strip() == "0.016"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / QUICK_SNAPSHOT).exists() and steps_of(run)[-1] < 8
    torch.set_num_threads(1)
    train(quick_recipe(*NOISY), quick_data(), run)
    assert_same(run, train(quick_recipe(*NOISY), quick_data(), tmp_path / "whole"))
    assert ticks(run)[2]["augment_p"] > 0.5
    tally.survived("SIGKILL at a random moment: training")


@pytest.mark.faults
def test_a_training_killed_at_random_moments(tmp_path: Path, tally: Tally) -> None:
    images, moments = pictures(tmp_path), random.Random("kills of a training")
    words = [sys.executable, "-m", "ganrt", *command(tmp_path / "run", images, kimg=1.6)]
    for _ in range(int(os.environ.get("KILLS", 40)) // 10):
        process = subprocess.Popen(words, **REAL)
        assert process.stderr
        process.stderr.readline()  # of a tick
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    for run in (tmp_path / "run", tmp_path / "whole"):
        ended = nursery(TRAINING).run(command(run, images, kimg=1.6), run)
        assert ended.status == 0, ended.err
    wrong = unlike(tmp_path / "run", tmp_path / "whole")
    for _ in range(int(os.environ.get("KILLS", 40)) // 10):
        note(tally, "SIGKILL at a random moment: training", wrong)
