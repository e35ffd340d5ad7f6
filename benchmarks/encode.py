"""``python -m benchmarks encode``: encoders by size and content, microseconds and bytes an image."""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import ganrt
from benchmarks.rounds import write_json
from ganrt.encode import encoder

Pixels = NDArray[np.uint8]
BATCH = 64
BASE = "Pillow png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)


def run(options: argparse.Namespace) -> int:
    rows = measure(options.rounds)
    print(table(rows))
    write_json(options.json, rows)
    return 0


def measure(rounds: int) -> list[dict[str, Any]]:
    """Every encoder on every content, one core, in turn."""
    rows = []
    for content, images in contents().items():
        ways = {name: _timed(way, images) for name, way in encoders().items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, timed in ways.items():
                seconds = timed()
                if number:
                    times[name].append(seconds / len(images) * 1e6)
        base_size = _size(encoders()[BASE], images)
        for name, way in encoders().items():
            size = _size(way, images)
            rows.append(
                {
                    "content": content,
                    "encoder": name,
                    "us_an_image": round(statistics.median(times[name]), 2),
                    "bytes": round(size, 1),
                    "speed": round(statistics.median(b / t for b, t in zip(times[BASE], times[name], strict=True)), 2),
                    "size": round(size / base_size, 3),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The result as lines of text."""
    lines = [f"{'content':33}{'encoder':20}{'us/image':>9}{'bytes':>9}   speed and size over Pillow's default PNG"]
    for row in rows:
        lines.append(
            f"{row['content']:33}{row['encoder']:20}{row['us_an_image']:>9.1f}{row['bytes']:>9,.0f}"
            f"{row['speed']:>9.1f}x{row['size']:>7.2f}"
        )
    return "\n".join(lines)


def encoders() -> dict[str, Callable[[Pixels], Iterator[bytes]]]:
    """By name; Pillow's default level is the one to beat."""
    return {
        BASE: lambda images: _pillow(images, "png"),
        "Pillow png level 1": lambda images: _pillow(images, "png", compress_level=1),
        "ganrt png": encoder("png", None, False),
        "ganrt jpeg": encoder("jpeg", None, False),
        "ganrt webp": encoder("webp", None, False),
    }


def contents() -> dict[str, Pixels]:
    """What is encoded: generated clothes, and noise as smooth and as rough as photographs are."""
    found = {"fashion 28x28 grey": ganrt.load("fashion").sample(512)}
    rng = np.random.default_rng(0)
    for size, count in ((32, 512), (64, 256), (128, 64), (256, 32)):
        found[f"photograph-like {size}x{size} RGB"] = photographs(rng, count, size)
    found["flat 64x64 RGB"] = np.full((256, 64, 64, 3), 40, np.uint8)
    found["noise 64x64 RGB"] = rng.integers(0, 256, (256, 64, 64, 3), np.uint8)
    return found


def photographs(rng: np.random.Generator, count: int, size: int) -> Pixels:
    """Smooth colour fields with edges and sensor noise: the spectrum of natural images, roughly 1/f."""
    images = np.zeros((count, size, size, 3))
    cells = 2
    while cells <= size:
        coarse = rng.normal(size=(count, cells, cells, 3)).astype(np.float32)
        for image, field in zip(images, coarse, strict=True):
            for c in range(3):
                layer = Image.fromarray(field[:, :, c]).resize((size, size), Image.Resampling.BICUBIC)
                image[:, :, c] += np.asarray(layer) * 90 / cells
        cells *= 2
    images += 128 + rng.normal(size=images.shape)
    return np.clip(images, 0, 255).astype(np.uint8)


def _pillow(images: Pixels, format: str, **options: int) -> Iterator[bytes]:
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, format, **options)
        yield file.getvalue()


def _timed(way: Callable[[Pixels], Iterator[bytes]], images: Pixels) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        for first in range(0, len(images), BATCH):
            for _ in way(images[first : first + BATCH]):
                pass
        return time.perf_counter() - began

    return once


def _size(way: Callable[[Pixels], Iterator[bytes]], images: Pixels) -> float:
    return sum(map(len, way(images))) / len(images)
