"""Valid files changed at random, two seconds of them in ``make test``, a minute in ``make faults``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.confined import Confined, confined
from tests.faults.conftest import Tally
from tests.faults.mutations import KINDS, attack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


@pytest.fixture(scope="module")
def run() -> Iterator[Confined]:
    with confined("tests.faults.mutations", "h5py", "ganrt_training.keras_source") as process:
        yield process


# The same each time in the short run; others each day in the long one. MUTATIONS names the first.
FIRST = int(os.environ.get("MUTATIONS", "0"))
TODAY = int(time.time()) // 86_400 * 1_000_000


@pytest.mark.parametrize(
    ("seconds", "first"),
    [(0.05, 0), pytest.param(3.0, FIRST or TODAY, marks=pytest.mark.faults)],
    ids=["short", "long"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_changed_at_random_is_read_or_named(
    kind: str, seconds: float, first: int, run: Confined, tally: Tally, tmp_path: Path
) -> None:
    outcome = run(attack, kind, tmp_path, first, seconds)
    row = f"{kind} changed at random"
    if outcome.kind == "done":
        tally.survived(row, int(outcome.text))
    else:
        which = (tmp_path / "number").read_text() if (tmp_path / "number").exists() else "none"
        tally.lost(row, f"number {which}: {outcome.kind}: {outcome.text}")
    if outcome.megabytes > 700:
        tally.lost(row, f"took {outcome.megabytes:.0f} MB")
