"""Checkpoints that would run code, fill the memory or never end: none does, and each is named.

Each is read by a process of its own, within two seconds and 500 MB. What would run makes a file, a canary; that it
would is shown with Python's own pickle.
"""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults import reading
from tests.faults.confined import Confined, confined
from tests.faults.conftest import Tally
from tests.faults.hostile_checkpoints import (
    HOLDERS,
    MORE,
    SAFETENSORS,
    TORCH,
    npz_of_pickles,
    payloads,
)
from tests.faults.hostile_keras import GOOD, KERAS, VAST, h5
from tests.faults.test_hostile_data import told
from tests.training.test_read_cifar import cifar10_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
CODE, BOMB = "pickle that would run code", "pickle that would fill the memory or never end"


@pytest.fixture(scope="module")
def run() -> Iterator[Confined]:
    keras, onnx = ("h5py", "ganrt_training.keras_source"), ("onnxruntime", "ganrt_training.onnx_source")
    with confined("tests.faults.reading", *keras, *onnx) as process:
        yield process


def readers(root: Path) -> dict[str, Callable[[bytes], tuple[Callable[[Path], str], Path]]]:
    """Every way in which a pickle can come: name → (how it is read, what)."""
    made: dict[str, Callable[[bytes], tuple[Callable[[Path], str], Path]]] = {}

    def held(name: str, read: Callable[[Path], str], hold: Callable[[bytes], bytes]) -> None:
        def make(data: bytes) -> tuple[Callable[[Path], str], Path]:
            (root / name).write_bytes(hold(data))
            return read, root / name

        made[f"{name} by {read.__name__}"] = make

    for holder, hold in HOLDERS.items():
        held(f"{holder}.pth", reading.weights, hold)
        held(f"{holder}.pt", reading.checkpoint, hold)
    held("objects.npz", reading.train_on, npz_of_pickles)
    held("images.npy", reading.train_on, lambda data: np.lib.format.magic(1, 0) + data)
    (root / "cifar").mkdir()
    cifar10_python(root / "cifar")

    def batch(data: bytes) -> tuple[Callable[[Path], str], Path]:
        (root / "cifar" / "data_batch_1").write_bytes(data)
        return reading.train_on, root / "cifar"

    made["CIFAR batch"] = batch
    return made


everywhere = pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.faults)], ids=["zip", "everywhere"]
)


@everywhere
def test_a_pickle_runs_nothing_wherever_it_is(every: bool, run: Confined, tally: Tally, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    ways = {name: way for name, way in readers(tmp_path).items() if every or name.startswith(("zip.pth", "CIFAR"))}
    for kind, data in payloads(canary).items():
        (tmp_path / "bare.pickle").write_bytes(data)
        run(reading.unpickled, tmp_path / "bare.pickle")
        assert canary.exists(), f"{kind} would do no harm"
        canary.unlink()
        for name, make in ways.items():
            read, path = make(data)
            complaint = run(read, path).complaint("", str(path))
            told(tally, CODE, f"{kind} in {name}", "it ran" if canary.exists() else complaint)
            canary.unlink(missing_ok=True)


@everywhere
def test_a_pickle_takes_neither_memory_nor_time(every: bool, run: Confined, tally: Tally, tmp_path: Path) -> None:
    for name, make in readers(tmp_path).items():
        if not every and not name.startswith("zip.pth"):
            continue
        for kind, data in MORE.items():
            read, path = make(b"\x80\x02" + data + b".")
            outcome = run(read, path)
            # Plain values alone are a checkpoint, which then fits no recipe.
            plain = outcome.kind == "done" and read is reading.checkpoint
            told(tally, BOMB, f"{kind} in {name}", outcome.complaint(None if plain else "", "" if plain else str(path)))


@pytest.mark.parametrize("read", [reading.weights, pytest.param(reading.checkpoint, marks=pytest.mark.faults)])
def test_tensors_that_are_not_there(read: Callable[[Path], str], run: Confined, tally: Tally, tmp_path: Path) -> None:
    for number, case in enumerate(TORCH):
        path = case.make(tmp_path)
        told(tally, case.row, f"{number}", run(read, path).complaint(case.says, case.says and str(path)))


@pytest.mark.parametrize("read", [reading.snapshot, pytest.param(reading.weights, marks=pytest.mark.faults)])
def test_safetensors_that_lie(read: Callable[[Path], str], run: Confined, tally: Tally, tmp_path: Path) -> None:
    for number, case in enumerate(SAFETENSORS):
        told(tally, case.row, f"{number}", run(read, case.make(tmp_path)).complaint("x.safetensors"))


def test_files_that_are_no_files(run: Confined, tally: Tally, tmp_path: Path) -> None:
    """A pipe would be waited for, a device read for ever."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read, name in (
            (reading.weights, "x.pth"),
            (reading.weights, "x.safetensors"),
            (reading.checkpoint, "x.pt"),
            (reading.snapshot, "x.safetensors"),
            (reading.keras_file, "x.h5"),
            (reading.onnx_file, "x.onnx"),
            (reading.train_on, "x.zip"),
        ):
            path = tmp_path / name
            path.symlink_to(target)
            if not (target == tmp_path and read is reading.train_on):  # which takes folders
                told(tally, "pipe, device or folder for a file", f"{read.__name__} of {target.name}",
                     run(read, path).complaint("", name))  # fmt: skip
            path.unlink()


def test_a_checkpoint_may_hold_what_scripts_save_besides(run: Confined, tmp_path: Path) -> None:
    import argparse

    import torch

    about = {"args": argparse.Namespace(lr=1), "best": np.float64(3), "size": torch.Size([1]), "dtype": torch.float16}
    state = {"w": torch.nn.Parameter(torch.ones(2, 2))}
    ways: list[dict[str, Any]] = [
        {}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5}
    ]  # fmt: skip
    for number, options in enumerate(ways):
        torch.save({"net": state, **about}, tmp_path / f"{number}.pth", **options)
        assert run(reading.weights, tmp_path / f"{number}.pth").text == "'net'"
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"w": [1.0]}))
    shutil.copy(tmp_path / "0.pth", tmp_path / "y.tar")
    assert run(reading.weights, tmp_path / "y.tar").text == "'net'"
    assert "is none of PyTorch's files" in run(reading.weights, tmp_path / "x.pth").text


def test_files_of_keras(run: Confined, tally: Tally, tmp_path: Path) -> None:
    for number, case in enumerate(KERAS):
        path = case.make(tmp_path)
        outcome = run(reading.keras_file, path)
        told(tally, case.row, f"{number}", outcome.complaint(case.says, case.says and str(path)))


@pytest.mark.faults
def test_vast_layers_of_keras(tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with confined("tests.faults.reading", "ganrt_training.keras_source", "keras") as run:
        assert run(reading.keras, h5(GOOD)(tmp_path)).complaint(None) is None
        for kind, config in VAST.items():
            path = h5(config)(tmp_path)
            told(tally, "Keras file of vast layers", kind, run(reading.keras, path).complaint("", str(path)))
