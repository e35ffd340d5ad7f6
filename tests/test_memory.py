"""Memory does not grow with the number of images."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.datasets import LAYOUTS, command, model_file, run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# The command line as it is, and at its end the peak that the kernel counted for this process alone.
MEASURE = """
import sys
from ganrt.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print("peak", line.split()[1])
"""


def peak(words: list[str]) -> int:
    """Peak memory of a ``ganrt`` command in a process of its own, in KiB."""
    done = run([sys.executable, "-c", MEASURE, *words])
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rsplit("peak", 1)[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_times_the_images_take_the_same_memory(layout: str, tmp_path: Path) -> None:
    # Without classes a folder's images lie at its root, beside the ledger.
    model = model_file(tmp_path, channels=1, class_names=())
    peaks = {}
    for n in (5_000, 50_000):
        words = command(model, tmp_path / str(n), n, "--layout", layout, "--quiet", shard_size=512, batch=64)[3:]
        peaks["made", n] = peak(words)
        peaks["found", n] = peak(words)  # a complete dataset is looked through
    shutil.rmtree(tmp_path / "50000")
    assert peaks["made", 50_000] <= 1.1 * peaks["made", 5_000]
    assert peaks["found", 50_000] <= 1.1 * peaks["found", 5_000]
