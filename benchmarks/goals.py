"""``python -m benchmarks goals``: all benchmarks, and what was promised of them on a 2-core machine, in one table."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import encode, generate, memory, scaling, startup
from benchmarks.networks import NAMES
from benchmarks.rounds import machine, memory_folder, write_json


@dataclass(frozen=True)
class Goal:
    """A figure and what it is to reach: at least, unless ``at_most``."""

    what: str
    found: float
    reach: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.found <= self.reach if self.at_most else self.found >= self.reach


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a run takes")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="a folder on disk")
    parser.add_argument("--json", type=Path)


def run(options: argparse.Namespace) -> int:
    results: dict[str, Any] = {"generate": {}, "scaling": {}}
    rounds, seconds = options.rounds, options.seconds
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    for name in NAMES:
        results["generate"][name] = generate.measure(name, memory_folder(), options.out, None, rounds, seconds)
        print(generate.table(results["generate"][name]), flush=True)
    for name in NAMES:
        results["scaling"][name] = scaling.measure(name, rounds, seconds)
        print(scaling.table(results["scaling"][name]), flush=True)
    results["memory"] = memory.measure()
    print("\npeak memory, mlp28\n" + memory.table(results["memory"]), flush=True)
    results["startup"] = startup.measure(rounds)
    print("\n" + startup.table(results["startup"]), flush=True)
    results["encode"] = encode.measure(rounds)
    print("\n" + encode.table(results["encode"]), flush=True)
    print("\n" + table(goals(results)))
    write_json(options.json, results)
    return 0


def goals(results: dict[str, Any]) -> list[Goal]:
    """What was promised, with what was found."""
    rows = {name: result["rows"] for name, result in results["generate"].items()}
    found = []
    for name, way, reach in (
        ("dcgan64", "folder png", 0.90),
        ("dcgan64", "webdataset png", 0.93),
        ("dcgan64", "npy", 0.97),
        ("fashion", "folder png", 0.85),
    ):
        found.append(Goal(f"{name} {way} / inference alone", rows[name][f"ganrt {way}"]["of_inference"], reach))
    for name, way, reaches in (
        ("dcgan64", "folder png", {"a": 5, "b": 3, "c": 1.1, "d": 2}),
        ("fashion", "folder png", {"a": 2, "b": 1.4, "d": 1.25}),
        ("mlp28", "folder png", {"d": 2.5}),
        ("mlp28", "webdataset png", {"d": 6}),
    ):
        over = rows[name][f"ganrt {way}"]["over"]
        found += [Goal(f"{name} {way} / ({rival})", over[rival], reach) for rival, reach in reaches.items()]
    png = next(
        row for row in results["encode"] if "photograph-like 64" in row["content"] and row["encoder"] == "ganrt png"
    )
    found.append(Goal("PNG 64x64 RGB, speed / Pillow's default", png["speed"], 8))
    found.append(Goal("PNG 64x64 RGB, size / Pillow's default", png["size"], 1.2, at_most=True))
    for name in ("dcgan64", "fashion"):
        two = next(r for r in results["scaling"][name]["arrangements"] if r["workers_x_threads"] == "2 x 1")
        found.append(Goal(f"{name} two workers / one", two["over_one"], 1.85))
    for name in NAMES:
        found.append(Goal(f"{name} picked / best of the sweep", scaling.picked(results["scaling"][name]), 0.95))
    large = next(row for row in results["scaling"]["mlp28"]["n"] if row["n"] == 100_000)
    found.append(Goal("seconds an image, 100k / 10k", large["seconds_an_image_over_10k"], 1.05, at_most=True))
    million = next(row for row in results["memory"] if row["n"] == 1_000_000)
    found.append(Goal("npy peak memory, 1M / 10k", million["over_first"], 1.10, at_most=True))
    seconds = {name: statistics.median(times) for name, times in results["startup"].items()}
    found.append(Goal("ganrt generate --n 1, seconds", seconds["ganrt generate --n 1"], 1.0, at_most=True))
    found.append(Goal("a finished 100k again, seconds", seconds["finished 100,000 again"], 2.0, at_most=True))
    return found


def table(found: list[Goal]) -> str:
    """The goals as lines of text."""
    lines = [f"{'what':44}{'found':>8}   reach"]
    for goal in found:
        sign = "<=" if goal.at_most else ">="
        lines.append(f"{goal.what:44}{goal.found:>8.3g}   {sign} {goal.reach:<6g}{'' if goal.holds else ' missed'}")
    return "\n".join(lines)
