"""Layers that the generators share, exportable by construction."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation whose scale and shift are chosen by the label (Dumoulin et al. 2017, arXiv 1610.07629).

    x float [N, channels, H, W], y int64 [N] → float [N, channels, H, W]. One class gives plain
    batch normalisation. Without training statistics in play the layer is an affine map per class,
    and :meth:`folded` returns it as one.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.norm(x)
        return torch.addcmul(self.shift(y)[:, :, None, None], x, self.scale(y)[:, :, None, None])

    def folded(self) -> ClassAffine:
        """The layer as it acts at inference."""
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        mean, var = self.norm.running_mean.double(), self.norm.running_var.double()
        scale = self.scale.weight.detach().double() / torch.sqrt(var + self.norm.eps)
        shift = self.shift.weight.detach().double() - mean * scale
        return ClassAffine(scale.float(), shift.float())


class ClassAffine(nn.Module):
    """x · scale[y] + shift[y], with tables float [classes, channels]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, :, None, None].clone())
        self.register_buffer("shift", shift[:, :, None, None].clone())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        # index_select rather than scale[y]: it becomes one Gather in ONNX.
        return x * self.scale.index_select(0, y) + self.shift.index_select(0, y)


class Affine(nn.Module):
    """x · scale + shift, with a scale and a shift per channel: float [channels] each."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, None, None].clone())
        self.register_buffer("shift", shift[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def group_deviation(x: Tensor, group: int) -> Tensor:
    """The deviation within each group of consecutive images, averaged over channels: a feature against mode collapse.

    x float [N, C, H, W] with N a multiple of ``group`` → float [N, 1, H, W] (Karras et al. 2017, arXiv
    1710.10196, section 3; kept for each position, so that a group's shapes can be told apart too).
    """
    grouped = x.float().reshape(-1, group, *x.shape[1:])
    deviation = torch.sqrt(grouped.var(dim=1, unbiased=False) + 1e-8).mean(dim=1, keepdim=True)
    return deviation.repeat_interleave(group, dim=0).to(x.dtype)
