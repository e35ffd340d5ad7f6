"""Runs with bound buffers, as on a GPU: the same images, in one shape, and nobody's array is overwritten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest

import ganrt
from ganrt.latents import latents
from ganrt.providers import BoundRuns, create_session
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

    def run_with_iobinding(self, binding: Any) -> None:
        self.rows.append(binding.get_outputs()[0].shape()[0])
        self._session.run_with_iobinding(binding)


def test_on_a_gpu_every_call_has_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganrt.generator.BoundRuns", lambda device: BoundRuns("cpu"))
    session = CudaSession("1")
    generator = ganrt.load(session, batch=4)
    assert generator.device == "cuda:1"
    plain = ganrt.load(onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"]))
    feeds = feeds_of(10)
    assert np.array_equal(generator(**feeds), plain(**feeds))
    assert np.array_equal(generator.sample(7), plain.sample(7))
    assert session.rows == [4] * 5
    assert generator(np.zeros((0, 8)), 0).shape == (0, 8, 8, 3)
