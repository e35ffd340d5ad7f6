"""A generator of the contract exported again, as this version would write it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import numpy_helper

from ganrt.card import METADATA_KEY, Card
from ganrt.contract import read_model
from ganrt.errors import TrainingError
from ganrt_training.assemble import check_target, write_generator
from ganrt_training.parity import onnx_source
from ganrt_training.parity_w import onnx_styles


def is_generator(path: Path) -> bool:
    """Whether an ONNX file says that it is a generator of the contract."""
    if not path.is_file():
        return False
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf and the file system each have their own; whoever reads it next says what is wrong
        return False
    return any(entry.key == METADATA_KEY for entry in model.metadata_props)


def export_again(
    path: Path, out: Path, *, name: str | None = None, fp16: bool = False, overwrite: bool = False
) -> Card:
    """Writes a generator of the contract anew: rewritten for speed, proven equal to the file given; returns the card.

    With ``fp16`` in half precision, for GPUs. The card stays but for ``name``, the versions and the parity, which
    names the file that it was held against.

    Raises ContractError when ``path`` breaks the contract, TrainingError when its pixel step is not one of
    ganrt's, ParityError, UsageError when ``out`` exists and ``overwrite`` is not said. Then nothing is written.
    """
    check_target(out, overwrite)
    checked = read_model(path)
    model = onnx.load_model_from_string(checked.data)
    raw, scale = _pixel_step(model)
    if raw is None or scale is None:
        raise TrainingError(f"{path}: its pixel step was not written by ganrt", "Use the file as it is.")
    card = replace(checked.card, name=name or checked.card.name)
    against = {"against": f"sha256:{hashlib.sha256(checked.data).hexdigest()}"}
    return write_generator(
        model,
        card,
        onnx_source(checked.data, raw),
        out,
        raw=raw,
        half_range=127.5 / scale,
        styles=onnx_styles(checked.data, raw, card) if card.num_ws else None,
        about=against,
        fp16=fp16,
    )


def _pixel_step(model: onnx.ModelProto) -> tuple[str | None, float | None]:
    """The tensor that the pixel step starts from, and what it multiplies it by, where ganrt wrote it."""
    raw = next((n.input[0] for n in model.graph.node if list(n.output) == ["pixels/mul"] and n.input), None)
    tensor = next((tensor for tensor in model.graph.initializer if tensor.name == "pixels/scale"), None)
    scale = None if tensor is None else numpy_helper.to_array(tensor)
    return raw, float(scale) if scale is not None and scale.shape == () and scale > 0 else None
