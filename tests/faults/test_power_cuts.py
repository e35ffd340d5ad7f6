"""A power cut in principle: what was synced is there; else files may be empty, and names as they were before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ganrt.engine import RECHECKED
from tests.faults.conftest import Tally
from tests.faults.inject import KILL, Fault
from tests.faults.scenarios import SCENARIOS, Case, Scenario, dataset_case, forks, generate
from tests.faults.test_kills import note

pytestmark = forks

OTHERS = ("folder that grows", "webdataset that grows", "--overwrite, folder", "translate, folder")
MANY = Scenario("folder of eight shards", "folder", (), generate(31, "folder"))


def unsynced(steps: list[str]) -> tuple[set[str], set[str]]:
    """What these steps left in memory: files whose bytes, and names whose renaming, may not be on the disk."""
    bytes_of, names = set[str](), set[str]()
    for step in steps:
        operation, _, name = step.partition(" of ")
        if operation in ("open", "write", "truncate"):
            bytes_of.add(name)
        elif operation == "fsync":
            bytes_of.discard(name)
            names -= {other for other in names if os.path.dirname(other) == ("" if name == "." else name)}
        elif operation == "replace":  # of what has the name without .part, or with it
            source = name.removesuffix(".part") if name.endswith(".npy.part") else f"{name}.part"
            bytes_of -= {name}
            if source in bytes_of:
                bytes_of ^= {source, name}
            names = (names - {source}) | {name}
        elif operation == "unlink":
            bytes_of.discard(name)
            names.discard(name)
    return bytes_of, names


def emptied(case: Case, root: Path, steps: list[str]) -> int:
    """Files that were not synced hold nothing; a ledger lacks half of the line that was not."""
    lost = [name for name in unsynced(steps)[0] if (root / name).is_file()]
    for name in lost:
        data = (root / name).read_bytes()
        line = data.rstrip(b"\n").rfind(b"\n") + 1
        os.truncate(root / name, line + (len(data) - line) // 2 if name.endswith(".ledger") else 0)
    return len(lost)


def gone(case: Case, root: Path, steps: list[str]) -> int:
    """Files that were not synced are not there, nor are new names."""
    lost = [name for name in set.union(*unsynced(steps)) if not name.endswith(".ledger") and (root / name).is_file()]
    for name in lost:
        (root / name).unlink()
    return len(lost)


def renamed_back(case: Case, root: Path, steps: list[str]) -> int:
    """Files have the names that they had before."""
    names = [name for name in unsynced(steps)[1] if (root / name).is_file() and not name.endswith(".npy.part")]
    for name in names:
        os.replace(root / name, root / f"{name}.part")
        if case.before and (case.before / name).is_file():
            shutil.copy(case.before / name, root / name)
    return len(names)


def zeroed(case: Case, root: Path, steps: list[str]) -> int:
    """The last files that were not synced have their size, and no bytes, and so has a ledger's line."""
    if steps[-1] == "write of ganrt.ledger":
        lines = (root / "ganrt.ledger").read_bytes().splitlines(keepends=True)
        (root / "ganrt.ledger").write_bytes(b"".join([*lines[:-1], bytes(len(lines[-1]))]))
        return 1
    ends = [number for number, step in enumerate(steps) if step == "fsync of ganrt.ledger"][-RECHECKED - 1 :]
    since = ends[0] if len(ends) > RECHECKED else 0
    last = {step.partition(" of ")[2] for step in steps[since:] if step.startswith("replace ")}
    lost = [name for name in unsynced(steps)[0] & last if (root / name).is_file()]
    for name in lost:
        (root / name).write_bytes(bytes((root / name).stat().st_size))
    return len(lost)


CUTS: list[Callable[[Case, Path, list[str]], int]] = [emptied, gone, renamed_back, zeroed]


def cut(case: Case, number: int, how: Callable[[Case, Path, list[str]], int], row: str, tally: Tally) -> None:
    """The power goes before the step of that number; where nothing is in memory alone, that is no more than a kill."""
    touched = list[int]()
    fault = Fault(number, KILL) if number < len(case.steps) else None
    wrong = case.tried(fault, lambda root: touched.append(how(case, root, case.steps[:number])))
    if wrong or touched != [0]:
        note(tally, f"power cut: {row}", wrong and f"{how.__name__}: {wrong}")


def test_finished_images_that_a_power_cut_emptied_or_zeroed_are_made_again(tmp_path: Path, tally: Tally) -> None:
    case = dataset_case(MANY, tmp_path)
    for how in CUTS:
        cut(case, len(case.steps), how, "at the end, folder", tally)
    assert sum(len(unsynced(case.steps)[0] & {f"{c}/{k:08d}.png" for c in "abc"}) for k in range(31)) == 31


@pytest.mark.faults
@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS if s.name.startswith("generate") or s.name in OTHERS], ids=lambda s: s.name
)
def test_a_power_cut_at_any_step(scenario: Scenario, tmp_path: Path, tally: Tally) -> None:
    case = dataset_case(scenario, tmp_path)
    for number in range(len(case.steps), 0, -2):
        cut(case, number, CUTS[number // 2 % len(CUTS)], scenario.name, tally)
