"""Training in seconds: recipes at their smallest, images that a glance can tell apart."""

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
QUICK_SNAPSHOT = "snapshot-000000.safetensors"  # and the quick ones, after 64 images


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


def quick_data(count: int = 40, classes: int = 2) -> ImageData:
    """8x8 grey noise in which class k has a bright line in row 2 k."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    images = random.integers(0, 60, (count, 8, 8, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label] += 180
    return ImageData(images, labels, tuple(f"line {k}" for k in range(classes)))


def quick_recipe(name: str, *overrides: str) -> Recipe:
    """Any recipe on 8x8 images: eight steps in four ticks; one snapshot, at the end."""
    smallest = "image_size=8 width=2 z_dim=4 batch_size=8 total_kimg=0.064 tick_kimg=0.016 snapshot_kimg=0.064"
    return find_recipe(name).with_overrides([*smallest.split(), *overrides])


def _slowly(*arguments: Any) -> dict[str, torch.Tensor]:
    time.sleep(0.2)
    return adversarial_step(*arguments)


def _tell(stats: Stats) -> None:
    sys.stdout.write(f"{stats['kimg']}\n")
    sys.stdout.flush()


if __name__ == "__main__":  # a run for a test to kill: tells of each tick, and leaves time to be killed in the next
    torch.set_num_threads(1)
    with patch("ganrt_training.loop.adversarial_step", _slowly):
        train(quick_recipe(*sys.argv[2:]), quick_data(), Path(sys.argv[1]), progress=_tell)
