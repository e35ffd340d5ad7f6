"""Taking channels out of a trained projection GAN's last layer, whose other channels take over what they did."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CANDIDATES = 6  # channels that are tried, those that weigh least
_LATENTS = 400
_LEAST = 1e-3  # weight of pixels that are black or white, where a change is hardly seen


@torch.no_grad()
def narrowed(generator: Any, classes: int, seed: int = 0) -> nn.Module:
    """A copy of a cgan_projection generator in inference mode with one channel less before its last convolution.

    Of the channels that weigh least the one is taken whose loss costs least once the last convolution was fitted anew,
    by least squares, to what it gave before (as in channel pruning: He et al. 2017, arXiv 1707.06168).
    """
    generator = generator.eval()
    last = generator.to_image
    z = torch.randn(_LATENTS, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    features = _features(generator, z, torch.arange(_LATENTS) % classes)
    wanted = last(features)
    weighs = features.square().mean((0, 2, 3)).sqrt() * last.weight.abs().sum((0, 2, 3))
    tried = []
    for channel in weighs.argsort()[:_CANDIDATES].tolist():
        kept = torch.tensor([c for c in range(features.shape[1]) if c != channel])
        weight, bias, error = _fitted(features[:, kept], wanted)
        tried.append((error, channel, kept, weight, bias))
    _, _, kept, weight, bias = min(tried, key=lambda one: one[0])

    narrow: Any = copy.deepcopy(generator)
    narrow.up2.weight = nn.Parameter(generator.up2.weight[:, kept].clone())
    narrow.up2.out_channels = len(kept)
    for table in (narrow.norm2.scale, narrow.norm2.shift):
        table.weight = nn.Parameter(table.weight[:, kept].clone())
        table.embedding_dim = len(kept)
    norm = narrow.norm2.norm
    norm.running_mean, norm.running_var = norm.running_mean[kept].clone(), norm.running_var[kept].clone()
    norm.num_features = len(kept)
    narrow.to_image = nn.Conv2d(len(kept), last.out_channels, 3, padding=1)
    narrow.to_image.weight, narrow.to_image.bias = nn.Parameter(weight), nn.Parameter(bias)
    narrow.requires_grad_(False)
    assert isinstance(narrow, nn.Module)
    return narrow


def _features(generator: Any, z: Tensor, y: Tensor) -> Tensor:
    """What the last convolution is given: float [N, C, H, W]."""
    found: list[Tensor] = []
    hook = generator.to_image.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    generator(z, y)
    hook.remove()
    return found[0]


def _fitted(features: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, float]:
    """Weight and bias of a 3x3 convolution whose tanh is nearest to that of ``wanted``, and its mean square error."""
    channels = features.shape[1]
    size = 9 * channels + 1
    left, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, wanted.shape[1], dtype=torch.float64)
    for lot, target in zip(torch.split(features, 50), torch.split(wanted, 50), strict=True):
        patches = F.pad(F.unfold(lot, 3, padding=1).double(), (0, 0, 0, 1), value=1.0)  # [n, 9 C + 1, H W]
        share = (1 - target.tanh().square()).clamp(min=_LEAST).mean(1).flatten(1).double()  # slope of tanh
        rows = (patches * share[:, None]).transpose(1, 2).flatten(0, 1)
        left += rows.T @ rows
        right += rows.T @ (target.flatten(2).double() * share[:, None]).transpose(1, 2).flatten(0, 1)
    solved = torch.linalg.solve(left + 1e-6 * left.diagonal().mean() * torch.eye(size, dtype=torch.float64), right)
    weight = solved[:-1].T.reshape(wanted.shape[1], channels, 3, 3).float().contiguous()
    bias = solved[-1].float()
    made = F.conv2d(features, weight, bias, padding=1)
    return weight, bias, float((made.tanh() - wanted.tanh()).square().mean())
