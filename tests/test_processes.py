"""``processes=P``: the bytes of one process, whatever happens to any of them, and none that outlives the run."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganrt
from ganrt.errors import Cancelled, DatasetLocked, DatasetMismatch, GanrtError, InferenceError, UsageError
from tests.datasets import (
    SMALL,
    command,
    contents,
    differences,
    environment,
    files,
    finished_shards,
    make,
    marks,
    model_file,
    run,
    slow_model_file,
    wait_for_shards,
)

posix = pytest.mark.skipif(os.name == "nt", reason="signals and ps of POSIX")
N, SHARD = 2400, 16  # of the slow generator: 150 shards of a few milliseconds each
SOON = 20.0  # seconds: far more than is needed, far less than a hang


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slow_model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(slow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the slow generator. Only to be read."""
    out = tmp_path_factory.mktemp("whole") / "out"
    make(slow, out, N, layout="webdataset", shard_size=SHARD, batch=SHARD)
    return out


@pytest.fixture
def in_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the processes of a run, and no other, begin with some code; ``engine`` is ganrt's module."""

    def prepare(code: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        lines = [
            "import os, sys, time",
            "if 'ganrt.processes' in sys.orig_argv:",
            "import ganrt.engine as engine",
        ]
        body = [*lines[:2], *("    " + line for line in [lines[2], *code.splitlines()])]
        (folder / "sitecustomize.py").write_text("\n".join(body) + "\n")
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return prepare


def alive(parent: int) -> set[int]:
    """The processes whose parent is this one, those that only wait to be read apart."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return {int(row[0]) for row in rows if int(row[1]) == parent and row[2][0] != "Z" and row[3:] and "ganrt" in row[3]}


def is_gone(pid: int) -> bool:
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip()[:1] in ("", "Z")


def wait_until(happened: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + SOON
    while not happened():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


def words(slow: Path, out: Path, *more: str) -> list[str]:
    """A run of the slow generator by two processes."""
    given = ["--layout", "webdataset", "--processes", "2", "--workers", "1", *more]
    return command(slow, out, N, *given, shard_size=SHARD, batch=SHARD)


def begin(line: list[str], **changes: str) -> subprocess.Popen[str]:
    """Starts a command as a shell does: in a process group of its own."""
    return subprocess.Popen(
        line,
        env=environment() | changes,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def begun(slow: Path, out: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """A run that is in the middle of its work, and its two processes."""
    process = begin(words(slow, out))
    wait_for_shards(process, out, 3)
    children = alive(process.pid)
    assert process.poll() is None and len(children) == 2, process.communicate()
    return process, children


def parts(root: Path) -> list[str]:
    """Files that are half made."""
    return [path.name for path in files(root) if path.name.endswith(".part")]


# The same bytes.


@pytest.mark.parametrize(
    ("layout", "processes", "n", "options"),
    [
        ("folder", 2, 1000, {}),
        ("webdataset", 3, 1000, {}),
        ("webdataset", 2, 700, {"start": 129}),
        ("folder", 3, 100, {"start": 200}),  # two shards: one process has nothing to do
        ("folder", 2, 300, {"classes": ["c", "a"], "seed": np.uint64(2**64 - 1)}),
        ("webdataset", 2, 300, {"classes": range(2), "size": (np.int64(5), 6), "resample": "nearest", "mode": "l"}),
        (
            "folder",
            2,
            300,
            {"format": "jpeg", "quality": np.uint8(70), "latent_std": np.float32(0.5), "psi": np.float32(0.3)}
            | {"part": "x", "mark": False},
        ),
    ],
)
def test_processes_write_the_bytes_of_one(
    layout: str, processes: int, n: int, options: dict[str, Any], tmp_path: Path
) -> None:
    model = model_file(tmp_path, psi="psi" in options)
    out, alone = tmp_path / "out", tmp_path / "alone"
    told: list[ganrt.Progress] = []
    report = make(model, out, n, layout=layout, processes=processes, progress=told.append, **options)
    one = make(model, alone, n, layout=layout, **options)
    assert differences(out, alone) == []
    assert len(files(out)) > 3 and ganrt.verify(out) == []
    times = {"seconds", "images_per_second", "out", "processes", "workers"}
    assert {k: v for k, v in report.to_dict().items() if k not in times} == {
        k: v for k, v in one.to_dict().items() if k not in times
    }
    assert (report.images, report.already, report.complete, report.device) == (n, 0, True, "cpu")
    assert (report.processes, report.workers, report.threads, report.out) == (processes, 2, 1, str(out))
    assert report.bytes == one.bytes > 0 and report.seconds > 0 and report.images_per_second > 0
    assert (told[-1].done, told[-1].total, told[-1].made) == (n, n, n)
    assert [p.done for p in told] == sorted(p.done for p in told)


def test_a_generator_without_classes_and_no_images_at_all(tmp_path: Path) -> None:
    model = model_file(tmp_path, class_names=())
    for n in (0, 200):
        report = make(model, tmp_path / "out", n, processes=2)
        assert (report.images, report.total, report.complete) == (n, n, True)
        make(model, tmp_path / "alone", n)
        assert differences(tmp_path / "out", tmp_path / "alone") == []


def test_two_machines_of_two_processes_each(model: Path, tmp_path: Path) -> None:
    out, reports = tmp_path / "out", dict[int, ganrt.Report]()

    def machine(k: int) -> None:
        reports[k] = make(model, out, 1000, layout="webdataset", processes=2, shard=(k, 2))

    threads = [threading.Thread(target=machine, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    make(model, tmp_path / "alone", 1000, layout="webdataset")
    assert differences(out, tmp_path / "alone") == [] and ganrt.verify(out) == []
    assert [reports[k].images for k in range(2)] == [512, 488]  # shards 0, 2, 4, 6 and 1, 3, 5, 7
    assert any(report.complete for report in reports.values())
    assert sorted(path.name for path in out.glob("*.ledger")) == [f"ganrt.{k}-of-4.ledger" for k in range(4)]


# Again, further, anew.


@pytest.mark.parametrize(
    ("layout", "steps"),
    [("folder", ((2, 256), (3, 400), (1, 1000))), ("webdataset", ((1, 300), (2, 1000)))],
)
def test_any_number_of_processes_goes_on_with_what_others_began(
    layout: str, steps: tuple[tuple[int, int], ...], model: Path, tmp_path: Path
) -> None:
    out, there = tmp_path / "out", 0
    for processes, n in steps:
        told: list[ganrt.Progress] = []
        report = make(model, out, n, layout=layout, processes=processes, progress=told.append)
        assert (told[-1].done, told[-1].total) == (n, n)  # those with nothing to do count too
        # A last shard that was short is made again.
        assert (report.already, report.images) == (there // 128 * 128, n - there // 128 * 128)
        assert report.complete and ganrt.verify(out) == []
        there = n
    make(model, tmp_path / "alone", 1000, layout=layout)
    assert differences(out, tmp_path / "alone") == []
    if processes == 1:
        return
    before = marks(out)
    again = make(model, out, 1000, layout=layout, processes=2)
    assert (again.images, again.already, again.bytes, again.complete) == (0, 1000, 0, True)
    assert (again.device, again.processes, again.workers, again.images_per_second) == (None, 2, 0, 0)
    assert marks(out) == before


def test_overwrite_removes_what_ganrt_wrote_and_only_that(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(model, out, 600, seed=1)
    (out / "notes.txt").write_text("mine")
    (out / "a" / "mine.png").write_text("mine too")
    with pytest.raises(DatasetMismatch, match="holds another dataset:\n  seed") as error:
        make(model, out, 300, processes=2)
    assert error.value.exit_code == 3
    report = make(model, out, 300, processes=2, overwrite=True)
    assert (report.images, report.already, report.complete) == (300, 0, True)
    make(model, tmp_path / "alone", 300)
    assert differences(out, tmp_path / "alone") == ["a/mine.png", "notes.txt"]
    assert (out / "notes.txt").read_text() == "mine" and (out / "a" / "mine.png").read_text() == "mine too"


def test_a_foreign_folder_is_refused_and_left_as_it_is(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DatasetMismatch, match="holds no ganrt dataset: notes.txt"):
            make(model, tmp_path / "out", 300, processes=2, overwrite=overwrite)
    assert contents(tmp_path / "out") == {"notes.txt": b"mine"}


# Refused before anything is written.


@pytest.mark.parametrize("call", [ganrt.generate, ganrt.forecast])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "processes 0\nExpected a whole number of 1 to 256."),
        ({"processes": 257}, "processes 257\n"),
        ({"processes": 1.5}, "processes 1.5\n"),
        ({"processes": True}, "processes True\n"),
        ({"processes": "2"}, "processes '2'\n"),
        ({"layout": "npy"}, "layout npy cannot be made by several processes\nUse folder or webdataset, or one"),
        ({"model": "loaded"}, "a generator given cannot go to other processes\nGive its name or path."),
        ({"shard": (0, 2), "overwrite": True}, "overwrite would remove what the other machines wrote"),
    ],
)
def test_what_several_processes_cannot_do(
    call: Callable[..., Any], options: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    given = {"model": model, "processes": 2, **options}
    if given["model"] == "loaded":
        given["model"] = ganrt.load(model, device="cpu")
    with pytest.raises(UsageError) as error:
        call(n=10, out=tmp_path / "out", **given)
    assert str(error.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_what_the_processes_write(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = command(model, out, 1000, "--layout", "webdataset", "--processes", "3", "--dry-run")
    dry = run(line)
    assert dry.returncode == 0, dry.stderr
    assert "files:  13 (" in dry.stdout and "with 3 processes of 2 workers" in dry.stdout
    told = ganrt.forecast(model, n=1000, out=out, processes=3, workers=2, device="cpu", layout="webdataset", **SMALL)
    assert (told.processes, told.workers, told.images) == (3, 2, 1000)
    assert not out.exists()
    make(model, out, 1000, layout="webdataset", processes=3)
    assert told.files == len(files(out)) == 8 + 3 + 2  # shards, ledgers, README and manifest


# How the machine is shared out.


@pytest.mark.parametrize(
    ("processors", "processes", "n", "expected"),
    [
        (2, 2, 1000, (1, 1)),
        (6, 2, 64, (1, 3)),  # a batch each: the other processors work within the calls
    ],
)
def test_the_processes_share_the_processors(
    processors: int,
    processes: int,
    n: int,
    expected: tuple[int, int],
    model: Path,
    tmp_path: Path,
    in_children: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_children(f"import ganrt.workers\nganrt.workers.cpu_count = lambda: {processors}")
    monkeypatch.setattr("ganrt.workers.cpu_count", lambda: processors)
    options: dict[str, Any] = {"processes": processes, "device": "cpu", "batch": 32, "shard_size": 32}
    report = ganrt.generate(model, n=n, out=tmp_path / "out", **options)
    assert (report.workers, report.threads, report.images) == (*expected, n)
    told = ganrt.forecast(model, n=n, out=tmp_path / "not", **options)
    assert (told.workers, told.threads) == expected


class FakeChild:
    """Stands for a process: keeps what it is asked, and has failed."""

    asked: list[dict[str, Any]]

    def __init__(self, request: dict[str, Any]) -> None:
        self.asked.append(json.loads(json.dumps(request)))
        self.progress, self.report = ganrt.Progress(0, 0, 0, 0.0), None
        self.error = InferenceError("not a process")

    def is_alive(self) -> bool:
        return False

    def stop(self) -> None: ...

    def join(self) -> None: ...


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("cuda", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda", 1, ["cuda:0", "cuda:0", "cuda:0"]),
        ("cuda", 8, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1", 2, ["cuda:1", "cuda:1", "cuda:1"]),
        ("auto", 2, ["auto", "auto", "auto"]),
    ],
)
def test_gpus_are_handed_out_in_turn(
    device: str, gpus: int, expected: list[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeChild, "asked", [], raising=False)
    monkeypatch.setattr("ganrt.processes._Child", FakeChild)
    monkeypatch.setattr("ganrt.processes.gpus", lambda: [f"GPU {k}" for k in range(gpus)])
    options = {"use_tf32": True, "gpu_mem_limit": np.int64(1 << 30)}
    with pytest.raises(InferenceError, match="not a process"):
        make(model, tmp_path / "out", 1000, processes=3, device=device, provider_options=options, shard=(1, 2))
    asked = FakeChild.asked
    assert [request["device"] for request in asked] == expected
    assert [request["shard"] for request in asked] == [[1, 6], [3, 6], [5, 6]]
    assert all(request["provider_options"] == {"use_tf32": "1", "gpu_mem_limit": str(1 << 30)} for request in asked)
    assert all((request["workers"], request["threads"]) == (2, None) for request in asked)


def test_without_a_gpu_cuda_is_refused_and_nothing_is_lost(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> list[str]:
        raise ganrt.DeviceUnavailable("no NVIDIA driver on this machine")

    make(model, tmp_path / "out", 100)
    before = marks(tmp_path / "out")
    monkeypatch.setattr("ganrt.processes.gpus", none)
    with pytest.raises(ganrt.DeviceUnavailable, match="no NVIDIA driver"):
        make(model, tmp_path / "out", 100, seed=1, processes=2, device="cuda", overwrite=True)
    assert marks(tmp_path / "out") == before


# Where things are found.


def test_a_name_and_a_folder_are_found_from_where_the_command_was_given(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_file(tmp_path, "mine")
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the working folder')")
    line = command(Path("mine"), Path("out"), 300, "--processes", "2")
    line[1:1] = ["-P"]  # as the command `ganrt` is started
    assert line[line.index("--model") + 1] == "mine"
    monkeypatch.setenv("GANRT_MODELS", os.pathsep.join(["nowhere", "."]))
    done = run(line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "300 images in" in done.stdout and "with 2 processes of 2 workers" in done.stdout
    make(tmp_path / "mine.onnx", tmp_path / "alone", 300)
    assert differences(tmp_path / "out", tmp_path / "alone") == []


def test_a_path_is_no_name_for_a_process_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_file(tmp_path).rename(tmp_path / "fashion")  # of the same name as a shipped one
    monkeypatch.chdir(tmp_path)
    assert make(Path("fashion"), Path("out"), 300, processes=2).model == "tiny"


def test_what_libraries_print_does_not_reach_stdout(
    model: Path, tmp_path: Path, in_children: Callable[[str], None]
) -> None:
    in_children(
        "real = engine.make_dataset\n"
        "def noisy(*arguments):\n"
        "    print('a print', flush=True)\n"
        "    os.write(1, b'a write\\n')\n"
        "    return real(*arguments)\n"
        "engine.make_dataset = noisy"
    )
    line = command(model, tmp_path / "out", 300, "--processes", "2", "--json")
    path = os.pathsep.join([environment()["PYTHONPATH"], os.environ["PYTHONPATH"]])
    done = subprocess.run(line, env={**environment(), "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and json.loads(done.stdout)["processes"] == 2
    assert done.stderr.count("a print") == done.stderr.count("a write") == 2


# What goes wrong in a process.


def test_an_error_of_a_process_arrives_as_it_was_raised(tmp_path: Path) -> None:
    model, out = model_file(tmp_path, table_rows=2), tmp_path / "out"
    alone: list[GanrtError] = []
    for processes in (1, 2):
        with pytest.raises(InferenceError) as error:
            make(model, out, 1000, processes=processes)
        alone.append(error.value)
    one, several = alone
    assert type(several) is type(one) and several.hint == one.hint is not None
    assert several.message.startswith("ONNX Runtime") or several.message == one.message
    [note] = several.__notes__
    assert "images are finished and kept; the same command goes on from there" in note


@posix
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os._exit(7)", "a process of the run ended with status 7\nGive the same command again"),
        ("engine.make_dataset = lambda *_: 1 / 0", "a process of the run ended with status 1\nGive the same"),
        (
            f"print('hello', flush=True)\nengine.make_dataset = lambda *_: time.sleep({3 * SOON})",
            "a process of the run cannot be understood: ",
        ),
    ],
)
def test_a_process_that_fails_in_another_way_ends_the_run(
    code: str,
    message: str,
    model: Path,
    tmp_path: Path,
    in_children: Callable[[str], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    in_children(code)
    began = time.monotonic()
    with pytest.raises(GanrtError) as error:
        make(model, tmp_path / "out", 300, processes=2)
    assert time.monotonic() - began < SOON
    assert type(error.value) is GanrtError and str(error.value).startswith(message)
    said = capfd.readouterr()
    assert said.out == ""
    assert ("ZeroDivisionError" in said.err) == ("1 / 0" in code)  # whoever mends it needs to know
    assert "Broken pipe" not in said.err
    assert not alive(os.getpid())


@posix
@pytest.mark.parametrize("failure", [OSError(errno.EAGAIN, "Resource temporarily unavailable"), KeyboardInterrupt()])
def test_when_not_all_processes_can_be_started_none_stays(
    failure: BaseException, slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = subprocess.Popen, list[int]()

    def popen(*arguments: Any, **options: Any) -> Any:
        if len(started) == 2:
            raise failure
        process = real(*arguments, **options)
        started.append(process.pid)
        return process

    monkeypatch.setattr("ganrt.processes.subprocess.Popen", popen)
    with pytest.raises((GanrtError, KeyboardInterrupt)) as error:
        make(slow, tmp_path / "out", 100_000, processes=3)
    monkeypatch.undo()
    if isinstance(failure, OSError):
        assert "Resource temporarily unavailable\nUse fewer --processes, or one." in str(error.value)
    else:
        assert error.value is failure
    assert len(started) == 2 and all(map(is_gone, started))


@pytest.mark.parametrize("executable", ["", None, "/nowhere/python"])
def test_an_interpreter_that_cannot_be_started(
    executable: str | None, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)  # where Python is embedded it may be None
    with pytest.raises(GanrtError, match="no process can be started with .*\nUse fewer --processes, or one"):
        make(model, tmp_path / "out", 300, processes=2)


@posix
def test_a_callback_that_raises_ends_the_processes(slow: Path, tmp_path: Path) -> None:
    seen: set[int] = set()

    def progress(state: ganrt.Progress) -> None:
        if state.made:
            seen.update(alive(os.getpid()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(slow, tmp_path / "out", 100_000, processes=2, progress=progress)
    assert len(seen) == 2 and not alive(os.getpid())
    assert not parts(tmp_path / "out")


@posix
def test_cancel_stops_the_processes(slow: Path, whole: Path, tmp_path: Path) -> None:
    out, cancel = tmp_path / "out", threading.Event()

    def progress(state: ganrt.Progress) -> None:
        assert state.total == N and state.done == state.made
        if state.made:
            cancel.set()

    options: dict[str, Any] = {"layout": "webdataset", "shard_size": SHARD, "batch": SHARD, "processes": 2}
    with pytest.raises(Cancelled, match="stopped before the end") as error:
        make(slow, out, N, progress=progress, cancel=cancel, **options)
    assert error.value.__notes__ == ["finished images are kept; the same command goes on from there."]
    assert not alive(os.getpid()) and not parts(out) and not (out / "README.md").exists()
    kept = finished_shards(out)
    report = make(slow, out, N, **options)
    assert kept > 0 and report.already == SHARD * kept
    assert differences(out, whole) == []


# Killed, interrupted.


@posix
def test_a_process_that_is_killed_ends_the_run_and_nothing_is_half_made(
    slow: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process, children = begun(slow, out)
    os.kill(min(children), signal.SIGKILL)
    said, complaint = process.communicate(timeout=SOON)
    assert (process.returncode, said) == (1, "")
    assert "ganrt: a process of the run ended with status -9\n  Give the same command again" in complaint
    assert "Traceback" not in complaint
    assert all(map(is_gone, children))
    assert not (out / "README.md").exists()
    assert all(path.read_bytes() == (whole / path.name).read_bytes() for path in out.glob("*.tar"))
    kept = finished_shards(out)
    done = run([*words(slow, out), "--json"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["already"] == SHARD * kept > 0
    assert differences(out, whole) == [] and not parts(out)


@posix
def test_when_the_parent_is_killed_its_processes_hold_the_locks_and_end(
    slow: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process, children = begun(slow, out)
    options: dict[str, Any] = {"layout": "webdataset", "shard_size": SHARD, "batch": SHARD}
    for child in children:
        os.kill(child, signal.SIGSTOP)  # so that the run does not end meanwhile
    try:
        for processes in (1, 2, 3):
            with pytest.raises(DatasetLocked, match="another run is writing the dataset"):
                make(slow, out, N, processes=processes, **options)
    finally:
        for child in children:
            os.kill(child, signal.SIGCONT)
    process.kill()
    _, complaint = process.communicate(timeout=SOON)
    wait_until(lambda: all(map(is_gone, children)), "the processes go on")
    assert complaint == ""
    kept = finished_shards(out)
    assert 0 < kept < N // SHARD and not parts(out)
    report = make(slow, out, N, processes=2, **options)
    assert report.already == SHARD * kept and report.complete
    assert differences(out, whole) == []


def without_progress(complaint: str) -> str:
    """What was said on stderr but how far the run was, which a slow machine tells every few seconds."""
    lines = complaint.splitlines(keepends=True)
    return "".join(line for line in lines if not re.match(r"[\d,]+/[\d,]+ images ", line))


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("to", ["parent", "group"])
def test_a_signal_ends_all(
    to: str, number: signal.Signals, status: int, slow: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process, children = begun(slow, out)
    if to == "group":  # as Ctrl-C does
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    said, complaint = process.communicate(timeout=SOON)
    assert (process.returncode, said) == (status, "")
    assert without_progress(complaint) == (
        "ganrt: stopped before the end\n  finished images are kept; the same command goes on from there.\n"
    )
    assert all(map(is_gone, children)) and not parts(out) and not (out / "README.md").exists()
    kept = finished_shards(out)
    assert 0 < kept < N // SHARD
    if (to, number) == ("group", signal.SIGINT):
        report = make(slow, out, N, layout="webdataset", shard_size=SHARD, batch=SHARD)
        assert report.already == SHARD * kept
        assert differences(out, whole) == []


@posix
def test_an_interrupt_of_the_group_while_the_processes_start(slow: Path, tmp_path: Path) -> None:
    process = begin(words(slow, tmp_path / "out"))
    wait_until(lambda: bool(alive(process.pid)), "no process was started")
    os.killpg(process.pid, signal.SIGINT)
    _, complaint = process.communicate(timeout=SOON)
    assert process.returncode == 130 and "Traceback" not in complaint
    assert not finished_shards(tmp_path / "out") or not parts(tmp_path / "out")


@posix
def test_processes_in_a_call_that_does_not_end_do_not_outlive_the_run(
    slow: Path, tmp_path: Path, in_children: Callable[[str], None]
) -> None:
    in_children(
        "import ganrt.generator\n"
        "def make(*_):\n"
        "    sys.stderr.write('in work\\n')\n"
        "    sys.stderr.flush()\n"
        "    time.sleep(600)\n"
        "ganrt.generator.Generator.make = make"
    )
    path = os.pathsep.join([environment()["PYTHONPATH"], os.environ["PYTHONPATH"]])
    process = begin(words(slow, tmp_path / "out"), PYTHONPATH=path)
    assert process.stderr
    assert process.stderr.readline() == "in work\n"
    children = alive(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(SOON) == 130
    wait_until(lambda: all(map(is_gone, children)), "the processes go on")
    assert len(children) == 2
    assert "ended at once; the same command goes on from what is finished" in process.communicate()[1]
