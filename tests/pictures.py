"""Folders of images for tests, translators that are slow or look around, and what translated datasets hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

import ganrt
from tests.models import tiny_translator, tiny_translator_proto

Pixels = NDArray[np.uint8]
SMALL: dict[str, Any] = {"batch": 4, "shard_size": 8}


def picture(seed: int, width: int = 8, height: int = 8, channels: int = 3) -> Pixels:
    """One image uint8 [H, W, C], another for every seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def write_picture(path: Path, pixels: Pixels) -> None:
    """Writes an image in the format of its name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)


def folder_of(root: Path, names: Sequence[str], **options: Any) -> dict[str, Pixels]:
    """Writes a picture under each name; which, by its name."""
    found = {name: picture(seed, **options) for seed, name in enumerate(names)}
    for name, pixels in found.items():
        write_picture(root / name, pixels)
    return found


def two_classes(root: Path, count: int = 21, **options: Any) -> dict[str, Pixels]:
    """A folder of so many images in the classes ``cat`` and ``dog``, in the order of their indices."""
    names = [f"{'cat' if k < count // 3 else 'dog'}/{k:02d} photo.png" for k in range(count)]
    return folder_of(root, names, **options)


def translator_file(folder: Path, name: str = "tiny", data: bytes | None = None, **options: Any) -> Path:
    """The file of a tiny image-to-image generator."""
    path = folder / f"{name}.onnx"
    path.write_bytes(tiny_translator(name=name, **options) if data is None else data)
    return path


def slow_translator_file(folder: Path, nodes: int = 3000, **options: Any) -> Path:
    """One that needs tens of milliseconds a call."""
    proto: onnx.ModelProto = tiny_translator_proto(name="slow", **options)
    at = next(k for k, node in enumerate(proto.graph.node) if node.op_type == "Resize")
    resize = proto.graph.node[at]
    source = resize.input[0]
    for number in range(nodes):
        proto.graph.node.insert(at + number, helper.make_node("Erf", [source], [f"erf{number}"]))
        source = f"erf{number}"
    resize.input[0] = source
    path = folder / "slow.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def looking_around(radius: int, scale: int = 1) -> bytes:
    """A translator of any size whose pixels depend on those up to ``radius`` away, with padding by zeros.

    Its weights are small whole numbers over a power of two, so that sums are exact in any order.
    """
    proto: onnx.ModelProto = tiny_translator_proto(name="around", scale=scale, dynamic=True, channels=1)
    side = 2 * radius + 1
    weight = np.random.default_rng(radius).integers(-8, 9, (1, 1, side, side)).astype(np.float32) / 64
    for tensor in proto.graph.initializer:
        if tensor.name == "weight":
            tensor.CopyFrom(numpy_helper.from_array(weight, "weight"))
        elif tensor.name in ("half", "one", "middle"):  # pixels as they are, so that nothing is rounded
            value = {"half": 1.0, "one": 0.0, "middle": 128.0}[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), tensor.name))
    [conv] = [node for node in proto.graph.node if node.op_type == "Conv"]
    conv.attribute.append(helper.make_attribute("pads", [radius] * 4))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def translate(model: Path, images: Path, out: Path, **options: Any) -> ganrt.Report:
    """``ganrt.translate`` on the CPU, by two workers and in small shards unless said otherwise."""
    return ganrt.translate(model, images, out=out, **{"device": "cpu", "workers": 2, "threads": 1, **SMALL, **options})


def command(model: Path, images: Path, out: Path, *words: str) -> list[str]:
    """The command line of ``translate``."""
    given = ["--workers", "2", "--threads", "1", "--device", "cpu", "--shard-size", "8", "--batch", "4"]
    return [sys.executable, "-m", "ganrt", "translate", str(model), str(images), str(out), *given, *words]
