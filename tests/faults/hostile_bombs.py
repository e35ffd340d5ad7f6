"""Hostile models that ask for far more memory than there is, in a few hundred bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from tests.faults.hostile import (
    BOMBS,
    RUNTIME,
    Hostile,
    changed,
    changed_translator,
    constant,
    hook,
    hooked,
    op,
    pair,
    scalars,
)

FULL = "does not fit into memory"


def hostile_bombs() -> Iterator[Hostile]:
    """Each as a constant, which is made while the file is loaded, and where possible as a function of z or y."""

    def bomb(name: str, nodes: list[NodeProto], weights: list[TensorProto], words: str = FULL) -> Hostile:
        return Hostile(f"bomb-{name}", BOMBS, hook(nodes, "end", weights), "InferenceError", words)

    one = constant("one", [1.0], np.float32)
    for said, size in (("gigabytes", 1 << 15), ("terabytes", 1 << 20)):
        dims = constant("dims", [size, size])
        late = [op("Mul", "y nothing", "zeros"), op("ReduceMax", "zeros", "zero"), op("Add", "dims zero", "sizes")]
        nothing = constant("nothing", [0])
        yield bomb(f"expand-{said}", [op("Expand", "one dims", "end")], [one, dims])
        yield bomb(f"expand-late-{said}", [*late, op("Expand", "one sizes", "end")], [one, dims, nothing])
        yield bomb(f"constant-of-shape-{said}", [op("ConstantOfShape", "dims", "end")], [dims])
        yield bomb(f"constant-of-shape-late-{said}", [*late, op("ConstantOfShape", "sizes", "end")], [dims, nothing])
        yield bomb(f"tile-{said}", [op("Tile", "z dims", "end")], [dims], RUNTIME)
        yield bomb(f"pad-{said}", [op("Pad", "z pads", "end")], [constant("pads", [size, size, size, size])])
        ends = scalars(0, size * size, 1)
        yield bomb(f"range-{said}", [op("Range", "a b c", "n"), op("Cast", "n", "end", to=1)], ends)
        depth = constant("depth", size * size)
        yield bomb(f"one-hot-{said}", [op("OneHot", "y depth values", "end")], [depth, pair()])
        eye = [op("ConstantOfShape", "dims", "base"), op("EyeLike", "base", "end")]
        yield bomb(f"eye-like-{said}", eye, [dims])
        scales = constant("scales", [size, size], np.float32)
        resize = helper.make_node("Resize", ["z", "", "scales"], ["end"])
        yield bomb(f"resize-{said}", [resize], [scales])
        crop = [op("Cast", "z", "wide", to=1), op("CenterCropPad", "wide dims", "end")]
        yield bomb(f"center-crop-pad-{said}", crop, [dims])
    column = [op("Reshape", "z line", "rows"), op("Unsqueeze", "rows axis", "column")]
    shapes = [constant("line", [-1]), constant("axis", [1])]
    grow, last = [*column], "column"
    for number in range(40):
        grow.append(op("Concat", f"{last} {last}", f"g{number}", axis=0))
        last = f"g{number}"
    yield Hostile("bomb-concat-40", BOMBS, hook(grow, last, shapes), "InferenceError", FULL)
    outer = [
        op("Tile", "column many", "long"),
        op("Transpose", "long", "wide", perm=[1, 0]),
        op("MatMul", "long wide", "end"),
    ]
    yield bomb("outer-product", [*column, *outer], [*shapes, constant("many", [1000, 1])])
    einsum = [op("Reshape", "z line", "a"), op("Einsum", "a a a a", "end", equation="i,j,k,l->ijkl")]
    yield bomb("einsum-outer-product", einsum, [constant("line", [-1])])
    conv = [op("Reshape", "z dims", "map"), op("ConvTranspose", "map kernel", "end", strides=[1 << 12, 1 << 12])]
    kernel = constant("kernel", np.ones((1, 1, 1, 1), np.float32))
    yield bomb("conv-transpose-strides", conv, [constant("dims", [1, 1, 8, -1]), kernel])
    pads = {"pads": [1 << 14] * 4}
    padded = [op("Reshape", "z dims", "map"), op("Conv", "map kernel", "end", **pads)]
    yield bomb("conv-pads", padded, [constant("dims", [1, 1, 8, -1]), kernel])
    grid = [op("ConstantOfShape", "dims", "end")]
    yield bomb("constant-of-shape-2-to-63", grid, [constant("dims", [1 << 31, 1 << 31, 2])], RUNTIME)
    yield bomb("constant-of-shape-negative", grid, [constant("dims", [-(1 << 40)])], RUNTIME)
    affine = [op("AffineGrid", "theta size", "end", align_corners=0)]
    theta = constant("theta", np.ones((1, 2, 3), np.float32))
    data = changed(lambda model: _at_opset_20(model, affine, [theta, constant("size", [1, 1, 1 << 15, 1 << 15])]))
    yield Hostile("bomb-affine-grid", BOMBS, data, "InferenceError", FULL)

    def enlarged(model: onnx.ModelProto) -> None:
        graph = model.graph
        at = next(k for k, item in enumerate(graph.node) if item.op_type == "Conv")
        graph.initializer.append(constant("larger", [1, 1, 1 << 14, 1 << 14], np.float32))
        graph.node.insert(at, helper.make_node("Resize", ["signed", "", "larger"], ["huge"]))
        graph.node[at + 1].input[0] = "huge"

    data = changed_translator(enlarged, dynamic=True)
    yield Hostile("bomb-translator-resize", BOMBS, data, "InferenceError", FULL, translates=True)


def _at_opset_20(model: onnx.ModelProto, nodes: list[NodeProto], weights: list[TensorProto]) -> None:
    model.opset_import[0].version = 20
    model.ir_version = 9
    hooked(model, nodes, "end", weights)
