"""From a snapshot of a training run to an ONNX generator, proven equal to the PyTorch one."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from ganrt.card import Card
from ganrt.errors import TrainingError
from ganrt_training.assemble import OPSET, CardTexts, append_pixels, check_target, set_inputs, write_generator
from ganrt_training.checkpoint import Trained, find_snapshot, load_generator
from ganrt_training.fold import fold_norms
from ganrt_training.loop import to_pixels
from ganrt_training.parity import Floats, Pixels, Source


def export_run(
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    texts: CardTexts | None = None,
    fp16: bool = False,
    overwrite: bool = False,
) -> Card:
    """Writes the generator of a run as one ONNX file of the contract and returns its card.

    ``source`` is a run folder (its latest snapshot is taken) or one snapshot; ``name`` is the card's,
    else that of the file. The file's bytes are decided by the snapshot, the arguments and the versions
    of the software. Batch norms become an affine map per class; ``fp16`` makes a half-precision file, for GPUs.

    Raises TrainingError when the snapshot cannot be used, ParityError when the file does not make the
    images that the snapshot makes, UsageError when ``out`` exists and ``overwrite`` is not said. Then
    nothing is written.
    """
    check_target(out, overwrite)
    texts = texts or CardTexts()
    snapshot = find_snapshot(source)
    trained = load_generator(snapshot)
    measured_on = texts.quality.get("snapshot_digest", trained.digest)
    if measured_on != trained.digest:
        raise TrainingError(
            f"the quality was measured on a generator of snapshot {measured_on}; {snapshot} is {trained.digest}",
            "Measure it again on this one.",
        )
    recipe = trained.recipe
    card = Card(
        name=name or out.stem,
        z_dim=recipe.z_dim,
        width=recipe.image_size,
        height=recipe.image_size,
        channels=trained.channels,
        class_names=trained.class_names,
        description=texts.description,
        data=texts.data,
        data_licence=texts.data_licence,
        licence=texts.licence,
        recipe=recipe.name,
        kimg=round(trained.kimg, 3),
        snapshot_digest=trained.digest,
        quality=texts.quality,
    )
    model = to_onnx(fold_norms(trained.generator), card)
    raw = append_pixels(model, size=(card.height, card.width, card.channels), value_range=(-1, 1), nchw=True)
    return write_generator(model, card, torch_source(trained), out, raw=raw, fp16=fp16)


def torch_source(trained: Trained) -> Source:
    """The generator as it was trained, in float32, with the contract's pixel step."""

    @torch.no_grad()
    def source(z: Floats, y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        x = trained.generator(torch.from_numpy(z), torch.from_numpy(y))
        return x.numpy(), to_pixels(x)

    return source


def to_onnx(generator: nn.Module, card: Card) -> onnx.ModelProto:
    """The graph of a network (z, y) → float [N, C, H, W], with N dynamic. Raises TrainingError when it has none."""
    example = torch.zeros(2, card.z_dim), torch.zeros(2, dtype=torch.int64)
    try:
        with _quiet():
            program = torch.onnx.export(
                generator,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=["z", "y"],
                output_names=["raw_images"],
                dynamic_shapes=({0: torch.export.Dim("N")},) * 2,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever the tracer meets
        raise TrainingError(f"the generator cannot be exported to ONNX: {error}") from error
    assert program is not None
    model = onnx.load_model_from_string(program.model_proto.SerializeToString())
    set_inputs(model, card.z_dim, bool(card.class_names))
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter from telling of operators of packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
