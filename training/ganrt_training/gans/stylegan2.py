"""StyleGAN2 (Karras et al. 2019, arXiv 1912.04958): mapping network, modulated convolutions, skip generator against a
residual discriminator, R1, lazy path length, style mixing, truncation towards the mean w.

Modulation scales feature maps before the convolution and demodulation after it, rather than weights per image, so that
one plain convolution serves the whole batch. Noise maps vary in training and are constants of the generator else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrt_training.layers import Verdict, doubled, group_deviation, halved, upsamplings
from ganrt_training.recipe import Recipe

GAIN = 2**0.5  # of a leaky rectifier: keeps the deviation


def activated(x: Tensor) -> Tensor:
    """Leaky rectifier of slope 0.2 that keeps the deviation."""
    return F.leaky_relu(x, 0.2) * GAIN


class Dense(nn.Module):
    """A linear layer with an equalised learning rate (Karras et al. 2017, arXiv 1710.10196, 4.1)."""

    def __init__(self, before: int, after: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / rate)
        self.bias = nn.Parameter(torch.full((after,), bias))
        self.scale, self.rate = rate / before**0.5, rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Conv(nn.Module):
    """A convolution with an equalised learning rate."""

    def __init__(self, before: int, after: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.scale = (before * kernel**2) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.weight.shape[2] // 2)


class Mapping(nn.Module):
    """z float [N, z_dim], y int64 [N] → w float [N, w_dim]."""

    def __init__(self, z_dim: int, w_dim: int, layers: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, z_dim) if classes else None
        widths = [2 * z_dim if classes else z_dim, *[w_dim] * layers]
        self.layers = nn.ModuleList(Dense(a, b, rate=0.01) for a, b in pairwise(widths))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = _normalised(z)
        if self.embedding is not None:
            x = torch.cat([x, _normalised(self.embedding(y))], dim=1)
        for layer in self.layers:
            x = activated(layer(x))
        return x


class ModulatedConv(nn.Module):
    """A convolution whose input channels a style scales. float [N, before, H, W], w [N, w_dim] → [N, after, H, W].

    With ``demodulate`` the outputs' expected deviation stays 1 (the paper's equation 3).
    """

    def __init__(self, before: int, after: int, kernel: int, w_dim: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.style = Dense(w_dim, before, bias=1.0)
        self.scale = (before * kernel**2) ** -0.5
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, weight = self.style(w), self.weight * self.scale
        x = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[2] // 2)
        if not self.demodulate:
            return x
        sizes = style.square() @ weight.square().sum((2, 3)).T
        return x * torch.rsqrt(sizes + 1e-8)[:, :, None, None]


class Layer(nn.Module):
    """Modulated convolution, noise, bias, rectifier."""

    noise: Tensor

    def __init__(self, before: int, after: int, size: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(before, after, 3, w_dim)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(after))
        self.register_buffer("noise", torch.randn(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.conv(x, w)
        noise = torch.randn_like(x[:, :1]) if self.training else self.noise
        return activated(x + noise * self.strength + self.bias[:, None, None])


class Generator(nn.Module):
    """z float [N, z_dim], y int64 [N], psi float scalar → images float [N, channels, size, size], about [-1, 1].

    In between there is w: ``synthesis(truncated(z, y, psi))``; ``num_ws`` layers take one of ``w_dim`` numbers each.

    psi 1 leaves w as it is, 0 makes it the mean w of training (Karras et al. 2018, arXiv 1812.04948, appendix B).
    """

    w_avg: Tensor
    path_mean: Tensor

    def __init__(
        self,
        name: str,
        size: int,
        z_dim: int,
        width: int,
        channels: int,
        classes: int,
        *,
        mapping_layers: int,
        style_mixing: float,
    ) -> None:
        super().__init__()
        side, times = upsamplings(name, size)
        widths = [width * min(4, 1 << i) for i in reversed(range(times + 1))]
        self.mapping = Mapping(z_dim, z_dim, mapping_layers, classes)
        self.num_ws, self.w_dim = 2 * times + 1, z_dim
        self.style_mixing = style_mixing
        self.constant = nn.Parameter(torch.randn(1, widths[0], side, side))
        self.layers = nn.ModuleList([Layer(widths[0], widths[0], side, z_dim)])
        self.to_images = nn.ModuleList([ModulatedConv(widths[0], channels, 1, z_dim, demodulate=False)])
        for before, after in pairwise(widths):
            side *= 2
            self.layers.extend([Layer(before, after, side, z_dim), Layer(after, after, side, z_dim)])
            self.to_images.append(ModulatedConv(after, channels, 1, z_dim, demodulate=False))
        self.image_bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("w_avg", torch.zeros(z_dim))
        self.register_buffer("path_mean", torch.zeros(()))

    def forward(self, z: Tensor, y: Tensor | None = None, psi: Tensor | None = None) -> Tensor:
        return self.synthesis(self.truncated(z, y, psi))

    def truncated(self, z: Tensor, y: Tensor | None = None, psi: Tensor | None = None) -> Tensor:
        """One w for each layer, float [N, num_ws, w_dim], as far from the mean as psi says."""
        w = self.styles(z, y)
        return w if psi is None else self.w_avg + psi * (w - self.w_avg)

    def styles(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """One w for each layer, float [N, layers, w_dim]: in training those of two latents, from a random layer on."""
        w, count = self.mapping(z, y), len(self.layers)
        if not self.training:
            return w[:, None].expand(-1, count, -1)
        with torch.no_grad():
            self.w_avg.lerp_(w.float().mean(0), 0.005)
        # The other latents are those of the neighbours: as random, and drawn already.
        cut = torch.randint(1, count, (len(z), 1), device=z.device)
        cut = torch.where(torch.rand_like(cut, dtype=torch.float32) < self.style_mixing, cut, count)
        first = torch.arange(count, device=z.device) < cut
        other = self.mapping(z.roll(1, 0), y) if self.style_mixing else w
        return torch.where(first[:, :, None], w[:, None], other[:, None])

    def synthesis(self, w: Tensor) -> Tensor:
        """w float [N, layers, w_dim] → images."""
        x = self.layers[0](self.constant, w[:, 0])
        image = self.to_images[0](x, w[:, 1])
        for i in range(1, len(self.to_images)):
            x = self.layers[2 * i - 1](doubled(x), w[:, 2 * i - 1])
            x = self.layers[2 * i](x, w[:, 2 * i])
            image = doubled(image) + self.to_images[i](x, w[:, min(2 * i + 1, len(self.layers) - 1)])
        return image + self.image_bias[:, None, None]


class DownBlock(nn.Module):
    """Residual, half the sides. float [N, before, H, W] → float [N, after, H / 2, W / 2]."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = Conv(before, before, 3)
        self.conv2 = Conv(before, after, 3)
        self.short = Conv(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = halved(activated(self.conv2(activated(self.conv1(x)))))
        return (y + self.short(halved(x))) * 0.5**0.5


class Discriminator(nn.Module):
    """images float [N, channels, size, size], y int64 [N] → logits float [N]."""

    def __init__(self, name: str, size: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        side, times = upsamplings(name, size)
        widths = [width * min(4, 1 << i) for i in range(times + 1)]
        self.from_image = Conv(channels, widths[0], 1)
        self.blocks = nn.Sequential(*(DownBlock(a, b) for a, b in pairwise(widths)))
        self.last = Conv(widths[-1] + 1, widths[-1], 3)
        self.dense = Dense(widths[-1] * side**2, widths[-1])
        self.verdict = Verdict(widths[-1], classes)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.blocks(activated(self.from_image(images)))
        deviation = group_deviation(x).mean((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:])
        x = activated(self.last(torch.cat([x, deviation], dim=1)))
        return self.verdict(activated(self.dense(x.flatten(1))), y)


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Recipe(Recipe):
    """A recipe with StyleGAN2's own settings. w has as many dimensions as z."""

    bounds = (("mapping_layers", 1, 64), ("style_mixing", 0, 1))

    mapping_layers: int = 4
    style_mixing: float = 0.9  # the share of images that are made of two latents in training


def _build(recipe: StyleGAN2Recipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    name, size = recipe.name, recipe.image_size
    return (
        Generator(
            name,
            size,
            recipe.z_dim,
            recipe.width,
            channels,
            classes,
            mapping_layers=recipe.mapping_layers,
            style_mixing=recipe.style_mixing,
        ),
        Discriminator(name, size, recipe.width, channels, classes),
    )


def _normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def _recipe(name: str, image_size: int, r1: float) -> StyleGAN2Recipe:
    return StyleGAN2Recipe(
        name=name,
        build=_build,
        image_size=image_size,
        batch_size=32,
        lr_generator=2e-3,
        lr_discriminator=2e-3,
        r1=r1,
        penalty_interval=16,
        path_length=2.0,
        path_length_interval=8,
        total_kimg=5000.0,
    )


def stylegan2_32() -> Recipe:
    """32x32 StyleGAN2: styles, path length regularisation, truncation by psi."""
    return _recipe("stylegan2_32", 32, 0.05)


def stylegan2_64() -> Recipe:
    """64x64 StyleGAN2."""
    return _recipe("stylegan2_64", 64, 0.5)
