"""Plain values out of pickles that nobody vouches for, without unpickling.

CIFAR's Python version is pickles. ``pickle.Unpickler`` is not used, not even with a ``find_class`` that allows
next to nothing: nine bytes (LONG_BINPUT) make it fill gigabytes with a memo, a key of nested tuples takes
forever to hash, and BUILD sets attributes on whatever class ``find_class`` gave. Here the few opcodes are
interpreted (their specification is the standard library's pickletools.py) that dicts, lists, texts, numbers and
numpy arrays of bytes are written with. Nothing is imported or called; an array is a tuple of shape and bytes
until all is checked.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ganrt.errors import TrainingError
from ganrt_training.readers.source import MAX_FILE, Pixels, shown

_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_ARRAY = "numpy.ndarray"
_DTYPE = "numpy.dtype"

_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Global:
    """What a pickle asks to be imported: its name alone."""

    name: str


@dataclass
class _Dtype:
    """Stands in for numpy's dtype of unsigned bytes, the only one there is here."""


@dataclass
class _Array:
    """Stands in for an array: filled by BUILD, made real once the whole pickle has been read."""

    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes = b""

    def pixels(self) -> Pixels:
        flat = np.frombuffer(self.data, np.uint8)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def plain_dict(data: bytes, path: str) -> dict[str, Any]:
    """A pickled dict: keys as text; a value may be a uint8 array, text, a number, or a list of such.

    Python 2's texts are bytes. Raises TrainingError, naming what it was, when the pickle asks for anything else
    or is broken.
    """
    if len(data) > MAX_FILE:
        raise TrainingError(f"{path}: a pickle of {len(data):,} bytes", "Get the archive again from where it is kept.")
    try:
        value = _interpret(data, path)
    except (ValueError, IndexError, KeyError, TypeError, AssertionError) as error:
        raise TrainingError(f"{path}: a broken pickle", "Get the archive again from where it is kept.") from error
    if not isinstance(value, dict):
        raise _refused(path, f"holds a {type(value).__name__}, not a dict")
    return {_text(key): item.pixels() if isinstance(item, _Array) else item for key, item in value.items()}


def _interpret(data: bytes, path: str) -> Any:
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        height = marks.pop()
        items = stack[height:]
        del stack[height:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in ("BINSTRING", "SHORT_BINSTRING"):
            stack.append(argument.encode("latin-1"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = [stack.pop() for _ in range(size)][::-1]
            stack.append(tuple(items))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            target = _expect(stack[-1], dict)
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_expect(key, (str, bytes))] = value
        elif name == "GLOBAL":
            stack.append(_known(argument.replace(" ", ".", 1), path))
        elif name == "STACK_GLOBAL":
            attribute, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
            stack.append(_known(f"{module}.{attribute}", path))
        elif name == "REDUCE":
            arguments, called = _expect(stack.pop(), tuple), _expect(stack.pop(), _Global)
            stack.append(_reduced(called.name, arguments, path))
        elif name == "BUILD":
            state = _expect(stack.pop(), tuple)
            _build(stack[-1], state)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            asked = "" if argument is None else f" {shown(str(argument)[:200])}"
            raise _refused(path, f"asks for pickle's {name}{asked}")
    raise ValueError("no STOP")


def _known(name: str, path: str) -> _Global:
    if name not in (*_RECONSTRUCT, _ARRAY, _DTYPE):
        raise _refused(path, f"asks for {shown(name[:200])}")
    return _Global(name)


def _reduced(name: str, arguments: tuple[Any, ...], path: str) -> _Array | _Dtype:
    if name in _RECONSTRUCT and arguments[0] == _Global(_ARRAY):
        return _Array()
    if name == _DTYPE and arguments[0] in ("u1", b"u1"):
        return _Dtype()
    what = _text(arguments[0]) if isinstance(arguments[0], (str, bytes)) else "something else"
    raise _refused(path, f"asks for {name} of {shown(what[:200])}")


def _build(target: Any, state: tuple[Any, ...]) -> None:
    """ndarray.__setstate__: version, shape, dtype, whether in Fortran's order, bytes."""
    if isinstance(target, _Dtype):
        return  # byte order and alignment, of which a byte has none
    _, shape, dtype, fortran, data = state
    _expect(dtype, _Dtype)
    sizes = [_expect(size, int) for size in _expect(shape, tuple)]
    if min(sizes, default=-1) < 0 or len(sizes) > 4 or math.prod(sizes) != len(_expect(data, bytes)):
        raise ValueError(f"an array of shape {sizes} in {len(data)} bytes")
    array = _expect(target, _Array)
    array.shape, array.fortran, array.data = tuple(sizes), bool(fortran), data


def _expect(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value)}, not {kind}")
    return value


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _refused(path: str, what: str) -> TrainingError:
    return TrainingError(
        f"{path}: {what}",
        "Of a pickle only dicts, lists, texts, numbers and numpy arrays of bytes are read, as CIFAR's hold; nothing "
        "in it was run. Get the archive from www.cs.toronto.edu/~kriz/cifar.html.",
    )
