from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ganrt.contract import check_model
from ganrt.errors import GanrtError, TrainingError, UsageError
from ganrt_training.assemble import CardTexts
from ganrt_training.wrap import export_onnx
from tests.models import float_nchw_proto, tiny_model

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
BOTH = {"value_range": (-1.0, 1.0)}


def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int) -> TensorProto:
    seed = sum(name.encode())
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    weights: Sequence[TensorProto],
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "someone's", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def convolutional(opset: int = 18, norm: str = "BatchNormalization", batch: int | str = "batch") -> onnx.ModelProto:
    """DCGAN in small: noise [N, 6, 1, 1] → x [N, 3, 8, 8] in -1 … 1."""
    names = ("gain", "bias", "mean", "var")
    weights = [weight("w1", 6, 5, 4, 4), weight("w2", 5, 3, 4, 4), *(weight(name, 5) for name in names)]
    weights[-1] = numpy_helper.from_array(np.arange(1, 6, dtype=np.float32), "var")
    return model(
        [
            helper.make_node("ConvTranspose", ["noise", "w1"], ["z"]),  # a name that the contract needs
            helper.make_node(norm, ["z", *names], ["normed"], epsilon=1e-3),
            helper.make_node("Relu", ["normed"], ["images"]),  # another one
            helper.make_node("ConvTranspose", ["images", "w2"], ["square"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Tanh", ["square"], ["x"]),
        ],
        [value("noise", F32, batch, 6, 1, 1)],
        value("x", F32, batch, 3, 8, 8),
        weights,
        opset,
    )


def conditional(label_type: int = I64) -> onnx.ModelProto:
    """latent [N, 4], class [N] → [N, 8, 8, 1] in 0 … 1, through a Dropout."""
    return model(
        [
            helper.make_node("Gather", ["table", "class"], ["row"]),
            helper.make_node("Add", ["latent", "row"], ["both"]),
            helper.make_node("MatMul", ["both", "w"], ["flat"]),
            helper.make_node("Dropout", ["flat"], ["same"]),
            helper.make_node("Reshape", ["same", "shape"], ["shaped"]),
            helper.make_node("Sigmoid", ["shaped"], ["out"]),
        ],
        [value("class", label_type, "n"), value("latent", F32, "n", 4)],
        value("out", F32, "n", 8, 8, 1),
        [weight("table", 3, 4), weight("w", 4, 64), numpy_helper.from_array(np.array([-1, 8, 8, 1]), "shape")],
    )


def run(path: Path, feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Any]:
    def export(source: onnx.ModelProto | bytes, **options: Any) -> Any:
        data = source if isinstance(source, bytes) else source.SerializeToString()
        (tmp_path / "theirs.onnx").write_bytes(data)
        return export_onnx(tmp_path / "theirs.onnx", tmp_path / "ours.onnx", **(BOTH | options))

    return export


Z = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)


def test_nchw_in_minus_one_to_one(export: Callable[..., Any], tmp_path: Path) -> None:
    card = export(float_nchw_proto(), name="mine", texts=CardTexts(licence="MIT"))
    assert (card.name, card.z_dim, card.width, card.height, card.channels) == ("mine", 8, 8, 8, 3)
    assert (card.class_names, card.licence, card.parity["uint8_max"]) == ((), "MIT", 0)
    assert card == check_model((tmp_path / "ours.onnx").read_bytes(), "")
    theirs = run(tmp_path / "theirs.onnx", {"z": Z})
    expected = np.clip(theirs * 127.5 + 128, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(run(tmp_path / "ours.onnx", {"z": Z}), expected)


@pytest.mark.parametrize("opset", [9, 15, 18, 20, 22])
def test_latents_with_two_axes_more_batch_norms_and_older_opsets(
    export: Callable[..., Any], tmp_path: Path, opset: int
) -> None:
    card = export(convolutional(opset))
    assert (card.z_dim, card.height, card.parity["uint8_max"]) == (6, 8, 0)
    wrapped = onnx.load(tmp_path / "ours.onnx")
    assert "BatchNormalization" not in {node.op_type for node in wrapped.graph.node}
    assert 18 <= wrapped.opset_import[0].version <= 20
    theirs = run(tmp_path / "theirs.onnx", {"noise": Z[:, :6, None, None]})
    expected = np.clip(theirs * 127.5 + 128, 0, 255).transpose(0, 2, 3, 1)
    assert np.abs(run(tmp_path / "ours.onnx", {"z": Z[:, :6]}) - expected).max() <= 1.01


@pytest.mark.parametrize("label_type", [I64, TensorProto.INT32])
def test_nhwc_in_zero_to_one_with_labels(export: Callable[..., Any], tmp_path: Path, label_type: int) -> None:
    card = export(conditional(label_type), value_range=(0, 1), class_names=["a", "b", "c"])
    assert (card.class_names, card.channels, card.parity["classes"]) == (("a", "b", "c"), 1, 3)
    y = np.array([0, 1, 2, 1, 0])
    kind = np.int64 if label_type == I64 else np.int32
    theirs = run(tmp_path / "theirs.onnx", {"latent": Z[:, :4], "class": y.astype(kind)})
    ours = run(tmp_path / "ours.onnx", {"z": Z[:, :4], "y": y})
    assert np.abs(ours.astype(float) - np.floor(theirs * 255 + 0.5)).max() <= 1


def test_uniform_latents_are_proven_and_told(export: Callable[..., Any]) -> None:
    assert export(float_nchw_proto(), z_distribution="uniform").z_distribution == "uniform"


def test_a_layout_that_sizes_leave_open_is_asked_for_and_then_believed(
    export: Callable[..., Any], tmp_path: Path
) -> None:
    source = float_nchw_proto(width=3, height=8, channels=3)
    with pytest.raises(UsageError, match=r"shape \[16, 3, 8, 3\], in two layouts\nSay --layout nchw or --layout nhwc"):
        export(source)
    assert (export(source, layout="nchw").height, export(source, layout="nhwc", overwrite=True).height) == (8, 3)


def test_weights_in_a_second_file_are_taken_in(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.onnx"
    onnx.save(float_nchw_proto(), theirs, save_as_external_data=True, size_threshold=0, location="theirs.data")
    export_onnx(theirs, tmp_path / "ours.onnx", value_range=(-1, 1))
    (tmp_path / "theirs.data").unlink()
    assert run(tmp_path / "ours.onnx", {"z": Z}).shape == (5, 8, 8, 3)


def renamed_type(kind: int) -> onnx.ModelProto:
    source = float_nchw_proto()
    source.graph.output[0].type.tensor_type.elem_type = kind
    return source


def two_latents() -> onnx.ModelProto:
    source = float_nchw_proto()
    source.graph.input.append(value("noise", F32, "N", 8))
    return source


def fixed_batch() -> onnx.ModelProto:
    source = float_nchw_proto()
    source.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return source


def with_operator(operator: str) -> onnx.ModelProto:
    source = float_nchw_proto()
    source.graph.node[2].op_type = operator
    return source


def training_norm() -> onnx.ModelProto:
    source = convolutional()
    norm = source.graph.node[1]
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["m", "v"])
    return source


Broken = tuple[Callable[[], "onnx.ModelProto | bytes"], dict[str, Any], type[GanrtError], str]
BROKEN: dict[str, Broken] = {
    "no model": (lambda: b"nonsense", {}, TrainingError, "cannot be read as an ONNX model"),
    "empty": (lambda: b"", {}, TrainingError, "cannot be read as an ONNX model"),
    "finished already": (tiny_model, {}, TrainingError, "is a generator of the contract already"),
    "range": (float_nchw_proto, {"value_range": (1, -1)}, UsageError, "range 1,-1\nExpected the values of black"),
    "range is nan": (float_nchw_proto, {"value_range": (float("nan"), 1)}, UsageError, "range nan,1"),
    "wrong range": (
        lambda: with_operator("Exp"),
        {"value_range": (0, 0.1)},
        UsageError,
        "of its values are outside of 0,0.1; they run from",
    ),
    "distribution": (float_nchw_proto, {"z_distribution": "cauchy"}, TrainingError, "z_distribution is 'cauchy', not"),
    "classes for nothing": (float_nchw_proto, {"class_names": ["a"]}, UsageError, "takes no labels, yet classes are"),
    "no classes": (conditional, {}, UsageError, "takes labels (class)\nName its classes, in order: --classes a,b,c"),
    "too many classes": (
        conditional,
        {"class_names": ["a", "b", "c", "d"]},
        TrainingError,
        "makes no 16 images at once: ",
    ),
    "two latents": (two_latents, {}, TrainingError, "takes z float [N, 8], noise float [N, 8]\nExpected latents"),
    "labels as floats": (
        lambda: conditional(TensorProto.DOUBLE),
        {"class_names": ["a", "b", "c"]},
        TrainingError,
        "takes class double [n], latent float [n, 4]",
    ),
    "unknown latents": (
        lambda: model(
            [helper.make_node("Tanh", ["z"], ["x"])], [value("z", F32, "N", "d")], value("x", F32, "N", "d"), []
        ),
        {},
        TrainingError,
        "takes z float [N, d]",
    ),
    "no image": (
        lambda: model([helper.make_node("Tanh", ["z"], ["x"])], [value("z", F32, "N", 8)], value("x", F32, "N", 8), []),
        {},
        TrainingError,
        "makes images of shape [16, 8]\nExpected [N, C, H, W] or [N, H, W, C]",
    ),
    "two channels": (lambda: float_nchw_proto(channels=2), {}, TrainingError, "Expected 1 (grey) or 3 (RGB) channels"),
    "layout": (float_nchw_proto, {"layout": "nhwc"}, UsageError, "layout 'nhwc': images have shape [16, 3, 8, 8]"),
    "pixels": (lambda: renamed_type(TensorProto.UINT8), {}, TrainingError, "makes images uint8 [N, 3, 8, 8]"),
    "fixed batch": (fixed_batch, {}, TrainingError, "makes no 16 images at once: "),
    "random inside": (
        lambda: with_operator("RandomNormalLike"),
        {},
        TrainingError,
        "has the operator RandomNormalLike, which no generator",
    ),
    "training mode": (
        training_norm,
        {},
        TrainingError,
        "makes 'normed' cannot be folded: it is in training mode",
    ),
    "unknown operator": (lambda: with_operator("Nonsense"), {}, TrainingError, "has the operator Nonsense"),
    "unknown opset": (lambda: convolutional(99), {}, TrainingError, "has opset 99, and cannot be converted to 20"),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_wrapped_is_told(export: Callable[..., Any], tmp_path: Path, case: Broken) -> None:
    source, options, kind, message = case
    with pytest.raises(GanrtError) as raised:
        export(source(), **options)
    assert message in str(raised.value)
    assert type(raised.value) is kind
    assert not (tmp_path / "ours.onnx").exists()
