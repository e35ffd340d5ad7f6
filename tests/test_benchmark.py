"""``ganrt bench``: figures that fit together, what limits them, and nothing left behind."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ganrt
from ganrt import cli
from ganrt.benchmark import calls
from ganrt.bound import BoundRuns
from ganrt.errors import Cancelled, InferenceError, StorageError, StorageFull, UnknownModel, UsageError
from ganrt.providers import create_session
from ganrt.samples import check_samples
from tests.datasets import environment, model_file

LIMITS = {"network", "encoding", "files", "turns"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, which is empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def use_processors(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("workers", "network", "benchmark"):
        monkeypatch.setattr(f"ganrt.{module}.cpu_count", lambda: count)


@pytest.mark.parametrize("changes", [{}, {"class_names": ()}, {"psi": True}, {"channels": 1, "class_names": ("only",)}])
def test_figures_fit_together_and_nothing_is_left(changes: dict[str, Any], tmp_path: Path, temporary: Path) -> None:
    model = model_file(tmp_path, **changes)
    (tmp_path / "out").mkdir()
    speed = ganrt.bench(model, seconds=0.02, batch=32, workers=2, device="cpu", out=tmp_path / "out")
    assert (speed.model, speed.device, speed.workers, speed.threads, speed.batch) == ("tiny", "cpu", 2, 1, 32)
    assert list(speed.layouts) == ["folder", "webdataset", "npy"]
    for row in speed.layouts.values():
        assert row.images_per_second > 0 and row.limit in LIMITS
        assert row.of_network == pytest.approx(row.images_per_second / speed.network, abs=0.001)
    assert min(speed.network_us, speed.encoding_us, speed.files_us) > 0
    mean = sum(len(data) for data in _pngs(model, tmp_path / "set")) / 256
    assert speed.png_bytes == pytest.approx(mean, abs=0.1)
    assert json.loads(json.dumps(speed.to_dict())) == speed.to_dict()
    assert not any((tmp_path / "out").iterdir())
    assert not any(temporary.iterdir())


def _pngs(model: Path, out: Path) -> list[bytes]:
    ganrt.generate(model, n=256, out=out, device="cpu")
    return [path.read_bytes() for path in out.rglob("*.png")]


def test_workers_and_threads_are_picked_as_generate_does(
    model: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_processors(3, monkeypatch)
    speed = ganrt.bench(model, seconds=0.01, device="cpu")
    assert (speed.processors, speed.workers, speed.threads, speed.batch) == (3, 3, 1, 64)
    assert not any(temporary.iterdir())


def test_every_figure_is_of_the_device_that_was_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def session(data: bytes, device: str, threads: int, options: Any = None) -> Any:
        asked.append(device)
        return create_session(data, "cpu", threads)[0], "cuda:0"

    monkeypatch.setattr("ganrt.network.create_session", session)
    monkeypatch.setattr("ganrt.network.bound_runs", lambda device, session: BoundRuns("cpu"))
    assert ganrt.bench(model, seconds=0.01, batch=16).device == "cuda:0"
    assert asked == ["auto", "cuda:0", "cuda:0", "cuda:0"]


@pytest.mark.parametrize(("n", "made"), [(None, 1), (1, 1), (96, 6), (100, 7)])
def test_so_many_calls_of_the_network_are_made_as_were_asked_for(n: int | None, made: int, model: Path) -> None:
    generator = ganrt.load(model, device="cpu", threads=1)
    network, drawn = generator.network, list[int]()

    def count(draw: Any, psi: float | None) -> Any:
        drawn.append(len(draw.z))
        return network(draw, psi)

    generator.network = count  # type: ignore[method-assign]
    assert calls(generator, check_samples(generator.card), 16, 3, n=n) > 0
    assert drawn == [16] * made


@pytest.mark.parametrize(
    ("workers", "network", "encoding", "files", "rates", "limits"),
    [
        # 100 us in the network, and 4 processors.
        (2, 20_000, 10, 10, (16_000, 17_000, 19_000), ("network", "network", "network")),
        (2, 20_000, 300, 50, (4_000, 4_500, 19_000), ("encoding", "encoding", "network")),
        (2, 20_000, 50, 300, (4_000, 12_000, 19_000), ("files", "network", "network")),
        (2, 20_000, 300, 50, (1_900, 2_000, 9_000), ("turns", "turns", "turns")),
        # A network that all workers share, as on a GPU: they wait for it, however long they encode.
        (4, 10_000, 200, 50, (9_000, 9_500, 9_900), ("network", "network", "network")),
        # More workers than processors are no faster: 4 of them need 450 us an image.
        (16, 40_000, 300, 50, (8_000, 9_000, 39_000), ("encoding", "encoding", "network")),
    ],
)
def test_what_takes_most_of_the_time_is_named(
    workers: int,
    network: int,
    encoding: int,
    files: int,
    rates: tuple[int, int, int],
    limits: tuple[str, str, str],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = dict(zip(("folder", "webdataset", "npy"), rates, strict=True))

    def generate(*_: Any, layout: str, **__: Any) -> Any:
        return SimpleNamespace(images_per_second=made[layout])

    use_processors(4, monkeypatch)
    monkeypatch.setattr("ganrt.benchmark.calls", lambda *words, **_: 10_000 if words[3] == 1 else network)
    monkeypatch.setattr("ganrt.benchmark._parts", lambda *_: (encoding, files, 100.0))
    monkeypatch.setattr("ganrt.benchmark.generate", generate)
    speed = ganrt.bench(model, workers=workers, device="cpu")
    assert (speed.network, speed.network_us) == (network, 100)
    assert tuple(row.limit for row in speed.layouts.values()) == limits
    assert [row.of_network for row in speed.layouts.values()] == [round(rate / network, 3) for rate in rates]


@pytest.mark.parametrize(
    ("workers", "alone", "network", "seconds", "images"),
    [
        # folder, webdataset, npy: 400, 200 and 100 us an image
        (2, 10_000, 20_000, 2, [10_000, 20_000, 40_000]),
        (2, 10_000, 20_000, 0.5, [2_500, 5_000, 10_000]),
        (16, 10_000, 40_000, 2, [20_000, 40_000, 80_000]),  # on 4 processors
        (4, 10_000, 11_000, 2, [20_000, 22_000, 22_000]),  # on one GPU
        (4, 0.5, 2.0, 2, [200] * 3),  # slow, but a batch for every worker
    ],
)
def test_a_layout_is_given_work_for_about_the_seconds_asked_for(
    workers: int,
    alone: float,
    network: float,
    seconds: float,
    images: list[int],
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def generate(*_: Any, n: int, **__: Any) -> Any:
        asked.append(n)
        return SimpleNamespace(images_per_second=1.0)

    use_processors(4, monkeypatch)
    monkeypatch.setattr("ganrt.benchmark.calls", lambda *words, **_: alone if words[3] == 1 else network)
    monkeypatch.setattr("ganrt.benchmark._parts", lambda *_: (100, 200, 100.0))
    monkeypatch.setattr("ganrt.benchmark.generate", generate)
    ganrt.bench(model, workers=workers, device="cpu", batch=50, seconds=seconds)
    assert asked == images


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({"seconds": bad}, f"seconds {bad!r}") for bad in (0, -1, math.nan, math.inf, 3601, True, "2")),
        ({"batch": 0}, "batch 0"),
        ({"workers": 0}, "workers 0"),
        ({"threads": 0}, "threads 0"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    options: dict[str, Any], said: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganrt.benchmark.load_checked", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UsageError, match=f"^{said}"):
        ganrt.bench(model, **options)


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="none.onnx"):
        ganrt.bench(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("out", "refusal", "said"),
    [
        ("none", None, "no folder .*none\nName one that is there"),
        ("file", None, "no folder .*file\nName one that is there"),
        ("folder", errno.EACCES, "Permission denied .*folder.*\nChoose a folder that you may write to"),
        ("folder", errno.EROFS, "Read-only file system .*folder.*\nChoose a folder on a file system that is not"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_measured(
    out: str, refusal: int | None, said: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    def mkdir(path: str, mode: int = 0o777) -> None:
        raise OSError(refusal, os.strerror(refusal or 0), path)

    if refusal:
        monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr("ganrt.benchmark.calls", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(StorageError, match=said):
        ganrt.bench(model, device="cpu", out=tmp_path / out)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("failure", [StorageFull("no space left", "Make room."), KeyboardInterrupt()])
def test_nothing_is_left_of_a_layout_that_fails(
    failure: BaseException, model: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(*_: Any, out: Path, **__: Any) -> Any:
        out.mkdir()
        (out / "file").touch()
        failure.add_note("5 of 10 images are finished and kept; the same command goes on from there.")
        raise failure

    monkeypatch.setattr("ganrt.benchmark.generate", generate)
    with pytest.raises(type(failure)) as error:
        ganrt.bench(model, seconds=0.01, device="cpu", workers=2)
    assert not any(temporary.iterdir())
    if isinstance(failure, ganrt.GanrtError):
        assert not error.value.__notes__  # they are not kept


def test_a_network_that_fails_is_an_error_and_not_a_speed(tmp_path: Path, temporary: Path) -> None:
    model = model_file(tmp_path, table_rows=2)  # of three classes
    with pytest.raises(InferenceError, match="out of data bounds"):
        ganrt.bench(model, seconds=0.01, device="cpu", workers=2)
    generator = ganrt.load(model, device="cpu")
    with pytest.raises(InferenceError, match="out of data bounds"):
        calls(generator, check_samples(generator.card), 16, 3, n=1000)
    assert not any(temporary.iterdir())


@pytest.mark.parametrize("within", ["network", "layout"])
def test_it_can_be_stopped(within: str, model: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if within == "layout":
        monkeypatch.setattr("ganrt.benchmark.calls", lambda *_, **__: 10_000.0)
    cancel = threading.Event()
    timer = threading.Timer(0.4, cancel.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled, match="stopped before the end") as error:
        ganrt.bench(model, seconds=20, device="cpu", workers=2, cancel=cancel)
    assert time.monotonic() - began < 10
    assert not error.value.__notes__
    assert not any(temporary.iterdir())
    timer.join()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_ends_at_once_and_leaves_nothing(
    number: int, status: int, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = f"bench {model} --out {out} --device cpu --seconds 20 --json".split()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "ganrt", *words], env=environment(), stdout=pipe, stderr=pipe, text=True
    ) as child:
        ends = time.monotonic() + 60
        while not any(out.iterdir()):
            assert time.monotonic() < ends and child.poll() is None
            time.sleep(0.02)
        child.send_signal(number)
        printed, said = child.communicate(timeout=60)
    assert (child.returncode, printed, said) == (status, "", "ganrt: stopped before the end\n")
    assert not any(out.iterdir())


def ended(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["ganrt", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--seconds nan", 2, "seconds nan\n  Expected a number above 0"),
        ("--seconds=-1", 2, "seconds -1.0\n  Expected a number above 0"),
        ("--batch 0", 2, "batch 0\n"),
        ("--workers 0", 2, "workers 0\n"),
        ("--threads 0", 2, "threads 0\n"),
        ("--device gpu", 2, "device 'gpu'\n"),
        ("--out /no/such/folder", 1, "no folder /no/such/folder\n  Name one"),
    ],
)
def test_the_command_says_what_is_wrong_on_stderr(
    words: str, code: int, said: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(["bench", str(model), *words.split()], monkeypatch) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"ganrt: {said}")


def test_the_command_passes_its_options_on_and_prints_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = ganrt.Speed(
        model="tiny",
        device="cpu",
        processors=2,
        workers=2,
        threads=1,
        batch=16,
        network=12.5,
        network_us=8e4,
        encoding_us=20.25,
        files_us=200.0,
        png_bytes=321.1,
        layouts={"npy": ganrt.LayoutSpeed(images_per_second=6.25, of_network=0.5, limit="network")},
    )
    asked: list[Any] = []

    def bench(*words: Any, cancel: threading.Event, **options: Any) -> Any:
        asked.append((words, options))
        return speed

    monkeypatch.setattr("ganrt.benchmark.bench", bench)
    words = f"--out {tmp_path} --batch 16 --workers 3 --threads 2 --seconds 0.5 --device cpu --json"
    assert ended(["bench", "somewhat", *words.split()], monkeypatch) == 0
    options = {"out": tmp_path, "batch": 16, "workers": 3, "threads": 2, "seconds": 0.5, "device": "cpu"}
    assert asked == [(("somewhat",), options)]
    assert json.loads(capsys.readouterr().out) == speed.to_dict()


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_the_same(
    as_json: bool, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"bench {model} --seconds 0.02 --device cpu --workers 2 --batch 16".split()
    code = ended([*words, "--json"] if as_json else words, monkeypatch)
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    if as_json:
        told = json.loads(said.out)
        assert (told["workers"], told["batch"], list(told["layouts"])) == (2, 16, ["folder", "webdataset", "npy"])
        return
    assert "tiny on cpu" in said.out and "2 workers, 1 threads a call, batch 16" in said.out
    for layout in ("network alone", "folder", "webdataset", "npy"):
        assert any(line.startswith(layout) and "images/s" in line for line in said.out.splitlines())
    assert said.out.count("limited by") == 3
