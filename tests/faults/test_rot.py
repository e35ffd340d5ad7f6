"""Bytes that change by themselves, files that somebody changes: verify names them, repair makes exactly them again."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ganrt
from tests.datasets import LAYOUTS, contents, differences, files, image_files, make, marks
from tests.faults.conftest import SIZES, N, Tally

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
RECORDS = {"ganrt.ledger", "ganrt.json", "README.md"}  # what generate writes when it makes something
EXTRA = "extra: not of this dataset"


def names(damage: list[ganrt.Damage]) -> set[str]:
    return {d.name for d in damage}


def flip(path: Path, dice: random.Random) -> None:
    """Changes one bit somewhere, in place: the file keeps its size."""
    with open(path, "r+b") as file:
        at = dice.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0] ^ (1 << dice.randrange(8))
        file.seek(at)
        file.write(bytes([byte]))


# What may be done to a dataset: changes it, and gives the names of the files that are not as they were, and of those
# that were not there.
Done = tuple[set[str], set[str]]
Break = Callable[[Path, random.Random], Done]


def some(root: Path, dice: random.Random, count: int = 1) -> list[Path]:
    return dice.sample(list(image_files(root)), count)


def flipped(root: Path, dice: random.Random) -> Done:
    [path] = dice.sample([path for path in files(root) if path.suffix != ".ledger"], 1)
    flip(path, dice)
    return {path.relative_to(root).as_posix()}, set()


def cut(root: Path, dice: random.Random) -> Done:
    [path] = some(root, dice)
    step = 512 if path.suffix == ".tar" else 1  # where an archive seems to be whole
    os.truncate(path, dice.randrange(0, path.stat().st_size, step))
    return {path.relative_to(root).as_posix()}, set()


def emptied(root: Path, dice: random.Random) -> Done:
    [path] = dice.sample([path for path in files(root) if path.suffix != ".ledger"], 1)
    path.write_bytes(b"")
    return {path.relative_to(root).as_posix()}, set()


def removed(root: Path, dice: random.Random) -> Done:
    [path] = dice.sample([path for path in files(root) if path.suffix != ".ledger"], 1)
    path.unlink()
    return {path.relative_to(root).as_posix()}, set()


def swapped(root: Path, dice: random.Random) -> Done:
    if (root / "images.npy").exists():
        rows = np.load(root / "images.npy", mmap_mode="r+")
        a, b = dice.sample(range(len(rows)), 2)
        rows[[a, b]] = rows[[b, a]]
        rows.flush()
        return {"images.npy"}, set()
    a_path, b_path = some(root, dice, 2)
    a_path.rename(root / "between")
    b_path.rename(a_path)
    (root / "between").rename(b_path)
    return {path.relative_to(root).as_posix() for path in (a_path, b_path)}, set()


def linked(root: Path, dice: random.Random) -> Done:
    """To the right bytes, which lie outside."""
    [path] = some(root, dice)
    target = root.parent / f"{root.name} {dice.random()}"
    path.rename(target)
    path.symlink_to(target)
    return {path.relative_to(root).as_posix()}, set()


def linked_elsewhere(root: Path, dice: random.Random) -> Done:
    [path] = some(root, dice)
    target = root.parent / f"{root.name} {dice.random()}"
    target.write_bytes(path.read_bytes()[:-1] + b"?")
    path.unlink()
    path.symlink_to(dice.choice([target, root.parent / "nowhere"]))
    return {path.relative_to(root).as_posix()}, set()


def hard_linked(root: Path, dice: random.Random) -> Done:
    """To another image, or to somebody's file."""
    [path] = some(root, dice)
    others = [other for other in image_files(root) if other.read_bytes() != path.read_bytes()]
    target = dice.choice(others) if others else root.parent / f"{root.name} {dice.random()}"
    if not others:
        target.write_bytes(path.read_bytes()[:-1] + b"?")
    path.unlink()
    os.link(target, path)
    return {path.relative_to(root).as_posix()}, set()


def added(root: Path, dice: random.Random) -> Done:
    [place] = dice.sample([root, *(path for path in root.iterdir() if path.is_dir()), root / "new"], 1)
    place.mkdir(exist_ok=True)
    path = place / dice.choice(["mine.png", "00000000.png.part", "99999999.png", ".hidden"])
    path.write_bytes(b"mine")
    return set(), {path.relative_to(root).as_posix()}


BREAKS: dict[str, Break] = {
    "flipped bit": flipped,
    "file cut short": cut,
    "file emptied": emptied,
    "file removed": removed,
    "two images swapped": swapped,
    "link to the right bytes": linked,
    "link elsewhere": linked_elsewhere,
    "hard link": hard_linked,
    "extra file or folder": added,
}


def outside(root: Path) -> dict[str, bytes]:
    """What links lead to: somebody else's."""
    return {p.name: p.read_bytes() for p in root.parent.iterdir() if p.is_file()}


def repaired(out: Path, whole: Path, model: Path, done: Done) -> None:
    """Verify names what was done; repair mends that, and touches nothing else."""
    broken, extra = done
    before, theirs = marks_of(out), outside(out)
    found = ganrt.verify(out)
    assert names(found) == broken | extra, found
    assert all((d.what == EXTRA) == (d.name in extra) for d in found), found
    assert marks_of(out) == before
    left = ganrt.verify(out, repair=True, model=model, device="cpu")
    assert names(left) == extra, left
    assert set(differences(out, whole)) - {"new"} == extra
    after = marks_of(out)
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert touched == broken, touched ^ broken
    assert outside(out) == theirs


def marks_of(root: Path) -> dict[str, tuple[int, int]]:
    """Of every file that is there; links as such."""
    return {p.relative_to(root).as_posix(): ((s := p.lstat()).st_ino, s.st_mtime_ns) for p in files(root)}


@every_layout
@pytest.mark.parametrize("times", [2, pytest.param(25, marks=pytest.mark.faults)])
def test_whatever_is_done_to_a_file_is_named_and_mended(
    layout: str, times: int, whole: dict[str, Path], model: Path, tmp_path: Path, tally: Tally
) -> None:
    for name, do in BREAKS.items():
        for number in range(times):
            dice, out = random.Random(f"{layout} {name} {times} {number}"), tmp_path / f"{name} {number}" / "out"
            shutil.copytree(whole[layout], out)
            try:
                repaired(out, whole[layout], model, do(out, dice))
            except (AssertionError, ganrt.GanrtError) as error:
                tally.lost(f"{name}, {layout}", f"{number}: {error}")
            else:
                tally.survived(f"{name}, {layout}")
            shutil.rmtree(out.parent)


@every_layout
@pytest.mark.parametrize("times", [3, pytest.param(60, marks=pytest.mark.faults)])
def test_generate_never_makes_it_worse(
    layout: str, times: int, whole: dict[str, Path], model: Path, tmp_path: Path, tally: Tally
) -> None:
    # Several things at once. What generate can see (sizes, not bytes) it makes again; it adds no damage, and leaves
    # to verify what it cannot see.
    for number in range(times):
        dice, out = random.Random(f"worse {layout} {number}"), tmp_path / str(number) / "out"
        shutil.copytree(whole[layout], out)
        broken, extra = set[str](), set[str]()
        for do in dice.sample(list(BREAKS.values()), dice.randrange(1, 5)):
            try:
                more = do(out, dice)
            except (ValueError, OSError, EOFError):  # another of them was there before
                continue
            broken, extra = broken | more[0], extra | more[1]
        before, theirs = names(ganrt.verify(out)), outside(out)
        report = make(model, out, N, layout=layout, **SIZES)
        after = ganrt.verify(out)
        assert report.complete and report.already + report.images == N
        assert names(after) <= before | extra, (number, after)
        wanted = contents(whole[layout])
        assert all(d.name in extra or (out / d.name).stat().st_size == len(wanted[d.name]) for d in after), after
        assert names(ganrt.verify(out, repair=True, model=model, device="cpu")) <= extra
        assert {name: data for name, data in contents(out).items() if name in wanted} == wanted
        assert outside(out) == theirs
        tally.survived(f"generate on what is damaged, {layout}")
        shutil.rmtree(out.parent)


def test_archives_cut_at_any_block(whole: dict[str, Path], model: Path, tmp_path: Path, tally: Tally) -> None:
    out = Path(shutil.copytree(whole["webdataset"], tmp_path / "out"))
    path = out / "000001.tar"
    data, before = path.read_bytes(), marks(out)
    for size in range(0, len(data), 512):
        os.truncate(path, size)
        [damage] = ganrt.verify(out)
        assert damage.name == path.name and damage.what == f"changed: {size} bytes, {len(data)} were written"
        path.write_bytes(data)
        tally.survived("archive cut at a block, verify names it")
    os.truncate(path, len(data) - 1024)  # without its end
    assert make(model, out, N, layout="webdataset", **SIZES).images == 32
    assert path.read_bytes() == data
    assert {name for name, mark in marks(out).items() if mark != before[name]} - RECORDS == {path.name}
