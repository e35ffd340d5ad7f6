"""Tiny generators that follow the ONNX contract, built in memory in milliseconds.

``tiny_model()`` gives the bytes of a whole one. To break one, take ``tiny_proto()``, change it and
``.SerializeToString()`` it. Weights depend on ``seed`` only, so two calls give the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ganrt import card as cards
from ganrt.card import Card

OPSET = 18
IR_VERSION = 8


def tiny_card(
    *,
    name: str = "tiny",
    class_names: Sequence[str] = ("a", "b", "c"),
    z_dim: int = 8,
    width: int = 8,
    height: int = 8,
    channels: int = 3,
    psi: bool = False,
    num_ws: int = 0,
    w_dim: int = 0,
    card_changes: Mapping[str, Any] | None = None,
) -> Card:
    """The card that goes with ``tiny_model`` of the same arguments; ``card_changes`` replaces fields of it."""
    card = Card(
        name=name,
        z_dim=z_dim,
        width=width,
        height=height,
        channels=channels,
        class_names=tuple(class_names),
        psi=psi,
        num_ws=num_ws,
        w_dim=w_dim,
        description="A tiny generator for tests.",
        data="none",
        data_licence="CC0-1.0",
        licence="Apache-2.0",
        recipe="tests",
    )
    return dataclasses.replace(card, **(card_changes or {}))


def tiny_proto(
    *,
    name: str = "tiny",
    class_names: Sequence[str] = ("a", "b", "c"),
    z_dim: int = 8,
    width: int = 8,
    height: int = 8,
    channels: int = 3,
    psi: bool = False,
    num_ws: int = 0,
    w_dim: int = 0,
    seed: int = 0,
    card_changes: Mapping[str, Any] | None = None,
    with_card: bool = True,
    table_rows: int | None = None,
) -> onnx.ModelProto:
    """A generator as onnx.ModelProto: images = pixels(tanh((z * psi + table[y]) @ weight + bias)).

    With ``num_ws`` and ``w_dim`` it can be given w: w_mapped = (z * psi + table[y]) @ mapping, the same for each layer,
    images = pixels(tanh(w, flat, @ weight + bias)).
    With fewer ``table_rows`` than classes the file passes every check and fails while it runs, for the
    labels that have no row.
    """
    random = np.random.default_rng(seed)
    pixels = height * width * channels

    def normal(label: str, *shape: int, scale: float) -> TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), label)

    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", z_dim])]
    weights = [
        normal("weight", num_ws * w_dim or z_dim, pixels, scale=(num_ws * w_dim or z_dim) ** -0.5),
        normal("bias", pixels, scale=0.5),
        numpy_helper.from_array(np.array([-1, height, width, channels], np.int64), "shape"),
        numpy_helper.from_array(np.array(127.5, np.float32), "half"),
        numpy_helper.from_array(np.array(128, np.float32), "middle"),
        numpy_helper.from_array(np.array(0, np.float32), "black"),
        numpy_helper.from_array(np.array(255, np.float32), "white"),
    ]
    nodes = []
    latent = "z"
    if class_names:
        inputs.append(helper.make_tensor_value_info("y", TensorProto.INT64, ["N"]))
    if psi:
        inputs.append(helper.make_tensor_value_info("psi", TensorProto.FLOAT, []))
        weights.append(numpy_helper.from_array(np.array(1, np.float32), "psi"))
        nodes.append(helper.make_node("Mul", [latent, "psi"], ["truncated"]))
        latent = "truncated"
    if class_names:
        rows = len(class_names) if table_rows is None else table_rows
        weights.append(normal("table", rows, z_dim, scale=1.5))
        nodes.append(helper.make_node("Gather", ["table", "y"], ["class"]))
        nodes.append(helper.make_node("Add", [latent, "class"], ["conditioned"]))
        latent = "conditioned"
    outputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", height, width, channels])]
    if num_ws:
        shape: list[str | int | None] = ["N", num_ws, w_dim]
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, shape))
        inputs.append(helper.make_tensor_value_info("w_given", TensorProto.BOOL, []))
        outputs.append(helper.make_tensor_value_info("w_mapped", TensorProto.FLOAT, shape))
        weights += [
            numpy_helper.from_array(np.zeros((1, num_ws, w_dim), np.float32), "w"),
            numpy_helper.from_array(np.array(False), "w_given"),
            normal("mapping", z_dim, w_dim, scale=z_dim**-0.5),
            numpy_helper.from_array(np.ones((1, num_ws, 1), np.float32), "layers"),
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(np.array([-1, num_ws * w_dim]), "rows"),
        ]
        nodes += [
            helper.make_node("MatMul", [latent, "mapping"], ["mapped"]),
            helper.make_node("Unsqueeze", ["mapped", "axis"], ["one_layer"]),
            helper.make_node("Mul", ["one_layer", "layers"], ["w_mapped"]),
            helper.make_node("Where", ["w_given", "w", "w_mapped"], ["styles"]),
            helper.make_node("Reshape", ["styles", "rows"], ["styles_flat"]),
        ]
        latent = "styles_flat"
    nodes += [
        helper.make_node("Gemm", [latent, "weight", "bias"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["shaped"]),
        helper.make_node("Tanh", ["shaped"], ["signed"]),
        helper.make_node("Mul", ["signed", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "middle"], ["levels"]),
        helper.make_node("Clip", ["levels", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["images"], to=TensorProto.UINT8),
    ]
    model = _model(nodes, inputs, outputs, weights)
    if with_card:
        card = tiny_card(
            name=name,
            class_names=class_names,
            z_dim=z_dim,
            width=width,
            height=height,
            channels=channels,
            psi=psi,
            num_ws=num_ws,
            w_dim=w_dim,
            card_changes=card_changes,
        )
        helper.set_model_props(model, {cards.METADATA_KEY: card.to_json()})
    return model


def tiny_model(
    *,
    name: str = "tiny",
    class_names: Sequence[str] = ("a", "b", "c"),
    z_dim: int = 8,
    width: int = 8,
    height: int = 8,
    channels: int = 3,
    psi: bool = False,
    num_ws: int = 0,
    w_dim: int = 0,
    seed: int = 0,
    card_changes: Mapping[str, Any] | None = None,
    with_card: bool = True,
    table_rows: int | None = None,
) -> bytes:
    """The bytes of a generator that follows the contract; arguments as ``tiny_proto``."""
    model = tiny_proto(
        name=name,
        class_names=class_names,
        z_dim=z_dim,
        width=width,
        height=height,
        channels=channels,
        psi=psi,
        num_ws=num_ws,
        w_dim=w_dim,
        seed=seed,
        card_changes=card_changes,
        with_card=with_card,
        table_rows=table_rows,
    )
    return bytes(model.SerializeToString())


def tiny_translator_card(
    *,
    name: str = "tiny",
    width: int = 8,
    height: int = 8,
    channels: int = 3,
    in_channels: int = 0,
    scale: int = 1,
    card_changes: Mapping[str, Any] | None = None,
) -> Card:
    """The card that goes with ``tiny_translator`` of the same arguments; ``width`` and ``height`` are of x."""
    card = Card(
        name=name,
        kind=cards.IMAGES,
        width=width * scale,
        height=height * scale,
        channels=channels,
        in_channels=in_channels,
        scale=scale,
        description="A tiny translator for tests.",
        licence="Apache-2.0",
    )
    return dataclasses.replace(card, **(card_changes or {}))


def tiny_translator_proto(
    *,
    name: str = "tiny",
    width: int = 8,
    height: int = 8,
    channels: int = 3,
    in_channels: int = 0,
    scale: int = 1,
    dynamic: bool = False,
    seed: int = 0,
    card_changes: Mapping[str, Any] | None = None,
    with_card: bool = True,
) -> onnx.ModelProto:
    """An image-to-image generator: images = pixels(1x1 convolution of x / 127.5 - 1), each pixel ``scale`` wide.

    ``translated`` is the same in numpy. With ``dynamic`` x may have any height and width.
    """
    given = in_channels or channels
    sides = ["H", "W"] if dynamic else [height, width]
    made = ["H_", "W_"] if dynamic else [height * scale, width * scale]
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["nchw", "half"], ["divided"]),
        helper.make_node("Sub", ["divided", "one"], ["signed"]),
        helper.make_node("Conv", ["signed", "weight"], ["mixed"]),
        helper.make_node(
            "Resize",
            ["mixed", "", "scales"],
            ["large"],
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Mul", ["large", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "middle"], ["levels"]),
        helper.make_node("Clip", ["levels", "black", "white"], ["clipped"]),
        helper.make_node("Transpose", ["clipped"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["nhwc"], ["images"], to=TensorProto.UINT8),
    ]
    numbers = {"half": 127.5, "one": 1, "middle": 128, "black": 0, "white": 255, "scales": [1, 1, scale, scale]}
    weights = [numpy_helper.from_array(np.array(value, np.float32), label) for label, value in numbers.items()]
    weights.append(numpy_helper.from_array(translator_weight(given, channels, seed)[:, :, None, None], "weight"))
    model = _model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", *sides, given])],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *made, channels])],
        weights,
    )
    if with_card:
        card = tiny_translator_card(
            name=name,
            width=width,
            height=height,
            channels=channels,
            in_channels=in_channels,
            scale=scale,
            card_changes=card_changes,
        )
        helper.set_model_props(model, {cards.METADATA_KEY: card.to_json()})
    return model


def tiny_translator(**arguments: Any) -> bytes:
    """The bytes of an image-to-image generator that follows the contract; arguments as ``tiny_translator_proto``."""
    return bytes(tiny_translator_proto(**arguments).SerializeToString())


def translator_weight(in_channels: int, channels: int, seed: int = 0) -> NDArray[np.float32]:
    """Of the convolution of ``tiny_translator``: float32 [channels, in_channels]."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, in_channels)).astype(np.float32)


def translated(x: NDArray[np.uint8], channels: int = 3, scale: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """What ``tiny_translator`` makes of images uint8 [N, H, W, C], but for a level where floats are summed."""
    mixed = (x / 127.5 - 1) @ translator_weight(x.shape[3], channels, seed).T
    large = mixed.repeat(scale, axis=1).repeat(scale, axis=2)
    return np.clip(large * 127.5 + 128, 0, 255).astype(np.uint8)


def float_nchw_proto(
    *,
    z_dim: int = 8,
    width: int = 8,
    height: int = 8,
    channels: int = 3,
    input_name: str = "z",
    output_name: str = "images",
    seed: int = 0,
) -> onnx.ModelProto:
    """What most people have: a generator straight from an exporter, float32 [N, C, H, W] in -1 … 1, no card."""
    random = np.random.default_rng(seed)
    weight = (random.standard_normal((z_dim, channels * height * width)) * z_dim**-0.5).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", [input_name, "weight"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["shaped"]),
        helper.make_node("Tanh", ["shaped"], [output_name]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["N", z_dim])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["N", channels, height, width])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([-1, channels, height, width], np.int64), "shape"),
        ],
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializer=weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="ganrt-tests"
    )
