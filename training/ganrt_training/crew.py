"""The processes of one run: alone, or those that torchrun starts, on one machine or several.

Each process takes its share of every batch; gradients are averaged before each update, so that all keep the same
weights. Accelerate finds the others and talks to them. Networks are not wrapped in DistributedDataParallel, whose hooks
do not see the gradients of gradients that penalties need.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganrt.errors import DeviceUnavailable, UsageError
from ganrt.providers import parse_device


@dataclass(frozen=True)
class Crew:
    """Which of how many processes this one is, and the device it works on."""

    rank: int
    size: int
    device: torch.device
    _state: Any = None

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, on each of them."""
        if self._state is None:
            return tensor
        from accelerate.utils import reduce

        mean: Tensor = reduce(tensor.clone(), "mean")
        return mean

    def least(self, number: Tensor) -> float:
        """The least of all processes' numbers, a scalar each."""
        if self._state is None:
            return float(number)
        from accelerate.utils import gather

        return float(gather(number.reshape(1)).min())

    def share_gradients(self, network: nn.Module) -> None:
        """Gives each process the mean of all processes' gradients."""
        if self._state is None:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def wait(self) -> None:
        """Until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()


def join(device: str) -> Crew:
    """The crew of this process: all that torchrun started, else this one alone.

    ``device`` is auto, cpu, cuda or cuda:N. Raises UsageError and DeviceUnavailable.
    """
    kind, number = parse_device(device)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        kind = "cuda" if gpus else "cpu"
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and ":" in device:
        raise UsageError(f"device {device} for several processes", "Say --device cuda: each process takes its own GPU.")
    if kind == "cuda" and number >= gpus:
        raise DeviceUnavailable(
            f"device {device}: PyTorch sees {gpus} GPUs",
            "Use --device cpu, or install a build of PyTorch for your GPU.",
        )
    if not several:
        return Crew(0, 1, torch.device(kind, number) if kind == "cuda" else torch.device("cpu"))
    from accelerate import PartialState

    state = PartialState(cpu=kind == "cpu")
    return Crew(state.process_index, state.num_processes, state.device, state)
