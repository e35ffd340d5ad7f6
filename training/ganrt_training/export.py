"""From a snapshot of a training run to an ONNX generator, proven equal to the PyTorch one."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganrt.card import IMAGES, Card
from ganrt.errors import TrainingError
from ganrt_training.assemble import (
    OPSET,
    CardTexts,
    append_pixels,
    check_target,
    declare_w,
    prepend_image,
    set_inputs,
    write_generator,
)
from ganrt_training.checkpoint import find_snapshot, load_generator
from ganrt_training.fold import fold_norms
from ganrt_training.parity import Floats, Pixels, Source, Styles
from ganrt_training.recipe import ImageToImage
from ganrt_training.run_folder import to_float, to_pixels

_UNSAFE = r"[^A-Za-z0-9._-]+"  # in names of files


def export_run(
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    texts: CardTexts | None = None,
    fp16: bool = False,
    overwrite: bool = False,
    changed: Callable[[nn.Module], nn.Module] | None = None,
) -> dict[Path, Card]:
    """Writes the generator of a run as one ONNX file of the contract and returns its card.

    ``source`` is a run folder (its best snapshot is taken, else the latest) or one snapshot; ``name`` is the card's,
    else that of the file. The file's bytes are decided by the snapshot, the arguments and the versions
    of the software. Batch norms become affine maps; ``fp16`` makes a half-precision file, for GPUs. A run with two
    directions (CycleGAN) gives a file each, whose name says which: ``out`` with it before ``.onnx``. ``changed`` makes
    of the generator what is exported in its place, and proven equal to.

    Raises TrainingError when the snapshot cannot be used, ParityError when the file does not make the
    images that the snapshot makes, UsageError when ``out`` exists and ``overwrite`` is not said. Then
    nothing is written.
    """
    check_target(out, overwrite=True)  # before any work; whether it is there, below
    texts = texts or CardTexts()
    snapshot = find_snapshot(source)
    trained = load_generator(snapshot)
    recipe, size = trained.recipe, trained.recipe.image_size
    translators = recipe.translation.translators(trained.generator, trained.class_names) if recipe.translation else {}
    for file in (targets := [_target(out, direction) for direction in translators] or [out]):
        check_target(file, overwrite)
    measured_on = texts.quality.get("snapshot_digest", trained.digest)
    if measured_on != trained.digest:
        raise TrainingError(
            f"the quality was measured on a generator of snapshot {measured_on}; {snapshot} is {trained.digest}",
            "Measure it again on this one.",
        )
    card = Card(
        name=name or out.stem,
        width=size,
        height=size,
        channels=trained.channels,
        description=texts.description,
        data=texts.data,
        data_licence=texts.data_licence,
        licence=texts.licence,
        recipe=recipe.name,
        kimg=round(trained.kimg, 3),
        snapshot_digest=trained.digest,
        quality=texts.quality,
    )
    if recipe.translation:
        made = {}
        for file, (direction, network) in zip(targets, translators.items(), strict=True):
            called = f"{card.name}.{direction}" if direction else card.name
            made[file] = _export_translator(network, replace(card, name=called), recipe.translation, file, fp16)
        return made
    generator = trained.generator if changed is None else changed(trained.generator)
    card = replace(
        card,
        z_dim=recipe.z_dim,
        class_names=trained.class_names,
        psi=hasattr(trained.generator, "w_avg"),
        num_ws=getattr(trained.generator, "num_ws", 0),
        w_dim=getattr(trained.generator, "w_dim", 0),
    )
    model = to_onnx(fold_norms(generator), card)
    raw = append_pixels(model, size=(card.height, card.width, card.channels), value_range=(-1, 1), nchw=True)
    source_of, styles = torch_source(generator), torch_styles(generator) if card.num_ws else None
    return {out: write_generator(model, card, source_of, out, raw=raw, styles=styles, fp16=fp16)}


def _target(out: Path, direction: str) -> Path:
    return out.with_name(f"{out.stem}.{re.sub(_UNSAFE, '_', direction)}{out.suffix}") if direction else out


def _export_translator(network: nn.Module, card: Card, about: ImageToImage, out: Path, fp16: bool) -> Card:
    side = card.width // about.scale
    card = replace(card, kind=IMAGES, scale=about.scale)
    given: tuple[int | str, int | str, int] = (side, side, card.channels)
    made: tuple[int | str, int | str, int] = (card.height, card.width, card.channels)
    if about.any_size:
        given, made = ("H", "W", card.channels), ("H_out", "W_out", card.channels)
    example = torch.zeros(2, card.channels, side, side + 4 * about.any_size)
    dims = {0: torch.export.Dim("N")}
    if about.any_size:
        dims |= {2: torch.export.Dim("H", min=8), 3: torch.export.Dim("W", min=8)}
    model = traced(fold_norms(network), {"images": example}, {"images": dims})
    prepend_image(model, given)
    raw = append_pixels(model, size=made, value_range=(-1, 1), nchw=True)

    @torch.no_grad()
    def source(x: NDArray[Any], y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        images = network(to_float(torch.from_numpy(x)))
        return images.numpy(), to_pixels(images)

    return write_generator(model, card, source, out, raw=raw, fp16=fp16)


def torch_source(generator: nn.Module) -> Source:
    """A generator as it was trained, in float32, with the contract's pixel step."""

    @torch.no_grad()
    def source(z: NDArray[Any], y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        given = [torch.from_numpy(z), None if y is None else torch.from_numpy(y)]
        x = generator(*given, torch.tensor(psi)) if psi is not None else generator(*given)
        return x.numpy(), to_pixels(x)

    return source


def torch_styles(generator: Any) -> Styles:
    """The two halves of a generator with w: its mapping, truncated, and its synthesis."""

    @torch.no_grad()
    def mapping(z: NDArray[Any], y: NDArray[np.int64] | None, psi: float | None) -> Floats:
        labels = None if y is None else torch.from_numpy(y)
        w: Floats = generator.truncated(torch.from_numpy(z), labels, None if psi is None else torch.tensor(psi)).numpy()
        return w

    @torch.no_grad()
    def synthesis(w: Floats) -> tuple[Floats, Pixels]:
        x = generator.synthesis(torch.from_numpy(w))
        return x.numpy(), to_pixels(x)

    return Styles(mapping, synthesis)


class _WithW(nn.Module):
    """A generator with an entry for w, and w as a second output."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator: Any = generator

    def forward(
        self, z: Tensor, w: Tensor, w_given: Tensor, y: Tensor | None = None, psi: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mapped = self.generator.truncated(z, y, psi)
        return self.generator.synthesis(torch.where(w_given, w, mapped)), mapped


def to_onnx(generator: nn.Module, card: Card) -> onnx.ModelProto:
    """The graph of a network (z, y, psi) → float [N, C, H, W], N dynamic. Raises TrainingError when it has none.

    Where the card has w, the graph has the inputs ``w`` and ``w_given`` and the output ``w_mapped`` too.
    """
    batch = torch.export.Dim("N")
    example = {"z": torch.zeros(2, card.z_dim)}
    shapes: dict[str, Any] = {"z": {0: batch}}
    if card.class_names:
        example["y"], shapes["y"] = torch.zeros(2, dtype=torch.int64), {0: batch}
    if card.psi:
        example["psi"], shapes["psi"] = torch.tensor(1.0), {}
    if card.num_ws:
        example |= {"w": torch.zeros(2, card.num_ws, card.w_dim), "w_given": torch.tensor(False)}
        shapes |= {"w": {0: batch}, "w_given": {}}
        generator = _WithW(generator)
    model = traced(generator, example, shapes, ["raw_images", "w_mapped"][: 1 + bool(card.num_ws)])
    set_inputs(model, card.z_dim, bool(card.class_names), card.psi)
    if card.num_ws:
        declare_w(model, card.num_ws, card.w_dim)
    return model


def traced(
    network: nn.Module, example: dict[str, Tensor], shapes: dict[str, Any], outputs: Sequence[str] = ("raw_images",)
) -> onnx.ModelProto:
    """The graph of a network, with inputs named as in ``example``. Raises TrainingError where it has none."""
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (),
                kwargs=example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[f"given_{name}" if name == "images" else name for name in example],
                output_names=list(outputs),
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever the tracer meets
        raise TrainingError(
            f"the network cannot be exported to ONNX: {error}",
            "PyTorch must be able to trace it for any batch: its forward may not branch on what tensors hold, and must "
            "take the batch from its input (x.size(0)), not from a number.",
        ) from error
    assert program is not None
    return onnx.load_model_from_string(program.model_proto.SerializeToString())


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
