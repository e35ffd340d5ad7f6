"""Someone else's float ONNX generator, as a source of export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference, version_converter

from ganrt.card import METADATA_KEY
from ganrt.errors import TrainingError
from ganrt.graphs import ALLOWED_OPS, MAX_NODES
from ganrt.providers import runtime
from ganrt_training.assemble import OPSET
from ganrt_training.foreign import Floats, Foreign, Input
from ganrt_training.readers.source import check_file

_NEWEST_OPSET = 20
_TYPES = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64", TensorProto.INT32: "int32"}
_TAKEN_OPS = ALLOWED_OPS | {"BatchNormalization", "Dropout"}  # these two are folded away


def open_onnx(path: Path) -> Foreign:
    """Reads an ONNX file, whose inputs are float32, int64 or int32 of fixed shapes but for N, with one float32 output.

    Where its N is a number, the graph is made to take any. Raises TrainingError for a file that is something else.
    """
    check_file(path)
    try:
        model = onnx.load(path)
        original = model.SerializeToString()
        opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    except Exception as error:  # protobuf, onnx and the file system each have their own
        raise TrainingError(f"{path}: cannot be read as an ONNX model: {error}", "Name an .onnx file.") from error
    if any(entry.key == METADATA_KEY for entry in model.metadata_props):
        raise TrainingError(f"{path}: is a generator of the contract already", "Use it as it is, or export it again.")
    _check_operators(path, model)
    target = min(max(opset, OPSET), _NEWEST_OPSET)
    try:
        model = inliner.inline_local_functions(model)
        if opset != target:
            model = version_converter.convert_version(model, target)
    except Exception as error:  # the converter raises what its C++ meets
        raise TrainingError(
            f"{path}: has opset {opset}, and cannot be converted to {target}: {error}",
            f"Export it anew with an opset of {OPSET} to {_NEWEST_OPSET}.",
        ) from error
    inputs, batch = _inputs(path, model)
    if batch is not None:
        model = _with_any_batch(path, model, inputs, batch)
    return Foreign(
        where=str(path),
        digest=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        inputs=inputs,
        run=_runner(path, original, inputs),
        graph=lambda: model,
        batch=batch,
    )


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuses what the finished file would be refused for, before anything but a parser has seen it."""
    count = len(model.graph.node) + sum(len(function.node) for function in model.functions)
    if count > MAX_NODES:
        raise TrainingError(f"{path}: has {count:,} nodes", f"At most {MAX_NODES:,} are run.")
    local = {(function.domain, function.name) for function in model.functions}
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        foreign = node.domain not in ("", "ai.onnx")
        if (node.domain, node.op_type) not in local and (foreign or node.op_type not in _TAKEN_OPS):
            called = f"{node.op_type} of {node.domain}" if foreign else node.op_type
            raise TrainingError(
                f"{path}: has the operator {called}, which no generator of the contract may have",
                "Export it without that operator; random numbers are drawn outside of the graph.",
            )


def _inputs(path: Path, model: onnx.ModelProto) -> tuple[tuple[Input, ...], int | None]:
    """The inputs, and the one batch that they take, if it is a number."""
    weights = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in weights]
    inputs, batches = [], set()
    for value in values:
        sizes, dtype = _sizes(value), _TYPES.get(value.type.tensor_type.elem_type)
        if dtype is None or not sizes or any(size < 1 for size in sizes[1:]):
            raise TrainingError(
                f"{path}: takes {_shown(values)}",
                "Expected latents float32 [N, z_dim] or [N, z_dim, 1, 1] with a fixed z_dim, and at most labels "
                "int64 [N] or one-hot float32 [N, classes].",
            )
        inputs.append(Input(value.name, dtype, tuple(sizes[1:])))
        batches.add(sizes[0])
    outputs = model.graph.output
    if len(outputs) != 1 or outputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise TrainingError(f"{path}: makes {_shown(outputs)}", "Expected one output: images as float32.")
    if len(batches) > 1:
        raise TrainingError(f"{path}: takes {_shown(values)}", "Expected the same number of rows of each input.")
    return tuple(inputs), max(batches, default=0) or None


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """The sizes of an input or output, 0 where they are dynamic."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _shown(values: Sequence[onnx.ValueInfoProto]) -> str:
    shown = []
    for value in values:
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        sizes = [str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim]
        shown.append(f"{value.name} {kind} [{', '.join(sizes)}]")
    return ", ".join(shown) or "nothing"


def _session(data: bytes) -> Any:
    options = runtime().SessionOptions()
    options.log_severity_level = 4
    return runtime().InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _runner(path: Path, original: bytes, inputs: Sequence[Input]) -> Callable[..., Floats]:
    """The foreign generator as it came, in ONNX Runtime."""
    try:
        session = _session(original)
    except Exception as error:
        raise TrainingError(f"{path}: ONNX Runtime does not load it: {error}") from error

    def run(*given: NDArray[Any]) -> Floats:
        return np.asarray(session.run(None, {value.name: x for value, x in zip(inputs, given, strict=True)})[0])

    return run


def _with_any_batch(path: Path, model: onnx.ModelProto, inputs: Sequence[Input], batch: int) -> onnx.ModelProto:
    """The graph with N in place of the one batch it was exported for. Raises TrainingError where it knows no other.

    Exporters write the batch into the shapes of Reshape and Expand. There it is replaced, so that with that batch
    nothing changes. Whether rows are right with other batches, the proof of export tells.
    """
    hint = "Export it with a dynamic batch (in PyTorch: dynamic_shapes, or dynamic_axes), then again."
    inferred = shape_inference.infer_shapes(model).graph
    sizes = {v.name: _sizes(v) for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    graph = changed.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and (value.name in {i.name for i in inputs} or value.name in {o.name for o in graph.output}):
            dims[0].Clear()
            dims[0].dim_param = "N"
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for position, node in enumerate(graph.node):
        if node.op_type not in ("Reshape", "Expand") or len(node.input) < 2 or node.input[1] not in constants:
            continue
        shape, given = constants[node.input[1]].astype(np.int64), sizes.get(node.input[0], [])
        if node.input[0] in constants or not shape.size or shape[0] != batch:
            continue
        shape = shape.copy()
        if node.op_type == "Expand":
            shape[0] = 1
        elif given and given[0] == batch and not _allows_zero(node):
            shape[0] = 0  # as the input's
        elif (shape != -1).all():
            shape[0] = -1
        else:
            raise TrainingError(
                f"{path}: its batch is fixed at {batch}, and the Reshape that makes {node.output[0]!r} knows no other",
                hint,
            )
        name = f"any_batch/{position}"
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name
    try:
        session = _session(changed.SerializeToString())
        for count in (1, batch + 1):
            rows = [np.zeros((count, *value.shape), value.dtype) for value in inputs]
            made = session.run(None, {value.name: x for value, x in zip(inputs, rows, strict=True)})[0]
            if made.shape[:1] != (count,):
                raise ValueError(f"{count} rows gave {made.shape[0] if made.ndim else 1}")
    except Exception as error:
        raise TrainingError(
            f"{path}: its batch is fixed at {batch}, and its graph does not take another: {error}", hint
        ) from error
    return changed


def _allows_zero(node: onnx.NodeProto) -> bool:
    return any(a.name == "allowzero" and helper.get_attribute_value(a) for a in node.attribute)
