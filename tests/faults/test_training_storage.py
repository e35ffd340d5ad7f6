"""Training whose disk is full or closed, and two runs on one folder: a typed error; the checkpoint stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ganrt.errors import StorageError, StorageFull, TrainingError
from ganrt_training.checkpoint import load_checkpoint
from ganrt_training.loop import train
from tests.datasets import environment
from tests.faults.conftest import Tally
from tests.faults.mounts import mount, mounted, remount
from tests.faults.runs import bound_by_permissions
from tests.training.tiny import quick_data, quick_recipe

__all__ = ["mounted"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts and signals of Linux")

RECIPE = "dcgan_28"


def weights(run: Path) -> dict[str, Any]:
    """What a run's checkpoint holds, but for how long it took."""
    state = load_checkpoint(run / "checkpoint.pt")
    return {name: value for name, value in state.items() if name != "seconds"}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, list) else bool(a == b)


def child(run: Path, **options: Any) -> subprocess.Popen[str]:
    """A slow run in a process of its own, which tells of each tick."""
    words = [sys.executable, "-m", "tests.training.tiny", str(run), RECIPE]
    path = {"PYTHONPATH": f"{environment()['PYTHONPATH']}:{environment()['PYTHONPATH']}/training"}
    return subprocess.Popen(
        words, env=environment() | path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the runs in processes of their own: with another number sums are not quite the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(quick_recipe(RECIPE), quick_data(), tmp_path_factory.mktemp("whole"))


def test_a_second_run_is_refused(tmp_path: Path, tally: Tally) -> None:
    recipe, told = quick_recipe(RECIPE), list[str]()

    def again(stats: object) -> None:
        with pytest.raises(TrainingError) as error:
            train(recipe, quick_data(), tmp_path / "run")
        told.append(str(error.value))

    train(recipe, quick_data(), tmp_path / "run", progress=again)
    refused = f"another run is training in {tmp_path / 'run'}\nWait for it, or stop it, or name another --run-dir."
    assert told == [refused] * 4
    tally.survived("second run refused, train", 4)


@pytest.mark.faults
def test_a_second_run_is_refused_while_the_first_lives_and_not_after(whole: Path, tmp_path: Path, tally: Tally) -> None:
    first = child(tmp_path / "run")
    assert first.stdout
    try:
        assert first.stdout.readline(), first.communicate()[1]  # a tick is over
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(TrainingError, match="another run is training in"):
            train(quick_recipe(RECIPE), quick_data(), tmp_path / "run")
        tally.survived("second run refused, train")
    finally:
        first.kill()
        first.communicate()
    train(quick_recipe(RECIPE), quick_data(), tmp_path / "run")
    assert equal(weights(tmp_path / "run"), weights(whole))
    tally.survived("second run after kill -9 of the first, train")


@pytest.mark.parametrize("size", [pytest.param(k, marks=pytest.mark.faults) for k in (4, 8, 16, 24, 36, 48, 60)])
def test_a_full_disk(size: int, mounted: Path | None, whole: Path, tmp_path: Path, tally: Tally) -> None:
    if mounted is not None:
        assert mount(mounted, f"size={size}k")
        run = mounted / "run"
        with pytest.raises(StorageFull) as error:
            train(quick_recipe(RECIPE), quick_data(), run)
        assert error.value.message.startswith("no space or inodes left")
        assert error.value.hint == "Make room and give the same command again; checkpoint and snapshots are kept."
        remount(mounted, "size=64m")
        train(quick_recipe(RECIPE), quick_data(), run)
        assert equal(weights(run), weights(whole))
        assert not list(run.glob("*.part"))
        assert len((run / "stats.jsonl").read_text().splitlines()) == 4
    tally.survived("full disk, train")


@pytest.mark.faults
def test_a_read_only_file_system(mounted: Path | None, tally: Tally) -> None:
    if mounted is not None:
        assert mount(mounted, "size=1m,ro")
        with pytest.raises(StorageError, match=r"Read-only file system(.|\n)*not read-only"):
            train(quick_recipe(RECIPE), quick_data(), mounted / "run")
    tally.survived("read-only file system, train")


@pytest.mark.faults
def test_permission_that_is_lost_in_the_middle(whole: Path, tmp_path: Path, tally: Tally) -> None:
    run = tmp_path / "run"
    process = child(run, preexec_fn=bound_by_permissions)
    assert process.stdout and process.stdout.readline()
    run.chmod(0o555)
    _, complaint = process.communicate(timeout=120)
    run.chmod(0o755)
    assert process.returncode == 1 and "StorageError: cannot read or write: Permission denied" in complaint, complaint
    train(quick_recipe(RECIPE), quick_data(), run)
    assert equal(weights(run), weights(whole))
    tally.survived("permission lost in the middle, train")


@pytest.mark.faults
def test_a_run_folder_that_is_removed_in_the_middle(whole: Path, tmp_path: Path, tally: Tally) -> None:
    import shutil

    run = tmp_path / "run"
    with pytest.raises(StorageError, match="No such file or directory"):
        train(quick_recipe(RECIPE), quick_data(), run, progress=lambda told: shutil.rmtree(run))
    assert not run.exists()
    train(quick_recipe(RECIPE), quick_data(), run)
    assert equal(weights(run), weights(whole))
    tally.survived("folder removed in the middle, train")
