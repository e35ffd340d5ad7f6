"""Training in seconds: the shipped recipe at its smallest, images that a glance can tell apart."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from ganrt_training.data import ImageData
from ganrt_training.gans import find_recipe
from ganrt_training.loop import Stats, train
from ganrt_training.recipe import Recipe
from ganrt_training.step import adversarial_step

SNAPSHOT = "snapshot-000001.safetensors"  # what the tiny recipe ends with


def tiny_data(count: int = 200, classes: int = 3) -> ImageData:
    """28x28 grey noise in which class k has a bright band across row 8 k."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    images = random.integers(0, 60, (count, 28, 28, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[8 * label : 8 * label + 6] += 180
    return ImageData(images, labels, tuple(f"band {k}" for k in range(classes)))


def tiny_recipe(*overrides: str) -> Recipe:
    """Forty steps in four ticks; one snapshot, at the end."""
    smallest = "width=2 z_dim=4 batch_size=16 total_kimg=0.64 tick_kimg=0.16 snapshot_kimg=0.64"
    return find_recipe("cgan_projection_28").with_overrides([*smallest.split(), *overrides])


def _slowly(*arguments: Any) -> dict[str, torch.Tensor]:
    time.sleep(0.02)
    return adversarial_step(*arguments)


def _tell(stats: Stats) -> None:
    sys.stdout.write(f"{stats['kimg']}\n")
    sys.stdout.flush()


if __name__ == "__main__":  # a run for a test to kill: tells of each tick, and leaves time to be killed in the next
    torch.set_num_threads(1)
    with patch("ganrt_training.loop.adversarial_step", _slowly):
        train(tiny_recipe(), tiny_data(), Path(sys.argv[1]), progress=_tell)
