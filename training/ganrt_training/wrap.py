"""From someone else's float ONNX generator to one of the contract."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, inliner, numpy_helper, version_converter

from ganrt.card import METADATA_KEY, Card
from ganrt.contract import ALLOWED_OPS
from ganrt.errors import TrainingError, UsageError
from ganrt.providers import runtime
from ganrt_training.assemble import OPSET, CardTexts, append_pixels, check_target, set_inputs, write_generator
from ganrt_training.fold import without_training_nodes
from ganrt_training.parity import Floats, Pixels

_NEWEST_OPSET = 20
_PREFIX = "source/"  # keeps the names of the foreign graph apart from those of the contract
_LABEL_TYPES: dict[int, type[np.signedinteger[Any]]] = {TensorProto.INT64: np.int64, TensorProto.INT32: np.int32}


# BatchNormalization and Dropout are folded away.
_TAKEN_OPS = ALLOWED_OPS | {"BatchNormalization", "Dropout"}


def export_onnx(
    path: Path,
    out: Path,
    *,
    value_range: tuple[float, float],
    class_names: Sequence[str] = (),
    layout: str | None = None,
    name: str | None = None,
    z_distribution: str = "normal",
    texts: CardTexts | None = None,
    fp16: bool = False,
    overwrite: bool = False,
) -> Card:
    """Writes a float ONNX generator as one of the contract, proven equal to its source; returns the card.

    The source has one float32 input, latents [N, z_dim] or [N, z_dim, 1, 1]; one of int64 or int32,
    labels [N], if it is conditional; and one float32 output, images [N, C, H, W] or [N, H, W, C].
    ``value_range`` says which values are black and white, ``class_names`` what the labels mean,
    ``layout`` (``nchw`` or ``nhwc``) where the channels are if sizes leave that open. ``fp16`` makes a
    half-precision file, for GPUs.

    Raises TrainingError when the source is something else, UsageError when an argument is missing or
    does not fit it, ParityError when both make different images. Then nothing is written.
    """
    check_target(out, overwrite)
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"range {low:g},{high:g}", "Expected the values of black and white, such as --range=-1,1.")
    original, model = _load(path)
    latent, label = _inputs(path, model)
    if label is None and class_names:
        raise UsageError(f"{path}: takes no labels, yet classes are named", "Leave the classes out.")
    if label is not None and not class_names:
        raise UsageError(f"{path}: takes labels ({label.name})", "Name its classes, in order: --classes a,b,c.")
    z_dim = _sizes(latent)[1]
    run = _runner(path, original, latent, label)
    try:
        probe = np.random.default_rng(0).standard_normal((16, z_dim), np.float32)
        floats = run(probe, np.arange(16) % len(class_names) if class_names else None)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise TrainingError(
            f"{path}: makes no 16 images at once: {error}", "Export it with a dynamic batch, and name all its classes."
        ) from error
    nchw = _is_nchw(path, floats.shape, layout)
    outside = float(np.mean((floats < low - 0.05 * (high - low)) | (floats > high + 0.05 * (high - low))))
    if outside > 0.5:
        raise UsageError(
            f"{path}: {outside:.0%} of its values are outside of {low:g},{high:g}; they run from "
            f"{floats.min():.4g} to {floats.max():.4g}",
            "Pass the --range that its training images had.",
        )
    height, width, channels = (floats.shape[i] for i in ((2, 3, 1) if nchw else (1, 2, 3)))
    texts = texts or CardTexts()
    card = Card(
        name=name or out.stem,
        z_dim=z_dim,
        width=width,
        height=height,
        channels=channels,
        z_distribution=z_distribution,
        class_names=tuple(class_names),
        description=texts.description,
        data=texts.data,
        data_licence=texts.data_licence,
        licence=texts.licence,
        snapshot_digest=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        quality=texts.quality,
    )
    wrapped = _wrapped(model, latent, label)
    raw = append_pixels(wrapped, size=(height, width, channels), value_range=value_range, nchw=nchw)

    def with_pixels(z: Floats, y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        x = run(z, y)
        levels = np.clip((x - np.float32(low)) * np.float32(255 / (high - low)) + np.float32(0.5), 0, 255)
        return x, (levels.transpose(0, 2, 3, 1) if nchw else levels).astype(np.uint8)

    return write_generator(wrapped, card, with_pixels, out, raw=raw, half_range=(high - low) / 2, fp16=fp16)


def _load(path: Path) -> tuple[bytes, onnx.ModelProto]:
    """The file's own model in one piece, and the same in an opset of the contract, without functions."""
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
    return original, model


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuses what the finished file would be refused for, before anything but a parser has seen it."""
    local = {(function.domain, function.name) for function in model.functions}
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        foreign = node.domain not in ("", "ai.onnx")
        if (node.domain, node.op_type) not in local and (foreign or node.op_type not in _TAKEN_OPS):
            called = f"{node.op_type} of {node.domain}" if foreign else node.op_type
            raise TrainingError(
                f"{path}: has the operator {called}, which no generator of the contract may have",
                "Export it without that operator; random numbers are drawn outside of the graph.",
            )


def _inputs(path: Path, model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto | None]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    latents = [value for value in inputs if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    labels = [value for value in inputs if value.type.tensor_type.elem_type in _LABEL_TYPES]
    sizes = _sizes(latents[0]) if latents else []
    if (
        len(latents) != 1
        or len(labels) > 1
        or len(inputs) != len(latents) + len(labels)
        or not (len(sizes) == 2 or (len(sizes) == 4 and sizes[2:] == [1, 1]))
        or sizes[1] < 1
        or (labels and len(_sizes(labels[0])) != 1)
    ):
        raise TrainingError(
            f"{path}: takes {_shown(inputs)}",
            "Expected latents float32 [N, z_dim] or [N, z_dim, 1, 1] with a fixed z_dim, and at most labels int64 [N].",
        )
    outputs = model.graph.output
    if len(outputs) != 1 or outputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise TrainingError(f"{path}: makes {_shown(outputs)}", "Expected one output: images as float32.")
    return latents[0], labels[0] if labels else None


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _shown(values: Sequence[onnx.ValueInfoProto]) -> str:
    shown = []
    for value in values:
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        sizes = [str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim]
        shown.append(f"{value.name} {kind} [{', '.join(sizes)}]")
    return ", ".join(shown) or "nothing"


def _runner(
    path: Path, original: bytes, latent: onnx.ValueInfoProto, label: onnx.ValueInfoProto | None
) -> Callable[[Floats, NDArray[np.int64] | None], Floats]:
    """The foreign generator as it came, in ONNX Runtime."""
    options = runtime().SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime().InferenceSession(original, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TrainingError(f"{path}: ONNX Runtime does not load it: {error}") from error
    trailing = _sizes(latent)[2:]

    def run(z: Floats, y: NDArray[np.int64] | None) -> Floats:
        feeds: dict[str, NDArray[Any]] = {latent.name: z.reshape(*z.shape, *trailing)}
        if label is not None and y is not None:
            feeds[label.name] = y.astype(_LABEL_TYPES[label.type.tensor_type.elem_type])
        return np.asarray(session.run(None, feeds)[0])

    return run


def _is_nchw(path: Path, shape: tuple[int, ...], layout: str | None) -> bool:
    """Whether images of ``shape`` have their channels first. Raises when neither sizes nor ``layout`` say so."""
    if len(shape) != 4:
        raise TrainingError(f"{path}: makes images of shape {list(shape)}", "Expected [N, C, H, W] or [N, H, W, C].")
    fitting = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (1, 3)]
    if not fitting:
        raise TrainingError(f"{path}: makes images of shape {list(shape)}", "Expected 1 (grey) or 3 (RGB) channels.")
    if layout is None and len(fitting) == 2:
        raise UsageError(
            f"{path}: images of shape {list(shape)}, in two layouts", "Say --layout nchw or --layout nhwc."
        )
    if layout is not None and layout not in fitting:
        raise UsageError(f"layout {layout!r}: images have shape {list(shape)}", f"Expected {' or '.join(fitting)}.")
    return (layout or fitting[0]) == "nchw"


def _wrapped(model: onnx.ModelProto, latent: onnx.ValueInfoProto, label: onnx.ValueInfoProto | None) -> onnx.ModelProto:
    """The graph with z and y as its inputs, with batch norms as affine maps and its own names out of the way."""
    z_dim, four_d = _sizes(latent)[1], len(_sizes(latent)) == 4
    body = without_training_nodes(model)
    del model.graph.node[:]
    model.graph.node.extend(body)
    model = compose.add_prefix(model, _PREFIX)
    graph = model.graph
    renamed = {_PREFIX + latent.name: "z"}
    heads = []
    if four_d:
        renamed[_PREFIX + latent.name] = "z/square"
        graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "z/axes"))
        heads.append(helper.make_node("Unsqueeze", ["z", "z/axes"], ["z/square"], name="z/square"))
    if label is not None:
        narrow = label.type.tensor_type.elem_type == TensorProto.INT32
        renamed[_PREFIX + label.name] = "y/narrow" if narrow else "y"
        if narrow:
            heads.append(helper.make_node("Cast", ["y"], ["y/narrow"], name="y/narrow", to=TensorProto.INT32))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    nodes = [*heads, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    set_inputs(model, z_dim, label is not None)
    return model
