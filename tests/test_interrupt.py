"""Real processes, killed and interrupted: the same command goes on and ends with the same bytes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from ganrt.errors import DatasetLocked
from tests.datasets import (
    LAYOUTS,
    command,
    contents,
    make,
    run,
    slow_model_file,
    start,
    wait_for_shards,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
N, SHARD = 3200, 16  # 200 shards of a few milliseconds each


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slow_model_file(tmp_path_factory.mktemp("models"))


def of(model: Path, out: Path, layout: str, *words: str) -> list[str]:
    return command(model, out, N, "--layout", layout, *words, shard_size=SHARD, batch=SHARD)


# Interrupted.


EARLY = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
class Finder:
    def find_spec(self, name, *_):
        if name == "ganrt.generation":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from ganrt.cli import main
main()
"""


def test_an_interrupt_before_the_run_began_is_one_too(model: Path, tmp_path: Path) -> None:
    done = run([sys.executable, "-c", EARLY, *of(model, tmp_path / "out", "folder")[3:]])
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_worker_process_that_is_stopped_keeps_the_lock(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(of(model, out, "webdataset"))
    try:
        wait_for_shards(process, out, 2)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(DatasetLocked):
            make(model, out, N, layout="webdataset", shard_size=SHARD, batch=SHARD)
        assert "README.md" not in contents(out)
    finally:
        process.kill()
        process.communicate()
