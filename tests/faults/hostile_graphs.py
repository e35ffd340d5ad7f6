"""Hostile models whose graph is wrong, refused, makes no pictures, or asks for more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.faults.hostile import (
    CRASHES,
    GRAPHS,
    OPERATORS,
    RESULTS,
    RUNTIME,
    Hostile,
    changed,
    changed_translator,
    constant,
    hook,
    node,
    op,
    pair,
    scalars,
    weight,
)


def hostile_graphs() -> Iterator[Hostile]:
    """All of them."""
    yield from _operators()
    yield from _senseless()
    yield from _crashes()
    yield from _results()


def _operators() -> Iterator[Hostile]:
    def added(name: str, words: str, new: NodeProto) -> Hostile:
        data = changed(lambda model: model.graph.node.insert(0, new))
        return Hostile(f"operator-{name}", OPERATORS, data, "ContractError", words)

    branch = helper.make_graph([], "branch", [], [])
    for kind in ("RandomNormal", "RandomUniformLike", "Bernoulli", "Multinomial"):
        yield added(kind, "random numbers are drawn outside", op(kind, "z", "w"))
    for kind in ("If", "Loop", "Scan", "SequenceMap"):
        yield added(kind, "no control flow", op(kind, "z", "w"))
    for kind in ("StringConcat", "ImageDecoder", "SequenceConstruct", "Optional", "DFT", "NonZero", "LSTM", "Unknown"):
        yield added(kind, f"is '{kind}', which the contract refuses", op(kind, "z", "w"))
    yield added("BatchNormalization", "a fixed scale and shift", op("BatchNormalization", "z z z z z", "w"))
    yield added("subgraph", "holds a subgraph", op("Identity", "z", "w", body=branch))
    yield added("subgraphs", "holds a subgraph", op("Identity", "z", "w", body=[branch]))
    for domain in ("com.microsoft", "ai.onnx.ml", "evil", "ai.onnx.preview.training"):
        yield added(f"of-{domain}", "only ONNX's own operators are run", op("Gelu", "z", "w", domain=domain))
    context = op("EPContext", "z", "w", domain="com.microsoft", embed_mode=0, ep_cache_context="/etc/passwd")
    yield added("EPContext", "only ONNX's own operators are run", context)
    yield added("escape", r"is '\x1b[2JIf', which the contract refuses", op("\x1b[2JIf", "z", "w"))

    def refused(name: str, words: str, change: object) -> Hostile:
        return Hostile(name, OPERATORS, changed(change), "ContractError", words)  # type: ignore[arg-type]

    function = helper.make_function("", "Tanh", ["a"], ["b"], [], [helper.make_opsetid("", 18)])
    yield refused("functions", "holds functions", lambda model: model.functions.append(function))
    yield refused("training-steps", "holds training steps", lambda model: model.training_info.add())
    yield refused(
        "domain-imported",
        "only ONNX's own are run",
        lambda model: model.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
    )
    for version in (0, 7, 21, 999, -1, (1 << 63) - 1):
        yield refused(
            f"opset-{version}",
            f"its opset is {version}; 18 to 20 is expected",
            lambda model, v=version: setattr(model.opset_import[0], "version", v),
        )
    yield refused("opset-none", "its opset is missing", lambda model: model.ClearField("opset_import"))
    yield refused("ir-version", "IR version 99", lambda model: setattr(model, "ir_version", 99))
    many = [op("Identity", "z", f"i{number}") for number in range(20_001)]
    yield refused("nodes-20,001", "at most 20,000 are run", lambda model: model.graph.node.extend(many))


def _senseless() -> Iterator[Hostile]:
    def made(name: str, data: bytes, words: str = RUNTIME) -> Hostile:
        return Hostile(name, GRAPHS, data, "InferenceError", words)

    def change(name: str, how: object, words: str = RUNTIME) -> Hostile:
        return made(name, changed(lambda model: how(model)), words)  # type: ignore[operator]

    yield change("cycle", lambda m: node(m, "Tanh").input.__setitem__(0, "clipped"))
    yield change("input-of-itself", lambda m: node(m, "Tanh").input.__setitem__(0, "signed"))
    yield change("missing-weight", lambda m: weight(m).ClearField("name"))
    yield change("missing-node", lambda m: m.graph.node.remove(node(m, "Tanh")))
    yield change("output-twice", lambda m: m.graph.node.append(op("Identity", "z", "signed")))
    yield change("output-named-like-an-input", lambda m: m.graph.node.append(op("Identity", "z", "z")))
    yield change("inputs-too-few", lambda m: node(m, "Gemm").ClearField("input"))
    yield change("inputs-too-many", lambda m: node(m, "Tanh").input.extend(["z"] * 5000))
    yield change("inputs-without-names", lambda m: node(m, "Tanh").input.__setitem__(0, ""))
    yield change("cast-to-a-string", lambda m: node(m, "Cast").attribute[0].__setattr__("i", 8))
    yield change("cast-to-type-1,000", lambda m: node(m, "Cast").attribute[0].__setattr__("i", 1000))
    yield change("attribute-of-another-type", lambda m: node(m, "Cast").attribute[0].__setattr__("type", 3))
    yield change("attribute-unknown", lambda m: node(m, "Tanh").attribute.add(name="x" * 60_000, i=1, type=2))
    yield change("reshape-negative", lambda m: weight(m, "shape").CopyFrom(constant("shape", [-1, -8, 8, 3])))
    yield change("reshape-two-unknown", lambda m: weight(m, "shape").CopyFrom(constant("shape", [-1, -1, 8, 3])))
    yield change("reshape-2-to-63", lambda m: weight(m, "shape").CopyFrom(constant("shape", [2**31, 2**31, 2, 2])))
    shape = [constant("dims", [1, 1, 4, 2])]
    image = op("Reshape", "row dims", "map")
    row = op("Slice", "z first last", "row")
    ends = [constant("first", [0]), constant("last", [1])]
    for name, attributes in (
        ("strides-0", {"strides": [0, 0]}),
        ("strides-negative", {"strides": [-1, -1]}),
        ("dilations-0", {"dilations": [0, 0]}),
        ("dilations-huge", {"dilations": [1 << 30, 1 << 30]}),
        ("group-0", {"group": 0}),
        ("group-negative", {"group": -1}),
        ("pads-negative", {"pads": [-(1 << 30)] * 4}),
        ("pads-huge", {"pads": [1 << 30] * 4}),
        ("kernel-huge", {"kernel_shape": [1 << 30, 1 << 30]}),
    ):
        kernel = constant("kernel", np.ones((1, 1, 2, 2), np.float32))
        nodes = [row, image, op("Conv", "map kernel", "end", **attributes)]
        yield made(f"conv-{name}", hook(nodes, "end", [*shape, *ends, kernel]))
        if "group" not in name and "kernel" not in name:
            pooled = [row, image, op("MaxPool", "map", "end", **{"kernel_shape": [2, 2], **attributes})]
            yield made(f"pool-{name}", hook(pooled, "end", [*shape, *ends]))
    pool = [row, image, op("MaxPool", "map", "end", kernel_shape=[1 << 30, 1 << 30])]
    yield made("pool-kernel-huge", hook(pool, "end", [*shape, *ends]))
    for name, equation in (
        ("letters", "ab,cd->" + "z" * 50_000),
        ("no-arrow", "->->"),
        ("unknown", "a1,b2"),
        ("control", "\x00\x1b[2J"),
        ("ellipses", "...a...,...b->..."),
        ("ranks", "abcdefghijklmnop,a->a"),
    ):
        yield made(f"einsum-{name}", hook([op("Einsum", "z z", "end", equation=equation)], "end"))
    for name, nodes, weights in (
        ("gather-beyond", [op("Gather", "z at", "end", axis=1)], [constant("at", [1 << 40])]),
        ("gather-before", [op("Gather", "z at", "end", axis=1)], [constant("at", [-(1 << 40)])]),
        ("gather-axis", [op("Gather", "z at", "end", axis=99)], [constant("at", [0])]),
        ("gather-nd", [op("GatherND", "z at", "end")], [constant("at", [[1 << 40, 0]])]),
        ("gather-elements", [op("GatherElements", "z at", "end")], [constant("at", [[1 << 40] * 8])]),
        (
            "scatter-beyond",
            [op("ScatterElements", "z at more", "end")],
            [constant("at", [[1 << 40]]), constant("more", [[1.0]], np.float32)],
        ),
        (
            "scatter-nd-beyond",
            [op("ScatterND", "z at more", "end")],
            [constant("at", [[-(1 << 40), 0]]), constant("more", [1.0], np.float32)],
        ),
        ("cumsum-axis", [op("CumSum", "z axis", "end")], [constant("axis", 1 << 40)]),
        ("topk-huge", [helper.make_node("TopK", ["z", "k"], ["end", "at"])], [constant("k", [1 << 40])]),
        ("topk-negative", [helper.make_node("TopK", ["z", "k"], ["end", "at"])], [constant("k", [-5])]),
        ("split-negative", [helper.make_node("Split", ["z", "k"], ["end", "b"], axis=1)], [constant("k", [-8, 16])]),
        ("transpose-twice", [op("Transpose", "z", "end", perm=[0, 0])], []),
        ("transpose-beyond", [op("Transpose", "z", "end", perm=[0, 1 << 30])], []),
        ("depth-to-space-0", [row, image, op("DepthToSpace", "map", "end", blocksize=0)], [*shape, *ends]),
        ("range-step-0", [op("Range", "a b c", "n"), op("Cast", "n", "end", to=1)], scalars(0, 10, 0)),
        ("one-hot-negative", [op("OneHot", "y k values", "end")], [constant("k", -5), pair()]),
        ("col2im", [row, image, op("Col2Im", "map k k", "end")], [*shape, *ends, constant("k", [1 << 40] * 2)]),
        ("slice-step-0", [op("Slice", "z k k axes step", "end")], [*_fours(), constant("step", [0])]),
        ("concat-mixed", [op("Concat", "z y", "end", axis=0)], []),
        ("matmul-shapes", [op("MatMul", "z z", "end")], []),
        ("resize-negative", [op("Resize", "z  k", "end")], [constant("k", [-1, 1], np.float32)]),
    ):
        yield made(name, hook(nodes, "end", weights))


def _crashes() -> Iterator[Hostile]:
    """What crashes ONNX Runtime 1.31 itself: the process would end with a signal."""

    def made(name: str, data: bytes, words: str) -> Hostile:
        return Hostile(f"crash-{name}", CRASHES, data, "ContractError", f"could crash ONNX Runtime: {words}")

    def split(outputs: list[str], **attributes: Any) -> list[NodeProto]:
        return [helper.make_node("Split", ["z"], outputs, **attributes)]

    shape = [constant("dims", [1, 1, 2, -1])]
    blocks = [op("Reshape", "z dims", "map"), op("DepthToSpace", "map", "end", blocksize=1 << 40)]
    yield made("depth-to-space", hook(blocks, "end", shape), "its attribute 'blocksize' is beyond 32 bits")
    yield made("split-outputs", hook(split(["end", "a", "b"], num_outputs=1), "end"), "it says 1 outputs and has 3")
    yield made("split-axis", hook(split(["end"], num_outputs=1, axis=1 << 32), "end"), "its attribute 'axis'")
    for kind in ("Sum", "Mean", "Max", "Min"):
        nameless = [helper.make_node(kind, ["z", ""], ["end"])]
        yield made(f"nameless-{kind}", hook(nameless, "end"), "one of its inputs has no name")
    gather = [op("GatherND", "z at", "end", batch_dims=-(1 << 31))]
    yield made("gather-nd", hook(gather, "end", [constant("at", [[0]])]), "its batch_dims is -2147483648")
    hot = [op("OneHot", "y depth values", "end")]
    depth = constant("depth", np.zeros((3, 0), np.int64))
    yield made("one-hot-depth", hook(hot, "end", [depth, pair()]), "its depth has 0 numbers, not 1")
    values = constant("values", np.zeros((1, 0), np.float32))
    yield made("one-hot-values", hook(hot, "end", [constant("depth", [3]), values]), "its values has 0 numbers, not 2")


def _fours() -> list[TensorProto]:
    return [constant("k", [0]), constant("axes", [1])]


def _results() -> Iterator[Hostile]:
    def made(name: str, data: bytes, words: str, **more: Any) -> Hostile:
        return Hostile(f"result-{name}", RESULTS, data, "InferenceError", words, **more)

    def constant_image(model: onnx.ModelProto) -> None:
        for name in ("weight", "table"):
            tensor = weight(model, name)
            tensor.CopyFrom(constant(name, np.zeros(tensor.dims, np.float32)))

    def not_a_number(model: onnx.ModelProto) -> None:
        node(model, "Tanh").op_type = "Sqrt"
        bias = weight(model, "bias")
        bias.CopyFrom(constant("bias", np.full(bias.dims, -1e6, np.float32)))

    def overflowing(model: onnx.ModelProto) -> None:
        table = numpy_helper.to_array(weight(model, "table")).copy()
        table[1] = 3e38
        weight(model, "table").CopyFrom(constant("table", table))

    yield made("constant", changed(constant_image), "times the same image of class")
    yield made("nan", changed(not_a_number), "times the same image of class")
    yield made("one-class-overflows", changed(overflowing), "times the same image of class 'b'")
    for name, shape in (("other-sizes", [-1, 4, 16, 3]), ("more-images", [-1, 4, 4, 3]), ("flat", [-1, 192])):
        data = changed(lambda model, s=shape: weight(model, "shape").CopyFrom(constant("shape", s)))  # type: ignore[misc]
        yield Hostile(f"result-declared-{name}", RESULTS, data, "ContractError", "finished pixels uint8 [N, 8, 8, 3]")
        if len(shape) == 4:
            late = changed(lambda model, s=shape: _late_shape(model, s))  # type: ignore[misc]
            yield made(f"late-{name}", late, "made uint8 [")

    def squeezed(model: onnx.ModelProto) -> None:
        resize = node(model, "Resize")
        assert resize.input[2] == "scales"
        weight(model, "scales").CopyFrom(constant("scales", [1, 1, 0.5, 0.5], np.float32))

    yield made("translator-halves", changed_translator(squeezed, dynamic=True), "made uint8 [", translates=True)

    def kernel(model: onnx.ModelProto) -> None:
        weight(model).CopyFrom(constant("weight", np.ones((3, 5, 1, 1), np.float32)))

    yield made("translator-kernel", changed_translator(kernel), RUNTIME, translates=True)


def _late_shape(model: onnx.ModelProto, shape: list[int]) -> None:
    """The shape of the images is known while the network runs, not before."""
    reshape = node(model, "Reshape")
    at = list(model.graph.node).index(reshape)
    model.graph.initializer.extend([constant("other", shape), constant("nothing", [0])])
    reshape.input[1] = "chosen"
    for new in (
        op("Add", "other zero", "chosen"),
        op("ReduceMax", "zeros", "zero"),
        op("Mul", "y nothing", "zeros"),
    ):
        model.graph.node.insert(at, new)
