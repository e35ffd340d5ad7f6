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
    with pytest.raises(UsageError, match=r"shape \[N, 3, 8, 3\], in two layouts\nSay --layout nchw or --layout nhwc"):
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


def two_batches() -> onnx.ModelProto:
    source = conditional()
    for wanted, batch in zip(source.graph.input, (2, 4), strict=True):
        wanted.type.tensor_type.shape.dim[0].dim_value = batch
    return source


def renamed_input(source: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    for named in source.graph.input:
        named.name = new if named.name == old else named.name
    for node in source.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
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


def somebodys(
    *,
    label: str = "none",
    latent: tuple[int, ...] = (6,),
    low: float = -1,
    high: float = 1,
    channels: int = 1,
    nchw: bool = True,
    batch: int | None = None,
    batch_in: str = "",
    rows: int = 1,
) -> onnx.ModelProto:
    """noise [N, 6], class → x of 4x4 pixels; its arithmetic is that of ``made``.

    ``batch`` fixes N as exporters do, in shapes of inputs, outputs and Reshape; ``batch_in`` where it cannot be undone.
    """
    n: int | str = batch or "N"
    count, pixels = batch or -1, channels * 16
    shape = [count, channels, 4, 4] if nchw else [count, 4, 4, channels]
    kinds = {
        "int64": (I64, ()),
        "int32": (TensorProto.INT32, ()),
        "column": (I64, (1,)),
        "floats": (F32, (1,)),
        "onehot": (F32, (3,)),
        "onehot maps": (F32, (3, 1, 1)),
        "number": (F32, (1,)),
    }
    constants = {
        "six": [count, 6],
        "rows": [count],
        "three": [count, 3],
        "shape": [-1, *shape[1:]] if rows > 1 else shape,
        "twice": [-1, pixels // 2] if batch_in != "reshape" else [count // 2, -1, pixels],
    }
    nodes = [
        helper.make_node("Reshape", ["noise", "six"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["of_z"]),
    ]
    of_y = {
        "onehot": [helper.make_node("MatMul", ["class", "table"], ["of_y"])],
        "onehot maps": [
            helper.make_node("Reshape", ["class", "three"], ["onehot"]),
            helper.make_node("MatMul", ["onehot", "table"], ["of_y"]),
        ],
        "number": [helper.make_node("Mul", ["class", "tiny"], ["of_y"])],
        "none": [helper.make_node("Identity", ["zero"], ["of_y"])],
    }.get(
        label,
        [
            helper.make_node("Reshape", ["class", "rows"], ["row"]),
            helper.make_node("Cast", ["row"], ["whole"], to=I64),
            helper.make_node("Gather", ["table", "whole"], ["of_y"]),
        ],
    )
    nodes += [*of_y, helper.make_node("Add", ["of_z", "of_y"], ["both"])]
    end = "both"
    if batch_in == "constant":
        nodes.append(helper.make_node("Add", [end, "for_each_row"], ["added"]))
        end = "added"
    if batch_in == "reshape":
        nodes.append(helper.make_node("Reshape", [end, "pairs"], ["paired"]))
        nodes.append(helper.make_node("Reshape", ["paired", "apart"], ["shaped"]))
        end = "shaped"
    nodes.append(helper.make_node("Tanh" if low < 0 else "Sigmoid", [end], ["bounded"]))
    nodes.append(helper.make_node("Mul", ["bounded", "scale"], ["scaled"]))
    if rows > 1:
        nodes.append(helper.make_node("Concat", ["scaled", "scaled"], ["joined"], axis=0))
        end = "joined"
    else:
        end = "scaled"
    nodes.append(helper.make_node("Reshape", [end, "shape"], ["x"]))
    constants |= {"pairs": [2, pixels * (batch or 2) // 2], "apart": [batch or 2, -1]}
    numbers = {
        "zero": np.zeros((1, pixels)),
        "tiny": np.full((1, pixels), 1e-3),
        "scale": np.array(high),
        "for_each_row": np.zeros((batch or 1, pixels)),
    }
    weights = [
        weight("w", 6, pixels),
        weight("table", 3, pixels),
        *(numpy_helper.from_array(np.array(v), k) for k, v in constants.items()),
        *(numpy_helper.from_array(v.astype(np.float32), k) for k, v in numbers.items()),
    ]
    inputs = [value("noise", F32, n, *latent)]
    if label != "none":
        kind, after = kinds[label]
        inputs.insert(0, value("class", kind, n, *after))
    return model(nodes, inputs, value("x", F32, n if rows == 1 else "M", *shape[1:]), weights)


def made(z: NDArray[Any], y: NDArray[Any] | None, low: float, high: float, channels: int, nchw: bool) -> NDArray[Any]:
    """The grey levels, not rounded, of what ``somebodys`` generator makes: [N, 4, 4, C], by numpy."""
    w, table = (numpy_helper.to_array(weight(name, n, channels * 16)) for name, n in (("w", 6), ("table", 3)))
    x = z @ w + (0 if y is None else table[y])
    x = np.tanh(x) if low < 0 else high / (1 + np.exp(-x))
    levels: NDArray[Any] = (x - low) * (255 / (high - low)) + 0.5
    return levels.reshape(-1, channels, 4, 4).transpose(0, 2, 3, 1) if nchw else levels.reshape(-1, 4, 4, channels)


LABELS = ("none", "int64", "int32", "column", "floats", "onehot", "onehot maps")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("span", [(-1, 1), (0, 1), (0, 255)])
@pytest.mark.parametrize("latent", [(6,), (6, 1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("label", LABELS)
def test_labels_latents_ranges_and_channels(
    export: Callable[..., Any],
    tmp_path: Path,
    label: str,
    latent: tuple[int, ...],
    span: tuple[float, float],
    channels: int,
) -> None:
    """Half of them are NHWC and half have a fixed batch, in turn, so that each meets each."""
    number = LABELS.index(label) + len(latent) + channels + int(span[1])
    nchw, batch = number % 2 == 0, 5 if number % 3 == 0 else None
    low, high = span
    told: list[str] = []
    source = somebodys(label=label, latent=latent, low=low, high=high, channels=channels, nchw=nchw, batch=batch)
    card = export(source, value_range=None, tell=told.append)
    assert (card.z_dim, card.width, card.channels) == (6, 4, channels)
    assert card.class_names == (() if label == "none" else ("0", "1", "2"))
    assert any(sentence.startswith(f"range: [{low}, {high}], guessed") for sentence in told)
    assert any(f"with channels {'first' if nchw else 'last'}" in sentence for sentence in told)
    z, y = np.random.default_rng(3).standard_normal((7, 6)).astype(np.float32), np.arange(7) % 3
    feeds: dict[str, NDArray[Any]] = {"z": z} if label == "none" else {"z": z, "y": y}
    found = run(tmp_path / "ours.onnx", feeds).astype(int)
    expected = made(z, None if label == "none" else y, low, high, channels, nchw)
    assert np.abs(found - np.floor(expected)).max() <= 1
    assert found.std(axis=0).max() > 5


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
    "distribution": (
        float_nchw_proto,
        {"z_distribution": "cauchy"},
        UsageError,
        "z distribution 'cauchy'\nExpected normal or uniform.",
    ),
    "labels": (conditional, {"labels": "words"}, UsageError, "labels 'words'\nExpected int or onehot."),
    "labels that are numbers": (
        conditional,
        {"labels": "onehot"},
        UsageError,
        "takes class int64 [N]\n--labels int would fit.",
    ),
    "classes for nothing": (float_nchw_proto, {"class_names": ["a"]}, UsageError, "takes no labels, yet classes are"),
    "any number of classes": (
        lambda: somebodys(label="number"),
        {},
        UsageError,
        "takes labels (class float32 [N, 1]), any number of them\nName its classes, in order: --classes a,b,c.",
    ),
    "two inputs of floats": (
        lambda: renamed_input(somebodys(label="onehot"), "class", "more"),
        {},
        UsageError,
        "takes more float32 [N, 3], noise float32 [N, 6]; which of them are labels is not known",
    ),
    "two images a latent": (lambda: somebodys(rows=2), {}, TrainingError, "makes 64 images of 32 latents"),
    "not finite": (lambda: with_operator("Log"), {}, TrainingError, "makes numbers that are not finite"),
    "a range that is not clear": (
        lambda: with_operator("Sinh"),
        {"value_range": None},
        UsageError,
        "the range of its images is not clear: values of 256 samples run from",
    ),
    "too many classes": (
        conditional,
        {"class_names": ["a", "b", "c", "d"]},
        UsageError,
        "takes labels of 3 classes (class int64 [N]); 4 are named: a, b, c, d\nName them all",
    ),
    "two latents": (two_latents, {}, UsageError, "takes z float32 [N, 8], noise float32 [N, 8]; which of them"),
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
        "makes images of shape [N, 8]\nExpected [N, C, H, W] or [N, H, W, C]",
    ),
    "two channels": (lambda: float_nchw_proto(channels=2), {}, TrainingError, "Expected 1 (grey) or 3 (RGB) channels"),
    "layout": (float_nchw_proto, {"layout": "nhwc"}, UsageError, "layout 'nhwc': images have shape [N, 3, 8, 8]"),
    "pixels": (lambda: renamed_type(TensorProto.UINT8), {}, TrainingError, "makes images uint8 [N, 3, 8, 8]"),
    "a batch in its constants": (
        lambda: somebodys(batch=4, batch_in="constant"),
        {},
        TrainingError,
        "its batch is fixed at 4, and its graph does not take another: ",
    ),
    "a batch in a reshape": (
        lambda: somebodys(batch=4, batch_in="reshape"),
        {},
        TrainingError,
        "its batch is fixed at 4, and the Reshape that makes 'shaped' knows no other\nExport it with a dynamic batch",
    ),
    "two batches": (two_batches, {}, TrainingError, "Expected the same number of rows of each input."),
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
