"""Generators as other people write them, and their checkpoints: what tests of export begin with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Tutorial(nn.Module):
    """The DCGAN that is copied everywhere, in small: latents [N, nz, 1, 1], everything in ``main``."""

    def __init__(self, ngpu: int, nz: int = 100, ngf: int = 4, nc: int = 3) -> None:
        super().__init__()
        self.ngpu = ngpu
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf * 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, nc, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda and self.ngpu > 1:
            return nn.parallel.data_parallel(self.main, input, range(self.ngpu))
        images: Tensor = self.main(input)
        return images


class Dense(nn.Module):
    """A GAN of linear layers whose labels go through a table, as PyTorch-GAN has it; ``low`` to ``high`` in images."""

    def __init__(
        self,
        z_dim: int = 12,
        classes: int = 3,
        channels: int = 1,
        onehot: bool = False,
        low: float = -1,
        high: float = 1,
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, classes) if classes and not onehot else None
        self.layers = nn.Sequential(
            nn.Linear(z_dim + classes, 24), nn.BatchNorm1d(24), nn.LeakyReLU(0.2), nn.Linear(24, channels * 64)
        )
        self.channels, self.low, self.high = channels, low, high

    def images(self, x: Tensor) -> Tensor:
        x = self.layers(x).view(x.size(0), self.channels, 8, 8)
        if (self.low, self.high) == (-1, 1):
            return torch.tanh(x)
        return torch.sigmoid(x) * (self.high - self.low) + self.low


class Plain(Dense):
    """Latents alone."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(classes=0, **settings)

    def forward(self, z: Tensor) -> Tensor:
        return self.images(z)


class Conditional(Dense):
    """Latents and labels, as numbers or one-hot."""

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.images(torch.cat([noise, labels if self.table is None else self.table(labels)], dim=1))


class LabelsFirst(Conditional):
    """The same called the other way round."""

    def forward(self, labels: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(noise, labels)


class Wide(nn.Module):
    """One-hot labels [N, classes, 1, 1] beside latents [N, nz, 1, 1], as convolutional conditional GANs have them."""

    def __init__(self, nz: int = 6, classes: int = 3) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(nz + classes, 3, 8)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return torch.tanh(self.up(torch.cat([noise, labels], dim=1)))


class Styled(Plain):
    """Gives its latents back beside the images, as StyleGAN's ports do."""

    def forward(self, z: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return self.images(z), None


class Noisy(Plain):
    """Draws random numbers as it runs."""

    def forward(self, z: Tensor) -> Tensor:
        return self.images(z + torch.randn_like(z))


class Flat(Plain):
    """Its images are rows of numbers."""

    def forward(self, z: Tensor) -> Tensor:
        return self.images(z).flatten(1)


class Coupled(Plain):
    """Normalises over the batch, even in inference."""

    def forward(self, z: Tensor) -> Tensor:
        return self.images(z - z.mean(0))


class Three(Plain):
    """Wants more than latents and labels."""

    def forward(self, z: Tensor, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        return self.images(z + a + b)


def no_network() -> str:
    """What somebody might name by mistake."""
    return "a network"


def settled(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network as training leaves it: weights large enough to see something, batch norms with statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.normal_(0, 0.3, generator=generator)
                layer.running_var.uniform_(0.2, 0.6, generator=generator)
                layer.weight.uniform_(0.8, 2.0, generator=generator)
            elif isinstance(layer, nn.ConvTranspose2d | nn.Linear | nn.Embedding):
                layer.weight.normal_(0, 0.3, generator=generator)
    return network.eval()
