"""Files from strangers: what the contract accepts, what it refuses, and what its errors say."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ganrt.contract import card_of_session, check_model, read_model
from ganrt.errors import ContractError, StorageError, UnknownModel
from ganrt.graphs import ALLOWED_OPS, MAX_NODES
from tests.models import (
    float_nchw_proto,
    tiny_card,
    tiny_model,
    tiny_proto,
    tiny_translator,
    tiny_translator_card,
    tiny_translator_proto,
)

EXPORT_COMMAND = "ganrt export gen.onnx --range=-1,1 --out fitting.onnx"
VARIANTS = [
    {},
    {"psi": True},
    {"class_names": ()},
    {"class_names": ("test",)},
    {"class_names": (), "psi": True, "channels": 1, "width": 5, "height": 7},
    {"num_ws": 3, "w_dim": 5},
    {"num_ws": 1, "w_dim": 1, "psi": True, "class_names": ()},
]


def refusal(model: onnx.ModelProto | bytes) -> str:
    """What a user reads when the model is refused."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(ContractError) as error:
        check_model(data, "gen.onnx")
    assert error.value.hint, "an error says what to do"
    assert str(error.value).startswith("gen.onnx")
    return str(error.value)


def refusal_after(change: Callable[[onnx.ModelProto], object], **arguments: object) -> str:
    """The refusal of a good model after one change."""
    model = tiny_proto(**arguments)  # type: ignore[arg-type]
    change(model)
    return refusal(model)


def weight(model: onnx.ModelProto, name: str = "weight") -> TensorProto:
    found: TensorProto = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    return found


def with_initializer(tensor: bytes) -> bytes:
    """A good model with one more TensorProto, whose bytes stay as they are."""
    model = tiny_proto()
    graph = model.graph.SerializeToString() + b"\x2a" + bytes([len(tensor)]) + tensor
    model.ClearField("graph")
    length = bytes([len(graph) & 0x7F | 0x80, len(graph) >> 7])
    start: bytes = model.SerializeToString()
    return start + b"\x3a" + length + bytes(graph)


# What is accepted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", VARIANTS)
def test_accepts_what_follows_the_contract(arguments: dict[str, object]) -> None:
    data = tiny_model(**arguments)  # type: ignore[arg-type]
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    assert check_model(data, "tiny.onnx") == tiny_card(**arguments)  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert card_of_session(session) == tiny_card(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "arguments", [{}, {"width": 5, "height": 7, "scale": 2}, {"channels": 1, "in_channels": 3}, {"in_channels": 1}]
)
def test_accepts_what_makes_images_of_images(arguments: dict[str, object], dynamic: bool, tmp_path: Path) -> None:
    data = tiny_translator(dynamic=dynamic, **arguments)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    card = tiny_translator_card(**arguments)  # type: ignore[arg-type]
    assert check_model(data, "tiny.onnx") == card
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert card_of_session(session) == card
    (tmp_path / "tiny.onnx").write_bytes(data)
    model = read_model(tmp_path / "tiny.onnx")
    assert (model.card, model.dynamic) == (card, dynamic)


@pytest.mark.parametrize("opset", [18, 19, 20])
def test_accepts_every_opset_of_the_contract(opset: int) -> None:
    model = tiny_proto()
    model.opset_import[0].version = opset
    assert check_model(model.SerializeToString(), "gen.onnx").name == "tiny"


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("raw", [True, False])
def test_reads_weights_as_raw_bytes_and_as_typed_numbers(dtype: str, raw: bool) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    tensor = helper.make_tensor("more", kind, (2, 3), values.tobytes() if raw else values.ravel().tolist(), raw=raw)
    model = tiny_proto()
    model.graph.initializer.append(tensor)
    assert check_model(model.SerializeToString(), "gen.onnx")
    tensor.dims[0] = 3
    assert "which takes" in refusal_after(lambda model: model.graph.initializer.append(tensor))


def test_reads_repeated_numbers_that_are_not_packed() -> None:
    floats = b"".join(b"\x25" + np.float32(x).tobytes() for x in (1, 2))
    tensor = b"\x08\x02" + b"\x10\x01" + floats + b"\x42\x01v"
    assert check_model(with_initializer(tensor), "gen.onnx")
    nan = tensor.replace(np.float32(2).tobytes(), np.float32(np.nan).tobytes())
    assert "the initializer 'v' holds numbers that are not finite" in refusal(with_initializer(nan))


def test_accepts_empty_tensors_and_constants() -> None:
    model = tiny_proto()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((0,), np.float32), "roi"))
    constant = numpy_helper.from_array(np.ones((2, 2), np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=constant))
    assert check_model(model.SerializeToString(), "gen.onnx")


def test_ignores_fields_that_it_does_not_know() -> None:
    unknown = b"\xc0\x3e\x05" + b"\xca\x3e\x03abc" + b"\xcd\x3e\0\0\0\0" + b"\xd1\x3e" + bytes(8)
    fields = [b"\xc0\x3e\x05", b"\xca\x3e\x03abc", b"\xd5\x3e\0\0\0\0", b"\xd9\x3e" + bytes(8)]
    assert check_model(tiny_model() + b"".join(fields), "gen.onnx").name == "tiny"
    assert "two wire types" in refusal(tiny_model() + unknown)


def test_every_allowed_operator_is_onnx_own() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert known >= ALLOWED_OPS
    assert not {op for op in ALLOWED_OPS if "Random" in op or "Sequence" in op or "String" in op or "Optional" in op}


# What does not fit yet: the message is a to-do list -----------------------------------------------------------------


def test_a_float_nchw_generator_is_told_what_to_change_and_how() -> None:
    text = refusal(float_nchw_proto(width=64, height=64))
    assert "images is float32 [N, 3, 64, 64]; finished pixels uint8 [N, H, W, C] are expected" in text
    assert "no ganrt card" in text
    assert text.endswith(EXPORT_COMMAND)


def test_other_names_and_an_older_opset_are_listed_together() -> None:
    model = float_nchw_proto(input_name="noise", output_name="output")
    model.opset_import[0].version = 17
    text = refusal(model)
    assert "'output' float32 [N, 3, 8, 8]" in text
    assert "its input is 'noise' float32 [N, 8]; expected: 'z' float32 [N, z_dim]" in text
    assert "[N, z_dim], or 'x' uint8 [N, H, W, C] to make images of" in text
    assert "its opset is 17; 18 to 20 is expected" in text
    assert EXPORT_COMMAND in text


def test_the_command_quotes_the_file_name() -> None:
    with pytest.raises(ContractError, match=r"ganrt export 'my gen\.onnx' --range=-1,1"):
        check_model(float_nchw_proto().SerializeToString(), "my gen.onnx")


def test_a_card_that_is_missing() -> None:
    text = refusal(tiny_model(with_card=False))
    assert "it has no ganrt card (metadata key ganrt.card)" in text
    assert "images is" not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"z_dim": 9}, "z is float32 [N, 8]; float32 [N, 9] is expected"),
        ({"width": 16}, "images is uint8 [N, 8, 8, 3]; finished pixels uint8 [N, 8, 16, 3] are expected"),
        ({"height": 9}, "finished pixels uint8 [N, 9, 8, 3]"),
        ({"channels": 1}, "finished pixels uint8 [N, 8, 8, 1]"),
        ({"class_names": ()}, "its inputs are 'z' float32 [N, 8], 'y' int64 [N]; its card says 'z' float32 [N, 8]"),
        ({"psi": True}, "its card says 'z' float32 [N, 8], 'y' int64 [N], 'psi' float32 []"),
    ],
)
def test_a_card_that_says_something_else_than_the_graph(changes: dict[str, object], said: str) -> None:
    assert said in refusal(tiny_model(card_changes=changes))


def test_classes_without_an_input_for_them() -> None:
    text = refusal(tiny_model(class_names=(), card_changes={"class_names": ("a", "b")}))
    assert "its input is 'z' float32 [N, 8]; its card says 'z' float32 [N, 8], 'y' int64 [N]" in text


def set_dim(value: onnx.ValueInfoProto, index: int, dim: int | str) -> None:
    where = value.type.tensor_type.shape.dim[index]
    where.Clear()
    if isinstance(dim, int):
        where.dim_value = dim
    else:
        where.dim_param = dim


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda g: set_dim(g.output[0], 0, 1),
            "images is uint8 [1, 8, 8, 3]; finished pixels uint8 [N, 8, 8, 3] with a",
        ),
        (lambda g: set_dim(g.output[0], 1, "H"), "images is uint8 [N, H, 8, 3]"),
        (lambda g: set_dim(g.output[0], 1, "\x1b[2J"), "images is uint8 [N, ?, 8, 3]"),
        (lambda g: set_dim(g.input[0], 0, 4), "z is float32 [4, 8]; float32 [N, 8] with a dynamic N is expected"),
        (lambda g: set_dim(g.input[1], 0, 4), "y is int64 [4]; int64 [N] with a dynamic N is expected"),
        (lambda g: setattr(g.input[1].type.tensor_type, "elem_type", 6), "y is int32 [N]; int64 [N] is expected"),
        (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 10), "z is float16 [N, 8]"),
        (lambda g: g.output[0].type.tensor_type.ClearField("shape"), "images is uint8 of unknown shape"),
        (lambda g: g.output[0].type.sequence_type.SetInParent(), "images is no tensor of unknown shape"),
        (lambda g: g.output.append(helper.make_tensor_value_info("w", 1, ["N", 8])), "'w' float32 [N, 8]; finished"),
        (lambda g: g.output.pop(), "its output is nothing"),
        (lambda g: g.input.append(g.input[0]), "two of its inputs have the same name"),
        (lambda g: g.input.append(helper.make_tensor_value_info("noise", 1, ["N", 1])), "'noise' float32 [N, 1]; its"),
        (lambda g: g.initializer.append(numpy_helper.from_array(np.zeros(1, "f"), "z")), "z has a default value"),
    ],
)
def test_inputs_and_outputs_that_do_not_fit(change: Callable[[onnx.GraphProto], object], said: str) -> None:
    text = refusal_after(lambda model: change(model.graph))
    assert said in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: set_dim(g.input[0], 1, 9), "x is uint8 [N, 9, 8, 3]; uint8 [N, 8, 8, 3] is expected"),
        (lambda g: set_dim(g.input[0], 0, 1), "x is uint8 [1, 8, 8, 3]; uint8 [N, 8, 8, 3] with a dynamic N is"),
        (lambda g: set_dim(g.input[0], 3, 1), "x is uint8 [N, 8, 8, 1]; uint8 [N, 8, 8, 3] is expected"),
        (lambda g: set_dim(g.input[0], 3, "C"), "x is uint8 [N, 8, 8, C]; uint8 [N, 8, 8, 3] is expected"),
        (
            lambda g: set_dim(g.input[0], 1, "H"),
            "x is uint8 [N, H, 8, 3]; uint8 [N, 8, 8, 3] is expected, or both height and width dynamic",
        ),
        (
            lambda g: (g.input.pop(), g.input.append(helper.make_tensor_value_info("x", 2, ["N", "S", "S", 3]))),
            "images is uint8 [N, 16, 16, 3]; "
            "finished pixels uint8 [N, height, width, 3] with a dynamic height and width are expected",
        ),
        (lambda g: set_dim(g.output[0], 1, 8), "images is uint8 [N, 8, 16, 3]; finished pixels uint8 [N, 16, 16, 3]"),
        (lambda g: set_dim(g.output[0], 1, "H"), "images is uint8 [N, H, 16, 3]; finished pixels uint8 [N, 16, 16, 3]"),
        (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 1), "x is float32 [N, 8, 8, 3]; uint8 [N, 8, 8,"),
        (lambda g: g.input[0].type.tensor_type.ClearField("shape"), "x is uint8 of unknown shape; uint8 [N, 8, 8, 3]"),
        (lambda g: g.input[0].type.tensor_type.shape.dim.pop(), "x is uint8 [N, 8, 8]; uint8 [N, 8, 8, 3] is expected"),
        (
            lambda g: setattr(g.input[0], "name", "z"),
            "its input is 'z' uint8 [N, 8, 8, 3]; its card says 'x' uint8 [N, 8, 8, 3]",
        ),
        (
            lambda g: g.input.append(helper.make_tensor_value_info("y", 7, ["N"])),
            "its inputs are 'x' uint8 [N, 8, 8, 3], 'y' int64 [N]; its card says 'x' uint8 [N, 8, 8, 3]",
        ),
        (lambda g: g.input.append(g.input[0]), "two of its inputs have the same name"),
        (lambda g: g.input.pop(), "its input is nothing; its card says 'x' uint8 [N, 8, 8, 3]"),
        (lambda g: g.initializer.append(numpy_helper.from_array(np.zeros(1, "u1"), "x")), "x has a default value"),
        (
            lambda g: g.input.append(helper.make_tensor_value_info("weight", 1, [3, 3, 1, 1])),
            "weights are listed among its inputs: 'weight' float32 [3, 3, 1, 1]",
        ),
    ],
)
def test_images_taken_and_made_that_do_not_fit(change: Callable[[onnx.GraphProto], object], said: str) -> None:
    model = tiny_translator_proto(scale=2)
    change(model.graph)
    text = refusal(model)
    assert said in text
    assert "no ganrt card" not in text and "--range" not in text


def test_images_of_any_size_are_taken_and_made_alike() -> None:
    model = tiny_translator_proto(dynamic=True)
    set_dim(model.graph.output[0], 2, 8)
    said = (
        "images is uint8 [N, H_, 8, 3]; finished pixels uint8 [N, height, width, 3] with a dynamic width are expected"
    )
    assert said in refusal(model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": 4}, "x is uint8 [N, 8, 8, 3]; uint8 [N, 4, 4, 3] is expected"),
        ({"scale": 1}, "x is uint8 [N, 8, 8, 3]; uint8 [N, 16, 16, 3] is expected"),
        ({"width": 8}, "images is uint8 [N, 16, 16, 3]; finished pixels uint8 [N, 16, 8, 3] are expected"),
        ({"channels": 1}, "finished pixels uint8 [N, 16, 16, 1] are expected"),
        ({"in_channels": 1}, "x is uint8 [N, 8, 8, 3]; uint8 [N, 8, 8, 1] is expected"),
        (
            {"kind": "latent-to-image", "z_dim": 8, "scale": 1},
            "its input is 'x' uint8 [N, 8, 8, 3]; its card says 'z' float32 [N, 8]",
        ),
    ],
)
def test_a_card_of_images_that_says_something_else_than_the_graph(changes: dict[str, object], said: str) -> None:
    assert said in refusal(tiny_translator(scale=2, card_changes=changes))


def test_images_of_images_without_a_card() -> None:
    text = refusal(tiny_translator(with_card=False, dynamic=True))
    assert "does not follow the ganrt contract: it has no ganrt card (metadata key ganrt.card)" in text
    model = tiny_translator_proto(with_card=False)
    set_dim(model.graph.input[0], 1, "H")
    assert "x is uint8 [N, H, 8, 3]; uint8 [N, H, W, C] is expected, or both height and width" in refusal(model)


def test_weights_listed_as_inputs() -> None:
    text = refusal_after(lambda m: m.graph.input.append(helper.make_tensor_value_info("weight", 1, [8, 192])))
    assert "weights are listed among its inputs: 'weight' float32 [8, 192]" in text


def test_psi_needs_a_default_of_one() -> None:
    def drop(model: onnx.ModelProto) -> None:
        model.graph.initializer.remove(weight(model, "psi"))

    def change(model: onnx.ModelProto) -> None:
        weight(model, "psi").CopyFrom(numpy_helper.from_array(np.array(0.7, np.float32), "psi"))

    assert "psi has no default value; 1.0 is expected" in refusal_after(drop, psi=True)
    assert "the initializer of psi is not the float32 scalar 1.0" in refusal_after(change, psi=True)


STYLES: dict[str, object] = {"num_ws": 3, "w_dim": 5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: set_dim(g.input[2], 0, 1), "w is float32 [1, 3, 5]; float32 [N, 3, 5] with a dynamic N is expected"),
        (lambda g: set_dim(g.input[2], 1, 4), "w is float32 [N, 4, 5]; float32 [N, 3, 5] is expected"),
        (lambda g: setattr(g.input[3].type.tensor_type, "elem_type", 7), "w_given is int64 []; bool [] is expected"),
        (lambda g: set_dim(g.output[1], 2, 6), "w_mapped is float32 [N, 3, 6]; float32 [N, 3, 5] is expected"),
        (
            lambda g: g.output.pop(),
            "its output is 'images' uint8 [N, 8, 8, 3]; finished pixels, 'images' uint8 [N, 8, 8, 3], "
            "and 'w_mapped' float32 [N, 3, 5], are expected",
        ),
        (lambda g: g.output.reverse(), "its output is 'w_mapped' float32 [N, 3, 5], 'images' uint8 [N, 8, 8, 3]; fin"),
        (lambda g: g.input.pop(2), "; its card says 'z' float32 [N, 8], 'y' int64 [N], 'w' float32 [N, 3, 5], 'w_giv"),
    ],
)
def test_w_that_does_not_fit(change: Callable[[onnx.GraphProto], object], said: str) -> None:
    assert said in refusal_after(lambda model: change(model.graph), **STYLES)


def test_w_needs_defaults_that_give_none() -> None:
    def put(name: str, value: object) -> Callable[[onnx.ModelProto], None]:
        return lambda model: weight(model, name).CopyFrom(numpy_helper.from_array(np.array(value), name))

    shape = "the initializer of w is not the float32 [1, 3, 5] of zeros"
    for change, said in (
        (lambda m: m.graph.initializer.remove(weight(m, "w")), "w has no default value; zeros is expected"),
        (lambda m: m.graph.initializer.remove(weight(m, "w_given")), "w_given has no default value; false is expected"),
        (put("w_given", True), "the initializer of w_given is not the bool scalar false"),
        (put("w_given", [False]), "the initializer of w_given is not the bool scalar false"),
        (put("w", np.ones((1, 3, 5), np.float32)), shape),
        (put("w", np.zeros((1, 1, 1), np.float32)), shape),
        (put("w", np.zeros((1, 3, 5))), shape),
    ):
        assert said in refusal_after(change, **STYLES)


def test_w_that_the_card_does_not_tell_of_and_w_without_a_card() -> None:
    text = refusal(tiny_model(**STYLES, card_changes={"num_ws": 0, "w_dim": 0}))  # type: ignore[arg-type]
    assert "its output is 'images' uint8 [N, 8, 8, 3], 'w_mapped' float32 [N, 3, 5]; finished pixels" in text
    assert "weights are listed among its inputs: 'w' float32 [N, 3, 5], 'w_given' bool []" in text
    text = refusal(tiny_model(**STYLES, with_card=False))  # type: ignore[arg-type]
    assert "does not follow the ganrt contract: it has no ganrt card (metadata key ganrt.card)" in text


# What is never run --------------------------------------------------------------------------------------------------


def add_node(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    model.graph.node.insert(0, node)


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("BatchNormalization", "replace it by its scale and shift"),
        ("RandomNormal", "random numbers are drawn outside the graph"),
        ("RandomUniformLike", "random numbers are drawn outside the graph"),
        ("Multinomial", "random numbers are drawn outside the graph"),
        ("Bernoulli", "random numbers are drawn outside the graph"),
        ("If", "no control flow"),
        ("Loop", "no control flow"),
        ("Scan", "no control flow"),
        ("Dropout", "eval mode"),
        ("MeanVarianceNormalization", "mixes the images of a batch"),
        ("SequenceConstruct", "generators do not need it"),
        ("Optional", "generators do not need it"),
        ("StringNormalizer", "generators do not need it"),
        ("ImageDecoder", "generators do not need it"),
        ("Crash\x1b[0m", "generators do not need it"),
    ],
)
def test_operators_that_are_refused(op: str, said: str) -> None:
    text = refusal_after(lambda model: add_node(model, helper.make_node(op, ["z"], ["w"], name="block/1")))
    assert f"node 'block/1' is {op!r}" in text
    assert said in text


def test_operators_of_other_domains() -> None:
    text = refusal_after(lambda m: add_node(m, helper.make_node("Add", ["z", "z"], ["w"], domain="com.microsoft")))
    assert "node 0 is 'Add' of 'com.microsoft'; only ONNX's own operators are run" in text
    text = refusal_after(lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 1)))
    assert "imports the operators of 'com.evil'" in text


@pytest.mark.parametrize(
    ("opsets", "said"), [([], "missing"), ([21], "21"), ([11], "11"), ([18, 18], "18 and 18"), ([18, 12], "18 and 12")]
)
def test_opsets_that_are_refused(opsets: list[int], said: str) -> None:
    def change(model: onnx.ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid("", version) for version in opsets)

    assert f"its opset is {said}; 18 to 20 is expected" in refusal_after(change)


@pytest.mark.parametrize("version", [0, 3, 99, -1])
def test_ir_versions_that_are_refused(version: int) -> None:
    assert f"IR version {version}; 4 to 13" in refusal_after(lambda model: setattr(model, "ir_version", version))


def test_functions_and_training_steps() -> None:
    function = helper.make_function("", "f", ["a"], ["b"], [], [helper.make_opsetid("", 18)])
    assert "inline_local_functions" in refusal_after(lambda model: model.functions.append(function))
    assert "only run" in refusal_after(lambda model: model.training_info.add())


def test_subgraphs_under_an_operator_that_is_allowed() -> None:
    branch = helper.make_graph([], "branch", [], [])
    for value in (branch, [branch]):
        text = refusal_after(partial(add_node, node=helper.make_node("Identity", ["z"], ["w"], body=value)))
        assert "(Identity) holds a subgraph" in text


def test_references_and_types_in_attributes() -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].attribute.add(name="axis", ref_attr_name="other")

    assert "holds a type, a reference or a sparse tensor" in refusal_after(change)


def externalise(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def test_weights_in_other_files() -> None:
    text = refusal_after(lambda model: externalise(weight(model)))
    assert "the initializer 'weight' lies in another file" in text
    assert "onnx.save" in text
    # Either of the two fields alone is enough for some reader to follow it.
    assert "another file" in refusal_after(lambda model: setattr(weight(model), "data_location", 1))
    assert "another file" in refusal_after(lambda model: weight(model).external_data.add(key="location", value="x"))


def test_constants_in_other_files() -> None:
    tensor = numpy_helper.from_array(np.ones(3, np.float32))
    externalise(tensor)
    constant = helper.make_node("Constant", [], ["c"])
    for name, field in (("value", "t"), ("values", "tensors")):
        node = onnx.NodeProto.FromString(constant.SerializeToString())
        attribute = node.attribute.add(name=name)
        getattr(attribute, field).MergeFrom(tensor if field == "t" else [tensor])
        assert "the tensor in node 0 (Constant) lies in another file" in refusal_after(partial(add_node, node=node))


def test_sparse_weights() -> None:
    assert "sparse" in refusal_after(lambda model: model.graph.sparse_initializer.add())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_that_are_not_finite(value: float, dtype: str, raw: bool) -> None:
    kind = getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper()))
    values = np.linspace(-1, 1, 1000, dtype=np.float32).astype(helper.tensor_dtype_to_np_dtype(kind))
    good = helper.make_tensor("more", kind, [1000], values.tobytes() if raw else values.tolist(), raw=raw)
    model = tiny_proto()
    model.graph.initializer.append(good)
    assert check_model(model.SerializeToString(), "gen.onnx")
    values[-1] = value
    bad = helper.make_tensor("more", kind, [1000], values.tobytes() if raw else values.tolist(), raw=raw)
    text = refusal_after(lambda model: model.graph.initializer.append(bad))
    assert "the initializer 'more' holds numbers that are not finite" in text
    assert "earlier snapshot" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.dims.append(1 << 40), "which no tensor has"),
        (lambda t: t.dims.__setitem__(0, -1), "has the shape [-1, 192], which no tensor has"),
        (lambda t: t.dims.extend([1] * 20), "which no tensor has"),
        (lambda t: t.dims.__setitem__(0, 1 << 30), "takes 824,633,720,832 bytes; it has 6,144"),
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "takes 6,144 bytes; it has 6,143"),
        (lambda t: t.ClearField("raw_data"), "takes 1,536 numbers; it has 0"),
        (lambda t: t.float_data.append(1), "in two places"),
        (lambda t: t.segment.SetInParent(), "in pieces"),
        (lambda t: setattr(t, "data_type", TensorProto.STRING), "has the element type string"),
        (lambda t: setattr(t, "data_type", TensorProto.FLOAT8E5M2), "has the element type type 19; these are known"),
        (lambda t: setattr(t, "data_type", TensorProto.DOUBLE), "is float64 [8, 192], which takes 12,288 bytes"),
        (lambda t: setattr(t, "name", "bias"), "two initializers called 'bias'"),
    ],
)
def test_weights_that_are_not_what_they_say(change: Callable[[TensorProto], object], said: str) -> None:
    assert said in refusal_after(lambda model: change(weight(model)))


def test_too_many_nodes() -> None:
    nodes = [helper.make_node("Identity", ["z"], ["w"])] * (MAX_NODES + 1)
    assert "at most 20,000" in refusal_after(lambda model: model.graph.node.extend(nodes))


# The card in the metadata -------------------------------------------------------------------------------------------


def set_card(model: onnx.ModelProto, text: str) -> None:
    model.metadata_props[0].value = text


def test_a_card_that_stands_twice() -> None:
    text = refusal_after(lambda model: model.metadata_props.add(key="ganrt.card", value="{}"))
    assert "two metadata entries called 'ganrt.card'" in text


def test_a_card_that_is_too_large() -> None:
    text = refusal_after(lambda model: set_card(model, " " * (1 << 21)))
    assert "its card has 2,097,152 bytes; at most 1,048,576 are read" in text


def test_a_card_that_is_no_json() -> None:
    assert "it is not JSON" in refusal_after(lambda model: set_card(model, "{"))


def test_a_card_of_a_newer_contract_says_so_whatever_else_is_new() -> None:
    def change(model: onnx.ModelProto) -> None:
        set_card(model, json.dumps(dataclasses.asdict(tiny_card()) | {"contract": 2, "kind": "thought-to-image"}))
        model.opset_import[0].version = 40
        add_node(model, helper.make_node("Dream", ["z"], ["w"]))

    text = refusal_after(change)
    assert "follows version 2 of the ganrt contract" in text
    assert "pip install --upgrade ganrt" in text


# Something else than ONNX -------------------------------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "looks", "todo"),
    [
        (b"", "is empty", "Download"),
        (pickle.dumps({"G_ema": [1.0]}), "Python pickle", "torch.onnx.export"),
        (zipped("archive/data.pkl", "archive/version"), "PyTorch checkpoint", "torch.onnx.export"),
        (zipped("metadata.json", "config.json", "model.weights.h5"), "Keras model", "tf2onnx.convert --keras"),
        (zipped("generator.onnx"), "zip archive", "Unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "tf2onnx.convert --keras"),
        (b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite", "--tflite"),
        (b"\x18\0\0\0ORTM" + bytes(100), ".ort", "the .onnx file it was made from"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{}}', "safetensors", "torch.onnx.export"),
        (b"\x1f\x8b\x08" + bytes(20), "gzip", "Unpack it"),
        (b"\n\n<!DOCTYPE HTML><html>404", "web page", "download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG image", ".onnx"),
        (b'{"name": "fashion"}', "text file", ".onnx"),
        (bytes(100), "the model has a field with the number 0", "Download or export it again"),
        (b"\x08\x08\x12\x07pytorch", "it has no graph", "Download or export it again"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_called_by_name(data: bytes, looks: str, todo: str) -> None:
    text = refusal(data)
    assert looks in text
    assert todo in text


# Bytes made to deceive ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x08\x08\x3a\xff\xff\xff\xff\x7f", "field 7 of the model should have 34,359,738,367 bytes and 0 are left"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "a number of more than 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "a number of more than 64 bits"),
        (b"\x08\x80", "ends inside a number"),
        (b"\x08\x08\x3b\x3c", "field 7 of the model has wire type 3"),
        (b"\x08\x08\x38\x01", "field 7 of the model has wire type 0, not 2"),
        (b"\x08\x08\x08\x09\x3a\x00", "field 1 of the model stands 2 times, not once"),
        (b"\x0a\x01\x08\x3a\x00", "field 1 of the model has wire type 2, not 0"),
        (b"\x08\x08\x3a\x02\x0a\x05", "field 1 of the graph should have 5 bytes and 0 are left"),
        (b"\x08\x08\x3a\x00\x72\x05\x0a\x03\xff\xfe\xfd", "field 1 of the metadata is no UTF-8 text"),
        (b"\x08\x08\x3a\x00" + b"\xf8\x7f\x01" * 1_000_001, "more than 1,000,000 fields"),
        (b"\x80\x80\x80\x80\x10\x08", "has a field with the number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_bytes(data: bytes, said: str) -> None:
    text = refusal(data)
    assert said in text
    assert "Download or export it again" in text


def test_two_graphs_which_parsers_would_merge() -> None:
    node = helper.make_node("If", ["z"], ["w"]).SerializeToString()
    graph = b"\x0a" + bytes([len(node)]) + node
    data = tiny_model() + b"\x3a" + bytes([len(graph)]) + graph
    assert onnx.load_from_string(data).graph.node[-1].op_type == "If"
    assert "field 7 of the model stands 2 times, not once" in refusal(data)


def test_a_truncated_file_is_refused_wherever_it_ends() -> None:
    data = tiny_model()
    for end in range(1, len(data)):
        with pytest.raises(ContractError):
            check_model(data[:end], "gen.onnx")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_the_bytes_are_only_contract_errors_come_out(data: st.DataObject) -> None:
    model = bytearray(SMALL[data.draw(st.integers(0, len(SMALL) - 1))])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(model) - 1))
        change = data.draw(st.sampled_from(["set", "delete", "insert", "copy"]))
        if change == "set":
            model[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
        elif change == "delete":
            del model[at : at + data.draw(st.integers(1, 20))]
        elif change == "insert":
            model[at:at] = data.draw(st.binary(max_size=12))
        else:
            model[at:at] = model[at : at + data.draw(st.integers(1, 300))]
        if not model:
            return
    try:
        card = check_model(bytes(model), "gen.onnx")
    except ContractError as error:
        assert str(error).isprintable() or "\n" in str(error)
    else:
        # What is accepted is the same model to protobuf's own parser: no reader sees another graph or card.
        theirs = onnx.load_from_string(bytes(model))
        assert json.loads(theirs.metadata_props[0].value)["name"] == card.name
        assert [output.name for output in theirs.graph.output] == ["images"]
        assert {node.op_type for node in theirs.graph.node} <= ALLOWED_OPS


SMALL = [
    tiny_model(width=2, height=2, z_dim=2, psi=True),
    tiny_model(width=1, height=1, channels=1, z_dim=1, class_names=()),
    tiny_translator(width=1, height=1, channels=1),
    float_nchw_proto(width=1, height=1, z_dim=1).SerializeToString(),
]


# The file -----------------------------------------------------------------------------------------------------------


def test_reads_a_file_and_a_link_to_one(tmp_path: Path) -> None:
    data = tiny_model()
    (tmp_path / "tiny.onnx").write_bytes(data)
    (tmp_path / "link.onnx").symlink_to("tiny.onnx")
    for name in ("tiny.onnx", "link.onnx"):
        model = read_model(tmp_path / name)
        assert model.data == data
        assert model.digest == hashlib.sha256(data).hexdigest()
        assert model.card == tiny_card()


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.onnx")
    (tmp_path / "link.onnx").symlink_to("fifo.onnx")
    for path in (tmp_path / "fifo.onnx", tmp_path / "link.onnx", Path("/dev/zero")):
        with pytest.raises(ContractError, match="is no regular file"):
            read_model(path)
    with pytest.raises(ContractError, match=r"is a folder\n.*one \.onnx file"):
        read_model(tmp_path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "dangling.onnx").symlink_to("nowhere")
    for path in (tmp_path / "none.onnx", tmp_path / "dangling.onnx", tmp_path / "nul\0.onnx"):
        with pytest.raises(UnknownModel, match="there is no file"):
            read_model(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    with pytest.raises(StorageError, match=r"cannot read .*loop\.onnx: Too many levels"):
        read_model(tmp_path / "loop.onnx")


def test_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(ContractError, match=r"has 2,147,483,648 bytes; at most 2,147,483,647 \(2 GiB\) are read"):
        read_model(path)


# Sessions -----------------------------------------------------------------------------------------------------------


def test_a_session_of_something_else_is_refused() -> None:
    model = float_nchw_proto().SerializeToString()
    with pytest.raises(ContractError) as error:
        card_of_session(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]))
    assert "the session does not follow the ganrt contract" in str(error.value)
    assert "images is float32 [N, 3, 8, 8]" in str(error.value)
    assert "ganrt export FILE.onnx --range=-1,1 --out fitting.onnx" in str(error.value)


def test_a_session_whose_card_does_not_fit_is_refused() -> None:
    model = tiny_model(card_changes={"z_dim": 9})
    with pytest.raises(ContractError, match=r"z is float32 \[N, 8\]; float32 \[N, 9\] is expected"):
        card_of_session(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]))
