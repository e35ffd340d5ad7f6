"""``python -m benchmarks generate``: the whole path against its parts and against what users write today."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ganrt
from benchmarks.networks import NAMES, Network, network
from benchmarks.rivals import rivals
from benchmarks.rounds import BATCH, Timed, in_turn, machine, memory_folder, write_json
from ganrt.benchmark import calls
from ganrt.contract import read_model
from ganrt.encode import encoder
from ganrt.files import digest, write_loose
from ganrt.generator import Generator, load_checked
from ganrt.providers import cpu_count
from ganrt.samples import check_samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=NAMES, action="append", help="again for several; all unless given")
    parser.add_argument("--n", type=int, help="images a run; as many as --seconds allow unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a run takes")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="a folder on disk")
    parser.add_argument("--memory", type=Path, default=memory_folder(), help="a folder on tmpfs")
    parser.add_argument("--json", type=Path)


def run(options: argparse.Namespace) -> int:
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    results = []
    for name in options.model or NAMES:
        results.append(measure(name, options.memory, options.out, options.n, options.rounds, options.seconds))
        print(table(results[-1]), flush=True)
    write_json(options.json, results)
    return 0


def measure(name: str, memory: Path, disk: Path, n: int | None, rounds: int, seconds: float) -> dict[str, Any]:
    """All contenders of one network, in turn."""
    with tempfile.TemporaryDirectory(dir=memory) as in_memory, tempfile.TemporaryDirectory(dir=disk) as on_disk:
        return _measure(network(name, Path(in_memory)), Path(in_memory), Path(on_disk), n, rounds, seconds)


def _measure(net: Network, memory: Path, disk: Path, n: int | None, rounds: int, seconds: float) -> dict[str, Any]:
    cores = cpu_count()
    arrangement, sweep = best_arrangement(net, cores)
    infer = _inference(net, arrangement)
    together = arrangement["callers"] * arrangement["batch"]  # so that no caller is idle at the end
    floor = Timed("inference alone", infer, memory / "set", n, unit=together)
    sample = ganrt.load(net.path).sample(2048)
    encoded = list(encoder("png", None, True)(sample))
    contenders = [
        floor,
        Timed("PNG encoding alone, one thread", lambda n, out: _encode(sample, n), memory / "set", n),
        Timed("files alone, one thread", lambda n, out: _write(encoded, n, out), memory / "set", n),
    ]
    ways: list[tuple[str, Path, dict[str, Any]]] = [
        ("folder png", memory, {}),
        ("webdataset png", memory, {"layout": "webdataset"}),
        ("npy", memory, {"layout": "npy"}),
        ("folder jpeg", memory, {"format": "jpeg"}),
        ("folder webp", memory, {"format": "webp"}),
        ("folder png on disk", disk, {}),
        ("webdataset png on disk", disk, {"layout": "webdataset"}),
        ("npy on disk", disk, {"layout": "npy"}),
    ]
    contenders += [
        Timed(f"ganrt {way}", _ganrt(net, options), where / "set", n, cores * BATCH) for way, where, options in ways
    ]
    contenders += [Timed(name, rival, memory / "set", n) for name, rival in rivals(net, cores).items()]
    in_turn(contenders, rounds, seconds)
    others = [c for c in contenders if c.name[1:2] == " "]
    return {
        "model": net.name,
        "rounds": rounds,
        "best": arrangement,
        "sweep": sweep,
        "rows": {
            c.name: {
                "images_per_second": round(c.median, 1),
                "spread": round(c.spread, 3),
                "of_inference": round(c.over(floor), 3),
                "over": {other.name[0]: round(c.over(other), 2) for other in others},
            }
            for c in contenders
        },
    }


def best_arrangement(net: Network, cores: int) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """A small sweep of callers x threads in a call x batch, for two rounds of half a second each."""
    generators: dict[tuple[int, int], Generator] = {}
    rates: dict[tuple[int, int, int], list[float]] = {}
    pairs = sorted({(1, 1), (1, cores), (cores, 1), (2 * cores, 1), (cores, 2)})
    for seconds in (0.1, 0.5, 0.5):
        for callers, threads in pairs:
            for batch in (16, 32, 64, 128, 256):
                generator = generators.get((threads, batch)) or _loaded(net, batch, threads)
                generators[threads, batch] = generator
                rate = calls(generator, check_samples(generator.card), batch, callers, seconds=seconds)
                rates.setdefault((callers, threads, batch), []).append(rate)
    sweep = [
        {"callers": c, "threads": t, "batch": b, "images_per_second": round(statistics.mean(found[1:]), 1)}
        for (c, t, b), found in rates.items()
    ]
    best = max(rates, key=lambda key: statistics.mean(rates[key][1:]))
    return dict(zip(("callers", "threads", "batch"), best, strict=True)), sweep


def _loaded(net: Network, batch: int, threads: int) -> Generator:
    return load_checked(read_model(net.path), net.path, "cpu", batch, threads)


def _inference(net: Network, best: dict[str, int]) -> Callable[[int, Path], object]:
    generator = _loaded(net, best["batch"], best["threads"])
    return lambda n, out: calls(generator, check_samples(generator.card), best["batch"], best["callers"], n=n)


def _encode(images: Any, n: int) -> None:
    encode = encoder("png", None, True)
    for first in range(0, n, BATCH):
        at = first % (len(images) - BATCH + 1)
        for _ in encode(images[at : at + min(BATCH, n - first)]):
            pass


def _write(encoded: list[bytes], n: int, out: Path) -> None:
    base = f"{out}/"
    for index in range(n):
        data = encoded[index % len(encoded)]
        write_loose(f"{base}{index:08d}.png", data)
        digest(data)


def _ganrt(net: Network, options: dict[str, Any]) -> Callable[[int, Path], object]:
    return lambda n, out: ganrt.generate(net.path, n=n, out=out, device="cpu", **options)


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    best = result["best"]
    lines = [
        f"\n{result['model']}: {result['rounds']} rounds in turn",
        f"inference alone, images/s by callers x threads: {'batch 16':>12}{32:>9}{64:>9}{128:>9}{256:>9}",
    ]
    for callers, threads in dict.fromkeys((row["callers"], row["threads"]) for row in result["sweep"]):
        rates = [r["images_per_second"] for r in result["sweep"] if (r["callers"], r["threads"]) == (callers, threads)]
        lines.append(f"{callers:>43} x {threads}" + "".join(f"{rate:>10,.0f}" for rate in rates))
    lines += [
        f"best: {best['callers']} x {best['threads']}, batch {best['batch']}",
        f"{'':44}{'images/s':>10}{'spread':>8}{'of inference':>14}   over a, b, c, d, e",
    ]
    for name, row in result["rows"].items():
        over = (
            "".join(f"{ratio:>7.2f}" for ratio in row["over"].values())
            if name.startswith(("ganrt", "inference"))
            else ""
        )
        lines.append(
            f"{name:44}{row['images_per_second']:>10,.0f}{row['spread']:>8.1%}{row['of_inference']:>14.3f}   {over}"
        )
    return "\n".join(lines)
