"""``python -m benchmarks memory``: peak resident memory over the number of images."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.networks import network
from benchmarks.rounds import memory_folder, write_json

_CHILD = """
import sys, ganrt
ganrt.generate(sys.argv[1], n=int(sys.argv[2]), out=sys.argv[3], layout=sys.argv[4], device="cpu")
# The kernel's own mark (Linux); getrusage also counts the process that this one was forked from.
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(line.split()[1]) / 1024)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, action="append", help="10,000, 100,000 and, for npy, 1,000,000 unless given")
    parser.add_argument("--json", type=Path)


def run(options: argparse.Namespace) -> int:
    rows = measure(options.n)
    print(table(rows))
    write_json(options.json, rows)
    return 0


def measure(counts: list[int] | None = None) -> list[dict[str, Any]]:
    """Each layout of mlp28, each run in a process of its own."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        net = network("mlp28", Path(folder))
        for layout in ("folder", "webdataset", "npy"):
            first = 0.0
            for n in counts or [10_000, 100_000, *([1_000_000] if layout == "npy" else [])]:
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    words = [sys.executable, "-c", _CHILD, str(net.path), str(n), f"{out}/set", layout]
                    peak = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
                first = first or peak
                rows.append(
                    {"layout": layout, "n": n, "peak_mib": round(peak, 1), "over_first": round(peak / first, 3)}
                )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The result as lines of text."""
    return "\n".join(
        f"{row['layout']:12}{row['n']:>12,} images {row['peak_mib']:>8.1f} MiB at most, x{row['over_first']:.3f}"
        for row in rows
    )
