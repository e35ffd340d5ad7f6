"""What tests of hostile files call, in a process of its own."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import ganrt
from ganrt_training.checkpoint import load_checkpoint, load_generator
from ganrt_training.data import read_images
from ganrt_training.torch_weights import load_weights


def train_on(path: Path, size: int = 8, **options: Any) -> str:
    """Reads training data as ``ganrt train`` does."""
    data = read_images(path, size, **options)
    return f"{list(data.images.shape)} {list(data.class_names)!a} {list(data.skipped)!a}"


def translate(model: Path, images: Path, out: Path, **options: Any) -> str:
    """Translates a folder as ``ganrt translate`` does."""
    report = ganrt.translate(model, images, out=out, device="cpu", workers=1, threads=1, **options)
    return f"{report.images} images"


def weights(path: Path) -> str:
    """Reads somebody's weights as ``ganrt export --torch`` does."""
    return repr(load_weights(_network(), path, None))


def _network() -> nn.Module:
    network = nn.Module()
    network.w = nn.Parameter(torch.zeros(2, 2))
    return network


def checkpoint(path: Path) -> str:
    """Reads a run's checkpoint as ``ganrt train`` does when it goes on."""
    return repr(sorted(load_checkpoint(path)))


def snapshot(path: Path) -> str:
    """Reads a run's snapshot as ``ganrt export`` does."""
    return load_generator(path).recipe.name


def unpickled(path: Path) -> str:
    """What none of the readers does."""
    with open(path, "rb") as file:
        return repr(pickle.load(file))


def keras_file(path: Path) -> str:
    """Reads a file of Keras as far as it is read without Keras."""
    from ganrt_training.keras_files import read_keras
    from ganrt_training.keras_source import _read

    return str(read_keras(_read(path), str(path)).config)[:100]


def keras(path: Path) -> str:
    """Opens a generator of Keras and makes an image, as ``ganrt export`` does."""
    from ganrt_training.keras_source import open_keras

    foreign = open_keras(path)
    return str(foreign.run(*(np.zeros((1, *i.shape), i.dtype) for i in foreign.inputs)).shape)


def onnx_file(path: Path) -> str:
    """Opens somebody's ONNX file and makes an image, as ``ganrt export`` does."""
    from ganrt_training.onnx_source import open_onnx

    foreign = open_onnx(path)
    return str(foreign.run(*(np.zeros((1, *i.shape), i.dtype) for i in foreign.inputs)).shape)


def look_at(dataset: Path, out: Path) -> str:
    """Draws a dataset's images and explains one, as ``ganrt preview`` and ``ganrt explain`` do."""
    ganrt.preview(dataset, out)
    return str(ganrt.explain(dataset, 0))[:100]
