"""What the parts of making a dataset cost on this machine: latents, and PNG encoding with one filter or another.

    python -m benchmarks.parts [--model fashion]

The figures in docs/decisions 0001 and 0003 come from here. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

import ganrt
from ganrt.encode import PNG_LEVEL, encoder
from ganrt.latents import latents

BATCH, ROUNDS = 64, 5
Pixels = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description="Times the parts of generation.")
    parser.add_argument("--model", default="fashion")
    options = parser.parse_args()
    latent_costs()
    encoding(ganrt.load(options.model).sample(1000))


def median(work: Callable[[], object], count: int) -> float:
    """Microseconds an image, the median of a few rounds after one that is not counted."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - began)
    return statistics.median(rounds) / count * 1e6


def latent_costs() -> None:
    """z of 128 numbers: ours, and a seeded numpy generator an image."""

    def seeded() -> None:
        for index in range(BATCH):
            np.random.Generator(np.random.Philox(key=index)).standard_normal(128, np.float32)

    print(f"latents of 128 numbers, batches of {BATCH}, one core")
    print(f"  ganrt.latents             {median(lambda: latents(0, 0, BATCH, 128), BATCH):8.2f} us an image")
    print(f"  numpy generator an image  {median(seeded, BATCH):8.2f} us an image")


def encoding(generated: Pixels) -> None:
    """PNG: Pillow's default, ganrt's, and other filters before ISA-L."""
    rng = np.random.default_rng(0)
    coarse = np.clip(rng.normal(size=(300, 8, 8, 3)) * 60 + 128, 0, 255).astype(np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(c).resize((64, 64), Image.Resampling.BICUBIC)) for c in coarse])
    noisy = np.clip(smooth + rng.normal(size=smooth.shape) * 3, 0, 255).astype(np.uint8)
    for name, images in (("generated images", generated), ("smooth noise, 64x64 RGB", noisy)):
        print(f"PNG of {name}, one core")
        ways: dict[str, Callable[[Pixels], Iterator[bytes]]] = {
            "Pillow's default": _pillow,
            "ganrt": encoder("png", None, False),
            **{f"ISA-L, {kind}": partial(_filtered, kind=kind) for kind in FILTERS},
            "ISA-L at level 1, Up": partial(_filtered, kind="Up", level=1),
        }
        for way, encode in ways.items():
            size = sum(map(len, encode(images))) / len(images)
            cost = median(partial(_encode_all, encode, images), len(images))
            print(f"  {way:<20}{cost:8.1f} us {size:8.0f} bytes an image")


def _encode_all(encode: Callable[[Pixels], Iterator[bytes]], images: Pixels) -> int:
    return sum(len(data) for batch in _batches(images) for data in encode(batch))


def _pillow(images: Pixels) -> Iterator[bytes]:
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "png")
        yield file.getvalue()


def _filtered(images: Pixels, kind: str, level: int = PNG_LEVEL) -> Iterator[bytes]:
    count, height, width, channels = images.shape
    rows = images.reshape(count, height, width * channels)
    out = np.zeros((count, height, 1 + width * channels), np.uint8)
    FILTERS[kind](out, rows, channels)
    overhead = bytes(57)  # signature, header, chunk frames, end
    for image in out:
        data = isal_zlib.compress(image, level)
        isal_zlib.crc32(data)
        yield overhead + data


def _none(out: Pixels, rows: Pixels, channels: int) -> None:
    out[:, :, 1:] = rows


def _sub(out: Pixels, rows: Pixels, channels: int) -> None:
    out[:, :, 0] = 1
    out[:, :, 1 : 1 + channels] = rows[:, :, :channels]
    np.subtract(rows[:, :, channels:], rows[:, :, :-channels], out=out[:, :, 1 + channels :])


def _up(out: Pixels, rows: Pixels, channels: int) -> None:
    out[:, :, 0] = 2
    out[:, 0, 1:] = rows[:, 0]
    np.subtract(rows[:, 1:], rows[:, :-1], out=out[:, 1:, 1:])


def _average(out: Pixels, rows: Pixels, channels: int) -> None:
    out[:, :, 0] = 3
    padded = np.zeros((rows.shape[0], rows.shape[1] + 1, rows.shape[2] + channels), np.uint16)
    padded[:, 1:, channels:] = rows
    out[:, :, 1:] = rows - ((padded[:, 1:, :-channels] + padded[:, :-1, channels:]) >> 1).astype(np.uint8)


FILTERS: dict[str, Callable[[Pixels, Pixels, int], None]] = {
    "no filter": _none,
    "Sub": _sub,
    "Up": _up,
    "Average": _average,
}


def _batches(images: Pixels) -> Iterator[Pixels]:
    for first in range(0, len(images), BATCH):
        yield images[first : first + BATCH]


if __name__ == "__main__":
    main()
