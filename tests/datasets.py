"""Datasets for tests: make them, in this process or in a real one, and tell what is in their folders."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

import ganrt
from ganrt.encode import decode
from tests.models import tiny_model, tiny_proto

LAYOUTS = ("folder", "webdataset", "npy")
DIVISIBLE = ("folder", "webdataset")
ROOT = Path(__file__).resolve().parent.parent

# Small shards, so that a thousand images are many of them.
SMALL: dict[str, Any] = {"shard_size": 128, "batch": 32}


def model_file(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """The file of a tiny generator; ``changes`` go to ``tiny_model``."""
    path = folder / f"{name}.onnx"
    path.write_bytes(tiny_model(name=name, **changes))
    return path


def slow_model_file(folder: Path) -> Path:
    """A generator that needs about a millisecond a sample, nearly all of it for drawing z."""
    return model_file(folder, "slow", z_dim=8192, channels=1)


def stubborn_model_file(folder: Path, nodes: int = 4000) -> Path:
    """A generator that needs seconds for a batch of 65,536, all of it inside ONNX Runtime."""
    proto: onnx.ModelProto = tiny_proto(name="stubborn")
    at = next(k for k, node in enumerate(proto.graph.node) if node.op_type == "Tanh")
    tanh = proto.graph.node[at]
    source = tanh.input[0]
    for number in range(nodes):
        proto.graph.node.insert(at + number, helper.make_node("Erf", [source], [f"erf{number}"]))
        source = f"erf{number}"
    tanh.input[0] = source
    path = folder / "stubborn.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def make(model: Path, out: Path, n: int, **options: Any) -> ganrt.Report:
    """``ganrt.generate`` on the CPU, by two workers and in small shards unless said otherwise."""
    return ganrt.generate(model, n=n, out=out, **{"device": "cpu", "workers": 2, **SMALL, **options})


def command(model: Path, out: Path, n: int, *words: str, shard_size: int = 128, batch: int = 32) -> list[str]:
    """The command line of ``make``."""
    given = f"--n {n} --workers 2 --device cpu --shard-size {shard_size} --batch {batch}".split()
    return [sys.executable, "-m", "ganrt", "generate", "--model", str(model), "--out", str(out), *given, *words]


def environment() -> dict[str, str]:
    """What a child process needs to find this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, to its end."""
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=600, **options)


def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
    """Starts a command in a process of its own."""
    return subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **options
    )


def finished_shards(root: Path) -> int:
    """How many shard lines the ledgers of a dataset have."""
    return sum(path.read_bytes().count(b'{"shard":') for path in root.glob("ganrt*.ledger"))


def wait_for_shards(process: subprocess.Popen[str], root: Path, count: int) -> None:
    """Returns when that many shards are finished, or the process has ended."""
    ends = time.monotonic() + 300
    while finished_shards(root) < count and process.poll() is None:
        assert time.monotonic() < ends, "the run makes no progress"
        time.sleep(0.002)


def wait_for_work(process: subprocess.Popen[str], root: Path) -> None:
    """Returns when a run has loaded its generator and begun."""
    ends = time.monotonic() + 300
    while not (root / "ganrt.json").exists() and process.poll() is None:
        assert time.monotonic() < ends, "the run does not begin"
        time.sleep(0.01)


def files(root: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(path for path in root.rglob("*") if not path.is_dir())


def is_ledger(path: Path) -> bool:
    """Ledgers tell how a dataset was made, and differ with it."""
    return path.name.endswith(".ledger")


def contents(root: Path) -> dict[str, bytes]:
    """A dataset as {relative name: bytes}, without the ledgers."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files(root) if not is_ledger(path)}


def folders(root: Path) -> set[str]:
    """The folders of a dataset."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()}


def differences(mine: Path, theirs: Path) -> list[str]:
    """The names of files and folders that two datasets do not share, byte for byte; ledgers apart."""
    a, b = contents(mine), contents(theirs)
    return sorted(
        {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)} | folders(mine) ^ folders(theirs)
    )


def marks(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file: what does not move when nobody touches it."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files(root)
    }  # fmt: skip


def members(root: Path) -> dict[str, bytes]:
    """The members of all archives of a dataset."""
    import tarfile

    found: dict[str, bytes] = {}
    for path in sorted(root.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file and member.name not in found
                found[member.name] = file.read()
    return found


def images(root: Path, layout: str) -> dict[str, NDArray[np.uint8]]:
    """The pixels of every image, by its name; rows of an array are named by their number."""
    if layout == "npy":
        return {str(row): image for row, image in enumerate(np.load(root / "images.npy"))}
    found = members(root) if layout == "webdataset" else contents(root)
    return {name: decode(data) for name, data in found.items() if name.endswith(".png")}


def image_files(root: Path) -> Iterator[Path]:
    """The files that hold images, in any layout."""
    return (path for path in files(root) if path.suffix in (".png", ".tar", ".npy"))
