"""What users write today, each as a function that makes n images into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.networks import Network
from ganrt.providers import runtime

Pixels = NDArray[np.uint8]
Rival = Callable[[int, Path], None]


def rivals(net: Network, cores: int) -> dict[str, Rival]:
    """The ways, by the letter the table names them with."""
    return {
        "a  PyTorch eager, batch 1, Pillow": _eager(net, 1),
        "b  PyTorch eager, batch 64, Pillow": _eager(net, 64),
        "c  PyTorch bf16, batch 64, Pillow in threads": _fast_torch(net, cores, half=True),
        "d  ONNX Runtime, batch 64, Pillow": _onnxruntime(net),
        # For processors that compute bf16 slowly.
        "e  PyTorch fp32, batch 64, Pillow in threads": _fast_torch(net, cores, half=False),
    }


def _inputs(net: Network, n: int, batch: int) -> Iterator[tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    for first in range(0, n, batch):
        count = min(batch, n - first)
        z = torch.randn(count, net.z_dim)
        yield (z, torch.arange(first, first + count) % net.classes) if net.classes else (z,)


def _pixels(x: torch.Tensor) -> Pixels:
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _save(image: Pixels, path: Path) -> None:
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)


def _eager(net: Network, batch: int) -> Rival:
    @torch.no_grad()
    def run(n: int, out: Path) -> None:
        index = 0
        for inputs in _inputs(net, n, batch):
            for image in _pixels(net.module(*inputs)):
                _save(image, out / f"{index:08d}.png")
                index += 1

    return run


def _fast_torch(net: Network, cores: int, half: bool) -> Rival:
    """Channels last, and saved by a pool of threads."""

    @torch.inference_mode()
    def run(n: int, out: Path) -> None:
        import copy

        module = copy.deepcopy(net.module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        index = 0
        with ThreadPoolExecutor(cores) as pool, torch.autocast("cpu", torch.bfloat16, enabled=half):
            pending: list[Any] = []
            for inputs in _inputs(net, n, 64):
                for image in _pixels(module(*inputs).float()):
                    pending.append(pool.submit(_save, image, out / f"{index:08d}.png"))
                    index += 1
                while len(pending) > 512:  # bounded memory
                    pending.pop(0).result()
            for job in pending:
                job.result()

    return run


def _onnxruntime(net: Network) -> Rival:
    """What ``torch.onnx.export`` wrote, in a session as it comes, with the pixel step in numpy."""
    session = runtime().InferenceSession(str(net.plain), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)

    def run(n: int, out: Path) -> None:
        index = 0
        for first in range(0, n, 64):
            count = min(64, n - first)
            feeds: dict[str, Any] = {"z": rng.standard_normal((count, net.z_dim), np.float32)}
            if net.classes:
                feeds["y"] = np.arange(first, first + count) % net.classes
            x = session.run(None, feeds)[0]
            for image in (x * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1):
                _save(image, out / f"{index:08d}.png")
                index += 1

    return run
