"""Contenders timed in turn, several rounds each: medians, spread, and ratios within a round."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganrt.providers import cpu_count, installed_runtimes

BATCH = 64
_MORE = 4  # times as many images has each trial as the one before


@dataclass
class Timed:
    """One contender: makes ``n`` images into a fresh folder; ``rates`` are images/s, one a round.

    Where ``n`` is None, it makes as many as it can in the time that a run is to take, a multiple of ``unit``.
    """

    name: str
    run: Callable[[int, Path], object]
    folder: Path
    n: int | None = None
    unit: int = BATCH
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Images/s."""
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        """(max - min) / median."""
        return (max(self.rates) - min(self.rates)) / self.median

    def over(self, other: Timed) -> float:
        """The median of the ratios round by round, so that a drift of the machine's speed does not count."""
        return statistics.median(a / b for a, b in zip(self.rates, other.rates, strict=True))


def in_turn(contenders: list[Timed], rounds: int, seconds: float) -> None:
    """Tries every contender, which is not counted, then runs each ``rounds`` times in turn for about ``seconds``."""
    counts = [contender.n or _trial(contender, seconds) for contender in contenders]
    for number in range(rounds):
        for contender, n in zip(contenders, counts, strict=True):
            contender.rates.append(n / _once(contender, n))
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {rounds}", end="\r", file=sys.stderr)


def _trial(contender: Timed, seconds: float) -> int:
    """How many images take so long."""
    n = unit = contender.unit
    while (took := _once(contender, n)) < seconds / _MORE:
        n *= _MORE
    return max(unit, round(n / took * seconds / unit) * unit)


def _once(contender: Timed, n: int) -> float:
    out = contender.folder
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    began = time.perf_counter()
    contender.run(n, out)
    took = time.perf_counter() - began
    shutil.rmtree(out, ignore_errors=True)
    return took


def machine() -> dict[str, Any]:
    """What figures belong to."""
    model = flags = ""
    if Path("/proc/cpuinfo").exists():
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        about = {key.strip(): value.strip() for key, _, value in pairs}
        model = about.get("model name", "")
        if "cpu family" in about:
            model += f" (family {about['cpu family']}, model {about.get('model')})"
        wide = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        flags = " ".join(flag for flag in wide if flag in about.get("flags", "").split())
    return {
        "processor": model or platform.processor() or platform.machine(),
        "vectors": flags or "unknown",
        "processors": cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **installed_runtimes(),
    }


def memory_folder() -> Path:
    """A folder on tmpfs, where the system has one."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def write_json(path: Path | None, result: Any) -> None:
    """Writes figures with the machine that they belong to, if a file is named."""
    if path:
        path.write_text(json.dumps({"machine": machine(), "result": result}, indent=1) + "\n")
