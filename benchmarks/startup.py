"""``python -m benchmarks startup``: from a cold shell to the first image, each command in a process of its own."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rounds import memory_folder, write_json

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import ganrt": ["-c", "import ganrt"],
    "ganrt --help": ["-m", "ganrt", "--help"],
    "ganrt generate --help": ["-m", "ganrt", "generate", "--help"],
    "import onnxruntime, numpy": ["-c", "import ganrt.providers; ganrt.providers.runtime()"],
    "ganrt.load('fashion')": ["-c", "import ganrt; ganrt.load('fashion')"],
    "load, and a first image": ["-c", "import ganrt; ganrt.load('fashion').sample(1)"],
    "ganrt generate --n 1": ["-m", "ganrt", "generate", "--n", "1", "--out", "{new}", "--quiet"],
    "finished 100,000 again": ["-m", "ganrt", "generate", "--n", "100000", "--out", "{done}", "--quiet"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)


def run(options: argparse.Namespace) -> int:
    times = measure(options.rounds)
    print(table(times))
    write_json(options.json, times)
    return 0


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each command, in turn, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        done = f"{folder}/done"
        subprocess.run([sys.executable, *_filled(COMMANDS["finished 100,000 again"], "", done)], check=True)
        for number in range(rounds + 1):
            for name, words in COMMANDS.items():
                command = [sys.executable, *_filled(words, f"{folder}/{number}", done)]
                began = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                if number:
                    times[name].append(time.perf_counter() - began)
    return times


def table(times: dict[str, list[float]]) -> str:
    """The result as lines of text."""
    lines = [f"{'':28}{'median':>9}{'least':>9}{'most':>9}   seconds"]
    for name, seconds in times.items():
        lines.append(f"{name:28}{statistics.median(seconds):>9.3f}{min(seconds):>9.3f}{max(seconds):>9.3f}")
    return "\n".join(lines)


def _filled(words: list[str], new: str, done: str) -> list[str]:
    return [word.format(new=new, done=done) if word in ("{new}", "{done}") else word for word in words]
