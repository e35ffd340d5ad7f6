"""Plain values out of pickles that nobody vouches for, without unpickling.

CIFAR's Python version is pickles. Here dicts, lists, texts, numbers and numpy arrays of bytes are read out of them; an
array is a tuple of shape and bytes until all is checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ganrt.errors import TrainingError
from ganrt_training.readers.pickles import Global, Machine
from ganrt_training.readers.source import MAX_FILE, Pixels, shown

_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_ARRAY = "numpy.ndarray"
_DTYPE = "numpy.dtype"


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
        value = _Machine(path).run(data)
    except (ValueError, IndexError, KeyError, TypeError, AssertionError) as error:
        raise TrainingError(f"{path}: a broken pickle", "Get the archive again from where it is kept.") from error
    if not isinstance(value, dict):
        raise _refused(path, f"holds a {type(value).__name__}, not a dict")
    return {_text(key): item.pixels() if isinstance(item, _Array) else item for key, item in value.items()}


class _Machine(Machine):
    """``path``: what errors call the pickle."""

    def __init__(self, path: str) -> None:
        self._path = path

    def refused(self, opcode: str, argument: Any) -> Exception:
        asked = "" if argument is None else f" {shown(str(argument)[:200])}"
        return _refused(self._path, f"asks for pickle's {opcode}{asked}")

    def known(self, name: str) -> str:
        if name not in (*_RECONSTRUCT, _ARRAY, _DTYPE):
            raise _refused(self._path, f"asks for {shown(name[:200])}")
        return name

    def called(self, name: str, arguments: tuple[Any, ...]) -> _Array | _Dtype:
        if name in _RECONSTRUCT and arguments[0] == Global(_ARRAY):
            return _Array()
        if name == _DTYPE and arguments[0] in ("u1", b"u1"):
            return _Dtype()
        what = _text(arguments[0]) if isinstance(arguments[0], (str, bytes)) else "something else"
        raise _refused(self._path, f"asks for {name} of {shown(what[:200])}")

    def build(self, target: Any, state: Any) -> None:
        """ndarray.__setstate__: version, shape, dtype, whether in Fortran's order, bytes."""
        self.expect(state, tuple)
        if isinstance(target, _Dtype):
            return  # byte order and alignment, of which a byte has none
        _, shape, dtype, fortran, data = state
        self.expect(dtype, _Dtype)
        sizes = [self.expect(size, int) for size in self.expect(shape, tuple)]
        if min(sizes, default=-1) < 0 or len(sizes) > 4 or math.prod(sizes) != len(self.expect(data, bytes)):
            raise ValueError(f"an array of shape {sizes} in {len(data)} bytes")
        array = self.expect(target, _Array)
        array.shape, array.fortran, array.data = tuple(sizes), bool(fortran), data

    def fill(self, target: Any, items: Iterable[tuple[Any, Any]]) -> None:
        self.expect(target, dict)
        for key, value in items:
            target[self.expect(key, (str, bytes))] = value


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _refused(path: str, what: str) -> TrainingError:
    return TrainingError(
        f"{path}: {what}",
        "Of a pickle only dicts, lists, texts, numbers and numpy arrays of bytes are read, as CIFAR's hold; nothing "
        "in it was run. Get the archive from www.cs.toronto.edu/~kriz/cifar.html.",
    )
