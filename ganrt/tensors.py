"""The weights in an ONNX file: that they are wholly there, what their header says, and finite.

Field numbers and element types: TensorProto in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ganrt.errors import ContractError
from ganrt.protobuf import FIXED32, FIXED64, Message, short

# TensorProto.DataType: name, bytes of one element, field that holds typed elements, for those a generator may use.
_DTYPES = {
    1: ("float32", 4, 4),
    2: ("uint8", 1, 5),
    3: ("int8", 1, 5),
    4: ("uint16", 2, 5),
    5: ("int16", 2, 5),
    6: ("int32", 4, 5),
    7: ("int64", 8, 7),
    9: ("bool", 1, 5),
    10: ("float16", 2, 5),
    11: ("float64", 8, 10),
    12: ("uint32", 4, 11),
    13: ("uint64", 8, 11),
    16: ("bfloat16", 2, 5),
}
_FLOATS = {"float32": "<f4", "float16": "<f2", "float64": "<f8", "bfloat16": "<u2"}
_MAX_RANK = 16
_MAX_DIM = (1 << 31) - 1
_CHUNK = 1 << 18  # elements looked at in one go: stays in the cache, and a large model takes no second copy

_AGAIN = "Export it again, or ask whoever made the file."
_DAMAGED = "The file is damaged. Download or export it again."


def check_tensor(tensor: Message, where: str) -> None:
    """Raises ContractError when a TensorProto is not wholly here, not what its header says, or not finite."""
    called = f"{where}: {tensor.name}"
    if tensor.has(13) or tensor.integer(14):
        raise ContractError(
            f"{called} lies in another file; a model is one file",
            "Save it with its weights inside: onnx.save(onnx.load(OLD), NEW).",
        )
    dims, kind = tensor.integers(1), tensor.integer(2)
    if len(dims) > _MAX_RANK or any(not 0 <= dim <= _MAX_DIM for dim in dims):
        raise ContractError(f"{called} has the shape {short(dims)}, which no tensor has", _AGAIN)
    if kind not in _DTYPES:
        names = ", ".join(name for name, _, _ in _DTYPES.values())
        raise ContractError(f"{called} has the element type {dtype_name(kind)}; these are known: {names}", _AGAIN)
    name, width, _ = _DTYPES[kind]
    if tensor.has(3) or sum(tensor.has(number) for number in (4, 5, 6, 7, 9, 10, 11)) > 1:
        raise ContractError(f"{called} holds its elements in two places, or in pieces", _AGAIN)
    raw, count = tensor.payload(9), math.prod(dims)
    takes = f"{called} is {name} {dims}, which takes"
    if raw is not None and len(raw) != count * width:
        raise ContractError(f"{takes} {count * width:,} bytes; it has {len(raw):,}", _DAMAGED)
    array = numbers(tensor)
    if len(array) != count:
        raise ContractError(f"{takes} {count:,} numbers; it has {len(array):,}", _DAMAGED)
    if name in _FLOATS and not all(_finite(part, name) for part in _parts(array)):
        raise ContractError(
            f"{called} holds numbers that are not finite (NaN or infinity)",
            "The training that made it has probably diverged: export an earlier snapshot.",
        )


def numbers(tensor: Message) -> npt.NDArray[Any]:
    """The elements of a tensor of a known type, flat: floats as such, bfloat16 as its bits, the rest uninterpreted."""
    name, width, field = _DTYPES[tensor.integer(2)]
    raw = tensor.payload(9)
    if raw is None and field in (4, 10):
        raw = tensor.fixed(field, FIXED32 if field == 4 else FIXED64)
    if raw is not None:
        return np.frombuffer(raw, _FLOATS.get(name, f"V{width}")) if len(raw) else np.zeros(0)
    stored = np.array(tensor.integers(field), np.int64)
    return stored.astype(np.uint16).view(_FLOATS[name]) if name in _FLOATS else stored


def _parts(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    return (array[start : start + _CHUNK] for start in range(0, len(array), _CHUNK))


def _finite(array: npt.NDArray[Any], name: str) -> bool:
    if name == "bfloat16":  # numpy has no such type: not finite means that all bits of the exponent are set
        return not bool(np.any(array & 0x7F80 == 0x7F80))
    return bool(np.isfinite(array).all())


def dtype_name(kind: int) -> str:
    """What numpy calls an element type of ONNX, given by its number."""
    return _DTYPES[kind][0] if kind in _DTYPES else {8: "string"}.get(kind, f"type {kind}")
