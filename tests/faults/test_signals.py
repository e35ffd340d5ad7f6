"""SIGINT and SIGTERM, once and twice, at any step: the exit code, how to go on, and the same bytes in the end."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.datasets import (
    command,
    differences,
    files,
    make,
    run,
    slow_model_file,
    start,
    stubborn_model_file,
    wait_for_shards,
    wait_for_work,
)
from tests.faults.conftest import Tally
from tests.faults.scenarios import SCENARIOS, Scenario, dataset_case, forks
from tests.faults.test_kills import note

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

ONCE, TWICE = ("SIGINT", "SIGTERM"), ("SIGINT SIGINT", "SIGTERM SIGTERM", "SIGINT SIGTERM")
MADE = [scenario for scenario in SCENARIOS if scenario.name.startswith(("generate", "translate"))]
N, SHARD = 1600, 16


@forks
def test_a_signal_at_some_steps(tmp_path: Path, tally: Tally) -> None:
    signals(MADE[0], tmp_path, tally, every=13)


@forks
@pytest.mark.faults
@pytest.mark.parametrize("scenario", MADE, ids=lambda scenario: scenario.name)
def test_a_signal_at_many_steps(scenario: Scenario, tmp_path: Path, tally: Tally) -> None:
    signals(scenario, tmp_path, tally, every=7)


def signals(scenario: Scenario, folder: Path, tally: Tally, every: int) -> None:
    case = dataset_case(scenario, folder)
    for fault in case.faults(*ONCE, *TWICE, every=every):
        row = fault.what.split()[0] + (", and again while it is handled" if fault.what in TWICE else " at a step")
        note(tally, f"{row}: {scenario.name.partition(',')[0]}", case.tried(fault))


# Real processes.


@pytest.mark.parametrize(
    ("layout", "number", "status"),
    [
        ("webdataset", signal.SIGTERM, 143),
        pytest.param("webdataset", signal.SIGINT, 130, marks=pytest.mark.faults),
        pytest.param("folder", signal.SIGINT, 130, marks=pytest.mark.faults),
        pytest.param("npy", signal.SIGTERM, 143, marks=pytest.mark.faults),
    ],
)
def test_a_signal_ends_the_run_soon_and_says_how_to_go_on(
    layout: str, number: signal.Signals, status: int, tmp_path: Path, tally: Tally
) -> None:
    model, out, sizes = slow_model_file(tmp_path), tmp_path / "out", {"shard_size": SHARD, "batch": SHARD}
    words = command(model, out, N, "--layout", layout, **sizes)
    process = start(words)
    wait_for_shards(process, out, random.randrange(2, 12))
    sent = time.monotonic()
    process.send_signal(number)
    said, complaint = process.communicate(timeout=30)
    assert time.monotonic() - sent < 2
    assert process.returncode == status
    assert said == "" and "Traceback" not in complaint
    assert "images are finished and kept; the same command goes on from there" in complaint
    assert not (out / "README.md").exists()
    if layout != "npy":
        assert not [path.name for path in files(out) if path.name.endswith(".part")]
    done = run(words)
    assert done.returncode == 0 and "were there already" in done.stdout
    make(model, tmp_path / "whole", N, layout=layout, **sizes)
    assert differences(out, tmp_path / "whole") == []
    tally.survived(f"{number.name} of a real process, {layout}")


@pytest.mark.faults
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_run_in_the_middle_of_a_long_call_ends_at_once(
    signals: int, number: signal.Signals, status: int, tmp_path: Path, tally: Tally
) -> None:
    # One call of the network takes longer than two seconds and cannot be left: the second signal does not wait for
    # it, and the first not for long.
    model, out = stubborn_model_file(tmp_path), tmp_path / "out"
    process = start(command(model, out, 65536, "--layout", "npy", shard_size=65536, batch=65536))
    wait_for_work(process, out)
    time.sleep(0.2)
    for _ in range(signals):
        sent = time.monotonic()
        process.send_signal(number)
        time.sleep(0.1)
    _, complaint = process.communicate(timeout=30)
    assert time.monotonic() - sent < (2 if signals == 1 else 1.2)
    assert process.returncode == status
    assert "ended at once; the same command goes on from what is finished" in complaint
    tally.survived(f"{number.name} {['once', 'twice'][signals - 1]} in a call of the network that cannot be left")
