"""Runs with bound buffers, as on a GPU: the same images, in one shape, and nobody's array is overwritten."""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

import ganrt
from ganrt.bound import BoundRuns, Copies, bound_runs
from ganrt.errors import InferenceError
from ganrt.latents import latents
from ganrt.providers import create_session
from tests.models import tiny_model

MODEL = tiny_model()


def feeds_of(count: int, seed: int = 0) -> dict[str, Any]:
    return {"z": latents(seed, 0, count, 8), "y": np.arange(count, dtype=np.int64) % 3}


def test_bound_runs_equal_plain_ones_with_changing_shapes_in_many_threads() -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    bound = BoundRuns("cpu")

    def work(first: int) -> bool:
        made = []
        for k in range(first, first + 40):
            feeds = feeds_of(1 + (k // 5) % 4, seed=k)  # five runs of one shape, then another
            made.append((feeds, bound.run(session, feeds, (len(feeds["z"]), 8, 8, 3))))
        # Compared when all are made: none may be a view of a buffer that was filled again.
        return all(np.array_equal(images, session.run(["images"], feeds)[0]) for feeds, images in made)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(0, 160, 10)))


class CudaSession:
    """A session on the CPU that says it is on a GPU, and counts the rows it is given."""

    def __init__(self, device_id: str) -> None:
        self._session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
        self._device_id = device_id
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"device_id": self._device_id}, "CPUExecutionProvider": {}}

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self.rows.append(binding.get_outputs()[0].shape()[0])
        self._session.run_with_iobinding(binding, options)


def test_on_a_gpu_every_call_has_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganrt.network.bound_runs", lambda device, session: BoundRuns("cpu"))
    session = CudaSession("1")
    generator = ganrt.load(session, batch=4)
    assert generator.device == "cuda:1"
    plain = ganrt.load(onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"]))
    feeds = feeds_of(10)
    assert np.array_equal(generator(**feeds), plain(**feeds))
    assert np.array_equal(generator.sample(7), plain.sample(7))
    assert session.rows == [4] * 5
    assert generator(np.zeros((0, 8)), 0).shape == (0, 8, 8, 3)


# Page-locked copies, with a driver that works in plain memory.


class Driver:
    """The functions of NVIDIA's driver that are used, over this process's own memory; ``calls`` are their names.

    Copies happen only when their stream is synchronised, as they may on a GPU.
    """

    def __init__(self, failing: str = "", at: int = 1) -> None:
        """``failing`` is a function that fails from its ``at``-th call on."""
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}
        self.streams: set[int] = set()
        self._failing, self._at, self._numbers = failing, at, itertools.count(1)
        self._pending: dict[int, list[tuple[int, int, int]]] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self._failing and self.calls.count(name) >= self._at:
                return 2
            return getattr(self, f"_{name}")(*arguments) or 0

        return call

    def _cuInit(self, flags: int) -> None:
        assert flags == 0

    def _cuDeviceGet(self, out: Any, number: int) -> None:
        out._obj.value = number

    def _cuDevicePrimaryCtxRetain(self, out: Any, device: Any) -> None:
        out._obj.value = 100 + device.value

    def _cuCtxSetCurrent(self, context: Any) -> None:
        assert context.value == 103

    def _cuStreamCreate(self, out: Any, flags: int) -> None:
        assert flags == 1
        out._obj.value = next(self._numbers)
        self.streams.add(out._obj.value)

    def _cuStreamDestroy_v2(self, stream: Any) -> None:
        self.streams.remove(stream.value)

    def _cuMemHostAlloc(self, out: Any, size: Any, flags: int) -> None:
        assert flags == 1
        memory = ctypes.create_string_buffer(size.value)
        out._obj.value = ctypes.addressof(memory)
        self.memory[ctypes.addressof(memory)] = memory

    def _cuMemFreeHost(self, pointer: Any) -> None:
        del self.memory[pointer.value]

    def _copy(self, to: Any, source: Any, size: Any, stream: Any) -> None:
        assert stream.value in self.streams
        self._pending.setdefault(stream.value, []).append((to.value, source.value, size.value))

    _cuMemcpyHtoDAsync_v2 = _cuMemcpyDtoHAsync_v2 = _copy

    def _cuStreamSynchronize(self, stream: Any) -> None:
        for to, source, size in self._pending.pop(stream.value, []):
            ctypes.memmove(to, source, size)


def staged_runs(driver: Driver) -> BoundRuns:
    return BoundRuns("cpu", copies=Copies(3, driver))


def test_page_locked_copies_make_the_same_images_in_many_threads() -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    driver = Driver()
    bound = staged_runs(driver)

    def work(first: int) -> bool:
        made = []
        for k in range(first, first + 20):
            feeds = feeds_of(1 + (k // 5) % 4, seed=k)
            made.append((feeds, bound.run(session, feeds, (len(feeds["z"]), 8, 8, 3))))
        return all(np.array_equal(images, session.run(["images"], feeds)[0]) for feeds, images in made)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(0, 160, 10)))
    gc.collect()
    assert (driver.memory, driver.streams) == ({}, set())  # they end with their threads


def test_a_call_copies_in_runs_and_copies_out_with_what_the_first_set_up() -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    driver = Driver()
    bound = staged_runs(driver)
    bound.run(session, feeds_of(4), (4, 8, 8, 3))
    assert sorted(len(memory) for memory in driver.memory.values()) == [4 * 8, 4 * 8 * 4, 4 * 8 * 8 * 3]  # y, z, images
    driver.calls.clear()
    ran: list[str] = []

    def run(*arguments: Any) -> None:
        ran.extend(driver.calls)
        session.run_with_iobinding(*arguments)

    watched = SimpleNamespace(run_with_iobinding=run)
    images = bound.run(watched, feeds_of(4, seed=1), (4, 8, 8, 3))
    assert ran == ["cuMemcpyHtoDAsync_v2", "cuStreamSynchronize"] * 2
    assert driver.calls == [*ran, "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
    assert np.array_equal(images, session.run(["images"], feeds_of(4, seed=1))[0])


def test_every_thread_has_buffers_and_a_stream_of_its_own_and_keeps_them() -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    driver = Driver()
    bound, together = staged_runs(driver), threading.Barrier(3)

    def work(seed: int) -> int:
        for _ in range(4):
            together.wait(10)
            bound.run(session, feeds_of(4, seed), (4, 8, 8, 3))
        together.wait(10)
        return len(driver.memory)

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(work, range(3))) == [9] * 3  # z, y and images each
    assert (driver.calls.count("cuStreamCreate"), driver.calls.count("cuMemHostAlloc")) == (3, 9)


def test_a_new_shape_is_bound_anew_and_what_is_not_used_is_freed() -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    driver = Driver()
    bound = staged_runs(driver)
    for count in (4, 4, 2, 2):
        images = bound.run(session, feeds_of(count), (count, 8, 8, 3))
        gc.collect()
        assert (len(driver.memory), len(driver.streams)) == (3, 1)
        assert max(map(len, driver.memory.values())) == images.nbytes
    assert driver.calls.count("cuStreamCreate") == 2
    kept = images.copy()
    del bound
    gc.collect()
    assert (driver.memory, driver.streams) == ({}, set())
    assert np.array_equal(images, kept)  # they were the caller's own


def test_a_number_alone_is_an_input_too() -> None:
    session, _ = create_session(tiny_model(psi=True), "cpu", 1)
    bound = staged_runs(Driver())
    for psi in (1.0, 0.25):
        feeds = {**feeds_of(3), "psi": np.array(psi, np.float32)}
        assert np.array_equal(bound.run(session, feeds, (3, 8, 8, 3)), session.run(["images"], feeds)[0])


@pytest.mark.parametrize(
    ("failing", "at"), [("cuMemHostAlloc", 1), ("cuMemHostAlloc", 3), ("cuStreamCreate", 1), ("cuCtxSetCurrent", 1)]
)
def test_without_page_locked_memory_copies_are_plain_and_the_log_says_why(
    failing: str, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    driver = Driver(failing, at)
    bound = staged_runs(driver)
    with caplog.at_level(logging.INFO, logger="ganrt"):
        for count in (4, 4, 2):  # two bindings
            feeds = feeds_of(count, seed=len(driver.calls))
            assert np.array_equal(bound.run(session, feeds, (count, 8, 8, 3)), session.run(["images"], feeds)[0])
    [record] = caplog.records  # said once
    assert f"CUDA error 2 in {failing}" in record.message
    assert "cuMemcpyDtoHAsync_v2" not in driver.calls
    assert driver.calls.count(failing) == at  # nor asked again
    gc.collect()
    assert (driver.memory, driver.streams) == ({}, set())  # what it had given before


def test_threads_that_are_refused_page_locked_memory_at_the_same_time_all_go_on() -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    bound = staged_runs(Driver("cuMemHostAlloc"))
    others = [feeds_of(4, seed=1)]

    class Meanwhile(np.ndarray[Any, Any]):
        """An array whose size, which is asked for just before it is staged, lets another thread go first."""

        @property
        def nbytes(self) -> int:
            if others:
                with ThreadPoolExecutor(1) as other:
                    other.submit(bound.run, session, others.pop(), (4, 8, 8, 3)).result()
            return int(self.size * self.itemsize)

    plain = feeds_of(4)
    images = bound.run(session, {**plain, "z": plain["z"].view(Meanwhile)}, (4, 8, 8, 3))
    assert not others
    assert np.array_equal(images, session.run(["images"], plain)[0])


@pytest.mark.parametrize("failing", ["cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"])
def test_a_copy_that_fails_is_an_error_that_names_it(failing: str) -> None:
    session, _ = create_session(MODEL, "cpu", 1)
    with pytest.raises(InferenceError, match=f"CUDA error 2 in {failing}\n.*nvidia-smi"):
        staged_runs(Driver(failing)).run(session, feeds_of(4), (4, 8, 8, 3))


def test_a_generator_says_the_same_of_a_failed_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver("cuMemcpyDtoHAsync_v2")
    monkeypatch.setattr("ganrt.network.bound_runs", lambda device, session: staged_runs(driver))
    with pytest.raises(InferenceError) as error:
        ganrt.load(CudaSession("0")).sample(3)
    assert str(error.value) == "CUDA error 2 in cuMemcpyDtoHAsync_v2\nSee what is wrong with the GPU: nvidia-smi"


def test_a_driver_that_has_no_gpu_left_is_an_error() -> None:
    with pytest.raises(InferenceError, match="CUDA error 2 in cuDevicePrimaryCtxRetain"):
        Copies(0, Driver("cuDevicePrimaryCtxRetain"))


# CUDA graphs.


class GraphSession:
    """Notes the graph's number of every run, and that no two overlap."""

    def __init__(self) -> None:
        self._session, _ = create_session(MODEL, "cpu", 1)
        self.numbers: list[str] = []
        self._inside = threading.Lock()

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        assert self._inside.acquire(blocking=False), "two runs at a time"
        self.numbers.append(options.get_run_config_entry("gpu_graph_id") if options else "none")
        time.sleep(0.002)
        self._session.run_with_iobinding(binding)
        self._inside.release()


def test_every_set_of_buffers_has_a_graph_of_its_own_and_graphs_run_one_at_a_time() -> None:
    session, bound = GraphSession(), BoundRuns("cpu", graph=True)
    together = threading.Barrier(4)

    def work(seed: int) -> set[str]:
        together.wait(10)
        for _ in range(5):
            bound.run(session, feeds_of(4, seed), (4, 8, 8, 3))
        return set()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert len(session.numbers) == 20
    assert {session.numbers.count(number) for number in set(session.numbers)} == {5}
    before = set(session.numbers)
    for count in (4, 4, 2):  # this thread's, and another shape
        bound.run(session, feeds_of(count), (count, 8, 8, 3))
    first, again, other = session.numbers[-3:]
    assert first == again != other and before.isdisjoint({first, other})


def test_without_graphs_runs_have_no_number_and_may_overlap() -> None:
    session, bound = GraphSession(), BoundRuns("cpu")
    bound.run(session, feeds_of(4), (4, 8, 8, 3))
    assert session.numbers == ["none"]
    both = threading.Barrier(2)

    def run(binding: Any, options: Any) -> None:
        both.wait(10)  # fails unless another thread gets here meanwhile
        session._session.run_with_iobinding(binding, options)

    watched = SimpleNamespace(io_binding=session.io_binding, run_with_iobinding=run)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda seed: bound.run(watched, feeds_of(4, seed), (4, 8, 8, 3)), range(2)))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """The driver that is found on this machine."""
    found = Driver()
    monkeypatch.setattr("ganrt.bound.cuda_driver", lambda: found)
    yield found


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_copies_are_for_the_gpu_of_the_session(device: str, number: int, driver: Driver) -> None:
    asked: list[int] = []
    driver._cuDevicePrimaryCtxRetain = lambda out, device: asked.append(device.value)  # type: ignore[method-assign]
    bound_runs(device, SimpleNamespace(get_provider_options=dict))
    assert (asked, driver.calls) == ([number], ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"])


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_no_driver_is_asked_without_a_gpu(device: str, driver: Driver) -> None:
    bound_runs(device, None)
    assert driver.calls == []


@pytest.mark.parametrize("asked", [None, "0", "1"])
def test_graphs_are_used_where_the_session_says_so(asked: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("ganrt.bound.Copies", lambda number: seen.append(number))
    monkeypatch.setattr("ganrt.bound.BoundRuns", lambda *arguments: seen.append(arguments))
    options = {} if asked is None else {"enable_cuda_graph": asked}
    session = SimpleNamespace(get_provider_options=lambda: {"CUDAExecutionProvider": options})
    bound_runs("cuda:2", session)
    assert seen == [2, ("cuda:2", asked == "1", None)]


def test_a_gpu_without_a_driver_to_ask_is_still_used(caplog: pytest.LogCaptureFixture) -> None:
    session = SimpleNamespace(get_provider_options=lambda: {"CUDAExecutionProvider": {}})
    with caplog.at_level(logging.INFO, logger="ganrt"):
        assert isinstance(bound_runs("cuda:0", session), BoundRuns)
    assert "copies are not page-locked: " in caplog.text
