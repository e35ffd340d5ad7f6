"""The user's device → ONNX Runtime's execution provider and options; proves that the session got it.

Importing ONNX Runtime through :func:`runtime` sets ORT_DISABLE_TELEMETRY=1 in this process's environment
unless it is set already: from version 1.29 on ONNX Runtime reports usage otherwise.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganrt.errors import DeviceUnavailable, InferenceError, UsageError
from ganrt.values import told

logger = logging.getLogger("ganrt")

MEMORY = Path("/proc/meminfo")
MEMORY_QUOTA = Path("/sys/fs/cgroup/memory.max")  # bytes (Linux, control groups v2)
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of processor time in so many (Linux, control groups v2)

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_ON_OFF = ("0", "1")
# What may be asked of the CUDA provider (onnxruntime.ai: CUDA execution provider, Configuration options);
# ONNX Runtime ignores an option it does not know without a word. None: a number.
PROVIDER_OPTIONS: dict[str, tuple[str, ...] | None] = {
    "gpu_mem_limit": None,
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "cudnn_conv_use_max_workspace": _ON_OFF,
    "do_copy_in_default_stream": _ON_OFF,
    "enable_cuda_graph": _ON_OFF,
    "use_tf32": _ON_OFF,
    "prefer_nhwc": _ON_OFF,
}
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-silicon",
    "ort-nightly",
    "ort-nightly-gpu",
)
INSTALL_CUDA = "pip install 'ganrt[cuda]'"
_ours = False  # the process, and so what ONNX Runtime prints in it


def runtime() -> Any:
    """The module ``onnxruntime``, imported with its telemetry off. Raises DeviceUnavailable when it is broken."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018 - an uninstalled half of two distributions has none
    except (ImportError, AttributeError) as error:
        both = installed_runtimes()
        again = f"Install it anew: pip install --force-reinstall {next(iter(both), 'onnxruntime')}"
        hint = mend_runtimes(both) if len(both) > 1 else again
        raise DeviceUnavailable(f"onnxruntime cannot be imported: {error}", hint) from error
    if _ours:
        onnxruntime.set_default_logger_severity(3)  # 1.31 warns of a plugin at each session on a GPU
    if hasattr(onnxruntime, "disable_telemetry_events"):  # for a host that imported it before the variable was set
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def own_process() -> None:
    """Says that this process is a command of ganrt's: what ONNX Runtime prints is limited to errors, for all of it."""
    global _ours
    _ours = True


def installed_runtimes() -> dict[str, str]:
    """The installed distributions that all provide the module ``onnxruntime``, with their versions."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_count() -> int:
    """The processors that this process may use: its affinity, and the quota of its container, rounded up."""
    if sys.version_info >= (3, 13):
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = (int(number) for number in CPU_QUOTA.read_text().split())
        return max(1, min(count, -(-quota // period)))
    except (OSError, ValueError, ZeroDivisionError):  # no control group, or "max": no quota
        return count


def free_memory() -> int | None:
    """Bytes of memory that may still be taken: what the system says, and the limit of its container. Linux only."""
    try:
        lines = (line.split() for line in MEMORY.read_text().splitlines())
        told = {name: int(count) << 10 for name, count, *_ in lines}
        free = told["MemAvailable:"] + told["SwapFree:"]
    except (OSError, ValueError, KeyError):
        return None
    try:
        return min(free, int(MEMORY_QUOTA.read_text()))
    except (OSError, ValueError):  # no control group, or "max": no limit
        return free


def parse_device(device: str) -> tuple[str, int]:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as kind and number. Raises UsageError."""
    match = re.fullmatch(r"(auto|cpu|cuda)(?::([0-9]{1,3}))?", device) if isinstance(device, str) else None
    if not match or (match[2] and match[1] != "cuda"):
        raise UsageError(f"device {told(device)}", "Expected auto, cpu, cuda, or cuda:N with the number of a GPU.")
    return match[1], int(match[2] or 0)


def check_provider_options(options: Mapping[str, Any] | None, device: str) -> dict[str, str]:
    """Options for the CUDA provider as ONNX Runtime takes them. Raises UsageError for any that it would ignore."""
    checked = {}
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"provider options {told(options)}", 'Expected names and values, {"enable_cuda_graph": 1}.')
    if options and parse_device(device)[0] == "cpu":
        raise UsageError("provider options do not apply to the device cpu", "Leave them out, or use the device cuda.")
    for name, value in (options or {}).items():
        if name not in PROVIDER_OPTIONS:
            raise UsageError(f"provider option {told(name)}", f"There are: {', '.join(PROVIDER_OPTIONS)}.")
        allowed = PROVIDER_OPTIONS[name]
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if not (re.fullmatch("[0-9]{1,19}", text) if allowed is None else text in allowed):
            expected = "a whole number" if allowed is None else " or ".join(allowed)
            raise UsageError(f"provider option {name}={told(value)}", f"Expected {expected}.")
        checked[name] = text
    return checked


def cuda_driver() -> Any:
    """NVIDIA's driver library. Raises DeviceUnavailable where there is none."""
    try:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        raise DeviceUnavailable(
            "no NVIDIA driver on this machine", "Install NVIDIA's driver (nvidia-smi must work), or use --device cpu."
        ) from None


def gpus() -> list[str]:
    """The names of the GPUs that the NVIDIA driver shows this process (so CUDA_VISIBLE_DEVICES is honoured).

    Raises DeviceUnavailable when there is no driver, or when it shows none.
    """
    cuda = cuda_driver()
    count, status = ctypes.c_int(0), cuda.cuInit(0)
    if status == 0:
        status = cuda.cuDeviceGetCount(ctypes.byref(count))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if status != 0 or count.value == 0:
        if visible is not None and status in (0, _NO_DEVICE):
            raise DeviceUnavailable(
                f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU", "Unset it: env -u CUDA_VISIBLE_DEVICES ganrt ..."
            )
        raise DeviceUnavailable(
            f"the NVIDIA driver shows no GPU (CUDA error {status})", "See what is wrong with it: nvidia-smi"
        )
    names = []
    for number in range(count.value):
        name, handle = ctypes.create_string_buffer(256), ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(handle), number)
        cuda.cuDeviceGetName(name, 256, handle)
        names.append(name.value.decode(errors="replace"))
    return names


def create_session(
    model: bytes, device: str, threads: int, options: Mapping[str, Any] | None = None
) -> tuple[Any, str]:
    """An ONNX Runtime session and the device that it really runs on (``cpu`` or ``cuda:N``).

    ``threads`` are those within one call on a CPU. Raises DeviceUnavailable when the device asked for does
    not work here wholly, UsageError for provider options that do not apply, InferenceError when ONNX
    Runtime cannot load the model.
    """
    kind, number = parse_device(device)
    checked = check_provider_options(options, device)
    if kind == "cpu":
        return _cpu_session(model, threads), "cpu"
    if kind == "cuda":
        return _cuda_session(model, number, threads, checked), f"cuda:{number}"
    try:
        session = _cuda_session(model, 0, threads, checked)
    except DeviceUnavailable as error:
        unused = "; the provider options are not used" if checked else ""
        logger.info("device cpu (no CUDA: %s)%s", error.message, unused)
        return _cpu_session(model, threads), "cpu"
    logger.info("device cuda:0")
    return session, "cuda:0"


def device_of_session(session: Any) -> str:
    """Where a ready-made session runs: ``cpu``, ``cuda:N``, or the name of another provider."""
    first = str(session.get_providers()[0])
    number = session.get_provider_options().get(first, {}).get("device_id", "0")
    name = first.removesuffix("ExecutionProvider").lower()
    return f"cuda:{number}" if name == "cuda" else name


def _options(threads: int) -> Any:
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # None but fatal ones: what goes wrong is raised, and a line of its own would show a stranger's names as they are.
    options.log_severity_level = 4
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _cpu_session(model: bytes, threads: int) -> Any:
    ort = runtime()
    try:
        return ort.InferenceSession(model, _options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen types that share no base
        raise load_error(error) from error


def _cuda_session(model: bytes, number: int, threads: int, options: Mapping[str, str]) -> Any:
    ort = runtime()
    missing = _check_cuda(ort, number)
    session_options = _options(threads)
    # Without this ONNX Runtime runs on the CPU what it cannot run on the GPU, and says nothing.
    session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    # One batch shape a plan: a heuristic choice of kernels costs nothing per run and no search at the start.
    # Whole float32: with TF32's 10 bits of mantissa, images may differ from a CPU's by more than a grey level.
    chosen = {"device_id": str(number), "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", **options}
    try:
        session = ort.InferenceSession(model, session_options, providers=[("CUDAExecutionProvider", chosen)])
    except Exception as error:
        raise DeviceUnavailable(
            f"device cuda:{number}: ONNX Runtime cannot run this model there: {missing or _first_line(error)}",
            f"CUDA 13 and cuDNN 9 are needed: {INSTALL_CUDA}",
        ) from error
    if "CUDAExecutionProvider" not in session.get_providers():
        raise DeviceUnavailable(
            f"device cuda:{number}: ONNX Runtime fell back to the CPU", f"Install NVIDIA's libraries: {INSTALL_CUDA}"
        )
    return session


def _check_cuda(ort: Any, number: int) -> str:
    """Raises DeviceUnavailable with the cause that can be told before a session is tried.

    Returns what NVIDIA library could not be found, if any: that is only a fault if the session fails too.
    """
    names = gpus()
    if number >= len(names):
        there = "there is 1 GPU, cuda:0" if len(names) == 1 else f"there are {len(names)} GPUs"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise DeviceUnavailable(
            f"device cuda:{number}: {there}" + (f" (CUDA_VISIBLE_DEVICES={visible!r})" if visible else ""),
            "Use --device cuda:0." if len(names) == 1 else f"Expected cuda:0 to cuda:{len(names) - 1}.",
        )
    both = installed_runtimes()
    if len(both) > 1:
        raise DeviceUnavailable(
            f"two distributions of onnxruntime are installed over each other: {', '.join(both)}", mend_runtimes(both)
        )
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        installed = next(iter(both), "onnxruntime")
        raise DeviceUnavailable(
            f"the installed {installed} has no CUDA in it",
            f"Replace it: pip uninstall -y {installed} && pip install onnxruntime-gpu",
        )
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(said):  # it prints what it cannot find
            ort.preload_dlls()  # NVIDIA's libraries from pip packages, or those that PyTorch brought
    return next((line.strip() for line in said.getvalue().splitlines() if "fail" in line.lower()), "")


def mend_runtimes(both: Mapping[str, str]) -> str:
    """The command that leaves one of several distributions."""
    keep = "onnxruntime-gpu" if "onnxruntime-gpu" in both else "onnxruntime"
    return f"Keep one: pip uninstall -y {' '.join(both)} && pip install {keep}"


def out_of_memory(error: Exception) -> bool:
    """Whether that is what ONNX Runtime says."""
    text = str(error).lower()
    memory = ("failed to allocate", "bad_alloc", "out of memory", "smaller than requested bytes", "alloc_failed")
    return isinstance(error, MemoryError) or any(words in text for words in memory)


def load_error(error: Exception) -> InferenceError:
    """The typed error of what ONNX Runtime said on loading or running a model."""
    if out_of_memory(error):
        return InferenceError("the generator does not fit into memory", "Free some, or use a machine that has more.")
    return InferenceError(f"ONNX Runtime: {_first_line(error)}", "Export the generator again, or upgrade onnxruntime.")


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    line = re.sub(r" ; GPU=-?[0-9]+ ; hostname=.*", "", line)  # of its sources, and this machine
    line = line if len(line) <= 300 else line[:297] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)  # it may quote names out of the file
