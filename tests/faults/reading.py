"""What tests of hostile files call, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ganrt
from ganrt_training.data import read_images


def train_on(path: Path, size: int = 8, **options: Any) -> str:
    """Reads training data as ``ganrt train`` does."""
    data = read_images(path, size, **options)
    return f"{list(data.images.shape)} {list(data.class_names)!a} {list(data.skipped)!a}"


def translate(model: Path, images: Path, out: Path, **options: Any) -> str:
    """Translates a folder as ``ganrt translate`` does."""
    report = ganrt.translate(model, images, out=out, device="cpu", workers=1, threads=1, **options)
    return f"{report.images} images"
