"""How far apart the features of two sets of images lie, and how sure and how varied a classifier finds one set."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ganrt_training.metrics import frechet_distance

__all__ = ["SUBSETS", "SUBSET_SIZE", "frechet_distance", "inception_score", "kernel_distance"]

SUBSETS, SUBSET_SIZE = 100, 1000  # of the kernel distance, as in the paper
SPLITS = 10  # of the score, as in the paper
_IMPOSSIBLE = 600.0  # below the largest logit: e to the minus 600 is still a number in float64


def kernel_distance(
    real: NDArray[Any],
    generated: NDArray[Any],
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> tuple[float, float]:
    """The kernel distance between features [N, D] and [M, D], and its standard deviation over the subsets.

    The unbiased estimate of the squared maximum mean discrepancy with the kernel (x·y / D + 1)³ (Bińkowski et al. 2018,
    arXiv 1801.01401), a mean over random subsets; it may fall below 0. In float64. Subsets are drawn by ``seed``, and
    are no larger than either set.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(subset_size, len(real), len(generated))
    subsets = subsets_used(real, generated, subsets, subset_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=subsets, subset_size=size)
    metric.update(_double(real), real=True)
    metric.update(_double(generated), real=False)
    mean, deviation = _by_seed(metric, seed)
    return float(mean), float(deviation)


def inception_score(logits: NDArray[Any], *, splits: int = SPLITS, seed: int = 0) -> tuple[float, float]:
    """exp(E KL(p(y|x) ‖ p(y))) of logits [N, K], and its standard deviation over the splits: 1 to K, more is better.

    Salimans et al. 2016 (arXiv 1606.03498), with the given classifier in place of Inception. It rises with how sure the
    classifier is of each image and how evenly it sees all classes; it does not see what varies within a class.
    """
    from torchmetrics.image.inception import InceptionScore

    splits = splits_used(logits, splits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = InceptionScore(feature=_Given(logits.shape[1]), splits=splits)
    values = np.asarray(logits, np.float64)
    # A class that no image has any probability of would make 0 x infinity there: none is quite impossible here.
    metric.update(_double(np.maximum(values, values.max(axis=1, keepdims=True) - _IMPOSSIBLE)))
    mean, deviation = _by_seed(metric, seed)
    return float(mean), float(deviation) if splits > 1 else 0.0


def subsets_used(
    real: NDArray[Any], generated: NDArray[Any], subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE
) -> int:
    """How many subsets the kernel distance is a mean of: one where there is only one of such a size."""
    return 1 if len(real) == len(generated) <= subset_size else subsets


def splits_used(logits: NDArray[Any], splits: int = SPLITS) -> int:
    """How many splits the score is a mean of: each has two images at least."""
    return max(1, min(splits, len(logits) // 2))


class _Given(nn.Module):
    """What torchmetrics takes for a feature network: features are given instead of images."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: Tensor) -> Tensor:
        return features


def _double(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))


def _by_seed(metric: Any, seed: int) -> tuple[Tensor, Tensor]:
    """What it computes with random draws by a seed; PyTorch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return mean, deviation
