"""Regularisers: functions of a weight, each due every so many steps.

A penalty that is due every k-th step counts k times as much then (Karras et al. 2019, arXiv 1912.04958, section 3.1),
so that an interval saves work and changes little else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def due(weight: float, interval: int, step: int) -> float:
    """The weight at a step: 0 where the penalty is not due."""
    return weight * interval if step % interval == 0 else 0.0


def r1(real_logits: Tensor, reals: Tensor, weight: float) -> Tensor:
    """weight / 2 times the mean square of the discriminator's gradient at real images (Mescheder et al. 2018,
    arXiv 1801.04406). ``reals`` is the leaf [N, C, H, W] that ``real_logits`` were computed from."""
    return weight / 2 * _squared_gradient(real_logits, reals).mean()


def r2(fake_logits: Tensor, fakes: Tensor, weight: float) -> Tensor:
    """The same at generated images."""
    return weight / 2 * _squared_gradient(fake_logits, fakes).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], reals: Tensor, fakes: Tensor, weight: float) -> Tensor:
    """weight times the mean of (gradient's norm - 1) squared, between real and generated images [N, C, H, W]
    (WGAN-GP: Gulrajani et al. 2017, arXiv 1704.00028)."""
    share = torch.rand(len(reals), 1, 1, 1, device=reals.device)
    between = (share * reals + (1 - share) * fakes).detach().requires_grad_()
    norm = (_squared_gradient(discriminator(between), between) + 1e-12).sqrt()
    return weight * (norm - 1).square().mean()


def orthogonal(network: nn.Module, weight: float) -> Tensor:
    """weight times the squared off-diagonal of W Wᵀ, over all weights with two dimensions or more but embeddings
    (BigGAN: Brock et al. 2018, arXiv 1809.11096, equation 3)."""
    total = next(network.parameters()).new_zeros(())
    embeddings = {id(p) for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    for parameter in network.parameters():
        if parameter.ndim < 2 or id(parameter) in embeddings or not parameter.requires_grad:
            continue
        rows = parameter.flatten(1)
        products = rows @ rows.T
        total = total + (products - torch.diag(products.diagonal())).square().sum()
    return weight * total


def path_length(images: Tensor, w: Tensor, mean: Tensor, weight: float, decay: float = 0.01) -> Tensor:
    """weight times the squared deviation of path lengths from their running mean (Karras et al. 2019, arXiv
    1912.04958, section 3.2): a step in w should change the image as much wherever it is taken.

    images [N, C, H, W] made of w [N, layers, w_dim]; ``mean``, a scalar, is moved towards the mean length in place.
    """
    noise = torch.randn_like(images) / (images.shape[2] * images.shape[3]) ** 0.5
    [gradient] = torch.autograd.grad((images * noise).sum(), w, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    with torch.no_grad():
        mean.lerp_(lengths.mean(), decay)
    return weight * (lengths - mean).square().mean()


def _squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """The squared norm of each image's gradient: [N]."""
    [gradient] = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1)
