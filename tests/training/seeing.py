"""Tiny feature networks, and images for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Pixels = NDArray[np.uint8]
ABOUT: dict[str, Any] = {"class_names": ("a", "b", "c"), "size": (8, 8), "channels": 3}  # of a classifier


def pictures(count: int, height: int = 8, width: int = 8, channels: int = 3) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), np.uint8)


def proto(
    *,
    given: list[int | str | None] | None = None,
    dtype: int = TensorProto.FLOAT,
    made: list[int | str | None] | None = None,
    outputs: tuple[str, ...] = ("pooled",),
    nodes: list[onnx.NodeProto] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A network that gives the mean of each channel, under each of the outputs' names."""
    given = given or ["N", 3, 8, 8]
    axes = [1, 2] if given[3] in (1, 3) and given[1] not in (1, 3) else [2, 3]
    kept = made is not None and len(made) == 4
    nodes = nodes or [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=int(kept)),
        *(helper.make_node("Identity", ["mean"], [name]) for name in outputs),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", dtype, given)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, made or ["N", 3]) for name in outputs],
        [numpy_helper.from_array(np.array(axes), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(folder: Path, model: onnx.ModelProto | None = None, **options: Any) -> Path:
    path = folder / "net.onnx"
    path.write_bytes((model or proto(**options)).SerializeToString())
    return path
