"""Real processes killed at random moments; the same command goes on and ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ganrt
from tests import pictures
from tests.datasets import (
    DIVISIBLE,
    LAYOUTS,
    command,
    differences,
    files,
    finished_shards,
    make,
    run,
    slow_model_file,
    start,
    wait_for_shards,
)
from tests.faults.conftest import Tally
from tests.faults.test_kills import note

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

KILLS = int(os.environ.get("KILLS", 40))
N, SHARD = 800, 16  # 50 shards of a few milliseconds each
SIZES = {"shard_size": SHARD, "batch": SHARD}


def wrong(out: Path, whole: Path) -> str | None:
    """In what a dataset is not as it should be."""
    return ", ".join([*differences(out, whole), *(f"{d.name} {d.what}" for d in ganrt.verify(out))]) or None


def wait_for_locks(root: Path) -> None:
    """Returns when nobody writes a dataset: processes whose parent was killed take a moment to end."""
    import fcntl

    ends = time.monotonic() + 60
    for path in root.glob("ganrt*.ledger"):
        with open(path, "rb") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    assert time.monotonic() < ends, f"{path} stays locked"
                    time.sleep(0.02)


def killed(words: Callable[[Path], list[str]], folder: Path, row: str, tally: Tally, kills: int) -> None:
    """Kills a command again and again: mostly while it works, at times at any moment. When it is done, anew."""
    whole, out, moments, began = folder / "whole", folder / "out", random.Random(row), time.monotonic()
    done = run(words(whole))
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - began
    tried = pending = 0
    while tried < kills or pending:
        process = start(words(out))
        if tried < kills:
            if moments.random() < 0.75:
                wait_for_shards(process, out, finished_shards(out) + moments.randrange(1, 8))
                time.sleep(moments.uniform(0, 0.02))
            else:
                time.sleep(moments.uniform(0, seconds))
            process.kill()
        _, complaint = process.communicate(timeout=300)
        if process.returncode == -signal.SIGKILL:
            tried, pending = tried + 1, pending + 1
            wait_for_locks(out)
            continue
        harm = complaint if process.returncode else wrong(out, whole)
        for _ in range(pending):
            note(tally, f"SIGKILL at a random moment: {row}", harm and f"{harm} [{out}]")
        if harm:
            return
        pending = 0
        shutil.rmtree(out)


@pytest.mark.faults
@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_at_random_moments(layout: str, tmp_path: Path, tally: Tally) -> None:
    model = slow_model_file(tmp_path)
    killed(lambda out: command(model, out, N, "--layout", layout, **SIZES), tmp_path, layout, tally, KILLS)


@pytest.mark.faults
def test_a_translation_killed_at_random_moments(tmp_path: Path, tally: Tally) -> None:
    model, images = pictures.slow_translator_file(tmp_path, nodes=300), tmp_path / "in"
    pictures.two_classes(images, 160)
    killed(lambda out: pictures.command(model, images, out), tmp_path, "translate", tally, KILLS)


@pytest.mark.faults
@pytest.mark.parametrize("layout", DIVISIBLE)
def test_two_processes_killed_at_random_moments(layout: str, tmp_path: Path, tally: Tally) -> None:
    # The parent is killed. Its processes see that, and end; until then they hold the locks.
    model, words = slow_model_file(tmp_path), ("--layout", layout, "--processes", "2")
    row = f"two processes, {layout}"
    killed(lambda out: command(model, out, N, *words, **SIZES), tmp_path, row, tally, KILLS // 8)


@pytest.mark.parametrize(
    "layout", [pytest.param(x, marks=[] if x == "webdataset" else pytest.mark.faults) for x in LAYOUTS]
)
def test_many_workers_that_are_killed_leave_nothing_half_made(layout: str, tmp_path: Path, tally: Tally) -> None:
    # 15 shards of four batches each, two or more of them in work at a time.
    model, n, out, whole = slow_model_file(tmp_path), 960, tmp_path / "out", tmp_path / "whole"
    sizes = {"shard_size": 64, "batch": 16}
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
    assert wrong(out, whole) is None
    tally.survived(f"SIGKILL with nine workers: {layout}", 2)


@pytest.mark.faults
@pytest.mark.parametrize("layout", DIVISIBLE)
def test_a_machine_that_is_killed_does_not_harm_the_others(layout: str, tmp_path: Path, tally: Tally) -> None:
    model, out, whole, n = slow_model_file(tmp_path), tmp_path / "out", tmp_path / "whole", 3200
    make(model, whole, n, layout=layout, **SIZES)
    words = [command(model, out, n, "--layout", layout, "--shard", f"{k}/2", **SIZES) for k in (0, 1)]
    killed, other = start(words[0]), start(words[1])
    wait_for_shards(killed, out, 20)
    killed.kill()
    killed.communicate()
    _, said = other.communicate(timeout=300)
    assert (killed.returncode, other.returncode) == (-signal.SIGKILL, 0), said
    assert not (out / "README.md").exists()
    left = run([sys.executable, "-m", "ganrt", "merge", str(out)])
    assert left.returncode == 1 and "--shard 0/2" in left.stderr and "--shard 1/2" not in left.stderr
    assert run(words[0]).returncode == 0
    assert wrong(out, whole) is None and not [path.name for path in files(out) if path.name.endswith(".part")]
    tally.survived(f"SIGKILL of one of two machines: {layout}")
