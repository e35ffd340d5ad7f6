"""Nodes that are known to crash ONNX Runtime 1.31, which ends the process: found by trying, tests/faults has them.

They go through its checks, and then it divides by zero, follows a null pointer or breaks an assertion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ganrt.protobuf import Message, short

_VARIADIC = ("Sum", "Mean", "Max", "Min", "Concat", "Einsum")
_INT32 = range(-(1 << 31), 1 << 31)
_ONE_HOT = ((1, "depth", 1), (2, "values", 2))  # which input, its name, how many numbers it has


def crash(op: str, node: Message, attributes: Mapping[str, Message], initializers: Mapping[str, Message]) -> str | None:
    """What is wrong with a node, where it is one of those. Raises Malformed."""
    inputs, outputs = node.texts(1), node.texts(2)
    for name, attribute in attributes.items():
        # Some of them are multiplied, and divided by the product, which may have become 0.
        if op != "Constant" and any(n not in _INT32 for n in (attribute.integer(3), *attribute.integers(8))):
            return f"its attribute {short(name)} is beyond 32 bits"
    if op in _VARIADIC and not all(inputs):
        return "one of its inputs has no name"
    if op == "Split" and "num_outputs" in attributes and attributes["num_outputs"].integer(3) != len(outputs):
        return f"it says {attributes['num_outputs'].integer(3)} outputs and has {len(outputs):,}"
    if op == "GatherND" and "batch_dims" in attributes and attributes["batch_dims"].integer(3) < 0:
        return f"its batch_dims is {attributes['batch_dims'].integer(3)}"
    for at, name, count in _ONE_HOT if op == "OneHot" else ():
        tensor = initializers.get(inputs[at]) if len(inputs) > at else None
        if tensor is not None and math.prod(tensor.integers(1)) != count:
            return f"its {name} has {math.prod(tensor.integers(1)):,} numbers, not {count}"
    return None
