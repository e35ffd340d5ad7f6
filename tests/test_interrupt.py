"""Real processes, killed and interrupted: the same command goes on and ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ganrt
from ganrt.errors import DatasetLocked
from tests.datasets import (
    DIVISIBLE,
    LAYOUTS,
    command,
    contents,
    differences,
    files,
    finished_shards,
    make,
    run,
    slow_model_file,
    start,
    stubborn_model_file,
    wait_for_shards,
    wait_for_work,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
N, SHARD = 3200, 16  # 200 shards of a few milliseconds each


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slow_model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What uninterrupted runs write. Only to be read."""
    root = tmp_path_factory.mktemp("whole")
    for layout in LAYOUTS:
        make(model, root / layout, N, layout=layout, shard_size=SHARD, batch=SHARD)
    return {layout: root / layout for layout in LAYOUTS}


def of(model: Path, out: Path, layout: str, *words: str) -> list[str]:
    return command(model, out, N, "--layout", layout, *words, shard_size=SHARD, batch=SHARD)


# Killed.


@every_layout
def test_killed_ten_times_a_run_ends_as_if_it_never_was(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out, moments = tmp_path / "out", random.Random(f"kills of {layout}")
    counts: list[int] = []
    for _ in range(10):
        process = start(of(model, out, layout))
        # A few shards on from where the last one died, and then anywhere within a shard or two.
        wait_for_shards(process, out, (counts[-1] if counts else 0) + moments.randrange(1, 12))
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
        counts.append(finished_shards(out))
        assert not (out / "README.md").exists()
    assert counts == sorted(counts) and len(set(counts)) > 5 and counts[-1] < N // SHARD
    done = run([*of(model, out, layout), "--json"])
    assert done.returncode == 0, done.stderr
    assert differences(out, whole[layout]) == []
    assert not [path.name for path in files(out) if path.name.endswith(".part")]
    assert ganrt.verify(out) == []


@every_layout
def test_many_workers_that_are_killed_leave_nothing_half_made(layout: str, model: Path, tmp_path: Path) -> None:
    # 15 shards of four batches each, two or more of them in work at a time.
    n, out, whole, sizes = 960, tmp_path / "out", tmp_path / "whole", {"shard_size": 64, "batch": 16}
    make(model, whole, n, layout=layout, workers=1, **sizes)
    words = command(model, out, n, "--layout", layout, "--workers", "9", **sizes)
    counts = [0]
    for more in (1, 4):
        process = start(words)
        wait_for_shards(process, out, counts[-1] + more)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
        counts.append(finished_shards(out))
        assert not (out / "README.md").exists()
        if layout == "webdataset":
            there = {path.name for path in out.glob("*.tar")}
            assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in there)
            assert len(there) >= counts[-1]
    assert 0 < counts[1] < counts[2] < 15
    done = run([*words, "--json"])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["already"], report["workers"], report["threads"]) == (64 * counts[-1], 9, 1)
    assert differences(out, whole) == []
    assert not [path.name for path in files(out) if path.name.endswith(".part")]
    assert ganrt.verify(out) == []


@pytest.mark.parametrize("layout", DIVISIBLE)
def test_a_machine_that_is_killed_does_not_harm_the_others(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed, other = start(of(model, out, layout, "--shard", "0/2")), start(of(model, out, layout, "--shard", "1/2"))
    wait_for_shards(killed, out, 20)
    killed.kill()
    killed.communicate()
    _, said = other.communicate(timeout=300)
    assert (killed.returncode, other.returncode) == (-signal.SIGKILL, 0), said
    assert not (out / "README.md").exists()
    left = merge(out)
    assert left.returncode == 1 and "--shard 0/2" in left.stderr and "--shard 1/2" not in left.stderr
    assert run(of(model, out, layout, "--shard", "0/2")).returncode == 0
    assert differences(out, whole[layout]) == []


def merge(out: Path) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "ganrt", "merge", str(out)])


# Interrupted.


@every_layout
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_soon_and_says_how_to_go_on(
    layout: str, number: signal.Signals, status: int, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(of(model, out, layout))
    wait_for_shards(process, out, 5)
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
    done = run(of(model, out, layout))
    assert done.returncode == 0 and "were there already" in done.stdout
    assert differences(out, whole[layout]) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_run_in_the_middle_of_a_long_call_ends_at_once(
    signals: int, number: signal.Signals, status: int, tmp_path: Path
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


EARLY = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
class Finder:
    def find_spec(self, name, *_):
        if name == "ganrt.generation":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from ganrt.cli import main
main()
"""


def test_an_interrupt_before_the_run_began_is_one_too(model: Path, tmp_path: Path) -> None:
    done = run([sys.executable, "-c", EARLY, *of(model, tmp_path / "out", "folder")[3:]])
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_worker_process_that_is_stopped_keeps_the_lock(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(of(model, out, "webdataset"))
    try:
        wait_for_shards(process, out, 2)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(DatasetLocked):
            make(model, out, N, layout="webdataset", shard_size=SHARD, batch=SHARD)
        assert "README.md" not in contents(out)
    finally:
        process.kill()
        process.communicate()
