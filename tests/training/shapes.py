"""Real images that are made up, without end: scikit-learn's digits, each turned, moved and stretched a little."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from sklearn.datasets import load_digits

from ganrt_training.data import ImageData
from ganrt_training.metrics import Protocol
from tests.models import tiny_proto

SIDE = 16
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN, TEST = 1000, 400
QUICK = Protocol(
    widths=(8, 16, 16), hidden=32, epochs=6, batch_size=32, dropout=0.0, shift=1, flip=False, precision="fp32"
)


@cache
def _originals() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    digits = load_digits()
    return (digits.images * 15.9).astype(np.uint8), digits.target.astype(np.int64)


@cache
def made(count: int, seed: int) -> ImageData:
    """Balanced images uint8 [count, 16, 16, 1]; another seed, other images of the same kind."""
    images, targets = _originals()
    random = np.random.Generator(np.random.Philox(key=seed))
    labels = np.arange(count) % len(NAMES)
    drawn = np.empty((count, SIDE, SIDE, 1), np.uint8)
    members = [np.flatnonzero(targets == label) for label in range(len(NAMES))]
    for index, label in enumerate(labels):
        angle, scale, dx, dy = random.normal(0, (0.1, 0.08, 0.6, 0.6))
        cos, sin = np.cos(angle) * (0.5 + scale / 2), np.sin(angle) * (0.5 + scale / 2)
        middle = (SIDE - 1) / 2
        across = (cos, -sin, 3.5 - cos * (middle + dx) + sin * (middle + dy))
        turn = (*across, sin, cos, 3.5 - sin * (middle + dx) - cos * (middle + dy))
        original = Image.fromarray(images[random.choice(members[label])])
        turned = original.transform((SIDE, SIDE), Image.Transform.AFFINE, turn, Image.Resampling.BICUBIC)
        drawn[index, ..., 0] = np.asarray(turned)
    return ImageData(drawn, labels, NAMES)


def real_file(folder: Path) -> Path:
    """An .npz with a training and a test split."""
    train, test = made(TRAIN, 0), made(TEST, 1)
    path = folder / "digits.npz"
    splits = {"train": train, "test": test}
    arrays = {f"{split}_{kind}": getattr(data, kind) for split, data in splits.items() for kind in ("images", "labels")}
    np.savez(path, class_names=np.array(NAMES), **arrays)
    return path


def dataset_file(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, name: str = "made") -> Path:
    """An .npz of images to be evaluated, with labels or without."""
    path = folder / f"{name}.npz"
    if labels is None:
        np.savez(path, images=images)
    else:
        np.savez(path, images=images, labels=labels, class_names=np.array(NAMES))
    return path


def generator_file(folder: Path, name: str = "digits") -> Path:
    """A generator of such images: each class's mean, mixed with a little of all others'."""
    data = made(TRAIN, 0)
    means = np.stack([data.images[data.labels == label].mean(0).reshape(-1) for label in range(len(NAMES))])
    proto = tiny_proto(name=name, class_names=NAMES, z_dim=len(NAMES), width=SIDE, height=SIDE, channels=1)
    weights = {
        "weight": np.arctanh((means / 128 - 1).clip(-0.99, 0.99)) / 4,
        "bias": np.zeros(SIDE * SIDE),
        "table": 4 * np.eye(len(NAMES)),
    }
    for initializer in proto.graph.initializer:
        if initializer.name in weights:
            array = weights[initializer.name].astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(array, initializer.name))
    path = folder / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString())
    return path
