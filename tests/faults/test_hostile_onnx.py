"""Somebody's ONNX files that point elsewhere, promise what they do not hold, or never end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.faults.confined import confined
from tests.faults.conftest import Tally
from tests.faults.reading import onnx_file
from tests.faults.test_hostile_data import told

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


def model(*nodes: Any) -> onnx.ModelProto:
    weights = [
        numpy_helper.from_array(np.ones((4, 192), np.float32), "w"),
        numpy_helper.from_array(np.array([-1, 3, 8, 8]), "shape"),
    ]
    usual = [helper.make_node("MatMul", ["z", "w"], ["m"]), helper.make_node("Reshape", ["m", "shape"], ["y"])]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 8, 8])
    graph = helper.make_graph([*(nodes or usual)], "g", [z], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def external(location: str, length: int = 3072, offset: int = 0) -> bytes:
    made = model()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(made.SerializeToString())


def lying(*dims: int) -> bytes:
    made = model()
    tensor = made.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    tensor.raw_data = bytes(16)
    return bytes(made.SerializeToString())


def chain() -> bytes:
    names = ["z", *(f"t{k}" for k in range(30_000)), "y"]
    nodes = [helper.make_node("Erf", [a], [b]) for a, b in pairwise(names)]
    return bytes(model(*nodes).SerializeToString())


ELSEWHERE, LIES = "ONNX file that points elsewhere", "ONNX file that is broken or never ends"
CASES: dict[str, tuple[str, Callable[[], bytes], str | None]] = {
    "weights beside it": (ELSEWHERE, lambda: external("x.bin"), None),
    "an absolute path": (ELSEWHERE, lambda: external("/etc/passwd", 100), "x.onnx"),
    "a path that leads out": (ELSEWHERE, lambda: external("../../../../../etc/passwd", 100), "x.onnx"),
    "a link": (ELSEWHERE, lambda: external("link.bin", 100), "x.onnx"),
    "a pipe": (ELSEWHERE, lambda: external("pipe", 100), "x.onnx"),
    "nothing": (ELSEWHERE, lambda: external("gone.bin"), "x.onnx"),
    "exabytes": (LIES, lambda: external("x.bin", 1 << 60), "x.onnx"),
    "a length below zero": (LIES, lambda: external("x.bin", -5), "x.onnx"),
    "an offset beyond the end": (LIES, lambda: external("x.bin", 100, 1 << 60), "x.onnx"),
    "a vast tensor": (LIES, lambda: lying(1 << 31, 1 << 31), "x.onnx"),
    "a tensor below zero": (LIES, lambda: lying(-4, -4), "x.onnx"),
    "a circle": (LIES, lambda: bytes(model(helper.make_node("Identity", ["y"], ["x"]),
                                           helper.make_node("Identity", ["x"], ["y"])).SerializeToString()), "x.onnx"),
    "thirty thousand nodes": (LIES, chain, "30,001 nodes"),
    "no bytes": (LIES, lambda: b"", "x.onnx"),
    "zeros": (LIES, lambda: bytes(1000), "x.onnx"),
    "a field of two gigabytes": (LIES, lambda: b"\x3a\xff\xff\xff\x7f", "x.onnx"),
}  # fmt: skip


@pytest.mark.faults
def test_files_of_onnx(tally: Tally, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(np.ones(768, np.float32).tobytes())
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "x.onnx"
    with confined("tests.faults.reading", "onnxruntime", "ganrt_training.onnx_source") as run:
        for what, (row, data, says) in CASES.items():
            path.write_bytes(data())
            told(tally, row, what, run(onnx_file, path).complaint(says, says and str(path)))
