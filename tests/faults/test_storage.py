"""File systems that are full, closed or limited: a typed error, nothing lost, and the same command goes on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganrt
from ganrt.errors import StorageError
from tests.datasets import LAYOUTS, command, differences, finished_shards, make, model_file, run, start, wait_for_shards
from tests.faults.conftest import Tally
from tests.faults.mounts import mount, mounted, remount
from tests.faults.runs import KINDS, Runs, bound_by_permissions, every_kind_and_layout, few_fast, prepared
from tests.pictures import command as translate_command
from tests.pictures import translate, translator_file, two_classes

__all__ = ["mounted"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts and limits of Linux")

PLENTY = 2000  # images of 16x16: more than a megabyte in any layout


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runs]:
    return {kind: prepared(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def gone_on_well(runs: Runs, out: Path, layout: str, whole: Path) -> None:
    """The same command finishes what was begun, with the bytes of a run that nothing happened to."""
    assert runs.make(out, layout).complete
    runs.make(whole, layout)
    assert differences(out, whole) == []
    assert ganrt.verify(out) == []


# Full ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "size"), few_fast((x, s) for x in LAYOUTS for s in ("300k", "1m")))
def test_a_full_disk_ends_the_run_and_more_room_lets_it_go_on(
    layout: str, size: str, mounted: Path | None, tmp_path: Path, tally: Tally
) -> None:
    if mounted is not None:
        model, out = model_file(tmp_path, width=16, height=16), mounted / "out"
        assert mount(mounted, f"size={size}")
        full = run(command(model, out, PLENTY, "--layout", layout))
        assert full.returncode == 4, full.stderr
        assert "no space or inodes left" in full.stderr and "finished images are kept" in full.stderr
        assert "Traceback" not in full.stderr and not (out / "README.md").exists()
        kept = finished_shards(out)
        again = run(command(model, out, PLENTY, "--layout", layout))
        assert again.returncode == 4 and finished_shards(out) >= kept
        remount(mounted, "size=64m")
        report = make(model, out, PLENTY, layout=layout)
        assert report.complete and report.already >= 128 * kept
        make(model, tmp_path / "whole", PLENTY, layout=layout)
        assert differences(out, tmp_path / "whole") == []
        assert ganrt.verify(out) == []
    tally.survived(f"full disk, {layout}", 2)


@pytest.mark.parametrize("layout", few_fast(LAYOUTS, 0))
def test_a_disk_that_is_full_of_translations(layout: str, mounted: Path | None, tmp_path: Path, tally: Tally) -> None:
    if mounted is not None:
        two_classes(tmp_path / "in", 300, width=16, height=16)
        model, out = translator_file(tmp_path, width=16, height=16, scale=2), mounted / "out"
        assert mount(mounted, "size=500k")
        full = run(translate_command(model, tmp_path / "in", out, "--layout", layout))
        assert full.returncode == 4 and "no space or inodes left" in full.stderr, full.stderr
        assert "Traceback" not in full.stderr and not (out / "README.md").exists()
        remount(mounted, "size=64m")
        assert translate(model, tmp_path / "in", out, layout=layout).complete
        translate(model, tmp_path / "in", tmp_path / "whole", layout=layout)
        assert differences(out, tmp_path / "whole") == []
    tally.survived(f"full disk, translate, {layout}")


@pytest.mark.parametrize("layout", few_fast(LAYOUTS))
def test_a_disk_without_inodes_is_a_full_disk(layout: str, mounted: Path | None, tmp_path: Path, tally: Tally) -> None:
    if mounted is not None:
        model, out = model_file(tmp_path), mounted / "out"
        assert mount(mounted, f"size=16m,nr_inodes={300 if layout == 'folder' else 4}")
        full = run(command(model, out, PLENTY, "--layout", layout))
        assert full.returncode == 4 and "no space or inodes left" in full.stderr
        remount(mounted, "nr_inodes=9999")
        assert make(model, out, PLENTY, layout=layout).complete
        assert ganrt.verify(out) == []
    tally.survived(f"no inodes left, {layout}")


@pytest.mark.faults
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_repair_on_a_full_disk_makes_nothing_worse(
    layout: str, mounted: Path | None, tmp_path: Path, tally: Tally
) -> None:
    if mounted is not None:
        model, out = model_file(tmp_path, width=16, height=16), mounted / "out"
        assert mount(mounted, "size=16m")
        make(model, out, 500, layout=layout)
        victim = next(path for path in sorted(out.rglob("*")) if path.suffix in (".png", ".tar", ".npy"))
        victim.write_bytes(victim.read_bytes()[:-1] + b"?")
        (mounted / "ballast").write_bytes(bytes((16 << 20) - sum(4096 + p.stat().st_size for p in out.rglob("*"))))
        with open(mounted / "ballast", "ab", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError:
                pass
        if layout == "npy":  # written in place
            assert ganrt.verify(out, repair=True, model=model) == []
        else:
            full = run([sys.executable, "-m", "ganrt", "verify", str(out), "--repair", "--model", str(model)])
            assert full.returncode == 4 and "no space or inodes left" in full.stderr, full.stderr
            assert [d.name for d in ganrt.verify(out)] == [victim.relative_to(out).as_posix()]
            (mounted / "ballast").unlink()
            assert ganrt.verify(out, repair=True, model=model) == []
    tally.survived(f"full disk, verify --repair, {layout}")


# Read-only, without permission --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", few_fast(KINDS))
def test_a_read_only_file_system_is_named(kind: str, mounted: Path | None, slow: dict[str, Runs], tally: Tally) -> None:
    if mounted is not None:
        assert mount(mounted, "size=1m,ro")
        refused = run(slow[kind].command(mounted / "out", "folder"))
        assert refused.returncode == 1 and "Traceback" not in refused.stderr
        assert "Read-only file system" in refused.stderr and "not read-only" in refused.stderr
    tally.survived(f"read-only file system, {kind}")


@pytest.mark.faults
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_finished_dataset_on_a_read_only_file_system_can_be_verified(
    layout: str, mounted: Path | None, tmp_path: Path, tally: Tally
) -> None:
    if mounted is not None:
        model, out = model_file(tmp_path), mounted / "out"
        assert mount(mounted, "size=16m")
        make(model, out, 300, layout=layout)
        remount(mounted, "ro")
        assert ganrt.verify(out) == []
        victim = next(path for path in sorted(out.rglob("*")) if path.suffix in (".png", ".tar", ".npy"))
        remount(mounted, "rw")
        victim.write_bytes(victim.read_bytes()[:-1] + b"?")
        remount(mounted, "ro")
        words = [sys.executable, "-m", "ganrt", "verify", str(out), "--repair", "--model", str(model)]
        refused = run(words)
        assert refused.returncode == 1 and "Read-only file system" in refused.stderr, refused.stderr
        assert len(ganrt.verify(out)) == 1
    tally.survived(f"read-only file system, verify, {layout}")


@pytest.mark.parametrize("kind", few_fast(KINDS))
def test_a_folder_without_permission_is_named(kind: str, slow: dict[str, Runs], tmp_path: Path, tally: Tally) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o555)
    refused = run(slow[kind].command(closed / "out", "folder"), preexec_fn=bound_by_permissions)
    assert refused.returncode == 1 and "Permission denied" in refused.stderr, refused.stderr
    assert "Choose a folder that you may write to." in refused.stderr
    tally.survived(f"no permission to write, {kind}")


@every_kind_and_layout
def test_permission_that_is_lost_in_the_middle(
    kind: str, layout: str, slow: dict[str, Runs], tmp_path: Path, tally: Tally
) -> None:
    runs, out = slow[kind], tmp_path / "out"
    process = start(runs.command(out, layout), preexec_fn=bound_by_permissions)
    wait_for_shards(process, out, 2)
    closed = [out, *(path for path in out.iterdir() if path.is_dir())]
    for path in closed if layout != "npy" else list(out.glob("*.part")):  # whose file is open anew for each shard
        path.chmod(0o555)
    _, complaint = process.communicate(timeout=120)
    for path in [*closed, *out.glob("*.part")]:
        path.chmod(0o755)
    assert process.returncode == 1 and "Permission denied" in complaint, complaint
    assert "images are finished and kept; the same command goes on from there." in complaint
    assert "Traceback" not in complaint and not (out / "README.md").exists()
    gone_on_well(runs, out, layout, tmp_path / "whole")
    tally.survived(f"permission lost in the middle, {kind}, {layout}")


# Limits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", few_fast(LAYOUTS))
def test_a_limit_on_file_sizes_is_named_and_what_fits_is_kept(layout: str, tmp_path: Path, tally: Tally) -> None:
    import resource

    model, out = model_file(tmp_path), tmp_path / "out"
    limit = {"folder": 20_000, "webdataset": 250_000, "npy": 60_000}[layout]  # the ledger of images, archives, rows
    limited = run(
        command(model, out, PLENTY, "--layout", layout),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert limited.returncode == 1 and "A limit on file sizes is set (ulimit -f)" in limited.stderr
    assert "Traceback" not in limited.stderr
    ledger = next(iter(out.glob("*.ledger"))).read_bytes()
    assert ledger.endswith(b"\n") and len(ledger) <= limit
    make(model, out, PLENTY, layout=layout)
    make(model, tmp_path / "whole", PLENTY, layout=layout)
    assert differences(out, tmp_path / "whole") == []
    assert ganrt.verify(out) == []
    tally.survived(f"limit on file sizes, {layout}")


@every_kind_and_layout
def test_a_limit_on_open_files_is_named(
    kind: str, layout: str, slow: dict[str, Runs], tmp_path: Path, tally: Tally
) -> None:
    # Whatever the number at which it is reached: the run ends well, or with an error that says what to do.
    runs, refused = slow[kind], 0
    for more in range(24):
        out = tmp_path / str(more)
        try:
            with open_files(more):
                assert runs.make(out, layout, workers=4).complete
                break
        except StorageError as error:
            assert "Too many open files" in error.message, error
            assert error.hint == "A limit on open files is set (ulimit -n); raise it or use fewer --workers."
            assert not (out / "README.md").exists()
            refused += 1
            tally.survived(f"limit on open files, {kind}, {layout}")
    assert 1 < refused < 24
    gone_on_well(runs, tmp_path / str(refused - 1), layout, tmp_path / "whole")


@contextlib.contextmanager
def open_files(more: int) -> Iterator[None]:
    """So many files more may be opened in this process, and no others."""
    import resource

    used, before = {int(name) for name in os.listdir("/proc/self/fd")}, resource.getrlimit(resource.RLIMIT_NOFILE)
    first_refused = [number for number in range(len(used) + more + 1) if number not in used][more]
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_refused, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
