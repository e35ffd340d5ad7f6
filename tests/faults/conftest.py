"""Counts the faults that tests try, for the table that ``make faults`` ends with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.datasets import LAYOUTS, make, model_file

N = 90  # images of the datasets in `whole`: three shards, the last one short
SIZES: dict[str, Any] = {"shard_size": 32, "batch": 32}

Counts = dict[str, list[int]]  # fault → tried, lost


class Tally:
    """What a test tried. What was lost is told at the test's end, after all of it was tried."""

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.reasons: list[str] = []

    def survived(self, fault: str, times: int = 1) -> None:
        """Nothing was lost by a fault that was tried so many times. ``fault`` is a row of the table."""
        self.counts.setdefault(fault, [0, 0])[0] += times

    def lost(self, fault: str, why: str) -> None:
        """A fault did harm: what was expected, and what was found."""
        row = self.counts.setdefault(fault, [0, 0])
        row[0] += 1
        row[1] += 1
        self.reasons.append(f"{fault}: {why}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of ``model`` in each layout. Only to be read, or copied."""
    root = tmp_path_factory.mktemp("whole")
    for layout in LAYOUTS:
        make(model, root / layout, N, layout=layout, workers=1, **SIZES)
    return {layout: root / layout for layout in LAYOUTS}


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """For each fault that a test tries, call ``survived`` or ``lost``."""
    counted = Tally()
    yield counted
    request.node.user_properties.append(("faults", counted.counts))
    if counted.reasons:
        pytest.fail("\n".join(counted.reasons), pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, when all faults are tried."""
    rows: Counts = {}
    for category, reports in terminalreporter.stats.items():
        for report in reports:
            if not isinstance(report, pytest.TestReport) or "tests/faults/" not in report.nodeid:
                continue
            told = dict(report.user_properties).get("faults", {}) if report.when == "teardown" else {}
            found = cast(Counts, told)
            for fault, (tried, lost) in found.items():
                row = rows.setdefault(fault, [0, 0])
                row[0] += tried
                row[1] += lost
            if category in ("failed", "error") and not any(lost for _, lost in found.values()):
                rows[report.nodeid.partition("tests/faults/")[2]] = [1, 1]
    if not rows or "faults" not in (terminalreporter.config.option.markexpr or "").replace("not faults", "", 1):
        return
    terminalreporter.section("faults")
    width = max(map(len, rows))
    terminalreporter.write_line(f"{'':{width}} {'tried':>8} {'survived':>9} {'lost':>6}")
    for fault, (tried, lost) in sorted(rows.items()):
        terminalreporter.write_line(f"{fault:{width}} {tried:>8,} {tried - lost:>9,} {lost:>6,}")
    tried, lost = (sum(row[k] for row in rows.values()) for k in (0, 1))
    terminalreporter.write_line(f"{'all':{width}} {tried:>8,} {tried - lost:>9,} {lost:>6,}")
