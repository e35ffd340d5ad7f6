"""What an image costs in a generator's ONNX file: parameters, and multiply-accumulates of its layers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ganrt.card import Card
from ganrt.providers import runtime

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


def parameters(model: onnx.ModelProto) -> int:
    """Numbers in the file's weights, constants that are tensors of one number left out."""
    return sum(n for t in model.graph.initializer if t.data_type in _FLOATS and (n := math.prod(t.dims)) > 1)


def macs(path: Path, card: Card) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image.

    The shapes are those of a run: ONNX's shape inference does not get through every export. What stands in branches
    and loops is not counted; no exported generator has any.
    """
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in _LAYERS]
    shapes = _shapes(model, nodes, card)
    return sum(_of_node(node, shapes) for node in nodes)


def _of_node(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    first, second, out = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * first[0 if turned else -1]


def _shapes(model: onnx.ModelProto, nodes: list[onnx.NodeProto], card: Card) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    named = dict.fromkeys(name for node in nodes for name in (*node.input[:2], *node.output[:1]))
    told = {value.name for value in (*model.graph.input, *model.graph.output)} | set(shapes)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in named if name not in told)
    options = runtime().SessionOptions()
    options.graph_optimization_level = runtime().GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime().InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {value.name: _zeros(value, card) for value in session.get_inputs()}
    found = dict(zip((v.name for v in session.get_outputs()), session.run(None, given), strict=True))
    return shapes | {name: value.shape for name, value in (given | found).items()}


def _zeros(value: Any, card: Card) -> np.ndarray[Any, Any]:
    """One sample for an input of the contract; of images, of the size that was trained on."""
    trained = (1, *card.in_shape)
    shape = [size if isinstance(size, int) else trained[axis] for axis, size in enumerate(value.shape)]
    return np.zeros(shape, _TYPES[value.type])
