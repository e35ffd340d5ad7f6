"""Generators with one more node each: an operator of the contract, with odd attributes and inputs among others.

Half of the inputs are constants; others are worked out from z and y, so that ONNX Runtime sees them while it runs.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from ganrt.graphs import ALLOWED_OPS
from tests.faults.hostile import changed, constant, hooked, op

EVIL = (
    0,
    0,
    1,
    1,
    2,
    3,
    -1,
    -2,
    4,
    7,
    1 << 16,
    1 << 31,
    (1 << 31) - 1,
    -(1 << 31),
    1 << 32,
    1 << 40,
    -(1 << 40),
    1 << 62,
)
MILD = (0, 1, 1, 2, 2, 3, 4, -1, -2, 8)
_WORDS = """
linear nearest bilinear cubic constant reflect edge wrap SAME_UPPER SAME_LOWER VALID NOTSET DCR CRD LEFT tanh none
add mul max zeros border reflection asymmetric tf_crop_and_resize half_pixel align_corners floor ij,jk->ik ii->i
i,i-> ...i->i not_larger not_smaller stretch
"""
WORDS = _WORDS.split()
KINDS = {
    "tensor(float)": 1,
    "tensor(int64)": 7,
    "tensor(int32)": 6,
    "tensor(bool)": 9,
    "tensor(float16)": 10,
    "tensor(double)": 11,
    "tensor(uint8)": 2,
    "tensor(int8)": 3,
}
NODES = sorted(ALLOWED_OPS - {"Constant"})
_OF_LATER = ("AffineGrid", "DeformConv", "Gelu")  # than opset 18


def with_operator(random: Random) -> bytes:
    """A generator whose pixels depend on such a node."""
    opset = random.choice((18, 20))
    name = random.choice([node for node in NODES if opset == 20 or node not in _OF_LATER])
    schema = onnx.defs.get_schema(name, opset)
    late = random.random() < 0.6
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = [constant(f"nothing{kind}", 0, dtype) for kind, dtype in _NOTHING.items()]
    inputs = []
    most = min(schema.max_input, schema.min_input + random.choice((0, 0, 1, 2, 3)))
    for at in range(most):
        if random.random() < 0.04:
            inputs.append("")
            continue
        types = schema.inputs[min(at, len(schema.inputs) - 1)].types
        kinds = [KINDS[kind] for kind in sorted(types) if kind in KINDS] or [1]
        usual = [kind for kind in kinds if kind in (1, 7)]
        kind = random.choice(usual) if usual and random.random() < 0.85 else random.choice(kinds)
        weights.append(constant(f"e{at}", _array(random, kind)))
        inputs.append(f"e{at}")
        if late and kind in _NOTHING:
            nodes += [
                op("Cast", "z" if kind == 1 else "y", f"e{at}a", to=kind),
                op("ReduceSum", f"e{at}a", f"e{at}b", keepdims=0),
                op("Mul", f"e{at}b nothing{kind}", f"e{at}c"),
                op("Add", f"e{at} e{at}c", f"e{at}d"),
            ]
            inputs[-1] = f"e{at}d"
    count = max(1, min(schema.max_output, schema.min_output + random.choice((0, 0, 1, 2))))
    outputs = [f"o{number}" for number in range(count)]
    nodes.append(helper.make_node(name, inputs, outputs, **_attributes(random, schema)))
    for output in outputs:
        nodes += [op("Cast", output, f"{output}a", to=1), op("ReduceSum", f"{output}a", f"{output}b", keepdims=0)]
    nodes.append(helper.make_node("Sum", [f"{output}b" for output in outputs], ["end"]))

    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version, model.ir_version = opset, 9
        hooked(model, nodes, "end", weights)

    return changed(change)


_NOTHING = {1: np.float32, 7: np.int64, 6: np.int32}


def _integers(random: Random, count: int) -> list[int]:
    pool = EVIL if random.random() < 0.4 else MILD
    return [random.choice(pool) for _ in range(count)]


def _array(random: Random, kind: int) -> NDArray[Any]:
    shape = [random.choice((0, 1, 1, 2, 2, 3, 4, 8)) for _ in range(random.choice((0, 1, 1, 2, 3, 4, 4, 5)))]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if kind in (6, 7):
        shape = [random.choice((0, 1, 2, 3, 4, 5))] if random.random() < 0.6 else shape
        return np.array(_integers(random, int(np.prod(shape))), np.int64).reshape(shape).astype(dtype)
    values = np.random.default_rng(random.randrange(1 << 30)).standard_normal(shape)
    if kind == 1 and random.random() < 0.3:
        values = np.full(shape, random.choice((0, -1, 3e38, 1e-30, 1e9, -1e9, 0.5)))
    return (values > 0 if kind == 9 else values * 50 if kind in (2, 3) else values).astype(dtype)


def _attributes(random: Random, schema: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, attribute in schema.attributes.items():
        if not attribute.required and random.random() < 0.45:
            continue
        kind = str(attribute.type).rpartition(".")[2]
        if kind == "INT" and name in ("to", "dtype"):
            found[name] = random.choice((1, 6, 7, 7, 10, 11))
        elif kind == "INT":
            found[name] = random.choice(EVIL if random.random() < 0.5 else (0, 1, 1, 2, 3, -1))
        elif kind == "INTS":
            found[name] = _integers(random, random.choice((1, 2, 2, 3, 4, 4, 5, 8)))
        elif kind == "FLOAT":
            found[name] = random.choice((0.0, 1.0, -1.0, 0.5, 3e38, 1e-38))
        elif kind == "FLOATS":
            found[name] = [random.choice((0.0, 1.0, 0.5, -1.0, 1e30)) for _ in range(random.choice((1, 2, 4)))]
        elif kind == "STRING":
            found[name] = random.choice(["", *WORDS])
        elif kind == "TENSOR":
            found[name] = constant("", _array(random, random.choice((1, 7, 6, 11))))
    return found
