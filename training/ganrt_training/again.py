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


def is_generator(path: Path) -> bool:
    """Whether an ONNX file says that it is a generator of the contract."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf and the file system each have their own; whoever reads it next says what is wrong
        return False
    return any(entry.key == METADATA_KEY for entry in model.metadata_props)


def export_again(path: Path, out: Path, *, name: str | None = None, overwrite: bool = False) -> Card:
    """Writes a generator of the contract anew: rewritten for speed, proven equal to the file given; returns the card.

    The card stays but for ``name``, the versions and the parity, which names the file that it was held against.

    Raises ContractError when ``path`` breaks the contract, TrainingError when its pixel step is not one of
    ganrt's, ParityError, UsageError when ``out`` exists and ``overwrite`` is not said. Then nothing is written.
    """
    check_target(out, overwrite)
    checked = read_model(path)
    model = onnx.load_model_from_string(checked.data)
    raw = next((node.input[0] for node in model.graph.node if node.output[0] == "pixels/mul"), None)
    scale = next((tensor for tensor in model.graph.initializer if tensor.name == "pixels/scale"), None)
    if raw is None or scale is None:
        raise TrainingError(f"{path}: its pixel step was not written by ganrt", "Use the file as it is.")
    half_range = 127.5 / float(numpy_helper.to_array(scale))
    card = replace(checked.card, name=name or checked.card.name)
    against = {"against": f"sha256:{hashlib.sha256(checked.data).hexdigest()}"}
    return write_generator(
        model, card, onnx_source(checked.data, raw), out, raw=raw, half_range=half_range, about=against
    )
