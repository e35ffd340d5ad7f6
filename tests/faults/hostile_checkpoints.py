"""Checkpoints that would run code, fill the memory or never end, each in every file that can hold it."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.hostile_arrays import described, entry, tar_of
from tests.faults.hostile_data import Case, Member, stored, written, zeros, zip_of

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of PyTorch before 1.6


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle's REDUCE of a global with arguments that are pickled already."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def payloads(canary: Path) -> dict[str, bytes]:
    """Pickles that make a file when they are unpickled, each by another way."""
    shell, code = f"touch '{canary}'", f"open({str(canary)!r}, 'w')"
    system, given = b"cos\nsystem\n", text(shell)
    partial = b"cfunctools\npartial\n"
    opened = called("builtins", "open", text(str(canary)), text("w"))
    return {
        "REDUCE": b"\x80\x02" + called("os", "system", text(shell)) + b".",
        "REDUCE of eval": b"\x80\x02" + called("builtins", "eval", text(code)) + b".",
        "REDUCE of Python 2's name": b"\x80\x02" + called("__builtin__", "eval", text(code)) + b".",
        "REDUCE of a dotted name": b"\x80\x04" + text("os") + text("path.os.system") + b"\x93" + given + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + text("posix") + text("system") + b"\x93" + text(shell) + b"\x85R.",
        "INST": b"(" + text(shell) + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(shell) + b"o.",
        "NEWOBJ": b"\x80\x02" + partial + b"(" + system + given + b"t\x81)R.",
        "NEWOBJ_EX": b"\x80\x04" + partial + b"(" + system + given + b"t}\x92)R.",
        "BUILD": b"\x80\x02" + partial + system + b"\x85\x81(" + system + given + b"\x85}Ntb)R.",
        "a dict's key": b"\x80\x02}" + opened + b"K\x01s.",
        "a value deep inside": b"\x80\x02}" + text("a") + b"}" + text("b") + b"]" + opened + b"ass.",
        "after weights": b"\x80\x02ccollections\nOrderedDict\n)R" + text("w") + opened + b"s.",
        "in a parameter's hooks": b"\x80\x02ctorch._utils\n_rebuild_parameter\n(" + opened + b"\x89NtR.",
        "state of an OrderedDict": b"\x80\x02ccollections\nOrderedDict\n)R}" + text("x") + opened + b"sb.",
    }  # fmt: skip


# What only PyTorch's own functions would do with it, or another reader's persistent names.
MORE = {
    "bytes that are loaded again": called("torch.storage", "_load_from_bytes", b"C\x05hello"),
    "a hub": called("torch.hub", "load", text("owner/repository"), text("model")),
    "a program": called("torch.jit", "load", text("/etc/passwd")),
    "a file": called("numpy", "load", text("/etc/passwd")),
    "another type's function": called("torch._tensor", "_rebuild_from_type_v2", b"cbuiltins\nbytearray\n", b"N",
                                      b"\x8a\x06\0\0\0\0\0\1\x85", b"}"),
    "a persistent name": b"Pmodule\n",
    "a persistent tuple": b"(" + text("module") + text("os") + text("/etc/passwd") + text("x") + b"tQ",
    "an extension": b"\x82\x01",
    "a bytearray of a terabyte": called("builtins", "bytearray", b"\x8a\x06\0\0\0\0\0\1"),
    "a set of tuples in tuples": b"K\x01\x85q\0" + b"h\0h\0\x86q\0" * 64 + b"q\1cbuiltins\nset\n]h\1a\x85R",
    "a Counter of tuples in tuples": b"K\x01\x85q\0" + b"h\0h\0\x86q\0" * 64 + b"q\1ccollections\nCounter\n]h\1a\x85R",
    "an OrderedDict of tuples in tuples": b"K\x01\x85q\0" + b"h\0h\0\x86q\0" * 64
    + b"q\1ccollections\nOrderedDict\n]]h\1aK\x01aa\x85R",
    "a tensor of any size": b"ctorch\nFloatTensor\n\x8a\x05\0\0\0\0\1\x85\x81",
    "a storage of any size": called("torch", "FloatStorage", b"\x8a\x05\0\0\0\0\1"),
    "numpy's type of two gigabytes": called("numpy", "dtype", text("V2147483647")) + b"q\0"
    + called("numpy._core.multiarray", "scalar", b"h\0") * 3,
    "a key of tuples in tuples": b"}K\x01\x85q\0" + b"h\0h\0\x86q\0" * 64 + b"K\x01s",
    "dicts in dicts": b"}q\0" + text("x") + b"K\1s" + b"".join(
        b"}q%c(" % (k + 1) + b"".join(text(f"{n}") + b"h%c" % k for n in range(100)) + b"u" for k in range(5)),
    "a text of four gigabytes": b"\x8d" + struct.pack("<Q", 1 << 32) + b"x",
    "a text of exabytes": b"\x8d" + struct.pack("<Q", 1 << 62) + b"x",
    "bytes of exabytes": b"\x8e" + struct.pack("<Q", 1 << 62) + b"x",
    "a number of two gigabytes": b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x",
    "a number of minus a byte": b"\x8b" + struct.pack("<i", -1) + b"x",
    "a memo of four billion": b"}r\xff\xff\xff\xff",
    "a frame of exabytes": b"\x95" + struct.pack("<Q", 1 << 62) + b"}",
    "a hundred thousand lists in lists": b"]" * 100_000 + b"a" * 99_999,
    "a hundred thousand tuples in tuples": b")" + b"\x85" * 100_000,
    "a number of thousands of digits": b"I" + b"9" * 100_000 + b"\n",
    "marks without end": b"(" * 100_000,
    "nothing": b"",
}  # fmt: skip


def in_zip(data: bytes, *members: Member, name: str = "archive") -> bytes:
    return zip_of(
        stored(f"{name}/data.pkl".encode(), data), stored(f"{name}/byteorder".encode(), b"little"), *members,
        stored(f"{name}/version".encode(), b"3\n"),
    )  # fmt: skip


def in_stream(data: bytes, after: bytes = b"\x80\x02].") -> bytes:
    return MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2) + data + after


def in_tar(data: bytes) -> bytes:
    return tar_of(entry("pickle", data), entry("tensors", pickle.dumps(0, 2)), entry("storages", pickle.dumps(0, 2)))


HOLDERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": in_zip, "stream": in_stream, "tar": in_tar, "bare": lambda data: data}  # fmt: skip


# Tensors that are not there -----------------------------------------------------------------------------------------


def tensor(
    count: int = 4,
    size: tuple[int, ...] = (2, 2),
    stride: tuple[int, ...] = (2, 1),
    offset: int = 0,
    key: str = "0",
    kind: str = "FloatStorage",
) -> bytes:
    """The pickle of ``{"w": tensor}`` with these claims."""

    def numbers(*values: int) -> bytes:
        return b"(" + b"".join(pickle.dumps(v, 2)[2:-1] for v in values) + b"t"

    storage = (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + numbers(count)[1:-1] + b"tQ"
    )
    rebuilt = storage + numbers(offset)[1:-1] + numbers(*size) + numbers(*stride) + b"\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + rebuilt + b"tRs."


NUMBERS = stored(b"archive/data/0", np.zeros(4, np.float32).tobytes())
LIES, BOMB = "torch file whose tensors are not there", "torch file that unpacks to gigabytes"


def torch_zip(data: bytes, *members: Member) -> Callable[[Path], Path]:
    return written("weights.pth", lambda: in_zip(data, *(members or (NUMBERS,))))


def torch_stream(data: bytes, after: bytes) -> Callable[[Path], Path]:
    return written("weights.pth", lambda: in_stream(data, after))


KEYS = b"\x80\x02]" + text("0") + b"a."
HUGE = 1 << 40
TORCH = (
    Case(BOMB, torch_zip(tensor(), Member(b"archive/data/0", zeros(3072), 8, 3 << 30)), "is compressed"),
    Case(BOMB, torch_zip(tensor(), Member(b"archive/data/0", zeros(64), 0, 64 << 20)), "is compressed"),
    Case(BOMB, written("x.pth", lambda: zip_of(Member(b"archive/data.pkl", zeros(3072), 8, 3 << 30))), "compressed"),
    Case(BOMB, torch_zip(tensor(), *(stored(f"archive/data/{k}".encode(), bytes(9999), offset=0) for k in range(9)),
                         NUMBERS), "twice"),
    Case(BOMB, torch_zip(tensor(1, (1 << 12, 1 << 12, 1 << 8), (0, 0, 0))), "repeats its numbers"),
    Case(LIES, torch_zip(tensor(count=5)), "promises 20 bytes of storage '0' and holds 16"),
    Case(LIES, torch_zip(tensor(count=HUGE)), "promises 4,398,046,511,104 bytes"),
    Case(LIES, torch_zip(tensor(count=-4)), "promises -4 numbers"),
    Case(LIES, torch_zip(tensor(size=(2, 3))), "has a tensor of shape [2, 3]"),
    Case(LIES, torch_zip(tensor(offset=1)), "has a tensor of shape [2, 2]"),
    Case(LIES, torch_zip(tensor(offset=-1)), "has a tensor of shape [2, 2] at -1"),
    Case(LIES, torch_zip(tensor(stride=(-2, -1))), "has a tensor of shape [2, 2]"),
    Case(LIES, torch_zip(tensor(size=(-2, -2))), "has a tensor of shape [-2, -2]"),
    Case(LIES, torch_zip(tensor(stride=(HUGE, 1))), "has a tensor of shape [2, 2]"),
    Case(LIES, torch_zip(tensor(size=(1 << 62, 4))), "has a tensor of shape"),
    Case(LIES, torch_zip(tensor(size=(1 << 31, 1 << 33, 1 << 62), stride=(0, 0, 0))), "has a tensor of shape"),
    Case(LIES, torch_zip(tensor(size=(0, 1 << 80), stride=(1, 1))), "weights.pth"),
    Case(LIES, torch_zip(tensor(size=(1,) * 5000, stride=(1,) * 5000)), "weights.pth"),
    Case(LIES, torch_zip(tensor(size=(2, 2), stride=(1,))), "weights.pth"),
    Case(LIES, torch_zip(tensor(key="1")), "archive/data/1"),
    Case(LIES, torch_zip(tensor(key="../../../etc/passwd")), "etc/passwd"),
    Case(LIES, torch_zip(tensor(kind="QInt8Storage")), "torch.QInt8Storage"),
    Case(LIES, torch_zip(tensor(), NUMBERS, NUMBERS), "twice"),
    Case(LIES, torch_zip(tensor(), Member(b"archive/data/0", bytes(16), crc=1)), "Bad CRC-32"),
    Case(LIES, written("weights.pth", lambda: zip_of(stored(b"a/data.pkl", tensor()), stored(b"a/byteorder", b"big"))),
         "big-endian"),
    Case(LIES, written("weights.pth", lambda: zip_of(stored(b"a/b/c.pkl", tensor()))), "has no data.pkl"),
    Case(LIES, torch_stream(tensor(), KEYS + struct.pack("<q", 4) + bytes(16)), None),
    Case(LIES, torch_stream(tensor(count=HUGE), KEYS + struct.pack("<q", HUGE) + bytes(16)), "more numbers than"),
    Case(LIES, torch_stream(tensor(), KEYS + struct.pack("<q", HUGE) + bytes(16)), "another number of bytes"),
    Case(LIES, torch_stream(tensor(), KEYS + struct.pack("<q", 4) + bytes(15)), "ends early"),
    Case(LIES, torch_stream(tensor(), b"\x80\x02]."), "lacks the numbers of storage '0'"),
    Case(LIES, torch_stream(tensor(), KEYS[:-1] + text("1") + b"a."), "weights.pth"),
)  # fmt: skip


# safetensors --------------------------------------------------------------------------------------------------------


def safetensors_of(header: object, data: bytes = b"", length: int | None = None) -> Callable[[Path], Path]:
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    return written("x.safetensors", struct.pack("<Q", len(told) if length is None else length) + told + data)


def of(dtype: str = "F32", shape: object = (2, 2), offsets: object = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ROW = "safetensors with a header that lies"
SAFETENSORS = (
    Case(ROW, safetensors_of({"w": of()}, bytes(16), length=1 << 60), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of()}, bytes(16), length=(1 << 64) - 1), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of()}, bytes(16), length=5000), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(), "v": of()}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(), "v": of(offsets=(8, 24))}, bytes(24)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(offsets=(0, 1 << 60))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(offsets=(-16, 0))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(offsets=(16, 0))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(offsets=(0,))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(offsets=(16, 32))}, bytes(32)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of()}, bytes(99)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(shape=(1 << 32, 1 << 32))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(shape=(1 << 63, 2), offsets=(0, 0))}), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(shape=(-2, -2))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(shape=(0, 1 << 62), offsets=(0, 0))}), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(dtype="F31")}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(dtype="F4", shape=(32,))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of({"w": of(dtype="F8_E8M0", shape=(16,))}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of(b"[" * 1_000_000), "x.safetensors"),
    Case(ROW, safetensors_of(b'{"__metadata__":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"), "x.safetensors"),
    Case(ROW, safetensors_of({"__metadata__": {"run": 3}}), "x.safetensors"),
    Case(ROW, safetensors_of({"__metadata__": {"run": "[" * 1_000_000}}), "x.safetensors"),
    Case(ROW, safetensors_of({"__metadata__": {"run": '{"channels":1,"class_names":[],"kimg":' + "9" * 9000
                                               + ',"recipe":{"name":"mlp_28"}}'}}), "x.safetensors"),
    Case(ROW, safetensors_of({f"w{k}": of(offsets=(0, 16)) for k in range(20_000)}, bytes(16)), "x.safetensors"),
    Case(ROW, safetensors_of(b"\xff\xfe{}"), "x.safetensors"),
    Case(ROW, written("x.safetensors", b""), "x.safetensors"),
    Case(ROW, written("x.safetensors", b"\x02\0\0"), "x.safetensors"),
)  # fmt: skip


def torch_bytes(value: Any, **options: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def npz_of_pickles(data: bytes) -> bytes:
    """An object array whose bytes are this pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", described("'|O'", "(1,)", data))
    return buffer.getvalue()
