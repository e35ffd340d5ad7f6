"""The averaged generator: the one that is measured, kept and exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


@torch.no_grad()
def update(ema: nn.Module, model: nn.Module, decay: float | Tensor) -> None:
    """Moves the parameters of ``ema`` towards those of ``model``, and copies what is no parameter."""
    mine: list[Tensor] = list(ema.parameters())
    theirs: list[Tensor] = list(model.parameters())
    if isinstance(decay, Tensor):
        torch._foreach_lerp_(mine, theirs, [1 - decay] * len(mine))
    else:
        torch._foreach_lerp_(mine, theirs, 1 - decay)
    for buffer, its in zip(ema.buffers(), model.buffers(), strict=True):
        buffer.copy_(its)


@torch.no_grad()
def standing_statistics(
    ema: nn.Module, z_dim: int, classes: int, *, batches: int = 16, batch_size: int = 128, seed: int = 0
) -> nn.Module:
    """A copy in inference mode whose batch norms hold the statistics of the averaged weights themselves.

    The running statistics of training belong to other weights; BigGAN (Brock et al. 2018, arXiv
    1809.11096, 3.1) measures them anew with forward passes, and so does this, over balanced labels.
    """
    model = copy.deepcopy(ema).eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        generator = torch.Generator().manual_seed(seed)
        device = next(model.parameters()).device
        y = (torch.arange(batch_size) % classes).to(device) if classes else None
        for _ in range(batches):
            model(torch.randn(batch_size, z_dim, generator=generator).to(device), y)
    return model.eval()
