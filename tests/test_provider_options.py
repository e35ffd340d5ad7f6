"""Options of ONNX Runtime's CUDA provider: passed on where they apply, recorded, and never ignored without a word."""

from __future__ import annotations

import json
import logging
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

import ganrt
from ganrt import cli
from ganrt.bound import BoundRuns
from ganrt.errors import UsageError
from ganrt.providers import create_session
from tests.datasets import contents, differences, make, model_file

GRAPH = {"enable_cuda_graph": 1, "use_tf32": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A GPU that is none. What its sessions were made with."""
    asked: list[Any] = []

    def session(data: bytes, device: str, threads: int, options: Any = None) -> Any:
        asked.append((device, options))
        return create_session(data, "cpu", threads)[0], "cuda:0"

    monkeypatch.setattr("ganrt.network.create_session", session)
    monkeypatch.setattr("ganrt.network.bound_runs", lambda device, session: BoundRuns("cpu"))
    return asked


def record(out: Path) -> dict[str, Any]:
    """What the manifest says that a dataset was made with."""
    told = json.loads((out / "ganrt.json").read_text())
    [part] = told["parts"]
    [made_with] = part["made_with"]
    assert isinstance(made_with, dict)
    return made_with


def test_options_reach_the_session_and_the_manifest_and_change_no_plan(
    cuda: list[Any], model: Path, tmp_path: Path
) -> None:
    ganrt.generate(model, n=100, out=tmp_path / "a", device="cuda", batch=32, provider_options=GRAPH)
    assert cuda == [("cuda", GRAPH)]
    made = record(tmp_path / "a")
    assert (made["device"], made["enable_cuda_graph"], made["use_tf32"]) == ("cuda", "1", "1")
    # They do not decide the dataset: it goes on without them.
    report = ganrt.generate(model, n=130, out=tmp_path / "a", device="cuda", batch=32)
    assert (report.already, report.images) == (0, 130)  # the one shard was short
    ganrt.generate(model, n=130, out=tmp_path / "b", device="cuda", batch=32)
    assert "enable_cuda_graph" not in record(tmp_path / "b")
    images = [{k: v for k, v in contents(tmp_path / side).items() if k.endswith(".png")} for side in "ab"]
    assert images[0] == images[1] and len(images[0]) == 130


def test_a_generator_given_is_recorded_with_its_options_as_they_were_when_it_was_loaded(
    cuda: list[Any], model: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = dict(GRAPH)
    generator = ganrt.load(model, "cuda:0", batch=32, provider_options=options)
    options["use_tf32"] = "0"
    ganrt.generate(generator, n=10, out=tmp_path / "out")
    made = record(tmp_path / "out")
    assert (made["device"], made["enable_cuda_graph"], made["use_tf32"]) == ("cuda", "1", "1")


def test_they_go_along_with_a_pickled_generator(cuda: list[Any], model: Path) -> None:
    generator = ganrt.load(model, "cuda:0", provider_options=MappingProxyType(GRAPH))
    again = pickle.loads(pickle.dumps(generator))
    assert cuda == [("cuda:0", GRAPH)] * 2
    assert again.provider_options == generator.provider_options == {"enable_cuda_graph": "1", "use_tf32": "1"}


def test_load_and_the_command_pass_them_on(
    cuda: list[Any], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ganrt.load(model, "cuda:0", provider_options=GRAPH).provider_options == {
        "enable_cuda_graph": "1",
        "use_tf32": "1",
    }
    words = f"ganrt generate --n 3 --out {tmp_path}/out --model {model} --device cuda --quiet".split()
    given = ["--provider-option", "use_tf32=1", "--provider-option", "gpu_mem_limit=1000000"]
    monkeypatch.setattr(sys, "argv", [*words, *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert cuda == [("cuda:0", GRAPH), ("cuda", {"use_tf32": "1", "gpu_mem_limit": "1000000"})]


BAD = [
    ({"nonsense": "1"}, "auto", "provider option 'nonsense'\nThere are: .*enable_cuda_graph"),
    ({"use_tf32": "yes"}, "cuda", "provider option use_tf32='yes'\nExpected 0 or 1"),
    ({"gpu_mem_limit": "much"}, "auto", "provider option gpu_mem_limit='much'\nExpected a whole number"),
    ({"gpu_mem_limit": -1}, "cuda", "provider option gpu_mem_limit=-1\nExpected a whole number"),
    ({"gpu_mem_limit": "²"}, "auto", "provider option gpu_mem_limit='²'\nExpected a whole number"),
    ({"gpu_mem_limit": 10**20}, "auto", "provider option gpu_mem_limit=10+\nExpected a whole number"),
    ({"use_tf32": None}, "auto", "provider option use_tf32=None\nExpected 0 or 1"),
    ({"use_tf32": "1", "device_id": "1"}, "cuda:1", "provider option 'device_id'\nThere are: "),
    ({"use_tf32": "1"}, "cpu", "provider options do not apply to the device cpu"),
]


@pytest.mark.parametrize(("options", "device", "message"), BAD)
def test_what_onnx_runtime_would_ignore_is_refused(
    options: dict[str, Any], device: str, message: str, model: Path, tmp_path: Path
) -> None:
    for call in (ganrt.generate, ganrt.forecast):
        with pytest.raises(UsageError, match=message):
            call(model, n=1, out=tmp_path / "out", device=device, provider_options=options)
    with pytest.raises(UsageError, match=message):
        ganrt.load(model, device, provider_options=options)
    with pytest.raises(UsageError, match=message):
        ganrt.generate(model, n=1, out=tmp_path / "out", device=device, provider_options=options, processes=2)
    assert not (tmp_path / "out").exists()


def test_they_belong_to_the_generator_given(model: Path, tmp_path: Path) -> None:
    generator = ganrt.load(model, device="cpu")
    with pytest.raises(UsageError, match="belong to the generator given\nName them where"):
        ganrt.generate(generator, n=1, out=tmp_path / "out", provider_options=GRAPH)
    with pytest.raises(UsageError, match="belong to the session given"):
        ganrt.load(generator._session, provider_options=GRAPH)
    assert not (tmp_path / "out").exists()


def test_auto_without_a_gpu_says_that_they_are_not_used(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    with caplog.at_level(logging.INFO, logger="ganrt"):
        ganrt.generate(
            model, n=100, out=tmp_path / "out", provider_options=GRAPH, batch=32, shard_size=128, layout="npy"
        )
    assert "device cpu (no CUDA: no NVIDIA driver on this machine); the provider options are not used" in caplog.text
    assert "enable_cuda_graph" not in record(tmp_path / "out")
    make(model, tmp_path / "plain", 100, layout="npy")
    assert differences(tmp_path / "out", tmp_path / "plain") == []


@pytest.mark.parametrize(
    ("device", "options", "said"),
    [
        ("cpu", GRAPH, ["device cpu (no CUDA); the provider options are not used"]),
        ("cpu", None, []),
        ("cuda:0", GRAPH, []),
    ],
)
def test_several_processes_are_given_them_and_say_when_they_are_not_used(
    device: str,
    options: dict[str, Any] | None,
    said: list[str],
    model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = ganrt.generate(model, n=10, out=tmp_path / "before", device="cpu")
    asked: list[Any] = []

    def child(request: dict[str, Any]) -> Any:
        """A process that has found this device."""
        asked.append(request["provider_options"])
        return SimpleNamespace(
            report=replace(report, device=device),
            error=None,
            progress=None,
            is_alive=lambda: False,
            stop=lambda: None,
            join=lambda: None,
        )

    monkeypatch.setattr("ganrt.processes._Child", child)
    with caplog.at_level(logging.INFO, logger="ganrt"):
        ganrt.generate(model, n=10, out=tmp_path / "out", processes=2, provider_options=options)
    assert asked == [{name: str(value) for name, value in (options or {}).items()}] * 2
    assert caplog.messages == said


@pytest.mark.parametrize("quiet", [False, True])
def test_the_command_says_on_stderr_that_they_are_not_used(
    quiet: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    words = f"ganrt generate --n 3 --out {tmp_path}/out --model {model} --json --provider-option use_tf32=1".split()
    monkeypatch.setattr(sys, "argv", [*words, "--quiet"] if quiet else words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, json.loads(out)["device"]) == (0, "cpu")
    assert ("; the provider options are not used" in err) is not quiet


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("enable_cuda_graph", "provider option 'enable_cuda_graph'\n  Expected NAME=VALUE"),
        ("=1", "provider option ''\n  There are: "),
        ("use_tf32=", "provider option use_tf32=''\n  Expected 0 or 1"),
        ("use_tf23=1", "provider option 'use_tf23'\n  There are: gpu_mem_limit, "),
        ("cudnn_conv_algo_search=FAST", "search='FAST'\n  Expected EXHAUSTIVE or HEURISTIC or DEFAULT"),
        ("use_tf32=1 --device cpu", "provider options do not apply to the device cpu\n  Leave them out"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_the_command_says_what_there_is_and_how_it_is_written(
    dry: list[str],
    words: str,
    said: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    command = f"ganrt generate --n 1 --out {out} --model {model} --provider-option {words}".split()
    monkeypatch.setattr(sys, "argv", [*command, *dry])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err
    assert not out.exists()
