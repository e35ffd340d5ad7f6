"""Real processes, stopped early, out of space: the same command goes on and ends with the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganrt
from ganrt.errors import DatasetLocked
from tests.datasets import (
    LAYOUTS,
    command,
    contents,
    differences,
    environment,
    finished_shards,
    make,
    model_file,
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


# Out of space.


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
    words = [*inside, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", request.node.nodeid]
    done = subprocess.run(
        words,
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
    if not sys.platform.startswith("linux") or not shutil.which("mount"):
        return False
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True).returncode == 0


@pytest.fixture
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | None]:
    """A folder to mount on, taken apart at the end; None when the test has been run elsewhere."""
    folder = tmp_path / "small"
    if not needs_mounts(request, folder):
        yield None
        return
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True)


@every_layout
@pytest.mark.parametrize("size", ["300k", "1m"])
def test_a_full_disk_ends_the_run_and_more_room_lets_it_go_on(
    layout: str, size: str, mounted: Path | None, tmp_path: Path
) -> None:
    if mounted is None:
        return
    model, out = model_file(tmp_path, width=16, height=16), mounted / "out"
    assert mount(mounted, f"size={size}")
    full = run(command(model, out, 2000, "--layout", layout))
    assert full.returncode == 4, full.stderr
    assert "no space or inodes left" in full.stderr and "finished images are kept" in full.stderr
    assert "Traceback" not in full.stderr
    kept = finished_shards(out)
    again = run(command(model, out, 2000, "--layout", layout))
    assert again.returncode == 4 and finished_shards(out) >= kept
    subprocess.run(["mount", "-o", "remount,size=64m", str(mounted)], check=True)
    report = make(model, out, 2000, layout=layout)
    assert report.complete and report.already >= 128 * kept
    make(model, tmp_path / "whole", 2000, layout=layout)
    assert differences(out, tmp_path / "whole") == []
    assert ganrt.verify(out) == []


@every_layout
def test_a_disk_without_inodes_is_a_full_disk(layout: str, mounted: Path | None, tmp_path: Path) -> None:
    if mounted is None:
        return
    model, out = model_file(tmp_path), mounted / "out"
    assert mount(mounted, f"size=16m,nr_inodes={300 if layout == 'folder' else 4}")
    full = run(command(model, out, 2000, "--layout", layout))
    assert full.returncode == 4 and "no space or inodes left" in full.stderr
    subprocess.run(["mount", "-o", "remount,nr_inodes=9999", str(mounted)], check=True)
    assert make(model, out, 2000, layout=layout).complete
    assert ganrt.verify(out) == []


def test_a_read_only_file_system_is_named(mounted: Path | None, tmp_path: Path) -> None:
    if mounted is None:
        return
    model = model_file(tmp_path)
    assert mount(mounted, "size=1m,ro")
    refused = run(command(model, mounted / "out", 10))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "Read-only file system" in refused.stderr and "not read-only" in refused.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o555)
    refused = run(command(model_file(tmp_path), closed / "out", 10))
    assert refused.returncode == 1 and "Permission denied" in refused.stderr
    assert "Choose a folder that you may write to." in refused.stderr


@every_layout
def test_a_limit_on_file_sizes_is_named_and_what_fits_is_kept(layout: str, tmp_path: Path) -> None:
    import resource

    model, out = model_file(tmp_path), tmp_path / "out"
    limit = {"folder": 20_000, "webdataset": 250_000, "npy": 60_000}[layout]  # the ledger of images, archives, rows
    limited = run(
        command(model, out, 2000, "--layout", layout),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert limited.returncode == 1 and "A limit on file sizes is set (ulimit -f)" in limited.stderr
    assert "Traceback" not in limited.stderr
    ledger = next(iter(out.glob("*.ledger"))).read_bytes()
    assert ledger.endswith(b"\n") and len(ledger) <= limit
    make(model, out, 2000, layout=layout)
    make(model, tmp_path / "whole", 2000, layout=layout)
    assert differences(out, tmp_path / "whole") == []
    assert ganrt.verify(out) == []


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
