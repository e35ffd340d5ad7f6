"""Adversarial losses: pairs of functions on logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """An adversarial pair. Both take logits float [N] and return a scalar to minimise."""

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]  # (real_logits, fake_logits)
    generator: Callable[[Tensor], Tensor]  # (fake_logits)


def _hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def _hinge_generator(fake_logits: Tensor) -> Tensor:
    return -fake_logits.mean()


# Lim & Ye 2017 (arXiv 1705.02894), Miyato et al. 2018 (arXiv 1802.05957)
hinge = Loss("hinge", _hinge_discriminator, _hinge_generator)
