"""What a hostile or broken model is to a test, and how most of them are made: a good one, changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.models import tiny_proto, tiny_translator_proto

DAMAGED = "damaged model files"
PROTOBUF = "protobuf that two parsers read differently, or that expands"
FOREIGN = "files that are no ONNX model"
EXTERNAL = "weights that lie in other files"
OPERATORS = "operators and graph features that are refused"
WEIGHTS = "weights that are not what their header says"
NOT_FINITE = "weights that are not finite"
INTERFACE = "inputs and outputs that do not follow the contract"
LYING = "lying cards"
CARDS = "broken and oversized cards"
GRAPHS = "graphs that make no sense"
CRASHES = "graphs that crash ONNX Runtime"
RUNTIME = "ONNX Runtime: "  # how its errors begin
BOMBS = "small files that ask for much memory or time"
RESULTS = "outputs that are no pictures"


@dataclass(frozen=True)
class Hostile:
    """A file and the typed error that ``ganrt`` must end with: its class and words of its message."""

    name: str
    row: str  # of the table of `make faults`
    data: bytes = field(repr=False)
    error: str
    words: str
    beside: dict[str, bytes] = field(default_factory=dict, repr=False)  # files in its folder
    links: dict[str, str] = field(default_factory=dict)  # symbolic links in its folder: name → target
    translates: bool = False

    def write(self, folder: Path) -> Path:
        """Writes the file and what belongs beside it; the file's path."""
        path = folder / f"{self.name}.onnx"
        path.write_bytes(self.data)
        for name, data in self.beside.items():
            (folder / name).write_bytes(data)
        for name, target in self.links.items():
            (folder / name).symlink_to(target)
        return path


def changed(change: Callable[[onnx.ModelProto], object], **arguments: Any) -> bytes:
    """A good generator after one change."""
    model = tiny_proto(**arguments)
    change(model)
    return bytes(model.SerializeToString())


def changed_translator(change: Callable[[onnx.ModelProto], object], **arguments: Any) -> bytes:
    """A good image-to-image generator after one change."""
    model = tiny_translator_proto(**arguments)
    change(model)
    return bytes(model.SerializeToString())


def weight(model: onnx.ModelProto, name: str = "weight") -> TensorProto:
    """An initializer."""
    found: TensorProto = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    return found


def node(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    """The first node of an operator."""
    found: onnx.NodeProto = next(node for node in model.graph.node if node.op_type == op)
    return found


def constant(name: str, values: ArrayLike, dtype: Any = None) -> TensorProto:
    """An initializer of these numbers."""
    array = np.asarray(values, dtype)
    return numpy_helper.from_array(array, name)


def hooked(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], end: str, weights: Sequence[TensorProto] = ()
) -> None:
    """Adds nodes in front of the last ones; the sum of the floats ``end``, times 0, is added to the pixels."""
    graph = model.graph
    graph.initializer.extend([*weights, constant("hook_zero", 0, np.float32)])
    at = next(k for k, node in enumerate(graph.node) if node.output[0] == "levels")
    [scaled, middle] = graph.node[at].input
    hook = [
        *nodes,
        helper.make_node("ReduceSum", [end], ["hook_sum"], keepdims=0),
        helper.make_node("Mul", ["hook_sum", "hook_zero"], ["hook_nothing"]),
        helper.make_node("Add", [scaled, "hook_nothing"], ["hook_scaled"]),
    ]
    for number, new in enumerate(hook):
        graph.node.insert(at + number, new)
    graph.node[at + len(hook)].input[:] = ["hook_scaled", middle]


def hook(nodes: Sequence[onnx.NodeProto], end: str, weights: Sequence[TensorProto] = (), **arguments: Any) -> bytes:
    """A good generator with nodes that its pixels depend on, see ``hooked``."""
    return changed(lambda model: hooked(model, nodes, end, weights), **arguments)


def set_dim(value: onnx.ValueInfoProto, index: int, dim: int | str) -> None:
    """Another dimension for an input or output: a number, or a name where it is dynamic."""
    where = value.type.tensor_type.shape.dim[index]
    where.Clear()
    if isinstance(dim, int):
        where.dim_value = dim
    else:
        where.dim_param = dim


def op(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """A node; names of inputs are separated by blanks."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def scalars(*values: int) -> list[TensorProto]:
    """Initializers called a, b and c."""
    return [constant(name, value) for name, value in zip("abc", values, strict=True)]


def pair() -> TensorProto:
    """What OneHot writes, off and on."""
    return constant("values", [0, 1], np.float32)
