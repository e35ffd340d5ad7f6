"""From someone else's generator to one of the contract: probed, wrapped, proven equal to its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from ganrt.card import Card
from ganrt_training.assemble import CardTexts, append_pixels, check_target, set_inputs, write_generator
from ganrt_training.fold import without_training_nodes
from ganrt_training.foreign import Foreign
from ganrt_training.onnx_source import open_onnx
from ganrt_training.parity import Floats, Pixels
from ganrt_training.probing import Call, Said, find_facts

_PREFIX = "source/"  # keeps the names of the foreign graph apart from those of the contract
_TENSOR_TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}


def _silent(_: str) -> None:
    pass


def export_foreign(
    foreign: Foreign,
    out: Path,
    said: Said | None = None,
    *,
    name: str | None = None,
    texts: CardTexts | None = None,
    fp16: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] = _silent,
) -> Card:
    """Writes a generator from elsewhere as one of the contract, proven equal to its source; returns the card.

    What is not ``said`` of it is found by calling it, and told to ``tell`` in a sentence each. ``fp16`` makes a
    half-precision file, for GPUs.

    Raises TrainingError when the source is no generator of images, UsageError when something must be said or does not
    fit it, ParityError when the file makes other images than the source. Then nothing is written.
    """
    check_target(out, overwrite)
    said, texts = said or Said(), texts or CardTexts()
    graph = foreign.graph()
    facts = find_facts(foreign, graph, said, tell)
    (height, width, channels), (low, high), call = facts.size, facts.value_range, facts.call
    card = Card(
        name=name or out.stem,
        z_dim=call.latent.size,
        width=width,
        height=height,
        channels=channels,
        z_distribution=said.z_distribution,
        class_names=call.class_names,
        description=texts.description,
        data=texts.data,
        data_licence=texts.data_licence,
        licence=texts.licence,
        snapshot_digest=foreign.digest,
        quality=texts.quality,
    )
    wrapped = _wrapped(graph, call)
    raw = append_pixels(wrapped, size=facts.size, value_range=facts.value_range, nchw=facts.nchw)

    def with_pixels(z: Floats, y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        x = foreign.images(*call.given(z, y))
        levels = np.clip((x - np.float32(low)) * np.float32(255 / (high - low)) + np.float32(0.5), 0, 255)
        return x, (levels.transpose(0, 2, 3, 1) if facts.nchw else levels).astype(np.uint8)

    return write_generator(
        wrapped,
        card,
        with_pixels,
        out,
        raw=raw,
        half_range=(high - low) / 2,
        fp16=fp16,
        made_with=dict(foreign.made_with),
    )


def export_onnx(
    path: Path,
    out: Path,
    *,
    value_range: tuple[float, float] | None = None,
    class_names: Sequence[str] = (),
    labels: str | None = None,
    layout: str | None = None,
    name: str | None = None,
    z_distribution: str = "normal",
    texts: CardTexts | None = None,
    fp16: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] = _silent,
) -> Card:
    """:func:`export_foreign` of a float ONNX generator; the other arguments are those of :class:`Said`."""
    check_target(out, overwrite)
    said = Said(
        value_range=value_range,
        class_names=class_names,
        labels=labels,
        layout=layout,
        z_distribution=z_distribution,
    )
    return export_foreign(open_onnx(path), out, said, name=name, texts=texts, fp16=fp16, overwrite=overwrite, tell=tell)


def _wrapped(source: onnx.ModelProto, call: Call) -> onnx.ModelProto:
    """The graph with z and y as its inputs, with batch norms as affine maps and its own names out of the way."""
    model = onnx.ModelProto.FromString(source.SerializeToString())
    body = without_training_nodes(model)
    del model.graph.node[:]
    model.graph.node.extend(body)
    model = compose.add_prefix(model, _PREFIX)
    graph, heads = model.graph, list[onnx.NodeProto]()

    def head(operator: str, x: str, y: str, tensor: NDArray[np.generic] | None = None, **settings: Any) -> str:
        """One node before the graph, from x to y; returns y."""
        operands = [] if tensor is None else [f"{y}/with"]
        if tensor is not None:
            graph.initializer.append(numpy_helper.from_array(tensor, f"{y}/with"))
        heads.append(helper.make_node(operator, [x, *operands], [y], name=y, **settings))
        return y

    latent, label = call.latent, call.label
    z = "z"
    if latent.shape[1:] == (1, 1):  # a form that the rewriting for speed knows
        z = head("Unsqueeze", z, "z/square", np.array([2, 3]))
    elif len(latent.shape) != 1:
        z = head("Reshape", z, "z/shaped", np.array([-1, *latent.shape]))
    renamed = {_PREFIX + latent.name: z}
    if label is not None:
        y, kind = "y", _TENSOR_TYPES[label.dtype]
        if call.one_hot:
            count = len(call.class_names)
            y = head("Unsqueeze", y, "y/column", np.array([1]))
            y = head("Equal", y, "y/equal", np.arange(count).reshape(1, count))
        if call.one_hot or kind != TensorProto.INT64:
            y = head("Cast", y, "y/cast", to=kind)
        if label.shape != ((len(call.class_names),) if call.one_hot else ()):
            y = head("Reshape", y, "y/shaped", np.array([-1, *label.shape]))
        renamed[_PREFIX + label.name] = y
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    nodes = [*heads, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    set_inputs(model, latent.size, label is not None)
    return model
