"""``python -m benchmarks scaling``: over the number of images and of workers, and where the interpreter lock binds."""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib

import ganrt
from benchmarks.networks import NAMES, Network, network
from benchmarks.rounds import BATCH, Timed, in_turn, memory_folder, write_json
from ganrt.benchmark import calls
from ganrt.contract import read_model
from ganrt.encode import PNG_LEVEL, encoder
from ganrt.files import write_loose
from ganrt.generator import load_checked
from ganrt.layouts import LAYOUTS
from ganrt.providers import cpu_count
from ganrt.samples import check_samples

COUNTS = (1_000, 10_000, 100_000)
_MANY = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=NAMES, action="append", help="again for several; all unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a run takes, but for --counts")
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help="images of mlp28, where writing is most")
    parser.add_argument("--json", type=Path)


def run(options: argparse.Namespace) -> int:
    results = []
    for name in options.model or NAMES:
        results.append(measure(name, options.rounds, options.seconds, options.counts))
        print(table(results[-1]), flush=True)
    write_json(options.json, results)
    return 0


def measure(name: str, rounds: int, seconds: float, counts: Sequence[int] = COUNTS) -> dict[str, Any]:
    """The three parts for one network; the first and the last for mlp28 alone, where the network is next to nothing."""
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        net, root = network(name, Path(folder)), Path(folder)
        light = name == "mlp28"
        return {
            "model": name,
            "n": over_n(net, root, counts if light else [], rounds),
            "arrangements": arrangements(net, root, rounds, seconds),
            "lock": lock(net, root, rounds, seconds) if light else {},
        }


def over_n(net: Network, root: Path, counts: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Seconds an image of larger and larger datasets, starting and loading included."""
    timed = [Timed(f"{n:,} images", _ganrt(net), root / "set", n) for n in counts]
    in_turn(timed, rounds, 0)
    base = next((t for t in timed if t.n == 10_000), timed[0] if timed else None)
    return [{"n": t.n, "images_per_second": t.median, "seconds_an_image_over_10k": base.over(t)} for t in timed if base]


def arrangements(net: Network, root: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Images/s by workers and threads in a call, what ganrt picks among them; batch 64, folder of PNG."""
    cores = cpu_count()
    pairs = [(w, t) for w in sorted({1, 2, max(1, cores // 2), cores, 2 * cores}) for t in sorted({1, cores})]
    whole = BATCH * math.lcm(*(w for w, _ in pairs))  # as many batches for each worker
    timed = [Timed("picked", _ganrt(net), root / "set", unit=whole)]
    timed += [Timed(f"{w} x {t}", _ganrt(net, workers=w, threads=t), root / "set", unit=whole) for w, t in pairs]
    in_turn(timed, rounds, seconds)
    one, best = timed[1], max(timed[1:], key=lambda t: t.median)
    return [
        {
            "workers_x_threads": t.name,
            "images_per_second": t.median,
            "spread": t.spread,
            "over_one": t.over(one),
            "over_best": t.over(best),
        }
        for t in timed
    ]


def lock(net: Network, root: Path, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """How long one worker needs the interpreter lock for an image at most, and so what all of a process can reach.

    It does not need it within calls of the network, of the compressor and of the system, which are timed by themselves;
    what is left of a single worker's time is taken for time with the lock.
    """
    timed = {
        layout: Timed(layout, _ganrt(net, workers=1, threads=1, layout=layout), root / "set") for layout in LAYOUTS
    }
    in_turn(list(timed.values()), rounds, seconds)
    generator = load_checked(read_model(net.path), net.path, "cpu", BATCH, 1)
    network = 1e6 / calls(generator, check_samples(generator.card), BATCH, 1, seconds=seconds)
    images = generator.sample(2048)
    rows = [np.diff(image.reshape(len(image), -1).astype(np.int16), axis=0).astype(np.uint8) for image in images]
    encoded = list(encoder("png", None, True)(images))
    (root / "files").mkdir()
    compressing = _us(lambda k: isal_zlib.compress(rows[k], PNG_LEVEL), len(rows), rounds)
    writing = _us(lambda k: write_loose(f"{root}/files/{k}.png", encoded[k]), len(rows), rounds)
    without = {"npy": network, "webdataset": network + compressing, "folder": network + compressing + writing}
    found = {}
    for layout, one in timed.items():
        held = max(0.01, 1e6 / one.median - without[layout])
        found[layout] = {"us_an_image": 1e6 / one.median, "without_lock_us": without[layout], "lock_us": held}
    return found


def _us(work: Callable[[int], object], count: int, rounds: int) -> float:
    """Microseconds a call, the median of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for number in range(count):
            work(number)
        times.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(times)


def _ganrt(net: Network, **options: Any) -> Callable[[int, Path], object]:
    return lambda n, out: ganrt.generate(net.path, n=n, out=out, device="cpu", **options)


def picked(result: dict[str, Any]) -> float:
    """What ganrt picks by itself, over the best of the sweep."""
    return float(result["arrangements"][0]["over_best"])


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"\n{result['model']}, {cpu_count()} processors, folder of PNG"]
    for row in result["n"]:
        lines.append(
            f"  {row['n']:>9,} images {row['images_per_second']:>9,.0f}/s, "
            f"{row['seconds_an_image_over_10k']:.3f} of the seconds an image of 10,000"
        )
    for row in result["arrangements"]:
        lines.append(
            f"  {row['workers_x_threads']:>16} {row['images_per_second']:>9,.0f}/s, x{row['over_one']:.2f} of one "
            f"worker, spread {row['spread']:.1%}"
        )
    lines.append(f"  picked / best of the sweep: {picked(result):.3f}")
    for layout, found in result["lock"].items():
        most, many = 1e6 / found["lock_us"], _MANY * 1e6 / found["us_an_image"]
        lines.append(
            f"  {layout}: one worker takes {found['us_an_image']:.1f} us an image, {found['without_lock_us']:.1f} of "
            f"them without the interpreter lock: at most {most:,.0f} images/s in a process; {_MANY} processors could "
            f"make {many:,.0f}"
        )
    return "\n".join(lines)
