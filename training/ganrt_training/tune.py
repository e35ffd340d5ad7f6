"""The same function in operators that ONNX Runtime computes faster on a CPU. Figures: docs/performance.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

# With more output channels than this ONNX Runtime's blocked convolution wins; it fills up to 16 with zeros.
FEW_CHANNELS = 8
_PREFIX = "tuned/"  # of new names


def tune(model: onnx.ModelProto, raw: str = "") -> None:
    """Rewrites a graph in place; every output, and the tensor ``raw``, stays the same but for the order of sums.

    A Mul and Add by channel after a convolution joins its weights and bias (as the batch norms of inference
    are). A ConvTranspose of a 1x1 map, which most generators begin with, becomes a Gemm over the whole batch.
    A Conv to few channels, which most end with, becomes the ConvTranspose that equals it.
    """
    _fold_affine(model, raw)
    graph = model.graph
    maps = _sizes(model)
    tensors = _constants(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        rewritten = None
        if node.op_type in ("Conv", "ConvTranspose") and all(name in tensors for name in node.input[1:]):
            weight = numpy_helper.to_array(tensors[node.input[1]])
            if weight.ndim == 4 and node.op_type == "ConvTranspose" and maps.get(node.input[0], [])[2:] == [1, 1]:
                rewritten = _as_gemm(graph, node, weight, tensors)
            elif weight.ndim == 4 and node.op_type == "Conv" and weight.shape[0] <= FEW_CHANNELS:
                rewritten = _as_transposed(graph, node, weight)
        nodes += rewritten or [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _fold_affine(model: onnx.ModelProto, raw: str) -> None:
    graph = model.graph
    tensors = _constants(graph)
    outputs = {raw, *(value.name for value in graph.output)}
    positions = {node.output[0]: position for position, node in enumerate(graph.node)}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    gone: set[int] = set()
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or not all(name in tensors for name in node.input[1:]):
            continue
        if node.op_type == "ConvTranspose" and _settings(node).get("group", 1) != 1:
            continue
        given = numpy_helper.to_array(tensors[node.input[1]])
        axis = 0 if node.op_type == "Conv" else 1  # of the output's channels
        channels, weight = given.shape[axis], given.astype(np.float64)
        bias = np.zeros(channels)
        if len(node.input) > 2:
            bias = numpy_helper.to_array(tensors[node.input[2]]).astype(np.float64)
        end = node.output[0]
        while end not in outputs and len(users.get(end, [])) == 1:
            [user] = users[end]
            other = [name for name in user.input if name != end]
            factor = _by_channel(tensors.get(other[0]), channels, given.ndim) if len(other) == 1 else None
            if user.op_type not in ("Mul", "Add") or factor is None:
                break
            if user.op_type == "Mul":
                weight, bias = weight * factor.reshape(-1, *(1,) * (given.ndim - 1 - axis)), bias * factor
            else:
                bias = bias + factor
            end = user.output[0]
            gone.add(positions[end])
        if end != node.output[0]:
            node.output[0] = end
            node.input[1:] = [f"{_PREFIX}{end}/weight", f"{_PREFIX}{end}/bias"]
            for name, value in zip(node.input[1:], (weight, bias), strict=True):
                graph.initializer.append(numpy_helper.from_array(value.astype(given.dtype), name))
    kept = [node for position, node in enumerate(graph.node) if position not in gone]
    del graph.node[:]
    graph.node.extend(kept)


def _as_gemm(
    graph: onnx.GraphProto, node: onnx.NodeProto, weight: NDArray[Any], tensors: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto] | None:
    """On a 1x1 map nothing overlaps: every output is one product of the input's channels with the weights."""
    settings, (before, after, high, wide) = _settings(node), weight.shape
    if any(settings.get("pads", ())) or any(settings.get("output_padding", ())) or "output_shape" in settings:
        return None
    if settings.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    if settings.get("group", 1) != 1 or any(step != 1 for step in settings.get("dilations", ())):
        return None
    x, y, new = node.input[0], node.output[0], _PREFIX + node.output[0]
    bias = numpy_helper.to_array(tensors[node.input[2]]) if len(node.input) > 2 else np.zeros(after, weight.dtype)
    values: dict[str, NDArray[Any]] = {
        "flat": np.array([-1, before]),
        "matrix": weight.reshape(before, -1),
        "vector": np.repeat(bias, high * wide),
        "map": np.array([-1, after, high, wide]),
    }
    for name, value in values.items():
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{new}/{name}"))
    return [
        helper.make_node("Reshape", [x, f"{new}/flat"], [f"{new}/rows"], name=f"{new}/rows"),
        helper.make_node(
            "Gemm", [f"{new}/rows", f"{new}/matrix", f"{new}/vector"], [f"{new}/product"], name=f"{new}/product"
        ),
        helper.make_node("Reshape", [f"{new}/product", f"{new}/map"], [y], name=f"{new}/map"),
    ]


def _as_transposed(graph: onnx.GraphProto, node: onnx.NodeProto, weight: NDArray[Any]) -> list[onnx.NodeProto] | None:
    """With stride 1 a convolution is the transposed one with the kernel turned round and pads of kernel - 1 - pad."""
    settings, kernel = _settings(node), weight.shape[2:]
    pads = settings.get("pads", [0] * 4)
    if settings.get("group", 1) != 1 or any(step != 1 for step in settings.get("strides", ())):
        return None
    if any(step != 1 for step in settings.get("dilations", ())) or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    turned = [kernel[side % 2] - 1 - pad for side, pad in enumerate(pads)]
    if min(turned) < 0:
        return None
    name = f"{_PREFIX}{node.output[0]}/turned"
    graph.initializer.append(
        numpy_helper.from_array(np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)), name)
    )
    return [
        helper.make_node(
            "ConvTranspose",
            [node.input[0], name, *node.input[2:]],
            list(node.output),
            name=node.name,
            kernel_shape=list(kernel),
            pads=turned,
            strides=[1, 1],
        )
    ]


def _by_channel(tensor: onnx.TensorProto | None, channels: int, rank: int) -> NDArray[np.float64] | None:
    """A constant that has one value a channel, or one for all, as float64 [channels]."""
    if tensor is None:
        return None
    value = numpy_helper.to_array(tensor)
    if value.size == 1 and value.ndim <= rank:
        return np.full(channels, value.reshape(()), np.float64)
    shape = (channels, *(1,) * (rank - 2))
    return value.astype(np.float64).reshape(-1) if value.shape in (shape, (1, *shape)) else None


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The initializers that no caller can replace."""
    inputs = {value.name for value in graph.input}
    return {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}


def _settings(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _sizes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The sizes of every tensor that shape inference can tell, 0 where it cannot."""
    graph = shape_inference.infer_shapes(model).graph
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.input)}
