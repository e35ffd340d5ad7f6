"""Makes an ONNX graph a generator of the contract: pixel step, clean bytes, card, proof, file."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import ganrt
from ganrt import card as cards
from ganrt.card import IMAGES, Card
from ganrt.contract import check_model
from ganrt.errors import ContractError, StorageError, TrainingError, UsageError
from ganrt.files import write_synced
from ganrt_training.half import to_half
from ganrt_training.parity import Source, Styles, prove
from ganrt_training.parity_w import prove_w
from ganrt_training.tune import tune

OPSET = 18


@dataclass(frozen=True, kw_only=True)
class CardTexts:
    """What a card says that no file can be asked for: texts for people, and measured quality."""

    description: str = ""
    data: str = ""
    data_licence: str = ""
    licence: str = ""
    quality: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, texts: Path | None = None, quality: Path | None = None) -> CardTexts:
        """From JSON files: an object with any of the four texts, and one of measured figures with their protocol.

        Raises TrainingError when a file cannot be read or holds something else.
        """
        values = {} if texts is None else _read_object(texts)
        wanted = ("description", "data", "data_licence", "licence")
        for key, value in values.items():
            if key not in wanted or not isinstance(value, str):
                raise TrainingError(f"{texts}: {key} is {value!r:.60}", f"Expected texts for: {', '.join(wanted)}.")
        return cls(**values, quality={} if quality is None else _read_object(quality))


def check_target(out: Path, overwrite: bool) -> None:
    """Refuses a file to write that no one could load or that is there already (UsageError), or in no folder."""
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: not a name for a generator", "Name a file that ends in .onnx.")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder", "Name a file in it.")
    if not out.parent.is_dir():
        raise StorageError(f"{out}: cannot be written: there is no folder {out.parent}", "Make it, or name another.")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: is there already", "Pass --overwrite, or name another file.")


def append_pixels(
    model: onnx.ModelProto, *, size: tuple[int | str, int | str, int], value_range: tuple[float, float], nchw: bool
) -> str:
    """Puts the pixel step after the graph's first output, of floats, in place; ``images`` takes its place.

    ``size`` is (H, W, C), names for sides that are dynamic; ``value_range`` what becomes black and white. Levels are
    255 / (white - black) wide, half of one at each end below black and above white clipped: for [-1, 1] that is
    clip(x * 127.5 + 128, 0, 255), truncated. Returns the name of the tensor that was the output.
    """
    graph = model.graph
    raw: str = graph.output[0].name
    low, high = value_range
    scale = 255 / (high - low)
    for name, value in (("scale", scale), ("shift", 0.5 - low * scale), ("black", 0.0), ("white", 255.0)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"pixels/{name}"))
    x = raw
    for operator, *operands in (("Mul", "scale"), ("Add", "shift"), ("Clip", "black", "white")):
        y = f"pixels/{operator.lower()}"
        graph.node.append(helper.make_node(operator, [x, *(f"pixels/{name}" for name in operands)], [y], name=y))
        x = y
    if nchw:
        graph.node.append(helper.make_node("Transpose", [x], ["pixels/nhwc"], name="pixels/nhwc", perm=[0, 2, 3, 1]))
        x = "pixels/nhwc"
    graph.node.append(helper.make_node("Cast", [x], ["images"], name="pixels/cast", to=TensorProto.UINT8))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *size]))
    return raw


def set_inputs(model: onnx.ModelProto, z_dim: int, classes: bool, psi: bool = False) -> None:
    """Declares z float32 [N, z_dim] and, where there are, y int64 [N] and psi float32 as the graph's inputs."""
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", z_dim]))
    if classes:
        model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.INT64, ["N"]))
    if psi:
        model.graph.input.append(helper.make_tensor_value_info("psi", TensorProto.FLOAT, []))
        model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "psi"))


def declare_w(model: onnx.ModelProto, num_ws: int, w_dim: int) -> None:
    """Declares w float32 [N, num_ws, w_dim] and w_given bool as inputs that may be left out, w_mapped as an output."""
    graph = model.graph
    shape: list[str | int | None] = ["N", num_ws, w_dim]
    graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, shape))
    graph.input.append(helper.make_tensor_value_info("w_given", TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, num_ws, w_dim), np.float32), "w"))
    graph.initializer.append(numpy_helper.from_array(np.array(False), "w_given"))
    graph.output[1].CopyFrom(helper.make_tensor_value_info("w_mapped", TensorProto.FLOAT, shape))


def prepend_image(model: onnx.ModelProto, size: tuple[int | str, int | str, int]) -> None:
    """Puts x uint8 [N, H, W, C], with ``size`` (H, W, C), before a graph that takes float [N, C, H, W] in [-1, 1]."""
    graph = model.graph
    taken = graph.input[0].name
    for name, value in (("scale", 1 / 127.5), ("shift", -1.0)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"input/{name}"))
    nodes = [
        helper.make_node("Cast", ["x"], ["input/float"], name="input/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["input/float", "input/scale"], ["input/mul"], name="input/mul"),
        helper.make_node("Add", ["input/mul", "input/shift"], ["input/add"], name="input/add"),
        helper.make_node("Transpose", ["input/add"], [taken], name="input/nchw", perm=[0, 3, 1, 2]),
        *graph.node,
    ]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", *size]))


def write_generator(
    model: onnx.ModelProto,
    card: Card,
    source: Source,
    out: Path,
    *,
    raw: str,
    half_range: float = 1.0,
    styles: Styles | None = None,
    fp16: bool = False,
    about: Mapping[str, str] | None = None,
    made_with: Mapping[str, str] | None = None,
) -> Card:
    """Gives a finished graph its card, proves it against ``source`` and writes it as one file.

    ``styles`` are the source's mapping and synthesis, where the card has w.
    With ``fp16`` its weights and arithmetic become float16, and its pixels may differ by two grey levels. Returns the
    card as written, parity figures (and what is said ``about`` them) and versions in it (of what it was ``made_with``,
    too). Raises ParityError when the proof fails, TrainingError when the graph or the card breaks the contract; then
    nothing is written.
    """
    tune(model, raw)
    clean(model)
    if fp16:
        model = to_half(model, raw)
        clean(model)
    card = replace(card, exporter={**_versions(), **(made_with or {})})
    where = f"the export of {card.name}"
    try:
        data = with_card(model, card)
        onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
        check_model(data, where)
        dynamic = card.kind == IMAGES and not model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        parity = prove(source, data, card, raw=raw, half_range=half_range, fp16=fp16, dynamic=dynamic)
        if card.num_ws:
            assert styles is not None
            parity |= prove_w(styles, data, card, raw=raw, half_range=half_range, fp16=fp16)
        precision = {"precision": "float16"} if fp16 else {}
        card = replace(card, parity={**parity, **precision, **(about or {})})
        data = with_card(model, card)
        written = check_model(data, where)
    except ContractError as error:
        raise TrainingError(error.message, error.hint) from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TrainingError(f"{where} is no valid ONNX model: {error}") from error
    try:
        write_synced(out, data)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}", "Name a folder that is there.") from error
    return written


def clean(model: onnx.ModelProto) -> None:
    """Takes away all that is not the generator: names, notes and paths of the machine that made it."""
    graph = model.graph
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
    model.producer_name, model.producer_version = "ganrt", ""
    model.domain, model.doc_string, model.model_version = "", "", 0
    graph.name, graph.doc_string = "generator", ""
    for repeated in (model.metadata_props, graph.metadata_props, graph.value_info):
        del repeated[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    domains = {node.domain for node in graph.node} | {""}
    opsets = [opset for opset in model.opset_import if opset.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(opsets)


def with_card(model: onnx.ModelProto, card: Card) -> bytes:
    """The file's bytes, the card among them. Raises TrainingError when it is no JSON."""
    try:
        text = card.to_json()
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"the card of {card.name} cannot be written as JSON: {error}", "Mend its quality."
        ) from error
    helper.set_model_props(model, {cards.METADATA_KEY: text})
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _versions() -> dict[str, str]:
    versions = {"ganrt": ganrt.__version__}
    for package in ("torch", "onnx", "onnxscript"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # installed under another name
            continue
    return versions


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes(), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: cannot be read as JSON: {error}", "Expected a JSON object.") from error
    if not isinstance(value, dict):
        raise TrainingError(f"{path}: {type(value).__name__}, not an object", "Expected a JSON object.")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
