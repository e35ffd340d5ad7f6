"""Runs of a network with its inputs and output bound to buffers on the device that are used again.

On a GPU the host's end of every copy is page-locked memory, and each thread copies on a stream of its own: while one
thread's images come over, the network works for another.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganrt.errors import DeviceUnavailable, InferenceError
from ganrt.providers import cuda_driver, runtime

logger = logging.getLogger("ganrt")

# Names of the CUDA driver API (docs.nvidia.com: CUDA Driver API, Memory Management and Stream Management).
_HOST_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: page-locked for every context
_STREAM_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream

# ONNX Runtime gives a captured graph the number of its run; each set of buffers needs its own.
_graph_numbers = itertools.count(1)


class BoundRuns:
    """The bound buffers of one session: a set for each thread and shape.

    ``graph`` says that the session replays CUDA graphs, which hold the addresses of the buffers they were captured
    with, and that may not run in two threads at a time.
    """

    def __init__(self, device: str, graph: bool = False, copies: Copies | None = None) -> None:
        kind, _, number = device.partition(":")
        self._kind, self._number = kind, int(number or 0)
        self._copies = copies
        self._running = threading.Lock() if graph else contextlib.nullcontext()
        self._graph = graph
        self._buffers = threading.local()

    def run(self, session: Any, feeds: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The output ``images`` of the given uint8 shape, in an array of the caller's own."""
        key = tuple((name, value.shape) for name, value in feeds.items())
        if getattr(self._buffers, "key", None) != key:
            self._buffers.bound, self._buffers.key = self._bind(session, feeds, shape), key
        bound: _Bound = self._buffers.bound
        for name, value in feeds.items():
            if bound.staged:
                bound.staged[name].send(value)
            else:
                bound.inputs[name].update_inplace(value)
        bound.binding.synchronize_inputs()
        with self._running:
            session.run_with_iobinding(bound.binding, bound.options)
        bound.binding.synchronize_outputs()
        if bound.staged:
            return bound.staged["images"].fetch().reshape(shape)
        images: NDArray[np.uint8] = bound.output.numpy()
        # On a GPU numpy() copies; on a CPU it shows the buffer itself, which the next run fills.
        return images.copy() if self._kind == "cpu" else images

    def _bind(self, session: Any, feeds: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> _Bound:
        ort = runtime()
        binding, options = session.io_binding(), None
        # Copies, since on a CPU a value shares the memory of the array that it is made from.
        inputs = {
            name: ort.OrtValue.ortvalue_from_numpy(value.copy(), self._kind, self._number)
            for name, value in feeds.items()
        }
        output = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, self._kind, self._number)
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("images", output)
        if self._graph:
            options = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(next(_graph_numbers)))
        staged: dict[str, _Staged] = {}
        if copies := self._copies:  # which another thread may be giving up
            try:
                sizes = {**{name: value.nbytes for name, value in feeds.items()}, "images": int(np.prod(shape))}
                values = {**inputs, "images": output}
                staged = copies.stage({name: (values[name].data_ptr(), sizes[name]) for name in values})
            except InferenceError as error:
                logger.info("copies are not page-locked: %s", error.message)
                self._copies = None
        return _Bound(binding, inputs, output, options, staged)


@dataclass
class _Bound:
    binding: Any
    inputs: dict[str, Any]
    output: Any
    options: Any
    staged: dict[str, _Staged]


class Copies:
    """Page-locked memory, and copies between it and one GPU, through NVIDIA's driver."""

    def __init__(self, number: int, driver: Any = None) -> None:
        self._driver = driver or cuda_driver()
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), number)
        # The context that ONNX Runtime works in too, so that its addresses mean the same.
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the driver. Raises InferenceError with its status."""
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise InferenceError(f"CUDA error {status} in {name}", "See what is wrong with the GPU: nvidia-smi")

    def stage(self, buffers: Mapping[str, tuple[int, int]]) -> dict[str, _Staged]:
        """Page-locked memory for buffers on the GPU, (address, bytes) each, and one stream of the calling thread."""
        self.call("cuCtxSetCurrent", self._context)
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), _STREAM_NON_BLOCKING)
        weakref.finalize(stream, self._free, "cuStreamDestroy_v2", ctypes.c_void_p(stream.value))
        return {name: _Staged(self, stream, address, size) for name, (address, size) in buffers.items()}

    def allocate(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        """``size`` bytes of page-locked memory: their address and themselves. They are freed with the array."""
        pointer = ctypes.c_void_p()
        self.call("cuMemHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), _HOST_PORTABLE)
        assert pointer.value
        memory = (ctypes.c_uint8 * size).from_address(pointer.value)
        weakref.finalize(memory, self._free, "cuMemFreeHost", pointer)
        return pointer.value, np.ctypeslib.as_array(memory)

    def _free(self, name: str, what: ctypes.c_void_p) -> None:
        self._driver.cuCtxSetCurrent(self._context)  # whichever thread lets go of it last
        getattr(self._driver, name)(what)


class _Staged:
    """A buffer on the GPU and its page-locked twin."""

    def __init__(self, copies: Copies, stream: ctypes.c_void_p, address: int, size: int) -> None:
        self._copies, self._stream, self._size = copies, stream, ctypes.c_size_t(size)
        self._there = ctypes.c_uint64(address)
        pointer, self._here = copies.allocate(size)
        self._pointer = ctypes.c_void_p(pointer)

    def send(self, value: NDArray[Any]) -> None:
        """Copies an array to the GPU; it is there when this returns."""
        self._here[:] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        self._copies.call("cuMemcpyHtoDAsync_v2", self._there, self._pointer, self._size, self._stream)
        self._copies.call("cuStreamSynchronize", self._stream)

    def fetch(self) -> NDArray[np.uint8]:
        """The GPU's bytes, in an array of their own."""
        self._copies.call("cuMemcpyDtoHAsync_v2", self._pointer, self._there, self._size, self._stream)
        self._copies.call("cuStreamSynchronize", self._stream)
        return self._here.copy()


def bound_runs(device: str, session: Any) -> BoundRuns:
    """Bound runs for a session, with page-locked copies where the driver gives them."""
    if not device.startswith("cuda"):
        return BoundRuns(device)
    options = session.get_provider_options().get("CUDAExecutionProvider", {})
    copies = None
    try:
        copies = Copies(int(device.partition(":")[2] or 0))
    except (DeviceUnavailable, InferenceError, AttributeError) as error:
        logger.info("copies are not page-locked: %s", error)
    return BoundRuns(device, str(options.get("enable_cuda_graph", "0")) == "1", copies)
