"""Small file systems to fill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datasets import environment


def needs_mounts(request: pytest.FixtureRequest, folder: Path) -> bool:
    """Whether this process may mount. If not, the test is run again where it may: as root of a user namespace."""
    folder.mkdir()
    if mount(folder, "size=1m"):
        subprocess.run(["umount", str(folder)], check=True)
        return True
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        "GANRT_TEST_NAMESPACE" in os.environ
        or not shutil.which("unshare")
        or subprocess.run([*inside, "true"]).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs, or user namespaces")
    words = [*inside, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "faults or not faults"]
    done = subprocess.run(
        [*words, f"--basetemp={folder.parent / 'inside'}", request.node.nodeid],
        env=environment() | {"GANRT_TEST_NAMESPACE": "1"},
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    if "skipped" in done.stdout:
        pytest.skip("a user namespace may not mount here")
    return False


def mount(folder: Path, options: str) -> bool:
    """Mounts a tmpfs; whether that worked."""
    if not sys.platform.startswith("linux") or not shutil.which("mount"):
        return False
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True).returncode == 0


def remount(folder: Path, options: str) -> None:
    """Changes a mounted one."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | None]:
    """A folder to mount on, taken apart at the end; None when the test has been run elsewhere."""
    folder = tmp_path / "small"
    if not needs_mounts(request, folder):
        yield None
        return
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True)
