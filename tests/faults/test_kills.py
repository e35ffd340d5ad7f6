"""A run is killed, or gets an error, at every step at which it changes the disk; the same command then ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Tally
from tests.faults.inject import ERRORS, KILL, KILL_IN_THE_MIDDLE, Fault
from tests.faults.scenarios import SCENARIOS, Scenario, dataset_case, forks

pytestmark = forks

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
READING = ("folder that grows", "npy that grows", "verify --repair, webdataset")
KILLS = (KILL, KILL_IN_THE_MIDDLE)


@pytest.mark.parametrize("scenario", SCENARIOS[:3], ids=lambda scenario: scenario.name)
def test_killed_at_some_steps(scenario: Scenario, tmp_path: Path, tally: Tally) -> None:
    case = dataset_case(scenario, tmp_path)
    for fault in case.faults(*KILLS, every=5):
        note(tally, f"SIGKILL at some steps: {case.name}", case.tried(fault))


def test_an_overwritten_folder_is_ganrts_at_every_moment(tmp_path: Path, tally: Tally) -> None:
    case = dataset_case(next(s for s in SCENARIOS if s.name == "--overwrite, webdataset"), tmp_path)
    begun = case.steps.index("write of ganrt.ledger")
    for fault in (Fault(3, KILL), Fault(begun - 2, KILL), Fault(begun, KILL), Fault(begun, KILL_IN_THE_MIDDLE)):
        note(tally, f"SIGKILL at some steps: {case.name}", case.tried(fault))


def test_errors_at_some_steps(tmp_path: Path, tally: Tally) -> None:
    case = dataset_case(next(s for s in SCENARIOS if s.name == "folder that grows"), tmp_path)
    named = Fault(next(k for k, step in enumerate(case.steps) if step.startswith("replace of a/")), "ENOSPC")
    for fault in (named, *case.faults(*ERRORS, every=6)):
        note(tally, f"{fault.what} at some steps", case.tried(fault))


@every_scenario
@pytest.mark.faults
def test_killed_at_any_step_the_same_command_ends_as_if_nothing_was(
    scenario: Scenario, tmp_path: Path, tally: Tally
) -> None:
    case = dataset_case(scenario, tmp_path)
    for fault in case.faults(*KILLS):
        note(tally, f"SIGKILL at every step: {case.name}", case.tried(fault))


@every_scenario
@pytest.mark.faults
def test_an_error_at_any_step_is_told_and_the_same_command_goes_on(
    scenario: Scenario, tmp_path: Path, tally: Tally
) -> None:
    case, every = dataset_case(scenario, tmp_path), 1 if scenario.name.startswith("generate") else 3
    for number in range(SCENARIOS.index(scenario) % every, len(case.steps), every):
        what = ERRORS[number // every % len(ERRORS)]
        note(tally, f"{what} at any step", case.tried(Fault(number, what)))


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.name in READING], ids=lambda scenario: scenario.name)
@pytest.mark.faults
def test_a_file_that_cannot_be_read_is_told_and_the_same_command_goes_on(
    scenario: Scenario, tmp_path: Path, tally: Tally
) -> None:
    case = dataset_case(scenario, tmp_path)
    for fault in case.unreadable():
        note(tally, "EIO where a file is read", case.tried(fault))


def note(tally: Tally, row: str, wrong: str | None) -> None:
    """Counts a fault that was tried."""
    if wrong:
        tally.lost(row, wrong)
    else:
        tally.survived(row)
