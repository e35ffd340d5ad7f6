"""Rewrites for speed: each graph is run as it came and as rewritten, and told from its operators which it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from ganrt.card import Card
from ganrt_training.tune import FEW_CHANNELS, tune
from ganrt_training.wrap import export_onnx

F32 = TensorProto.FLOAT
Arrays = dict[str, NDArray[Any]]
GEMM = ["Reshape", "Gemm", "Reshape"]


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolution(operator: str, bias: bool = True, y: str = "c", **settings: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x", "w", "b"] if bias else ["x", "w"], [y], **settings)


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Arrays,
    shape: Sequence[int],
    outputs: Sequence[str] = ("out",),
    fed: Arrays | None = None,
) -> onnx.ModelProto:
    """x float32 of ``shape`` with a dynamic batch, and what is ``fed`` beside it → outputs of the rank inferred."""
    inputs = [helper.make_tensor_value_info("x", F32, ["N", *shape[1:]])]
    inputs += [helper.make_tensor_value_info(name, F32, value.shape) for name, value in (fed or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        inputs,
        [helper.make_tensor_value_info(name, F32, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    for value, found in zip(model.graph.output, inferred.output, strict=True):
        rank = len(found.type.tensor_type.shape.dim)  # the checker wants one, and must not get the sizes
        value.CopyFrom(helper.make_tensor_value_info(value.name, F32, [None] * rank))
    return model


def run(model: onnx.ModelProto, feeds: Arrays) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


def assert_equal(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert np.abs(other).max() > 0.01  # a graph of zeros would prove nothing
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


def tuned(model: onnx.ModelProto, shape: Sequence[int], fed: Arrays | None = None) -> list[str]:
    """The operators after ``tune``, which must leave a valid graph with the same outputs."""
    onnx.checker.check_model(model, full_check=True)
    feeds = {"x": normal(9, *shape), **(fed or {})}
    before = run(model, feeds)
    tune(model)
    onnx.checker.check_model(model, full_check=True)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(set(names)) == len(names)
    assert_equal(run(model, feeds), before)
    twice = onnx.ModelProto.FromString(model.SerializeToString())
    tune(twice)
    assert_equal(run(twice, feeds), before)
    return [node.op_type for node in model.graph.node]


# A Conv to few channels ---------------------------------------------------------------------------------------------


def conv_case(
    channels: int, kernel: tuple[int, int], bias: bool = True, group: int = 1, inner: int = 4, **settings: Any
) -> list[str]:
    weights = {"w": normal(1, channels, inner // group, *kernel)} | ({"b": normal(2, channels)} if bias else {})
    shape = (3, inner, 9, 8)
    return tuned(
        graph_of([convolution("Conv", bias, "out", group=group, **settings)], weights, shape),
        shape,
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (4, 4), (5, 5), (7, 7), (3, 5), (1, 7)])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_a_convolution_to_few_channels_is_transposed(channels: int, kernel: tuple[int, int], bias: bool) -> None:
    pads = [(side - 1) // 2 for side in kernel]
    assert conv_case(channels, kernel, bias, pads=pads * 2) == ["ConvTranspose"]


@pytest.mark.parametrize("channels", [FEW_CHANNELS + 1, 16])
def test_a_convolution_to_many_channels_is_left(channels: int) -> None:
    assert conv_case(channels, (3, 3), pads=[1] * 4) == ["Conv"]


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [2, 0, 1, 3], [0, 4, 2, 1], [2, 4, 2, 4]])
def test_pads_of_any_kind_are_turned(pads: list[int]) -> None:
    assert conv_case(3, (3, 5), pads=pads) == ["ConvTranspose"]


@pytest.mark.parametrize("pads", [[3, 0, 0, 0], [0, 0, 3, 0], [0, 5, 0, 0], [0, 0, 0, 5]])
def test_pads_larger_than_the_kernel_reaches_are_left(pads: list[int]) -> None:
    assert conv_case(3, (3, 5), pads=pads) == ["Conv"]


def test_no_attributes_at_all_mean_no_pads() -> None:
    assert conv_case(3, (3, 4)) == ["ConvTranspose"]


@pytest.mark.parametrize(
    "settings",
    [
        {"strides": [2, 2], "pads": [1] * 4},
        {"strides": [1, 2], "pads": [1] * 4},
        {"dilations": [2, 2], "pads": [2] * 4},
        {"dilations": [2, 1], "pads": [1] * 4},
        {"group": 2, "pads": [1] * 4},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
    ],
    ids=str,
)
def test_a_convolution_of_another_kind_is_left(settings: dict[str, Any]) -> None:
    assert conv_case(4, (3, 4), **settings) == ["Conv"]


def test_valid_padding_stays_no_padding() -> None:
    assert conv_case(3, (3, 3), auto_pad="VALID")[0] in ("Conv", "ConvTranspose")


@pytest.mark.parametrize("rank", [3, 5])
def test_maps_of_one_or_three_dimensions_are_left(rank: int) -> None:
    shape = (2, 4, 7, 6, 5)[:rank]
    weights = {"w": normal(1, 3, 4, *(3,) * (rank - 2)), "b": normal(2, 3)}
    assert tuned(graph_of([convolution("Conv", y="out")], weights, shape), shape) == ["Conv"]


def test_a_convolution_without_fixed_weights_is_left() -> None:
    shape, fed = (2, 4, 5, 5), {"w": normal(1, 3, 4, 3, 3)}
    assert tuned(graph_of([convolution("Conv", False, "out")], {}, shape, fed=fed), shape, fed) == ["Conv"]


def test_a_convolution_whose_bias_is_fed_is_left_or_keeps_it() -> None:
    shape, fed = (2, 4, 5, 5), {"b": normal(2, 3)}
    model = graph_of([convolution("Conv", True, "out")], {"w": normal(1, 3, 4, 3, 3)}, shape, fed=fed)
    tuned(model, shape, fed)
    assert model.graph.node[0].input[2] == "b"


def test_an_empty_name_in_place_of_a_bias_is_no_bias() -> None:
    shape = (2, 4, 5, 5)
    node = helper.make_node("Conv", ["x", "w", ""], ["c"])
    nodes = [node, helper.make_node("Mul", ["c", "f"], ["out"])]
    tuned(graph_of(nodes, {"w": normal(1, 3, 4, 3, 3), "f": normal(2, 3, 1, 1)}, shape), shape)


# Mul and Add after a convolution ------------------------------------------------------------------------------------


def affine(operator: str, x: str, y: str, constant: str, first: bool = False) -> onnx.NodeProto:
    return helper.make_node(operator, [constant, x] if first else [x, constant], [y])


def folding(
    constant: NDArray[np.float32],
    operators: Sequence[str] = ("Mul",),
    *,
    first: bool = False,
    bias: bool = True,
    conv: str = "Conv",
    group: int = 1,
    channels: int = 16,
    shape: Sequence[int] = (2, 4, 6, 5),
    **settings: Any,
) -> list[str]:
    """The operators of a convolution to ``channels`` and then ``operators`` with the same constant, after tune."""
    kernel = (3,) * (len(shape) - 2)
    sizes = (channels, shape[1] // group) if conv == "Conv" else (shape[1], channels // group)
    weights: Arrays = {"w": normal(1, *sizes, *kernel), "f": constant} | ({"b": normal(2, channels)} if bias else {})
    nodes = [convolution(conv, bias, "t0", group=group, **settings)]
    nodes += [affine(operator, f"t{i}", f"t{i + 1}", "f", first) for i, operator in enumerate(operators)]
    nodes.append(helper.make_node("Neg", [f"t{len(operators)}"], ["out"]))
    return tuned(graph_of(nodes, weights, shape), shape)


@pytest.mark.parametrize("conv", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(("bias", "first"), [(True, False), (False, True)])
@pytest.mark.parametrize("shape", [(16, 1, 1), (1, 16, 1, 1), (), (1,), (1, 1, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("operators", [["Mul"], ["Add"], ["Mul", "Add"], ["Add", "Mul", "Mul", "Add"]], ids="-".join)
def test_a_map_by_channel_joins_the_convolution(
    conv: str, bias: bool, first: bool, shape: tuple[int, ...], operators: list[str]
) -> None:
    assert folding(normal(3, *shape), operators, first=first, bias=bias, conv=conv) == [conv, "Neg"]


@pytest.mark.parametrize("conv", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(
    "shape",
    # the map is [N, 5, 5, 5], so that any axis could be taken for the channels
    [(5,), (1, 5), (5, 1), (5, 5), (1, 5, 1), (1, 1, 5), (5, 5, 5), (1, 5, 5, 5), (2, 5, 1, 1), (2, 1, 1, 1)],
    ids=str,
)
@pytest.mark.parametrize("operator", ["Mul", "Add"])
def test_a_map_by_place_or_by_row_stays(conv: str, shape: tuple[int, ...], operator: str) -> None:
    found = folding(
        normal(3, *shape),
        [operator],
        conv=conv,
        channels=5,
        shape=(2, 4, 7, 7) if conv == "Conv" else (2, 4, 3, 3),
    )
    assert found == ["ConvTranspose", operator, "Neg"]


def test_what_makes_more_channels_or_axes_than_the_convolution_stays() -> None:
    assert folding(normal(3, 6, 1, 1), channels=1) == ["ConvTranspose", "Mul", "Neg"]
    assert folding(normal(3, 1, 1, 1, 1, 1)) == ["Conv", "Mul", "Neg"]


@pytest.mark.parametrize("rank", [3, 5])
@pytest.mark.parametrize("conv", ["Conv", "ConvTranspose"])
def test_maps_of_one_or_three_dimensions_fold_too(conv: str, rank: int) -> None:
    shape = (2, 4, 5, 4, 3)[:rank]
    constant = normal(3, 16, *(1,) * (rank - 2))
    assert folding(constant, ["Mul", "Add"], conv=conv, shape=shape) == [conv, "Neg"]


@pytest.mark.parametrize("operators", [["Mul"], ["Mul", "Add"]], ids="-".join)
def test_a_grouped_convolution_folds_and_a_grouped_transposed_one_stays(operators: list[str]) -> None:
    assert folding(normal(3, 16, 1, 1), operators, group=2) == ["Conv", "Neg"]
    assert folding(normal(3, 16, 1, 1), operators, group=2, conv="ConvTranspose") == [
        "ConvTranspose",
        *operators,
        "Neg",
    ]


@pytest.mark.parametrize(
    ("conv", "settings"),
    [
        ("Conv", {"strides": [2, 2], "pads": [0, 1, 2, 0]}),
        ("Conv", {"dilations": [2, 1], "pads": [1] * 4}),
        ("Conv", {"strides": [2, 1], "auto_pad": "SAME_LOWER"}),
        ("ConvTranspose", {"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0]}),
        ("ConvTranspose", {"dilations": [1, 2], "strides": [2, 1]}),
    ],
    ids=str,
)
def test_settings_of_the_convolution_are_kept_by_the_fold(conv: str, settings: dict[str, Any]) -> None:
    assert folding(normal(3, 16, 1, 1), ["Mul", "Add"], conv=conv, **settings) == [conv, "Neg"]


def test_only_constants_of_multiplication_and_addition_fold() -> None:
    for operator in ("Sub", "Div", "Max"):
        assert folding(np.abs(normal(3, 16, 1, 1)) + 1, [operator]) == ["Conv", operator, "Neg"]


CONV = {"w": normal(1, 16, 4, 3, 3), "b": normal(2, 16), "f": normal(3, 16, 1, 1), "g": normal(4, 16, 1, 1)}
SHAPE = (2, 4, 6, 5)


def test_what_is_behind_another_operator_stays() -> None:
    nodes = [convolution("Conv"), helper.make_node("Relu", ["c"], ["r"]), affine("Mul", "r", "out", "f")]
    assert tuned(graph_of(nodes, CONV, SHAPE), SHAPE) == ["Conv", "Relu", "Mul"]


def test_a_convolution_that_is_used_twice_stays() -> None:
    nodes = [convolution("Conv"), affine("Mul", "c", "m", "f"), helper.make_node("Add", ["m", "c"], ["out"])]
    assert tuned(graph_of(nodes, CONV, SHAPE), SHAPE) == ["Conv", "Mul", "Add"]


def test_the_fold_ends_where_the_product_is_used_twice() -> None:
    nodes = [
        convolution("Conv"),
        affine("Mul", "c", "m", "f"),
        affine("Add", "m", "a", "g"),
        helper.make_node("Add", ["m", "a"], ["out"]),
    ]
    assert tuned(graph_of(nodes, CONV, SHAPE), SHAPE) == ["Conv", "Add", "Add"]


@pytest.mark.parametrize("operator", ["Mul", "Add"])
def test_a_convolution_with_itself_stays(operator: str) -> None:
    nodes = [convolution("Conv"), helper.make_node(operator, ["c", "c"], ["out"])]
    assert tuned(graph_of(nodes, CONV, SHAPE), SHAPE) == ["Conv", operator]


def test_two_convolutions_added_stay_two() -> None:
    nodes = [convolution("Conv"), convolution("Conv", y="d"), helper.make_node("Add", ["c", "d"], ["out"])]
    assert tuned(graph_of(nodes, CONV, SHAPE), SHAPE) == ["Conv", "Conv", "Add"]


def test_an_output_of_the_graph_is_kept() -> None:
    nodes = [convolution("Conv"), affine("Mul", "c", "m", "f"), affine("Add", "m", "out", "g")]
    model = graph_of(nodes, CONV, SHAPE, outputs=["c", "out"])
    assert tuned(model, SHAPE) == ["Conv", "Mul", "Add"]
    model = graph_of(nodes, CONV, SHAPE, outputs=["out", "m"])
    assert tuned(model, SHAPE) == ["Conv", "Add"]
    model = graph_of(nodes, CONV, SHAPE)
    assert tuned(model, SHAPE) == ["Conv"]
    assert model.graph.node[0].output == ["out"]


def test_weights_that_two_convolutions_share_are_folded_for_each_alone() -> None:
    nodes = [
        convolution("Conv"),
        affine("Mul", "c", "m", "f"),
        convolution("Conv", y="d"),
        affine("Add", "d", "a", "g"),
        convolution("Conv", y="e"),
        helper.make_node("Sum", ["m", "a", "e"], ["out"]),
    ]
    model = graph_of(nodes, CONV, SHAPE)
    assert tuned(model, SHAPE) == ["Conv", "Conv", "Conv", "Sum"]
    assert [list(node.input) for node in model.graph.node][2] == ["x", "w", "b"]


def test_the_same_constant_folds_into_every_convolution_that_it_follows() -> None:
    nodes = [convolution("Conv"), affine("Mul", "c", "m", "f"), helper.make_node("Relu", ["m"], ["r"])]
    nodes.append(helper.make_node("Conv", ["r", "w2"], ["d"]))
    nodes.append(affine("Mul", "d", "out", "f"))
    model = graph_of(nodes, CONV | {"w2": normal(5, 16, 16, 1, 1)}, SHAPE)
    assert tuned(model, SHAPE) == ["Conv", "Relu", "Conv"]


@pytest.mark.parametrize("fed", ["w", "b", "f"])
def test_what_is_fed_at_run_time_is_not_folded(fed: str) -> None:
    nodes = [convolution("Conv"), affine("Mul", "c", "m", "f"), helper.make_node("Neg", ["m"], ["out"])]
    weights = {name: value for name, value in CONV.items() if name not in (fed, "g")}
    model = graph_of(nodes, weights, SHAPE, fed={fed: CONV[fed]})
    assert tuned(model, SHAPE, {fed: CONV[fed]}) == ["Conv", "Mul", "Neg"]


@pytest.mark.parametrize("name", ["w", "b", "f"])
def test_a_default_of_an_input_is_not_folded(name: str) -> None:
    # An initializer that is an input as well may be fed, as the psi of the contract is.
    nodes = [convolution("Conv"), affine("Mul", "c", "m", "f"), helper.make_node("Neg", ["m"], ["out"])]
    weights = {key: value for key, value in CONV.items() if key != "g"}
    model = graph_of(nodes, weights, SHAPE, fed={name: CONV[name]})
    other = {name: CONV[name] + 1}
    assert tuned(model, SHAPE, other) == ["Conv", "Mul", "Neg"]


@pytest.mark.parametrize("name", ["m/weight", "m/bias"])
def test_names_of_the_graph_that_look_like_new_ones_do_no_harm(name: str) -> None:
    # as in graphs from TensorFlow: the layer m, and its weight m/weight
    renamed = {"w": "m/weight"} if name == "m/weight" else {"b": "m/bias"}
    nodes = [
        helper.make_node("Conv", [renamed.get(part, part) for part in ("x", "w", "b")], ["c"]),
        affine("Mul", "c", "m", "f"),
        helper.make_node("Neg", ["m"], ["out"]),
    ]
    weights = {renamed.get(key, key): value for key, value in CONV.items() if key != "g"}
    assert tuned(graph_of(nodes, weights, SHAPE), SHAPE) == ["Conv", "Neg"]


def test_folded_weights_are_turned_as_well() -> None:
    assert folding(normal(3, 3, 1, 1), ["Mul", "Add"], channels=3, pads=[1] * 4) == ["ConvTranspose", "Neg"]


def test_single_precision_is_lost_once_only() -> None:
    # Ten factors, computed in float64 and rounded at the end: closer than float32 step by step.
    factors = {f"f{i}": normal(10 + i, 16, 1, 1) for i in range(10)}
    nodes = [convolution("Conv", False, "t0")]
    nodes += [affine("Mul", f"t{i}", f"t{i + 1}", f"f{i}") for i in range(10)]
    nodes.append(helper.make_node("Identity", ["t10"], ["out"]))
    model = graph_of(nodes, {"w": CONV["w"]} | factors, SHAPE)
    tune(model)
    made = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    product = np.prod([factor.astype(np.float64) for factor in factors.values()], axis=0)
    exact = (CONV["w"] * product.reshape(-1, 1, 1, 1)).astype(np.float32)
    np.testing.assert_array_equal(made[model.graph.node[0].input[1]], exact)


# A ConvTranspose of a 1x1 map ---------------------------------------------------------------------------------------


def first_layer(bias: bool = True, group: int = 1, kernel: tuple[int, int] = (4, 3), **settings: Any) -> list[str]:
    shape = (3, 6, 1, 1)
    weights: Arrays = {"w": normal(1, 6, 4 // group, *kernel)} | ({"b": normal(2, 4)} if bias else {})
    return tuned(graph_of([convolution("ConvTranspose", bias, "out", group=group, **settings)], weights, shape), shape)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [1, 3], "pads": [0] * 4, "output_padding": [0, 0], "dilations": [1, 1]},
        {"auto_pad": "NOTSET"},
        {"kernel": (1, 1)},
        {"kernel": (7, 7)},
    ],
    ids=str,
)
def test_a_transposed_convolution_of_one_pixel_is_a_product(bias: bool, settings: dict[str, Any]) -> None:
    assert first_layer(bias, **settings) == GEMM


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 0, 0, 1]},
        {"strides": [2, 2], "output_padding": [1, 0]},
        {"output_shape": [2, 3]},
        {"output_shape": [5, 4], "strides": [2, 2]},
        {"group": 2},
        {"dilations": [2, 2]},
        {"dilations": [1, 2]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [3, 2]},
    ],
    ids=str,
)
def test_a_first_layer_of_another_kind_is_left(bias: bool, settings: dict[str, Any]) -> None:
    assert first_layer(bias, **settings) == ["ConvTranspose"]


@pytest.mark.parametrize("shape", [(3, 6, 2, 1), (3, 6, 1, 2), (3, 6, 1, 1, 1), (3, 6, 1)], ids=str)
def test_a_transposed_convolution_of_another_map_is_left(shape: tuple[int, ...]) -> None:
    weights = {"w": normal(1, 6, 4, *(3,) * (len(shape) - 2))}
    assert tuned(graph_of([convolution("ConvTranspose", False, "out")], weights, shape), shape) == ["ConvTranspose"]


def test_a_map_of_unknown_size_is_left() -> None:
    model = graph_of([convolution("ConvTranspose", False, "out")], {"w": normal(1, 6, 4, 3, 3)}, (3, 6, 1, 1))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    assert tuned(model, (3, 6, 1, 1)) == ["ConvTranspose"]


def test_one_pixel_within_the_graph_is_found_and_what_follows_is_folded() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "square"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "w"], ["c"]),
        affine("Mul", "c", "m", "f"),
        affine("Add", "m", "a", "f"),
        helper.make_node("Relu", ["a"], ["out"]),
    ]
    weights = {"w": normal(1, 6, 4, 4, 4), "f": normal(3, 4, 1, 1), "square": np.array([-1, 6, 1, 1])}
    assert tuned(graph_of(nodes, weights, (3, 6)), (3, 6)) == ["Reshape", *GEMM, "Relu"]


def test_first_layers_beside_each_other_share_no_names() -> None:
    nodes = [
        convolution("ConvTranspose"),
        convolution("ConvTranspose", y="d"),
        helper.make_node("Mul", ["c", "d"], ["out"]),
    ]
    weights = {"w": normal(1, 6, 4, 4, 4), "b": normal(2, 4)}
    assert tuned(graph_of(nodes, weights, (3, 6, 1, 1)), (3, 6, 1, 1)) == [*GEMM, *GEMM, "Mul"]


def test_a_first_layer_whose_weights_are_fed_is_left() -> None:
    fed = {"w": normal(1, 6, 4, 4, 4)}
    model = graph_of([convolution("ConvTranspose", False, "out")], {}, (3, 6, 1, 1), fed=fed)
    assert tuned(model, (3, 6, 1, 1), fed) == ["ConvTranspose"]


# Anything -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    model: onnx.ModelProto
    shape: tuple[int, ...]
    expected: list[str]


def drawn(seed: int) -> Drawn | None:
    """A random convolution, what follows it, and the operators that should be left; None where nothing is."""
    random = np.random.default_rng(seed)

    def pick(*values: Any) -> Any:
        return values[random.integers(len(values))]

    conv = pick("Conv", "Conv", "ConvTranspose")
    group, kernel = pick(1, 1, 1, 2), (pick(1, 3, 4, 5, 7), pick(1, 3, 4, 5, 7))
    channels, inner = pick(1, 3, 8, 9, 16) * group, pick(2, 6)
    one_pixel = conv == "ConvTranspose" and pick(True, False)
    shape = (2, inner, 1, 1) if one_pixel else (2, inner, pick(7, 8), pick(7, 9))
    strides, dilations = [pick(1, 1, 1, 2) for _ in range(2)], [pick(1, 1, 1, 1, 2) for _ in range(2)]
    settings: dict[str, Any] = {"group": group, "strides": strides, "dilations": dilations}
    pads, same = [0] * 4, False
    match pick("none", "none", "pads", "pads", "wide", "same"):
        case "pads":
            pads = [int(random.integers(0, kernel[side % 2])) for side in range(4)]
        case "wide":
            pads = [int(random.integers(0, kernel[side % 2] + 2)) for side in range(4)]
        case "same" if conv == "Conv" and dilations == [1, 1]:
            same = True
            settings["auto_pad"] = pick("SAME_UPPER", "SAME_LOWER")
    if any(pads) or (not same and pick(True, False)):
        settings["pads"] = pads
    extent = [
        (shape[2 + i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[2 + i]
        if conv == "ConvTranspose"
        else shape[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (kernel[i] - 1)
        for i in range(2)
    ]
    if min(extent) < 1 and not same:
        return None
    bias = pick(True, False)
    sizes = (channels, inner // group) if conv == "Conv" else (inner, channels // group)
    weights: Arrays = {"w": normal(seed, *sizes, *kernel)} | ({"b": normal(seed + 1, channels)} if bias else {})

    nodes, left, open_ = [convolution(conv, bias, "t0", **settings)], list[str](), True
    height_and_width = run(graph_of(nodes, weights, shape, ["t0"]), {"x": normal(9, *shape)})[0].shape[2:]
    for i in range(pick(0, 1, 2, 3)):
        operator, first = pick("Mul", "Add"), pick(True, False)
        kinds = [(channels, 1, 1), (1, channels, 1, 1), (1, 1, 1), (), height_and_width]
        kind = kinds[pick(0, 0, 1, 2, 3, 4)]
        weights[f"f{i}"] = normal(seed + 2 + i, *kind)
        nodes.append(affine(operator, f"t{i}", f"t{i + 1}", f"f{i}", first))
        whole = kind is height_and_width and kind != (1, 1)
        open_ = open_ and not whole and (conv == "Conv" or group == 1)
        left += [] if open_ else [operator]
    nodes.append(helper.make_node("Identity", [f"t{len(nodes) - 1}"], ["out"]))

    head = [conv]
    plain = group == 1 and dilations == [1, 1]
    if one_pixel and plain and not any(pads):
        head = GEMM
    elif conv == "Conv" and plain and strides == [1, 1] and not same and channels <= FEW_CHANNELS:
        fits = all(pad < kernel[side % 2] for side, pad in enumerate(pads))
        head = ["ConvTranspose"] if fits else head
    return Drawn(graph_of(nodes, weights, shape), shape, [*head, *left, "Identity"])


@pytest.mark.parametrize("first", range(0, 400, 40))
def test_any_convolution_makes_the_same_before_and_after(first: int) -> None:
    seen = 0
    for seed in range(first, first + 40):
        case = drawn(seed)
        if case is not None:
            assert tuned(case.model, case.shape) == case.expected, f"seed {seed}"
            seen += 1
    assert seen > 20


# Through export -----------------------------------------------------------------------------------------------------


def dcgan() -> onnx.ModelProto:
    """As torch.onnx.export writes the DCGAN of PyTorch's tutorial: x [N, 100, 1, 1] → image [N, 3, 16, 16]."""
    widths = (100, 8, 12, 3)
    nodes, weights, x = [], dict[str, NDArray[Any]](), "x"
    for i, (before, after) in enumerate(pairwise(widths)):
        settings: dict[str, Any] = {"strides": [2, 2], "pads": [1] * 4} if i else {"strides": [1, 1], "pads": [0] * 4}
        weights[f"main.{i}.weight"] = normal(i, before, after, 4, 4) * np.float32(0.1)
        nodes.append(
            helper.make_node(
                "ConvTranspose",
                [x, f"main.{i}.weight"],
                [f"conv_{i}"],
                group=1,
                auto_pad="NOTSET",
                kernel_shape=[4, 4],
                output_padding=[0, 0],
                dilations=[1, 1],
                **settings,
            )
        )
        x = f"conv_{i}"
        if i < len(widths) - 2:
            norm = [f"norm.{i}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
            weights |= {name: np.abs(normal(50 + i, after)) + np.float32(0.5) for name in norm}
            nodes.append(helper.make_node("BatchNormalization", [x, *norm], [f"norm_{i}"]))
            nodes.append(helper.make_node("Relu", [f"norm_{i}"], [f"relu_{i}"]))
            x = f"relu_{i}"
    nodes.append(helper.make_node("Tanh", [x], ["image"]))
    return graph_of(nodes, weights, (1, 100, 1, 1), ["image"])


def exported(source: onnx.ModelProto, folder: Path) -> tuple[Card, onnx.ModelProto]:
    (folder / "theirs.onnx").write_bytes(source.SerializeToString())
    card = export_onnx(folder / "theirs.onnx", folder / "ours.onnx", value_range=(-1, 1))
    return card, onnx.load(folder / "ours.onnx")


def images_of(floats: NDArray[Any]) -> NDArray[Any]:
    return np.clip(floats * 127.5 + 128, 0, 255).transpose(0, 2, 3, 1)


PIXELS = ["Mul", "Add", "Clip", "Transpose", "Cast"]


def test_a_dcgan_is_exported_with_neither_a_first_convolution_nor_batch_norms(tmp_path: Path) -> None:
    card, ours = exported(dcgan(), tmp_path)
    operators = [node.op_type for node in ours.graph.node]
    assert operators == ["Unsqueeze", *GEMM, "Relu", "ConvTranspose", "Relu", "ConvTranspose", "Tanh", *PIXELS]
    assert (card.z_dim, card.width, card.channels) == (100, 16, 3)
    assert card.parity["uint8_max"] <= 1
    assert card.parity["float_max"] <= 1e-4
    z = normal(7, 5, 100)
    theirs = run(dcgan(), {"x": z[:, :, None, None]})[0]
    assert theirs.std() > 0.05
    assert np.abs(run(ours, {"z": z})[0] - images_of(theirs)).max() <= 1.01
    used = {name for node in ours.graph.node for name in node.input}
    assert {tensor.name for tensor in ours.graph.initializer} <= used  # the old weights are gone


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_generator_that_ends_with_its_convolution_is_exported(tmp_path: Path, operator: str) -> None:
    # as progressive GANs and StyleGANs do: nothing between the last layer and the pixel step
    source = dcgan()
    del source.graph.node[-1]
    if operator == "Conv":
        source.graph.node.append(helper.make_node("Conv", ["conv_2", "last"], ["image"], pads=[1] * 4))
        source.graph.initializer.append(numpy_helper.from_array(normal(8, 3, 3, 3, 3) * np.float32(0.1), "last"))
    else:
        source.graph.node[-1].output[0] = "image"
    card, ours = exported(source, tmp_path)
    assert card.parity["uint8_max"] <= 1
    z = normal(7, 5, 100)
    theirs = run(source, {"x": z[:, :, None, None]})[0]
    assert np.abs(run(ours, {"z": z})[0] - images_of(theirs)).max() <= 1.01


def test_a_map_by_channel_after_tanh_is_not_mistaken_for_one_after_a_convolution(tmp_path: Path) -> None:
    source = dcgan()
    source.graph.node[-1].output[0] = "t"
    source.graph.node.append(affine("Mul", "t", "image", "half"))
    source.graph.initializer.append(
        numpy_helper.from_array(np.array([[[0.5]], [[0.25]], [[-0.5]]], np.float32), "half")
    )
    _, ours = exported(source, tmp_path)
    assert [node.op_type for node in ours.graph.node][-7:] == ["Tanh", "Mul", *PIXELS]
