"""Adversarial losses: pairs of functions on logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from ganrt.errors import UsageError

Pair = Callable[[Tensor, Tensor], Tensor]  # (real_logits, fake_logits) → scalar to minimise


@dataclass(frozen=True)
class Loss:
    """An adversarial pair. Both take real and fake logits, float [N] or [N, 1, H, W], and return a scalar to minimise.

    ``needs_reals``: the generator's loss looks at the real logits too. ``centred``: logits above zero mean real;
    else only their order means something.
    """

    discriminator: Pair
    generator: Pair
    needs_reals: bool = False
    centred: bool = True


def _minimax_discriminator(real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0) -> Tensor:
    # -log(sigmoid(x)) = softplus(-x). One-sided label smoothing: real images' target is 1 - smoothing
    # (Salimans et al. 2016, arXiv 1606.03498, 3.4); fakes keep 0, so that what is wrong is not taught.
    real = F.softplus(-real_logits) + smoothing * real_logits
    return real.mean() + F.softplus(fake_logits).mean()


def _minimax_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return -F.softplus(fake_logits).mean()


def _non_saturating_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return F.softplus(-fake_logits).mean()


def _least_squares_discriminator(real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0) -> Tensor:
    # Targets are 1 and -1 rather than the paper's 1 and 0, so that zero is in the middle (its equation 8: b - c = 1).
    return 0.5 * ((real_logits - (1 - 2 * smoothing)).square().mean() + (fake_logits + 1).square().mean())


def _least_squares_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return 0.5 * (fake_logits - 1).square().mean()


def _hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def _wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return fake_logits.mean() - real_logits.mean()


def _critic_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return -fake_logits.mean()


def _relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return F.softplus(fake_logits - real_logits).mean()


def _relativistic_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return F.softplus(real_logits - fake_logits).mean()


LOSSES: dict[str, Loss] = {
    # Goodfellow et al. 2014 (arXiv 1406.2661), equation 1, and what section 3 recommends for the generator instead
    "minimax": Loss(_minimax_discriminator, _minimax_generator),
    "non_saturating": Loss(_minimax_discriminator, _non_saturating_generator),
    # Mao et al. 2016 (arXiv 1611.04076)
    "least_squares": Loss(_least_squares_discriminator, _least_squares_generator),
    # Lim & Ye 2017 (arXiv 1705.02894), Miyato et al. 2018 (arXiv 1802.05957)
    "hinge": Loss(_hinge_discriminator, _critic_generator),
    # Arjovsky et al. 2017 (arXiv 1701.07875)
    "wasserstein": Loss(_wasserstein_discriminator, _critic_generator, centred=False),
    # Jolicoeur-Martineau 2018 (arXiv 1807.00734), in pairs as by Huang et al. 2024 (arXiv 2501.05441), equation 1
    "relativistic": Loss(_relativistic_discriminator, _relativistic_generator, needs_reals=True, centred=False),
}
SMOOTHED = ("least_squares", "minimax", "non_saturating")  # have a target that can be smoothed


def find_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """The pair of that name; ``label_smoothing`` lowers the target of real images from 1, and only theirs.

    Raises UsageError for an unknown name, and for smoothing of a loss that has no target.
    """
    if name not in LOSSES:
        raise UsageError(f"loss is {name!r}", f"Expected {', '.join(sorted(LOSSES))}.")
    loss = LOSSES[name]
    if not label_smoothing:
        return loss
    if name not in SMOOTHED:
        raise UsageError(
            f"label_smoothing is {label_smoothing}, and the {name} loss has no label to smooth",
            f"Leave it at 0, or take one of the losses {', '.join(SMOOTHED)}.",
        )
    return Loss(partial(loss.discriminator, smoothing=label_smoothing), loss.generator)  # type: ignore[call-arg]


def told_rightly(loss: Loss, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of real and of fake images that the discriminator takes for what they are: scalars 0 … 1.

    Half of each is the equilibrium: it can only guess. Where the loss gives zero no meaning, the middle between the
    means is the boundary.
    """
    real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
    boundary = 0.0 if loss.centred else (real_logits.mean() + fake_logits.mean()) / 2
    return (real_logits > boundary).float().mean(), (fake_logits < boundary).float().mean()
