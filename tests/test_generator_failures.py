"""A generator in other processes, and what is raised when its file or its network is broken."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import ganrt
from tests.models import tiny_model, tiny_proto

Load = Callable[..., ganrt.Generator]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a model, tiny with the given options unless its bytes are given, and loads it."""

    def load(data: bytes | None = None, batch: int | None = None, **options: Any) -> ganrt.Generator:
        path = tmp_path / "tiny.onnx"
        path.write_bytes(tiny_model(**options) if data is None else data)
        return ganrt.load(path, device="cpu", batch=batch, threads=1)

    return load


def sample_in_child(generator: ganrt.Generator) -> tuple[NDArray[np.uint8], str, int]:
    return generator.sample(6, seed=5), generator.device, generator.batch


def test_a_generator_is_loaded_anew_in_another_process(load: Load) -> None:
    generator = load(batch=5)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        images, device, batch = processes.submit(sample_in_child, generator).result()
    assert np.array_equal(images, generator.sample(6, seed=5))
    assert (device, batch) == ("cpu", 5)


def test_a_pickle_of_a_session_or_of_a_replaced_file_is_refused(load: Load, tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_model(), providers=["CPUExecutionProvider"])
    with pytest.raises(ganrt.UsageError, match="made from a session cannot be pickled\nLoad it from its file instead"):
        pickle.dumps(ganrt.load(session))
    pickled = pickle.dumps(load())
    assert len(pickled) < 1000  # a specification, no weights
    load(seed=1)
    with pytest.raises(ganrt.ModelError, match=r"tiny\.onnx is not the file that the pickled .*\nLoad it again"):
        pickle.loads(pickled)
    (tmp_path / "tiny.onnx").unlink()
    with pytest.raises(ganrt.UnknownModel, match=r"there is no file .*tiny\.onnx"):
        pickle.loads(pickled)


def test_a_run_that_fails_says_what_onnx_runtime_said(load: Load) -> None:
    generator = load(table_rows=1)
    assert generator.sample(2, classes=["a"]).shape == (2, 8, 8, 3)
    with pytest.raises(ganrt.InferenceError, match=r"ONNX Runtime: .*Gather.*\nExport the generator again"):
        generator.sample(2)


def broken(change: Callable[[onnx.GraphProto], None]) -> bytes:
    model = tiny_proto()
    change(model.graph)
    return bytes(model.SerializeToString())


def constant(graph: onnx.GraphProto) -> None:
    for name in ("weight", "table"):
        [tensor] = [t for t in graph.initializer if t.name == name]
        tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), name))


def not_a_number(graph: onnx.GraphProto) -> None:
    [tanh] = [node for node in graph.node if node.op_type == "Tanh"]
    tanh.op_type = "Sqrt"  # of negative numbers, all of them
    [bias] = [t for t in graph.initializer if t.name == "bias"]
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, -1e6, np.float32), "bias"))


def one_class_overflows(graph: onnx.GraphProto) -> None:
    [table] = [t for t in graph.initializer if t.name == "table"]
    rows = numpy_helper.to_array(table).copy()
    rows[1] = 3e38
    table.CopyFrom(numpy_helper.from_array(rows, "table"))


@pytest.mark.parametrize(
    ("change", "name"),
    [(constant, "a"), (not_a_number, "a"), (one_class_overflows, "b")],
    ids=["constant", "nan", "one class"],
)
def test_a_generator_that_makes_one_image_of_a_class_only_is_an_error(load: Load, change: Any, name: str) -> None:
    with pytest.raises(
        ganrt.InferenceError, match=f"made 2[12] times the same image of class '{name}'\nIts weights are"
    ):
        load(broken(change)).sample(1)


def lying(graph: onnx.GraphProto) -> None:
    """The shape is chosen while it runs, so that nobody can see beforehand that it is not 8x8."""
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([-1, 4, 16, 3], np.int64), "other"),
            numpy_helper.from_array(np.array(1e30, np.float32), "much"),
        ]
    )
    [reshape] = [node for node in graph.node if node.op_type == "Reshape"]
    reshape.input[1] = "chosen"
    at = list(graph.node).index(reshape)
    for node in (
        helper.make_node("Where", ["large", "shape", "other"], ["chosen"]),
        helper.make_node("Greater", ["largest", "much"], ["large"]),
        helper.make_node("ReduceMax", ["z"], ["largest"], keepdims=0),
    ):
        graph.node.insert(at, node)


def test_images_of_another_shape_than_the_cards_are_an_error(load: Load) -> None:
    generator = load(broken(lying), batch=4)
    message = r"generator tiny made uint8 \[4, 4, 16, 3\], not uint8 \[4, 8, 8, 3\]\nIts card is wrong; export it again"
    with pytest.raises(ganrt.InferenceError, match=message):
        generator.sample(1)
    with pytest.raises(ganrt.InferenceError, match=message):
        generator(np.eye(4, 8), 0)


class Failing:
    """A session that fails as ONNX Runtime did on an H200."""

    def __init__(self, session: Any, said: str) -> None:
        self._session, self._said = session, said

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *_: Any) -> Any:
        raise RuntimeError(self._said)


_NODE = "Non-zero status code returned while running ConvTranspose node. Name:'conv' Status Message: "


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (
            _NODE + "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::"
            "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Available memory of 0 is smaller than requested "
            "bytes of 67108864",
            "a batch of 2 does not fit into memory",
            "Use a smaller batch (--batch), or fewer --workers.",
        ),
        (
            _NODE + "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0 ; hostname=vm ; file=/onnxruntime_src/x.cc",
            "cuDNN does not support a batch of 2",
            "Use a smaller batch (--batch), or fewer --workers.",
        ),
        (
            _NODE + "CUDA failure 700: an illegal memory access ; GPU=0 ; hostname=vm ; file=/onnxruntime_src/x.cc",
            f"ONNX Runtime: {_NODE}CUDA failure 700: an illegal memory access",
            "Export the generator again, or upgrade onnxruntime.",
        ),
    ],
)
def test_what_a_gpu_refuses_is_told_without_the_name_of_the_machine(said: str, message: str, hint: str) -> None:
    session = onnxruntime.InferenceSession(tiny_model(), providers=["CPUExecutionProvider"])
    generator = ganrt.load(Failing(session, said), batch=2)
    with pytest.raises(ganrt.InferenceError) as error:
        generator.sample(2)
    assert (error.value.message, error.value.hint) == (message, hint)
