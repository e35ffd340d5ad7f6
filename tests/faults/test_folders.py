"""A dataset's folder that is removed, moved, replaced or fought for while a run writes it; a clock that jumps."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import ganrt
from ganrt.errors import DatasetLocked, StorageError
from tests.datasets import DIVISIBLE, LAYOUTS, contents, differences, folders, marks, run, start, wait_for_shards
from tests.faults.conftest import Tally
from tests.faults.runs import KINDS, Runs, every_kind_and_layout, few_fast, once, prepared

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be moved there")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runs]:
    return {kind: prepared(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def whole(slow: dict[str, Runs], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """What runs write to which nothing happens, as far as tests ask for it. Only to be read."""

    class Made(dict[tuple[str, str], Path]):
        def __missing__(self, key: tuple[str, str]) -> Path:
            self[key] = tmp_path_factory.mktemp("whole") / "out"
            slow[key[0]].make(self[key], key[1])
            return self[key]

    return Made()


def refused(error: StorageError, out: Path) -> None:
    assert error.message.startswith(f"{out} is not the folder any more that this run began to write: ")
    assert error.hint and "what was finished is kept" in error.hint
    assert not getattr(error, "__notes__", [])  # that images are kept: nobody knows


@every_kind_and_layout
def test_a_folder_that_is_removed_in_the_middle(
    kind: str, layout: str, slow: dict[str, Runs], whole: dict[tuple[str, str], Path], tmp_path: Path, tally: Tally
) -> None:
    runs, out = slow[kind], tmp_path / "out"

    def remove() -> None:
        while out.exists():
            shutil.rmtree(out, ignore_errors=True)

    with pytest.raises(StorageError) as error:
        runs.make(out, layout, progress=once(remove))
    refused(error.value, out)
    assert not out.exists()
    assert runs.make(out, layout).complete
    assert differences(out, whole[kind, layout]) == []
    tally.survived(f"folder removed in the middle, {kind}, {layout}")


@every_kind_and_layout
def test_a_folder_that_is_replaced_by_an_empty_one(
    kind: str, layout: str, slow: dict[str, Runs], whole: dict[tuple[str, str], Path], tmp_path: Path, tally: Tally
) -> None:
    runs, out, moved = slow[kind], tmp_path / "out", tmp_path / "moved"

    def replace() -> None:
        out.rename(moved)
        out.mkdir()

    with pytest.raises(StorageError) as error:
        runs.make(out, layout, progress=once(replace))
    refused(error.value, out)
    assert contents(out) == {} and folders(out) == set()
    assert not (moved / "README.md").exists()
    report = runs.make(moved, layout)  # where it is now
    assert report.complete and report.already > 0
    assert differences(moved, whole[kind, layout]) == []
    assert ganrt.verify(moved) == []
    tally.survived(f"folder replaced by an empty one, {kind}, {layout}")


@every_kind_and_layout
def test_a_folder_that_is_replaced_by_another_dataset(
    kind: str, layout: str, slow: dict[str, Runs], whole: dict[tuple[str, str], Path], tmp_path: Path, tally: Tally
) -> None:
    # The other one is unfinished, and has files of the same names in work.
    runs, out, moved, other = slow[kind], tmp_path / "out", tmp_path / "moved", tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        runs.make(other, layout, mark=False if layout != "npy" else None, progress=_stop)
    for number in range(60 if layout == "webdataset" else 0):
        (other / f"{number:06d}.tar.part").write_bytes(b"of the other run")
    before, told = contents(other), marks(other)

    def replace() -> None:
        out.rename(moved)
        other.rename(out)

    with pytest.raises(StorageError) as error:
        runs.make(out, layout, progress=once(replace))
    refused(error.value, out)
    assert contents(out) == before and marks(out) == told
    assert runs.make(moved, layout).complete
    assert differences(moved, whole[kind, layout]) == []
    tally.survived(f"folder replaced by another dataset, {kind}, {layout}")


def _stop(progress: ganrt.Progress) -> None:
    if progress.made:
        raise KeyboardInterrupt


@every_kind_and_layout
def test_a_folder_that_is_replaced_by_a_link(
    kind: str, layout: str, slow: dict[str, Runs], whole: dict[tuple[str, str], Path], tmp_path: Path, tally: Tally
) -> None:
    # To itself, where it has been moved to: nothing has happened. To another folder: nothing is written there.
    runs, out, moved = slow[kind], tmp_path / "out", tmp_path / "moved"

    def link() -> None:
        out.rename(moved)
        out.symlink_to(moved)

    try:
        assert runs.make(out, layout, progress=once(link)).complete
    except StorageError as between:  # the two steps: it was not there, and is again
        assert between.message.startswith(f"{out} is not the folder any more")
        assert runs.make(out, layout).complete
    assert differences(moved, whole[kind, layout]) == []
    tally.survived(f"folder replaced by a link to it, {kind}, {layout}")
    elsewhere, third = tmp_path / "elsewhere", tmp_path / "third"
    elsewhere.mkdir()

    def mislead() -> None:
        third.rename(tmp_path / "third moved")
        third.symlink_to(elsewhere)

    with pytest.raises(StorageError) as error:
        runs.make(third, layout, progress=once(mislead))
    refused(error.value, third)
    assert contents(elsewhere) == {} and folders(elsewhere) == set()
    tally.survived(f"folder replaced by a link elsewhere, {kind}, {layout}")


@pytest.mark.parametrize("layout", few_fast(LAYOUTS, 0))
def test_a_ledger_that_is_removed_in_the_middle(
    layout: str, slow: dict[str, Runs], tmp_path: Path, tally: Tally
) -> None:
    runs, out = slow["generate"], tmp_path / "out"
    with pytest.raises(StorageError) as error:
        runs.make(out, layout, progress=once((out / "ganrt.ledger").unlink))
    refused(error.value, out)
    assert not (out / "README.md").exists()
    tally.survived(f"ledger removed in the middle, {layout}")


@pytest.mark.faults
def test_the_command_says_so_too(slow: dict[str, Runs], tmp_path: Path, tally: Tally) -> None:
    out = tmp_path / "out"
    process = start(slow["generate"].command(out, "folder"))
    wait_for_shards(process, out, 2)
    out.rename(tmp_path / "moved")
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in complaint
    assert complaint.startswith(f"ganrt: {out} is not the folder any more that this run began to write"), complaint
    tally.survived("folder moved away, the command")


# Several runs -------------------------------------------------------------------------------------------------------


@every_kind_and_layout
def test_a_second_run_is_refused_while_the_first_lives_and_not_after(
    kind: str, layout: str, slow: dict[str, Runs], whole: dict[tuple[str, str], Path], tmp_path: Path, tally: Tally
) -> None:
    runs, out = slow[kind], tmp_path / "out"
    first = start(runs.command(out, layout))
    try:
        wait_for_shards(first, out, 1)
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(DatasetLocked, match="another run is writing the dataset of"):
            runs.make(out, layout)
        with pytest.raises(DatasetLocked):
            runs.make(out, layout, overwrite=True)
        tally.survived(f"second run refused, {kind}, {layout}", 2)
    finally:
        first.kill()
        first.communicate()
    assert runs.make(out, layout).complete
    assert differences(out, whole[kind, layout]) == []
    assert ganrt.verify(out) == []
    tally.survived(f"second run after kill -9 of the first, {kind}, {layout}")


@pytest.mark.faults
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_parts_are_written_at_a_time(layout: str, slow: dict[str, Runs], tmp_path: Path, tally: Tally) -> None:
    runs, out = slow["generate"], tmp_path / "out"
    both = [start(runs.command(out, layout, "--part", name, "--seed", str(k))) for k, name in enumerate("ab")]
    for process in both:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
    for k, name in enumerate("ab"):
        runs.make(tmp_path / "apart", layout, part=name, seed=k)
    assert differences(out, tmp_path / "apart") == []
    assert ganrt.verify(out) == []
    tally.survived(f"two parts at a time, {layout}")


@pytest.mark.faults
@pytest.mark.parametrize("layout", DIVISIBLE)
def test_four_machines_write_one_folder_at_a_time(
    layout: str, slow: dict[str, Runs], whole: dict[tuple[str, str], Path], tmp_path: Path, tally: Tally
) -> None:
    runs, out = slow["generate"], tmp_path / "out"
    # The last of them twice: one of the two is refused, or finds all done.
    shares = [f"{k}/4" for k in range(4)] + ["3/4"]
    machines = [start(runs.command(out, layout, "--shard", share)) for share in shares]
    codes = []
    for process in machines:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0 or "another run is writing the dataset" in complaint, complaint
        codes.append(process.returncode)
    assert codes[:3] == [0, 0, 0] and 0 in codes[3:]
    assert differences(out, whole["generate", layout]) == []
    assert ganrt.verify(out) == []
    tally.survived(f"four machines at a time, {layout}", 4)


# Time ---------------------------------------------------------------------------------------------------------------

# Every clock of Python's jumps to and fro, by years; threads wait by the system's own all the same.
JUMPING = """
import itertools, random, sys, time
jumps = random.Random(1)
def jumping(real):
    return lambda: real() + jumps.choice([0, 1e9, -1e9, 0.5, -0.5])
for name in ("time", "monotonic", "perf_counter"):
    setattr(time, name, jumping(getattr(time, name)))
real_ns = time.time_ns
time.time_ns = lambda: real_ns() + jumps.choice([0, 10**18, -(10**18)])
from ganrt.cli import main
main()
"""


@every_kind_and_layout
def test_no_byte_depends_on_the_clock(
    kind: str, layout: str, slow: dict[str, Runs], whole: dict[tuple[str, str], Path], tmp_path: Path, tally: Tally
) -> None:
    out, runs = tmp_path / "out", slow[kind]
    done = run([sys.executable, "-c", JUMPING, *runs.command(out, layout)[3:]])
    assert done.returncode == 0, done.stderr
    assert differences(out, whole[kind, layout]) == []
    for path in out.rglob("*"):  # nor on the times of files
        os.utime(path, (0, 0))
    assert ganrt.verify(out) == [] and runs.make(out, layout).images == 0
    tally.survived(f"clock that jumps, {kind}, {layout}")
