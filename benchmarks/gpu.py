"""The table of ``python -m benchmarks generate`` on a GPU: one script that needs the wheel, and ONNX files beside it.

    pip install 'ganrt[cuda]' && python gpu.py [MODEL.onnx ...] [--device cuda:0] [--json gpu.json]

Without a model every .onnx file beside the script is measured, or else the shipped generator; ``NAME.fp16.onnx``
beside ``NAME.onnx`` is its half-precision twin. ``--device cpu`` tries the script itself. Where PyTorch is installed,
what users write today is timed too, with the DCGAN of PyTorch's tutorial, for dcgan64.onnx:
``python -m benchmarks networks --out FOLDER`` writes that one, others, and their halves, on a machine with PyTorch.
The share of time that the GPU computes is what ``nvidia-smi`` reports while the row runs, and the bytes moved are
those of latents, labels and finished pixels.

``--same 5`` asks another question: do five processes make the same pixels? For each of cuDNN's ways to choose
algorithms, it prints how many different results there were, and the rates of the five, which share the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import ganrt
from ganrt.benchmark import calls
from ganrt.contract import read_model
from ganrt.errors import GanrtError
from ganrt.generator import load_checked
from ganrt.models import find_model
from ganrt.providers import PROVIDER_OPTIONS, cpu_count, gpus, installed_runtimes
from ganrt.samples import check_samples

BATCHES = (64, 256, 1024)
BATCH = 256
Table = dict[str, dict[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a figure is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where datasets are written; tmpfs unless given")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--same", type=int, metavar="PROCESSES", help="compare the pixels of so many processes instead")
    options = parser.parse_args()
    beside = [p for p in sorted(Path(__file__).resolve().parent.glob("*.onnx")) if not p.name.endswith(".fp16.onnx")]
    result: dict[str, Any] = {"device": device_name(options.device), "processors": cpu_count(), **installed_runtimes()}
    print(", ".join(f"{key} {value}" for key, value in result.items()), flush=True)
    shared = Path("/dev/shm")
    root = options.out or (shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir()))
    result["models"] = {}
    for path in options.models or beside or [find_model("fashion")]:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            if options.same:
                compare(path, options.device, Path(folder), options.same)
                continue
            rows = measure(path, options.device, Path(folder), options.seconds, options.rounds)
        result["models"][path.stem] = rows
        print(table(path.stem, rows), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def device_name(device: str) -> str:
    """What the driver calls the GPU."""
    return gpus()[int(device.partition(":")[2] or 0)] if device.startswith("cuda") else device


def measure(path: Path, device: str, root: Path, seconds: float, rounds: int) -> Table:
    """Rates of one generator: the network alone by batch, precision and CUDA graph; each layout; what users write."""
    rows: Table = {}
    on_gpu = device.startswith("cuda")
    files = {"fp32": path, "fp16": path.with_name(f"{path.stem}.fp16.onnx")}
    checked = {precision: read_model(file) for precision, file in files.items() if file.is_file()}
    card = checked["fp32"].card
    moved = 4 * card.z_dim + (8 if card.class_names else 0) + card.width * card.height * card.channels
    contenders: dict[str, Callable[[], float]] = {}
    for precision, model in checked.items():
        for batch in BATCHES:
            for graph in (False, True) if on_gpu else (False,):
                for callers in (1, 2, 4):
                    name = f"network {precision} batch {batch}{' CUDA graph' if graph else ''}, {callers} callers"
                    given = {"enable_cuda_graph": "1"} if graph else None
                    try:
                        generator = load_checked(model, files[precision], device, batch, 1, given)
                        samples = check_samples(card)
                        calls(generator, samples, batch, callers, seconds=0.2)
                    except GanrtError as error:
                        rows[name] = {"failed": str(error).splitlines()[0]}
                        continue
                    contenders[name] = lambda g=generator, s=samples, b=batch, c=callers: calls(  # type: ignore[misc]
                        g, s, b, c, seconds=seconds
                    )
    probe = max(contenders, key=lambda name: contenders[name]())
    network = contenders[probe]()
    counts = {"folder": 0.05, "webdataset": 0.1, "npy": 0.5}  # of what the network would make in that time
    for layout, share in counts.items():
        for batch in (64, BATCH):
            n = max(4 * batch, round(network * seconds * share) // batch * batch)
            options = {"layout": layout, "batch": batch, "shard_size": batch * (8 if layout == "folder" else 16)}
            contenders[f"ganrt {layout}, batch {batch}"] = _dataset(path, device, root / "set", n, options)
    n = max(4 * BATCH, round(network * seconds * 0.1) // BATCH * BATCH)
    several = {"layout": "webdataset", "batch": BATCH, "shard_size": BATCH * 16, "processes": max(2, cpu_count() // 4)}
    contenders[f"ganrt webdataset, {several['processes']} processes"] = _dataset(path, device, root / "set", n, several)
    if path.stem.startswith("dcgan64"):
        contenders |= rivals(path, device, root / "rival")
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    busy: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with Utilisation(device) as used:
                rates[name].append(contender())
            busy[name] += used.percent
    best = statistics.median(rates[probe])
    for name, found in rates.items():
        rate = statistics.median(found)
        rows[name] = {
            "images_per_second": round(rate, 1),
            "spread": round((max(found) - min(found)) / rate, 3),
            "of_network": round(rate / best, 4),
            "mb_moved_a_second": round(rate * moved / 1e6, 1),
            "gpu_busy_percent": round(statistics.mean(busy[name]), 1) if busy[name] else None,
        }
    return rows


_MAKE = """
import hashlib, sys, numpy, ganrt
model, device, out, search = sys.argv[1:]
options = {"cudnn_conv_algo_search": search} if search else None
made = ganrt.generate(model, n=20_000, out=out, layout="npy", device=device, workers=4, provider_options=options)
print(hashlib.sha256(numpy.load(out + "/images.npy").tobytes()).hexdigest(), made.images_per_second)
"""


def compare(path: Path, device: str, root: Path, processes: int) -> None:
    """Prints how many different sets of 20,000 images some processes make, by how cuDNN chooses algorithms."""
    for search in PROVIDER_OPTIONS["cudnn_conv_algo_search"] or () if device.startswith("cuda") else ("",):
        words = [sys.executable, "-c", _MAKE, str(path), device]
        started = [
            subprocess.Popen([*words, str(root / f"{search}{k}"), search], stdout=subprocess.PIPE, text=True)
            for k in range(processes)
        ]
        told = [process.communicate()[0].split() for process in started]
        rates = ", ".join(f"{float(rate):,.0f}" for _, rate in told)
        different = len({digest for digest, _ in told})
        print(f"{path.stem:12} {search or 'cpu':12} {different} different of {processes}; {rates} images/s", flush=True)


def _dataset(path: Path, device: str, out: Path, n: int, options: dict[str, Any]) -> Callable[[], float]:
    def run() -> float:
        shutil.rmtree(out, ignore_errors=True)
        try:
            return ganrt.generate(path, n=n, out=out, device=device, **options).images_per_second
        finally:
            shutil.rmtree(out, ignore_errors=True)

    return run


def rivals(path: Path, device: str, out: Path, n: int = 2048) -> dict[str, Callable[[], float]]:
    """What users write today on a GPU, as in benchmarks/rivals.py."""
    from PIL import Image

    def save(images: Any, first: int) -> None:
        for index, image in enumerate(images, first):
            Image.fromarray(image).save(out / f"{index:08d}.png")

    def timed(batches: Callable[[], Iterator[Any]], count: int) -> Callable[[], float]:
        def run() -> float:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            began, made = time.perf_counter(), 0
            for images in batches():
                save(images, made)
                made += len(images)
            shutil.rmtree(out, ignore_errors=True)
            return count / (time.perf_counter() - began)

        return run

    session = load_checked(read_model(path), path, device, 64, None)._session

    def onnxruntime() -> Iterator[Any]:
        for _ in range(n // 64):
            yield session.run(["images"], {"z": np.random.default_rng(0).standard_normal((64, 100), np.float32)})[0]

    found = {"d  ONNX Runtime, batch 64, Pillow": timed(onnxruntime, n // 64 * 64)}
    try:
        import torch
        from torch import nn
    except ImportError:
        return found
    where = device if device.startswith("cuda") else "cpu"

    def up(before: int, after: int, stride: int, padding: int) -> list[Any]:
        layers = [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return layers

    module: Any = nn.Sequential(
        nn.Unflatten(1, (100, 1, 1)),
        *up(100, 512, 1, 0),
        *up(512, 256, 2, 1),
        *up(256, 128, 2, 1),
        *up(128, 64, 2, 1),
        nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    module = module.eval().to(where)

    def eager(batch: int, count: int) -> Callable[[], Iterator[Any]]:
        def batches() -> Iterator[Any]:
            with torch.no_grad():
                for _ in range(count // batch):
                    x = module(torch.randn(batch, 100, device=where))
                    yield (x * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

        return batches

    found["a  PyTorch eager, batch 1, Pillow"] = timed(eager(1, n // 4), n // 4)
    found["b  PyTorch eager, batch 64, Pillow"] = timed(eager(64, n), n // 64 * 64)
    return found


class Utilisation:
    """Percentages of time in which the GPU computed, read from nvidia-smi while the block runs."""

    def __init__(self, device: str) -> None:
        self.percent: list[float] = []
        number = device.partition(":")[2] or "0"
        words = ["nvidia-smi", f"--id={number}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        self._words = [*words, "--loop-ms=100"] if device.startswith("cuda") and shutil.which("nvidia-smi") else []

    def __enter__(self) -> Utilisation:
        if self._words:
            self._process = subprocess.Popen(self._words, stdout=subprocess.PIPE, text=True)
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        return self

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.strip().isdigit():
                self.percent.append(float(line))

    def __exit__(self, *_: object) -> None:
        if self._words:
            self._process.terminate()
            self._reader.join()


def table(name: str, rows: Table) -> str:
    """The rows as lines of text."""
    lines = [f"\n{name}", f"{'':46}{'images/s':>11}{'spread':>8}{'of network':>11}{'MB/s moved':>11}{'GPU busy':>9}"]
    for what, row in rows.items():
        if "failed" in row:
            lines.append(f"{what:46} {row['failed']}")
            continue
        busy = "" if row["gpu_busy_percent"] is None else f"{row['gpu_busy_percent']:.0f} %"
        lines.append(
            f"{what:46}{row['images_per_second']:>11,.0f}{row['spread']:>8.1%}{row['of_network']:>11.3f}"
            f"{row['mb_moved_a_second']:>11,.0f}{busy:>9}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
