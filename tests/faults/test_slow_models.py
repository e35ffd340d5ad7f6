"""Networks that take very long to load or to run: no time is set to them, but Ctrl-C ends every command at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.datasets import environment, stubborn_model_file
from tests.faults.conftest import Tally
from tests.faults.hostile import constant, hook, op

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")

ROW = "Ctrl-C while a slow network loads or runs"
PATIENCE = 1.5  # seconds that a command may take to end by itself
BATCH = ("--batch", "65536", "--shard-size", "65536")


def slow_to_load(folder: Path) -> Path:
    """A generator whose constants take minutes to work out, which ONNX Runtime does while it loads the file."""
    nodes = [op("ConstantOfShape", "dims", "m0", value=numpy_helper.from_array(np.full(1, 1e-3, np.float32)))]
    nodes += [helper.make_node("MatMul", [f"m{k}", "m0"], [f"m{k + 1}"]) for k in range(200)]
    path = folder / "slow.onnx"
    path.write_bytes(hook(nodes, "m200", [constant("dims", [3000, 3000])]))
    return path


@pytest.mark.faults
@pytest.mark.parametrize(
    ("command", "slow"),
    [
        ("generate --n 4 --out out", "load"),
        ("generate --n 4 --out out --dry-run", "load"),
        ("preview --out grid.png", "load"),
        ("explain 0", "load"),
        ("interpolate --out walk.gif", "load"),
        ("generate --n 65536 --out out --dry-run", "run"),
        ("generate --n 65536 --out out", "run"),
    ],
)
def test_a_signal_ends_a_command_that_is_inside_onnx_runtime(
    command: str, slow: str, tmp_path: Path, tally: Tally
) -> None:
    model = slow_to_load(tmp_path) if slow == "load" else stubborn_model_file(tmp_path, nodes=20_000 - 50)
    first, *words = command.split()
    named = ["--model", str(model)] if first == "generate" else [str(model)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ganrt", first, *named, *words, *(BATCH if slow == "run" else ())],
        env=environment() | {"CUDA_VISIBLE_DEVICES": "-1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's jobs in the background ignore it
    )
    try:
        assert process.stderr is not None
        assert "device cpu" in process.stderr.readline()  # said just before it is loaded
        time.sleep(1 if slow == "load" else 4)
        assert process.poll() is None, "it was not slow"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, told = process.communicate(timeout=60)
        took = time.monotonic() - began
    finally:
        process.kill()
    well = process.returncode == 130 and "ended at once" in told and "Traceback" not in told and took < PATIENCE + 10
    tally.survived(ROW) if well else tally.lost(ROW, f"{command}: {process.returncode} after {took:.1f} s: {told}")
    assert not list(tmp_path.glob("out/*/*")), "something half"
    assert not (tmp_path / "grid.png").exists() and not (tmp_path / "walk.gif").exists()
