"""Files that are no networks of images, or may do harm: refused before ONNX Runtime sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ganrt.errors import ContractError, InferenceError, UsageError
from ganrt_training.evaluation.classifier_file import KEY, Classifier
from ganrt_training.evaluation.networks import open_network
from tests.models import tiny_model
from tests.training.seeing import ABOUT, proto, saved


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def node(op: str, *inputs: str, **options: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.append(helper.make_node(op, list(inputs), ["extra"], **options))


def sides(model: onnx.ModelProto) -> Any:
    return model.graph.input[0].type.tensor_type.shape.dim


BODY = helper.make_graph([], "body", [], [])
HOSTILE: dict[str, tuple[Callable[[onnx.ModelProto], Any], str]] = {
    "external": (external, "lies in another file; a model is one file"),
    "domain": (node("Gelu", "mean", domain="com.microsoft"), "only ONNX's own operators are run"),
    "no opset": (lambda model: model.ClearField("opset_import"), "its opset is missing; 7 to 23 is expected"),
    "random": (node("RandomNormalLike", "mean"), "'RandomNormalLike', which ganrt refuses"),
    "control flow": (node("If", "mean", then_branch=BODY, else_branch=BODY), "a network has no control flow"),
    "subgraph": (node("Identity", "mean", body=BODY), "holds a subgraph: a network has no control flow"),
    "dropout": (node("Dropout", "mean", "", "mode"), "Dropout as in training"),
    "batch norm": (node("BatchNormalization", *["mean"] * 5, training_mode=1), "BatchNormalization as in training"),
    "functions": (
        lambda model: model.functions.append(helper.make_function("", "F", ["a"], ["b"], [], [])),
        "holds functions",
    ),
    "nodes": (
        lambda model: model.graph.node.extend([helper.make_node("Identity", ["x"], [f"n{i}"]) for i in range(20_001)]),
        "at most 20,000 are run",
    ),
    "opset": (lambda model: setattr(model.opset_import[0], "version", 99), "its opset is 99; 7 to 23 is expected"),
    "ir": (lambda model: setattr(model, "ir_version", 99), "IR version 99"),
    "text input": (
        lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING),
        "takes 'x' string .*\nExpected one input",
    ),
    "two inputs": (lambda model: model.graph.input.append(model.graph.input[0]), "Expected one input: images"),
    "no input": (lambda model: model.graph.ClearField("input"), "takes nothing\nExpected one input"),
    "vectors": (lambda model: sides(model).pop(), "Expected one input: images"),
    "huge side": (
        lambda model: setattr(sides(model)[2], "dim_value", 1 << 30),
        "Expected sides of 1 to 4096",
    ),
    "negative batch": (
        lambda model: setattr(sides(model)[0], "dim_value", -1),
        "Expected a dynamic N",
    ),
    "huge batch": (
        lambda model: [dim.MergeFrom(type(dim)(dim_value=4096)) for dim in (sides(model)[0], *sides(model)[2:])],
        "at most 67,108,864 pixels at once",
    ),
    "not finite": (
        lambda model: model.graph.initializer.append(numpy_helper.from_array(np.array([np.nan]), "w")),
        "holds numbers that are not finite",
    ),
    "metadata": (lambda model: helper.set_model_props(model, {KEY: "[" * 100_000}), "is not JSON"),
    "metadata of another": (lambda model: helper.set_model_props(model, {KEY: '{"format": 2}'}), "is not of format 1"),
    "classes without logits": (
        lambda model: helper.set_model_props(model, {KEY: Classifier(**ABOUT).to_json()}),
        "names 3 classes and has no logits",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_before_they_run(name: str, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    model = proto()
    change(model)
    with pytest.raises(ContractError, match=message):
        open_network(saved(tmp_path, model), device="cpu", threads=1)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x80\x04K\x01.", b"\xff" * 100, b"\x08"])
def test_what_is_no_onnx_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(ContractError):
        open_network(tmp_path / "net.onnx")
    with pytest.raises(ContractError, match="is a folder"):
        open_network(tmp_path)


def test_a_generator_is_no_feature_network(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(tiny_model())
    with pytest.raises(ContractError, match=r"takes 'z' float32 .*\nExpected one input: images"):
        open_network(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("nodes", "made", "message"),
    [
        ([("Log", ["zero"])], None, r"features that are not finite \(NaN or infinity\)\nAre its pixels fed"),
        ([("Identity", ["x"])], ["N", 3], "features of shape .* from 1 images\nExpected"),
        ([("MatMul", ["x", "axes"])], ["N", 3], "net.onnx: ONNX Runtime: .*\nExport the network again"),
    ],
)
def test_what_fails_fails_when_it_is_opened(
    nodes: list[tuple[str, list[str]]], made: list[int | str | None] | None, message: str, tmp_path: Path
) -> None:
    first = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("Sub", ["m", "m"], ["zero"]),
    ]
    chain = [*first, *(helper.make_node(op, inputs, ["pooled"]) for op, inputs in nodes)]
    with pytest.raises(InferenceError, match=message):
        open_network(saved(tmp_path, nodes=chain, made=made), device="cpu", threads=1)


def test_maps_are_no_features(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gives 'pooled' float32 \[N, 16, 8, 8\]\nSay which output"):
        open_network(saved(tmp_path, made=["N", 16, 8, 8]))
    with pytest.raises(UsageError, match=r"Expected float \[N, D\], or \[N, D, 1, 1\]: name an output behind"):
        open_network(f"{saved(tmp_path, made=['N', 16, 8, 8])}:features=pooled")
