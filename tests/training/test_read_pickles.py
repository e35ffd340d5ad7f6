"""Pickles that mean harm, in place of a batch of CIFAR's: none is run, and what it asked for is named."""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import re
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganrt.errors import TrainingError
from ganrt_training.data import read_images
from tests.training.test_read_cifar import cifar10_python, python2


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pickles") / "cifar"
    folder.mkdir()
    cifar10_python(folder)
    return folder


def refusal(root: Path, data: bytes) -> TrainingError:
    (root / "data_batch_1").write_bytes(data)
    with pytest.raises(TrainingError) as raised:
        read_images(root, 32)
    assert raised.value.message.startswith(f"{root}/data_batch_1: ")
    return raised.value


_RECONSTRUCT: Any = np.zeros(1, np.uint8).__reduce__()[0]
_MODULE = _RECONSTRUCT.__module__


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), "system"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Call(builtins.exec, f"open({str(mark)!r}, 'w')"), "exec"),
        (lambda mark: Call(open, str(mark), "w"), "open"),
        (lambda mark: Call(getattr, 1, "real"), "getattr"),
        (lambda mark: np.save, "save"),
    ],
)
def test_what_a_pickle_would_call_is_named_and_not_called(
    root: Path, tmp_path: Path, value: Any, asked: str, protocol: int
) -> None:
    mark = tmp_path / "mark"
    error = refusal(root, pickle.dumps(value(mark), protocol=protocol))
    assert re.search(rf": asks for \S+\.{asked}$", error.message)
    assert "nothing in it was run" in str(error.hint)
    assert not mark.exists()


def test_python_2_spelling_and_old_opcodes_are_named_too(root: Path) -> None:
    assert "asks for os.system" in refusal(root, b"cos\nsystem\n(S'true'\ntR.").message
    assert "asks for __builtin__.eval" in refusal(root, b"\x80\x02c__builtin__\neval\nU\x011\x85R.").message
    assert "asks for pickle's STRING true" in refusal(root, b"(S'true'\nios\nsystem\n.").message
    for data, name in ((b"(ios\nsystem\n.", "INST os system"), (b"Pname\n.", "PERSID name"), (b"\x82\x01.", "EXT1 1")):
        assert f"asks for pickle's {name}" in refusal(root, data).message


def global_(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


ARRAY = global_(f"{_MODULE}._reconstruct") + global_("numpy.ndarray") + b"K\x00\x85U\x01b\x87R"
DTYPE = global_("numpy.dtype") + b"U\x02u1K\x00K\x01\x87R"


def huge(shape: bytes) -> bytes:
    return b"\x80\x02" + ARRAY + b"(K\x01" + shape + DTYPE + b"\x89U\x03abctb."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (python2({b"data": np.array([{}])}), "asks for numpy.dtype of O8"),
        (python2({b"data": np.zeros(3)}), "asks for numpy.dtype of f8"),
        (b"\x80\x02" + global_("numpy.dtype") + b"U\x05V9999\x85R.", "asks for numpy.dtype of V9999"),
        (b"\x80\x02" + global_("numpy.ndarray") + b"J\xff\xff\xff\x7f\x85\x85R.", "asks for numpy.ndarray of"),
        (b"\x80\x02" + global_(f"{_MODULE}._reconstruct") + b"U\x01xK\x00\x85U\x01b\x87R.", "_reconstruct of x"),
        (huge(b"J\xff\xff\xff\x7f\x85"), "a broken pickle"),
        (huge(b"J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86"), "a broken pickle"),  # -1 x -3 is 3 too
        (huge(b"K\x01K\x01K\x01K\x01(K\x01K\x03t"), "a broken pickle"),
        # Names may stand for themselves, but not be changed.
        (b"\x80\x02" + global_("numpy.dtype") + b"N}U\x0c__setstate__K\x01s\x86b.", "a broken pickle"),
        (b"\x80\x02}" + global_("numpy.dtype") + b"K\x01s.", "a broken pickle"),
        (b"\x80\x02K\x01K\x02\x85R.", "a broken pickle"),
        (b"\x80\x02.", "a broken pickle"),
        (b"\x80\x02}", "a broken pickle"),
        (b"", "a broken pickle"),
        (b"\x80\x02}h\x07.", "a broken pickle"),
        (b"\x80\x02}(e.", "a broken pickle"),
        (b"\xff\xff", "a broken pickle"),
    ],
)
def test_stand_ins_cannot_be_abused(root: Path, data: bytes, message: str) -> None:
    assert message in refusal(root, data).message


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}r\xff\xff\xff\xff.",  # a memo of 2^32 places
        b"\x80\x02T\xff\xff\xff\x7fabc.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.",  # bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"}.",
        # A key of tuples of tuples …, whose hash would take 2^64 steps.
        b"\x80\x02}K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 64 + b"K\x01s.",
    ],
    ids=["memo", "text", "bytearray", "frame", "hash"],
)
def test_a_few_bytes_take_neither_memory_nor_time(root: Path, data: bytes) -> None:
    tracemalloc.start()
    started = time.monotonic()
    try:
        refusal(root, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert time.monotonic() - started < 5


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_batch_is_a_typed_error_or_still_a_batch(root: Path, data: st.DataObject) -> None:
    good = bytearray(python2({b"labels": [1], b"data": np.zeros((1, 3072), np.uint8)}))
    for _ in range(data.draw(st.integers(1, 4))):
        # Around the pixels, where the structure is.
        at = data.draw(st.integers(0, 150).map(lambda i: i if i < 75 else len(good) - (i - 74)))
        good[at] = data.draw(st.integers(0, 255))
    (root / "data_batch_1").write_bytes(good)
    with contextlib.suppress(TrainingError):
        assert len(read_images(root, 32)) == 41
