"""Devices: what works is used, what does not is refused with the cause and the one command that mends it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import ganrt.providers
from ganrt.cli import main
from ganrt.errors import DeviceUnavailable, UsageError
from ganrt.providers import check_provider_options, cpu_count, create_session, parse_device
from tests.models import tiny_model

MODEL = tiny_model()
INSTALL_CUDA = "pip install 'ganrt[cuda]'"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def no_driver(*_: Any) -> Any:
    raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")


def driver(names: list[str], status: int = 0) -> Callable[[str], Any]:
    """What ctypes.CDLL gives on a machine with these GPUs; cuInit answers ``status``."""

    def count(out: Any) -> int:
        out._obj.value = len(names)
        return 0

    def get(out: Any, number: int) -> int:
        out._obj.value = number
        return 0

    def name(text: Any, size: int, handle: Any) -> int:
        text.value = names[handle.value].encode()[: size - 1]
        return 0

    cuda = types.SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=count, cuDeviceGet=get, cuDeviceGetName=name)
    return lambda library: cuda


class Machine:
    """A machine with GPUs and an ONNX Runtime that can be told what it does; ``calls`` says what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.failure: Exception | None = None
        self.session_providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.built_with = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.distributions = {"onnxruntime-gpu": "1.31.0"}
        self._patch = monkeypatch
        self.gpus("NVIDIA H100", "NVIDIA T4")
        real = onnxruntime.InferenceSession

        def session(model: bytes, options: Any, providers: list[Any]) -> Any:
            if providers == ["CPUExecutionProvider"]:
                return real(model, options, providers=providers)
            self.calls.append(("session", (model, options, providers)))
            if self.failure:
                raise self.failure
            return types.SimpleNamespace(get_providers=lambda: self.session_providers)

        def version(name: str) -> str:
            if name not in self.distributions:
                raise importlib.metadata.PackageNotFoundError(name)
            return self.distributions[name]

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: self.built_with)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: self.calls.append(("preload", None)), raising=False)
        monkeypatch.setattr(importlib.metadata, "version", version)

    def gpus(self, *names: str, status: int = 0) -> None:
        self._patch.setattr(ctypes, "CDLL", driver(list(names), status))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def refusal(device: str) -> str:
    """What a user reads who asks for this device."""
    with pytest.raises(DeviceUnavailable) as error:
        create_session(MODEL, device, 1)
    assert error.value.exit_code == 1
    return str(error.value)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
    ],
)
def test_devices_are_named(device: str, expected: tuple[str, int]) -> None:
    assert parse_device(device) == expected


@pytest.mark.parametrize(
    "device", ["gpu", "CUDA", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:x", "cuda:1234", "", " cpu", 0]
)
def test_what_is_no_device(device: Any) -> None:
    with pytest.raises(UsageError) as error:
        create_session(MODEL, device, 1)
    assert str(error.value) == f"device {device!r}\nExpected auto, cpu, cuda, or cuda:N with the number of a GPU."


def test_cuda_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    assert refusal("cuda") == (
        "no NVIDIA driver on this machine\nInstall NVIDIA's driver (nvidia-smi must work), or use --device cpu."
    )


def test_cuda_visible_devices_that_hides_every_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    machine.gpus(status=100)
    assert refusal("cuda") == (
        "CUDA_VISIBLE_DEVICES='-1' hides every GPU\nUnset it: env -u CUDA_VISIBLE_DEVICES ganrt ..."
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert refusal("cuda") == "the NVIDIA driver shows no GPU (CUDA error 100)\nSee what is wrong with it: nvidia-smi"


def test_a_gpu_that_is_not_there(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal("cuda:3") == "device cuda:3: there are 2 GPUs\nExpected cuda:0 to cuda:1."
    machine.gpus("NVIDIA H100")
    assert refusal("cuda:3") == "device cuda:3: there is 1 GPU, cuda:0\nUse --device cuda:0."
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert "device cuda:3: there is 1 GPU, cuda:0 (CUDA_VISIBLE_DEVICES='3')" in refusal("cuda:3")
    assert machine.calls == []


@pytest.mark.parametrize("installed", ["onnxruntime", "onnxruntime-openvino"])
def test_an_onnx_runtime_built_without_cuda(machine: Machine, installed: str) -> None:
    machine.built_with = ["AzureExecutionProvider", "CPUExecutionProvider"]
    machine.distributions = {installed: "1.31.0"}
    assert refusal("cuda") == (
        f"the installed {installed} has no CUDA in it\n"
        f"Replace it: pip uninstall -y {installed} && pip install onnxruntime-gpu"
    )


def test_two_distributions_over_each_other(machine: Machine) -> None:
    machine.distributions = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.0"}
    assert refusal("cuda") == (
        "two distributions of onnxruntime are installed over each other: onnxruntime, onnxruntime-gpu\n"
        "Keep one: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )
    machine.distributions = {"onnxruntime": "1.30.0", "onnxruntime-directml": "1.31.0"}
    assert "onnxruntime onnxruntime-directml && pip install onnxruntime" in refusal("cuda")


@pytest.mark.parametrize(
    ("distributions", "command"),
    [
        ({"onnxruntime-gpu": "1"}, "Install it anew: pip install --force-reinstall onnxruntime-gpu"),
        ({}, "Install it anew: pip install --force-reinstall onnxruntime"),
        ({"onnxruntime": "1", "onnxruntime-gpu": "1"}, "pip uninstall -y onnxruntime onnxruntime-gpu && pip install"),
    ],
)
def test_an_onnx_runtime_that_is_half_uninstalled(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, distributions: dict[str, str], command: str
) -> None:
    machine.distributions = distributions
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    text = refusal("cpu")
    assert text.startswith("onnxruntime cannot be imported: ")
    assert command in text


def test_a_session_that_cuda_cannot_run(machine: Machine) -> None:
    machine.failure = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : libcudnn.so.9: cannot open\nand more")
    assert refusal("cuda:1") == (
        "device cuda:1: ONNX Runtime cannot run this model there: [ONNXRuntimeError] : 1 : FAIL : "
        f"libcudnn.so.9: cannot open\nCUDA 13 and cuDNN 9 are needed: {INSTALL_CUDA}"
    )


def test_a_session_that_fell_back_to_the_cpu_in_silence(machine: Machine) -> None:
    machine.session_providers = ["CPUExecutionProvider"]
    assert refusal("cuda") == (
        f"device cuda:0: ONNX Runtime fell back to the CPU\nInstall NVIDIA's libraries: {INSTALL_CUDA}"
    )


def test_a_cuda_session_is_given_no_way_to_the_cpu(machine: Machine) -> None:
    _, device = create_session(MODEL, "cuda:1", 3, {"use_tf32": False, "gpu_mem_limit": 1 << 30})
    assert device == "cuda:1"
    assert [what for what, _ in machine.calls] == ["preload", "session"]  # NVIDIA's libraries come first
    model, options, chosen = machine.calls[1][1]
    assert model == MODEL
    assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    [(provider, settings)] = chosen
    assert provider == "CUDAExecutionProvider"
    assert settings == {
        "device_id": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "gpu_mem_limit": str(1 << 30),
    }


def test_auto_takes_cuda_where_it_works_and_says_so_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ganrt"):
        assert create_session(MODEL, "auto", 1)[1] == "cuda:0"
    assert caplog.messages == ["device cuda:0"]


def test_auto_takes_the_cpu_where_cuda_fails_and_says_why(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.failure = RuntimeError("no cuDNN")
    with caplog.at_level(logging.INFO, "ganrt"):
        session, device = create_session(MODEL, "auto", 1)
    assert device == "cpu"
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert caplog.messages == [
        "device cpu (no CUDA: device cuda:0: ONNX Runtime cannot run this model there: no cuDNN)"
    ]


def test_provider_options_are_passed_as_text() -> None:
    assert check_provider_options(None, "cpu") == {}
    given = {"use_tf32": True, "prefer_nhwc": "1", "gpu_mem_limit": 5, "cudnn_conv_algo_search": "EXHAUSTIVE"}
    assert check_provider_options(given, "cuda") == {**given, "use_tf32": "1", "gpu_mem_limit": "5"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_id": 1}, "provider option 'device_id'\nThere are: gpu_mem_limit, "),
        ({"use_tf23": 1}, "provider option 'use_tf23'\nThere are: "),
        ({"use_tf32": "yes"}, "provider option use_tf32='yes'\nExpected 0 or 1."),
        ({"gpu_mem_limit": "2G"}, "provider option gpu_mem_limit='2G'\nExpected a whole number."),
    ],
)
def test_provider_options_that_onnx_runtime_would_ignore(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        create_session(MODEL, "cuda", 1, options)
    assert str(error.value).startswith(message)


def test_provider_options_do_not_apply_to_the_cpu() -> None:
    with pytest.raises(UsageError, match="provider options do not apply to the device cpu\nLeave them out"):
        create_session(MODEL, "cpu", 1, {"use_tf32": 1})


def test_what_preload_prints_is_kept_from_stdout_and_told_as_the_cause(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def preload() -> None:
        print("Failed to load libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    machine.failure = RuntimeError("nodes are assigned to the default CPU EP")
    text = refusal("cuda")
    assert "cannot run this model there: Failed to load libcudnn.so.9" in text
    assert "pip install 'ganrt[cuda]'" in text
    assert capsys.readouterr().out == ""


def test_a_broken_driver_is_not_blamed_on_cuda_visible_devices(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    machine.gpus(status=803)
    assert refusal("cuda").startswith("the NVIDIA driver shows no GPU (CUDA error 803)")


# Processors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of a container's quota, which is not there yet, on a machine of 16 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("cpu_count", "process_cpu_count"):
        monkeypatch.setattr(os, name, lambda: 16, raising=False)
    monkeypatch.setattr("ganrt.providers.CPU_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"max 100000\n", 16),
        (b"150000 100000\n", 2),  # rounded up
        (b"100000 100000", 1),
        (b"200001 100000\n", 3),
        (b"1000 100000\n", 1),
        (b"75000 50000\n", 2),
        (b"9900000 100000\n", 16),  # never more than there are
        (b"", 16),
        (b"200000", 16),
        (b"200000 100000 50000", 16),
        (b"two of them", 16),
        (b"2e5 1e5", 16),
        (b"\xff\xfe", 16),
    ],
)
def test_the_quota_of_a_container_limits_the_processors(quota: Path, text: bytes, count: int) -> None:
    quota.write_bytes(text)
    assert cpu_count() == count


def test_without_a_quota_that_can_be_read_all_processors_count(quota: Path) -> None:
    assert cpu_count() == 16
    quota.mkdir()
    assert cpu_count() == 16


def test_a_quota_of_a_period_of_nothing_is_none(quota: Path) -> None:
    quota.write_text("100000 0")
    assert cpu_count() == 16


def test_only_commands_limit_what_onnx_runtime_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model())
    asked: list[int] = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", asked.append)
    monkeypatch.setattr(ganrt.providers, "_ours", False)
    ganrt.load(tmp_path / "tiny.onnx", device="cpu")
    assert asked == []
    words = ["preview", str(tmp_path / "tiny.onnx"), "--out", str(tmp_path / "p.png"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["ganrt", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and set(asked) == {3}
