"""Generators that need much more memory than their files are large, and children with little of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.models import tiny_proto, tiny_translator_proto


def hungry_model_file(folder: Path, copies: int) -> Path:
    """A generator of 8x8 RGB that holds so many copies of each sample's 192 numbers at a time."""
    proto: onnx.ModelProto = tiny_proto(name="hungry")
    _with_copies(proto, "Reshape", copies, 2)
    return _written(folder, proto)


def hungry_translator_file(folder: Path, copies: int) -> Path:
    """The same of images to images of any size."""
    proto: onnx.ModelProto = tiny_translator_proto(name="hungry", dynamic=True)
    _with_copies(proto, "Resize", copies, 4)
    return _written(folder, proto)


def _with_copies(proto: onnx.ModelProto, before: str, copies: int, rank: int) -> None:
    at, node = next((k, n) for k, n in enumerate(proto.graph.node) if n.op_type == before)
    many = [
        helper.make_node("Unsqueeze", [node.input[0], "many/axis"], ["many/one"]),
        helper.make_node("Mul", ["many/one", "many/ones"], ["many/all"]),
        helper.make_node("ReduceMean", ["many/all", "many/axis"], ["many/mean"], keepdims=0),
    ]
    for number, each in enumerate(many):
        proto.graph.node.insert(at + number, each)
    node.input[0] = "many/mean"
    shape = [1, copies] + [1] * (rank - 1)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "many/ones"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "many/axis"))


def _written(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "hungry.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


# The command line with so many MiB of address space beside what is mapped when all is imported.
LITTLE = """
import resource, sys
import ganrt.cli, ganrt.generation, ganrt.translation, ganrt.translation_commands, ganrt.console
import onnxruntime, PIL.PngImagePlugin
[size] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")]
limit = (size << 10) + (int(sys.argv.pop(1)) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
ganrt.cli.main()
"""


def with_little(mebibytes: int, words: list[str]) -> list[str]:
    """A command, as ``python -m ganrt …``, with little memory."""
    return [sys.executable, "-c", LITTLE, str(mebibytes), *words[3:]]
