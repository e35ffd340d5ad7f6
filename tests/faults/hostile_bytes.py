"""Hostile models whose bytes are wrong: damaged files, other files, protobuf made to deceive, weights elsewhere."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import zipfile
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.faults.hostile import DAMAGED, EXTERNAL, FOREIGN, NOT_FINITE, PROTOBUF, WEIGHTS, Hostile, changed, weight
from tests.models import tiny_model, tiny_proto


def hostile_bytes() -> Iterator[Hostile]:
    """All of them."""
    yield from _damaged()
    yield from _foreign()
    yield from _protobuf()
    yield from _external()
    yield from _weights()


def _contract(name: str, row: str, data: bytes, words: str) -> Hostile:
    return Hostile(name, row, data, "ContractError", words)


def _damaged() -> Iterator[Hostile]:
    good = tiny_model()
    yield _contract("empty", DAMAGED, b"", "is empty")
    yield _contract("one-byte", DAMAGED, good[:1], "cannot be read as an ONNX model")
    for part in (10, 25, 50, 75, 99):
        yield _contract(f"cut-{part}", DAMAGED, good[: len(good) * part // 100], "cannot be read as an ONNX model")
    yield _contract("cut-before-the-last-byte", DAMAGED, good[:-1], "cannot be read as an ONNX model")
    yield _contract("zeros", DAMAGED, bytes(len(good)), "has a field with the number 0")
    yield _contract("zeros-at-the-end", DAMAGED, good[: len(good) // 2] + bytes(len(good) // 2), "be")
    yield _contract("noise", DAMAGED, random.Random(0).randbytes(5000), "cannot be read as an ONNX model")
    for bit in (3, 7):
        flipped = bytearray(good)
        flipped[good.index(b"tiny")] ^= 1 << bit
        yield _contract(f"graph-name-bit-{bit}", DAMAGED, bytes(flipped[:-40]), "cannot be read as an ONNX model")
    length = bytearray(good)
    length[good.index(b"\x3a") + 1] ^= 0x40  # of the graph
    yield _contract("length-of-the-graph", DAMAGED, bytes(length), "cannot be read as an ONNX model")
    yield _contract("twice-in-one-file", DAMAGED, good + good, "stands 2 times, not once")


def _zipped(*names: str, size: int = 1) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, bytes(size))
    return buffer.getvalue()


class _Runs:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.system, ("touch unpickled",)


def _foreign() -> Iterator[Hostile]:
    yield _contract("zip", FOREIGN, _zipped("generator.onnx"), "a zip archive")
    yield _contract("zip-bomb", FOREIGN, _zipped("generator.onnx", size=50 << 20), "a zip archive")
    yield _contract("gzip", FOREIGN, gzip.compress(tiny_model()), "a gzip archive")
    yield _contract("gzip-bomb", FOREIGN, gzip.compress(bytes(50 << 20)), "a gzip archive")
    yield _contract("pickle-that-runs", FOREIGN, pickle.dumps(_Runs()), "a Python pickle")
    yield _contract("pickle-text", FOREIGN, b"cposix\nsystem\n(S'touch unpickled'\ntR.", "a text file")
    yield _contract("torch", FOREIGN, _zipped("archive/data.pkl", "archive/version"), "a PyTorch checkpoint")
    yield _contract("keras", FOREIGN, _zipped("metadata.json", "model.weights.h5"), "a Keras model")
    yield _contract("html", FOREIGN, b"<!DOCTYPE html><html>404 Not Found</html>", "a web page")
    yield _contract("png", FOREIGN, b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image")
    yield _contract("ort", FOREIGN, b"\x18\0\0\0ORTM" + bytes(100), "ONNX Runtime's own format")
    yield _contract("ort-behind-protobuf", FOREIGN, b"\x08\x08\0\0ORTM" + bytes(100), "ONNX Runtime's own format")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7400000\n"
    yield _contract("git-lfs-pointer", FOREIGN, pointer, "a Git LFS pointer")
    yield _contract("safetensors", FOREIGN, b"\x40" + bytes(7) + b'{"__metadata__":{}}', "a safetensors file")
    yield _contract("shell-script", FOREIGN, b"#!/bin/sh\ntouch ran\n", "a text file")
    yield _contract("executable", FOREIGN, b"\x7fELF\x02\x01\x01" + bytes(200), "cannot be read as an ONNX model")


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _with_graph_bytes(change: bytes, *, good: bytes | None = None) -> bytes:
    """A good model, with raw bytes after the fields of its graph."""
    model = onnx.load_from_string(good or tiny_model())
    graph = model.graph.SerializeToString() + change
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + _field(7, graph)


def _protobuf() -> Iterator[Hostile]:
    good = tiny_model()
    node = helper.make_node("If", ["z"], ["w"]).SerializeToString()
    yield _contract("merged-graphs", PROTOBUF, good + _field(7, _field(1, node)), "stands 2 times, not once")
    yield _contract(
        "group", PROTOBUF, good + b"\x3b" + _field(1, node) + b"\x3c", "field 7 of the model has two wire types"
    )
    yield _contract("group-of-groups", PROTOBUF, good + b"\xfb\x3e" * 100_000, "wire type 3")
    yield _contract(
        "varint-of-eleven-bytes", PROTOBUF, good + b"\xf8\x3e" + b"\x80" * 10 + b"\x01", "more than 64 bits"
    )
    yield _contract("varint-too-large", PROTOBUF, good + b"\xf8\x3e" + b"\xff" * 9 + b"\x7f", "more than 64 bits")
    yield _contract("tag-too-large", PROTOBUF, good + b"\x80\x80\x80\x80\x10\x01", "has a field with the number")
    yield _contract("field-number-0", PROTOBUF, good + b"\x02\x00", "has a field with the number 0")
    yield _contract(
        "length-of-2-exabytes", PROTOBUF, good + b"\xfa\x3e" + b"\xff" * 8 + b"\x1f", "bytes and 0 are left"
    )
    yield _contract("a-million-fields", PROTOBUF, good + b"\xf8\x3e\x01" * 1_000_001, "more than 1,000,000 fields")
    for overlong in (b"\x0a", b"\x8a\x00", b"\x8a\x80\x80\x80\x00"):  # the same tag, in more bytes than it takes
        model = good + overlong + b"\x01x"
        yield _contract(f"wrong-wire-type-{len(overlong)}", PROTOBUF, model, "field 1 of the model has two wire types")
    packed = _field(5, _field(1, b"\x01" * 1_000_001) + b"\x10\x01")
    yield _contract("packed-dims", PROTOBUF, _with_graph_bytes(packed), "more than 1,000,000 fields")
    elements = _field(5, b"\x08\x01\x10\x07" + _field(7, b"\x00" * 1_100_000) + _field(8, b"v"))
    yield _contract("packed-elements", PROTOBUF, _with_graph_bytes(elements), "more than 1,000,000 fields")
    yield _contract("names-not-utf-8", PROTOBUF, _with_graph_bytes(_field(5, _field(8, b"\xff\xfe"))), "no UTF-8 text")
    surrogates = _with_graph_bytes(_field(5, _field(8, b"\xed\xa0\x80")))
    yield _contract("names-of-surrogates", PROTOBUF, surrogates, "no UTF-8 text")
    named = _with_graph_bytes(_field(1, _field(4, b"x" * (1 << 20))))
    yield _contract("operator-of-a-megabyte", PROTOBUF, named, "is a name of 1,048,576 bytes")
    twice = _with_graph_bytes(_field(1, _field(4, b"Identity") + _field(4, b"If")))
    yield _contract("operator-said-twice", PROTOBUF, twice, "stands 2 times, not once")
    many = b"".join(_field(14, _field(1, b"%d" % number)) for number in range(510_000))
    yield _contract("metadata-510,000-times", PROTOBUF, many + good, "more than 1,000,000 fields")
    empty = _field(14, b"") * 1_000_001
    yield _contract("metadata-a-million-times", PROTOBUF, good + empty, "more than 1,000,000 fields")
    deep = b""
    for _ in range(1000):
        deep = _field(1, _field(4, b"If") + _field(5, _field(1, b"then_branch") + _field(6, deep)))
    yield _contract("branches-1,000-deep", PROTOBUF, _with_graph_bytes(deep), "is 'If', which the contract refuses")
    types = b""
    for _ in range(5000):
        types = _field(4, _field(1, types))  # a sequence of sequences
    info = _field(12, _field(1, b"more") + _field(2, types))
    yield _contract("type-5,000-deep", PROTOBUF, _with_graph_bytes(info), "'more' no tensor of unknown shape")


def _outside(tensor: TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def _external() -> Iterator[Hostile]:
    words = "lies in another file; a model is one file"
    inside = {"weights.bin": bytes(8 * 192 * 4)}
    for name, location in (
        ("beside", "weights.bin"),
        ("absolute", "/etc/passwd"),
        ("above", "../../../../../../etc/passwd"),
        ("through-a-link", "link.bin"),
        ("memory-address", "*/_ORT_MEM_ADDR_/*"),
        ("empty-location", ""),
        ("device", "/dev/zero"),
    ):
        data = changed(lambda model, to=location: _outside(weight(model), to))  # type: ignore[misc]
        links = {"link.bin": "/etc/passwd"} if name == "through-a-link" else {}
        yield Hostile(f"external-{name}", EXTERNAL, data, "ContractError", words, beside=inside, links=links)
    for name, change in (
        ("flag-alone", lambda model: setattr(weight(model), "data_location", 1)),
        ("entry-alone", lambda model: weight(model).external_data.add(key="location", value="weights.bin")),
        ("unknown-flag", lambda model: setattr(weight(model), "data_location", 1)),
    ):
        yield Hostile(f"external-{name}", EXTERNAL, changed(change), "ContractError", words, beside=inside)
    tensor = numpy_helper.from_array(np.ones(3, np.float32))
    _outside(tensor, "/etc/passwd")
    for name, field in (("value", "t"), ("values", "tensors")):
        model = tiny_proto()
        node = model.graph.node.add(op_type="Constant", output=["c"])
        attribute = node.attribute.add(name=name)
        getattr(attribute, field).MergeFrom(tensor if field == "t" else [tensor])
        yield _contract(f"external-constant-{name}", EXTERNAL, bytes(model.SerializeToString()), words)


def _weights() -> Iterator[Hostile]:
    def broken(name: str, change: object, words: str) -> Hostile:
        return _contract(name, WEIGHTS, changed(lambda model: change(weight(model))), words)  # type: ignore[operator]

    yield broken("weights-dims-2-to-40", lambda t: t.dims.__setitem__(0, 1 << 40), "which no tensor has")
    yield broken("weights-dims-overflow", lambda t: t.dims.extend([1 << 31] * 2), "which no tensor has")
    yield broken("weights-dims-terabytes", lambda t: t.dims.__setitem__(0, 1 << 30), "bytes; it has 6,144")
    yield broken("weights-dims-wrap-around", lambda t: t.dims.extend([1 << 30, 1 << 30, 16]), "bytes; it has 6,144")
    yield broken("weights-dims-negative", lambda t: t.dims.__setitem__(0, -8), "which no tensor has")
    yield broken("weights-dims-zero", lambda t: t.dims.__setitem__(0, 0), "takes 0 bytes; it has 6,144")
    yield broken("weights-rank-1000", lambda t: t.dims.extend([1] * 1000), "which no tensor has")
    yield broken("weights-too-short", lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "it has 6,143")
    yield broken("weights-too-long", lambda t: setattr(t, "raw_data", t.raw_data + b"\0"), "it has 6,145")
    yield broken("weights-none", lambda t: t.ClearField("raw_data"), "takes 1,536 numbers; it has 0")
    yield broken("weights-in-two-places", lambda t: t.float_data.append(1), "in two places")
    yield broken("weights-in-segments", lambda t: t.segment.SetInParent(), "in pieces")
    yield broken("weights-strings", lambda t: setattr(t, "data_type", 8), "element type string")
    yield broken("weights-complex", lambda t: setattr(t, "data_type", 14), "has the element type")
    yield broken("weights-of-no-type", lambda t: setattr(t, "data_type", 0), "has the element type")
    yield broken("weights-of-type-2-to-30", lambda t: setattr(t, "data_type", 1 << 30), "has the element type")
    yield broken("weights-four-bits", lambda t: setattr(t, "data_type", 21), "has the element type")
    yield broken("weights-two-of-a-name", lambda t: setattr(t, "name", "bias"), "two initializers called 'bias'")
    sparse = changed(lambda model: model.graph.sparse_initializer.add())
    yield _contract("weights-sparse", WEIGHTS, sparse, "sparse initializers")
    for dtype, kind in (("float32", 1), ("float16", 10), ("float64", 11), ("bfloat16", 16)):
        for value in (np.nan, np.inf):
            numbers = np.array([1, value], np.float32).astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor = helper.make_tensor("more", kind, [2], numbers.tobytes(), raw=True)
            data = changed(lambda model, more=tensor: model.graph.initializer.append(more))  # type: ignore[misc]
            yield _contract(f"weights-{value}-{dtype}", NOT_FINITE, data, "numbers that are not finite")
    hidden = helper.make_node("Constant", [], ["c"], value=constant_nan())
    data = changed(lambda model: model.graph.node.insert(0, hidden))
    yield _contract("weights-nan-in-a-constant", NOT_FINITE, data, "numbers that are not finite")


def constant_nan() -> TensorProto:
    """A tensor of one NaN."""
    return numpy_helper.from_array(np.full(1, np.nan, np.float32))
