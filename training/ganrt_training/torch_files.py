"""PyTorch's checkpoints, which nobody vouches for, as data: read without unpickling, in time and memory that the file
itself bounds.

``torch.load(weights_only=True)`` calls no code of the file's, but it believes the file: it unpacks what is compressed
to gigabytes, makes tensors of more numbers than a record holds, calls constructors with any size, and hashes keys
of nested tuples for ever. Here the few opcodes that weights are written with are interpreted; nothing is imported, and
what is made is made of bytes that are there.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

from ganrt_training.readers.pickles import Global, Machine

_MAGIC = 0x1950A86A20F9469CFC6C  # of files of PyTorch before 1.6
_PROTOCOL = 1001
_MAX_REPEATED = 1 << 26  # bytes of a tensor that says the same numbers again and again
_MAX_AXES = 64
_MAX_KEY = 100  # parts of a tuple that is a key
_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
_STORAGES = {
    f"{module}.{kind}Storage": dtype
    for kind, dtype in _DTYPES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}
_ELEMENTS = {
    f"torch.{name}": dtype
    for name in (*(str(dtype).removeprefix("torch.") for dtype in _DTYPES.values()), "float8_e4m3fn", "float8_e5m2")
    if (dtype := getattr(torch, name))
}
# What checkpoints hold besides tensors that is mere data: arguments of a script, numpy's numbers. None is looked at.
_HARMLESS = {
    *("argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("torch.Size", "torch.device", "torch.serialization._get_layout", "_codecs.encode", "builtins.complex"),
}
_REBUILT = {
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"),
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter"),
}
_HELD = {"collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.bytearray"}
_KNOWN = {*_STORAGES, *_ELEMENTS, *_HARMLESS, *_REBUILT, *_HELD}


class Refused(Exception):
    """A file that is none of weights and plain values; the text says what it asks for."""


class TorchScript(Refused):
    """A program, not weights."""


class Damaged(Exception):
    """A file that is cut, changed or something else; the text says what is wrong."""


@dataclass(frozen=True)
class Opaque:
    """Stands in for a value that is not looked at."""

    name: str


@dataclass
class _Storage:
    """The numbers of tensors."""

    dtype: torch.dtype
    bytes: torch.UntypedStorage


def read_checkpoint(path: Path) -> Any:
    """What ``torch.save`` wrote, in any version since 0.4: tensors, on the CPU, and plain values in dicts and lists.

    What scripts commonly save besides is :class:`Opaque`. Raises Refused for a file that asks for anything else, and
    Damaged for one that is broken; OSError.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            size = file.seek(0, 2)
            file.seek(0)
            return _of_zip(file, size) if start == b"PK\x03\x04" else _of_stream(_Bounded(file, size), size)
    except (Refused, Damaged, OSError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Damaged(str(error)) from error
    except (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise Damaged(f"{type(error).__name__}: {str(error).partition(chr(10))[0]:.200}") from error


def _of_zip(file: IO[bytes], size: int) -> Any:
    """``<name>/data.pkl``, and a member ``<name>/data/<key>`` for each storage, none of them compressed."""
    with zipfile.ZipFile(file) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        names = {name.partition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise TorchScript
        for member in archive.infolist():
            if member.filename in members:
                raise Damaged(f"holds {member.filename!r:.80} twice")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise Damaged(f"its {member.filename!r:.80} is compressed, as torch.save does not")
            members[member.filename] = member
        if sum(member.file_size for member in members.values()) > size:
            raise Damaged("its members overlap")
        root = next((name.removesuffix("data.pkl") for name in members if name.partition("/")[2] == "data.pkl"), None)
        if root is None:
            raise Damaged("is none of PyTorch's files: it has no data.pkl")
        if f"{root}byteorder" in members and archive.read(members[f"{root}byteorder"]) != b"little":
            raise Damaged("its numbers are in big-endian order")

        def storage(key: str, count: int) -> torch.UntypedStorage:
            data = bytearray(archive.read(members[f"{root}data/{key}"]))
            if len(data) < count:
                raise Damaged(f"promises {count:,} bytes of storage {key!r:.40} and holds {len(data):,}")
            return _filled(data)

        with archive.open(members[f"{root}data.pkl"]) as data:
            return _Machine(storage).run(data)


class _Bounded:
    """A file, of which no more is asked than there is: Python makes room for what is asked."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise Damaged("ends early")
        return self._file.read(count)


def _of_stream(file: Any, size: int) -> Any:
    """Before PyTorch 1.6: three pickles of what it is, one of the object, one of the storages' keys, the storages."""
    asked: dict[str, torch.UntypedStorage] = {}
    left = size

    def storage(key: str, count: int) -> torch.UntypedStorage:
        nonlocal left
        left -= count
        if not left >= 0:
            raise Damaged("promises more numbers than it has bytes")
        asked[key] = torch.UntypedStorage(count)
        return asked[key]

    def none(key: str, count: int) -> torch.UntypedStorage:
        raise Damaged("has a tensor where none belongs")

    if _Machine(none).run(file) != _MAGIC or _Machine(none).run(file) != _PROTOCOL:
        raise Damaged("is none of PyTorch's files")
    _Machine(none).run(file)  # of the system that wrote it
    machine = _Machine(storage)
    found = machine.run(file)
    for key in _expect(_Machine(none).run(file), list):
        into, dtype = asked.pop(_expect(key, str)), machine.storages[key].dtype
        count = int.from_bytes(file.read(8), "little") * dtype.itemsize
        if count != into.nbytes():
            raise Damaged(f"has another number of bytes for storage {key!r:.40} than it says")
        if count:
            into.copy_(_filled(bytearray(file.read(count))))
    if asked:
        raise Damaged(f"lacks the numbers of storage {next(iter(asked))!r:.40}")
    return found


def _filled(data: bytearray) -> torch.UntypedStorage:
    return torch.frombuffer(data, dtype=torch.uint8).untyped_storage() if data else torch.UntypedStorage(0)


class _Machine(Machine):
    """``storage(key, bytes)`` gives the numbers of tensors, at least so many."""

    also: ClassVar = frozenset({"BINFLOAT", "EMPTY_SET", "BINPERSID", "NEWOBJ"})

    def __init__(self, storage: Callable[[str, int], torch.UntypedStorage]) -> None:
        self._give = storage
        self.storages: dict[str, _Storage] = {}

    def refused(self, opcode: str, argument: Any) -> Exception:
        return Refused(f"pickle's {opcode}{f' {argument!r:.80}' if argument is not None else ''}")

    def known(self, name: str) -> str:
        if name not in _KNOWN:
            raise Refused(name)
        return name

    def spelled(self, name: str) -> str:
        return name.replace("__builtin__.", "builtins.")

    def old_text(self, data: bytes) -> str | bytes:
        return data.decode()

    def called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        return _made(name, arguments)

    def build(self, target: Any, state: Any) -> None:
        if not isinstance(target, (Opaque, OrderedDict, Tensor)):
            raise Refused(f"BUILD of {_named(target)}")

    def fill(self, target: Any, items: Iterable[tuple[Any, Any]]) -> None:
        _fill(_expect(target, (dict, Opaque)), items)

    def expect(self, value: Any, kind: type | tuple[type, ...]) -> Any:
        return _expect(value, kind)

    def persistent(self, told: tuple[Any, ...]) -> _Storage:
        kind, type_, key, _, count, *view = told
        if kind != "storage" or not isinstance(type_, Global):
            raise Refused(f"an object by the name {kind!r:.40}")
        if type_.name not in _STORAGES:
            raise Refused(type_.name)
        if any(view):
            raise Damaged("has storages within storages, as PyTorch 0.3 had")
        dtype, key, count = _STORAGES[type_.name], _expect(key, str), _expect(count, int)
        if count < 0:
            raise Damaged(f"promises {count} numbers")
        if key not in self.storages:
            self.storages[key] = _Storage(dtype, self._give(key, count * dtype.itemsize))
        return _Storage(dtype, self.storages[key].bytes)


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call would make, where it is one of those that weights need."""
    if name == "collections.OrderedDict":
        made: OrderedDict[Any, Any] = OrderedDict()
        for pairs in arguments:
            _fill(made, [(key, value) for key, value in _expect(pairs, list)])
        return made
    if name in _HARMLESS or name in _HELD:
        return Opaque(name)
    if name not in _REBUILT:
        raise Refused(name)
    if name.endswith(("_rebuild_tensor", "_rebuild_tensor_v2")):
        storage, offset, size, stride = arguments[:4]
        return _tensor(_expect(storage, _Storage), storage.dtype, offset, size, stride)
    if name.endswith("_rebuild_tensor_v3"):
        storage, offset, size, stride, _, _, dtype = arguments[:7]
        return _tensor(_expect(storage, _Storage), _ELEMENTS[dtype.name], offset, size, stride)
    return _expect(arguments[0], Tensor)


def _tensor(storage: _Storage, dtype: torch.dtype, offset: Any, size: Any, stride: Any) -> Tensor:
    sizes, strides = (tuple(_expect(number, int) for number in _expect(v, tuple)) for v in (size, stride))
    last = _expect(offset, int) + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if len(sizes) > _MAX_AXES:
        raise Damaged(f"has a tensor of {len(sizes):,} axes")
    if min((offset, *sizes, *strides)) < 0:
        raise Damaged(f"has a tensor of shape {list(sizes)!r:.60} at {offset}")
    if 0 not in sizes and (last + 1) * dtype.itemsize > storage.bytes.nbytes():
        raise Damaged(f"has a tensor of shape {list(sizes)!r:.60} in {storage.bytes.nbytes():,} bytes")
    if math.prod(sizes) * dtype.itemsize > max(_MAX_REPEATED, storage.bytes.nbytes()):
        raise Damaged(f"has a tensor of shape {list(sizes)!r:.60} that repeats its numbers")
    return torch.empty(0, dtype=dtype).set_(storage.bytes, offset, sizes, strides)


def _fill(target: Any, items: Any) -> None:
    for key, value in items:
        if _parts(key) > _MAX_KEY:
            raise Damaged("has a key of tuples in tuples")
        if isinstance(target, dict):
            target[key] = value


def _parts(value: Any) -> int:
    """How many parts a key has, nested ones too; counted up to the limit."""
    count, left = 0, [value]
    while left and count <= _MAX_KEY:
        count += 1
        if isinstance(item := left.pop(), tuple):
            left += item[: _MAX_KEY + 1]
    return count


def _expect(value: Any, kind: type | tuple[type, ...]) -> Any:
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    if isinstance(value, Global):
        raise Refused(value.name)
    raise TypeError(f"{_named(value)} where {kind} belongs")


def _named(value: Any) -> str:
    return value.name if isinstance(value, (Global, Opaque)) else type(value).__name__
