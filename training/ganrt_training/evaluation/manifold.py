"""How two sets of features overlap: precision, recall, density, coverage; nearest neighbours and duplicates.

A set's manifold is the union of balls around its points, each as large as the distance to its k-th nearest neighbour
in the set. Distances are Euclidean. No N x M matrix is ever whole: memory is bounded by ``_MEMORY`` and the features.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Features: TypeAlias = NDArray[np.float32]  # [N, D]
Distances: TypeAlias = NDArray[np.float64]

K_BALLS = 3  # precision and recall: Kynkäänniemi et al.
K_DENSITY = 5  # density and coverage: Naeem et al.
_MEMORY = 16  # MiB of distances at a time


@dataclass(frozen=True)
class Overlap:
    """Shares in [0, 1]; ``density`` may be above 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(real: Features, generated: Features) -> Overlap:
    """Precision, recall, density and coverage of generated features [M, D] against real ones [N, D].

    ``precision`` is the share of generated images within the real manifold, ``recall`` that of real images within the
    generated manifold (Kynkäänniemi et al. 2019, arXiv 1904.06991, k = 3). ``density`` is in how many real balls a
    generated image lies, on the average, over k; ``coverage`` is the share of real balls that hold a generated image
    (Naeem et al. 2020, arXiv 2002.09797, k = 5). Raises ValueError for sets of no more than k.
    """
    from sklearn.metrics import pairwise_distances_chunked

    if min(len(real), len(generated)) <= K_DENSITY:
        raise ValueError(f"{len(real)} and {len(generated)} images: more than {K_DENSITY} each are needed")
    radii, wide = _radii(real, (K_BALLS, K_DENSITY))
    (of_generated,) = _radii(generated, (K_BALLS,))
    nearest = np.full(len(real), np.inf)  # generated image, of each real one
    recalled = np.zeros(len(real), np.bool_)
    within, balls, start = 0, 0, 0
    for block in pairwise_distances_chunked(generated, real, metric="euclidean", working_memory=_MEMORY):
        within += int((block <= radii).any(axis=1).sum())
        balls += int((block <= wide).sum())
        recalled |= (block <= of_generated[start : start + len(block), None]).any(axis=0)
        np.minimum(nearest, block.min(axis=0), out=nearest)
        start += len(block)
    return Overlap(
        precision=within / len(generated),
        recall=float(recalled.mean()),
        density=balls / (K_DENSITY * len(generated)),
        coverage=float((nearest <= wide).mean()),
    )


def neighbours(of: Features, among: Features, k: int = 1) -> tuple[Distances, NDArray[np.int64]]:
    """Distances [N, k] and indices [N, k] of the ``k`` features nearest to each, the nearest first."""
    distances, indices = _search(among, min(k, len(among))).kneighbors(of)
    return distances.astype(np.float64), indices.astype(np.int64)


def nearest_other(features: Features) -> Distances:
    """The distance of each to the nearest other one of the same set: [N]."""
    return _radii(features, (1,))[0]


def near_share(distances: Distances, usual: Distances, percent: float = 1.0) -> tuple[float, NDArray[np.bool_]]:
    """A threshold, the given percentile of the usual distances, and which distances are not above it."""
    threshold = max(float(np.percentile(usual, percent)), 1e-6 * float(np.median(usual)))  # above rounding
    return threshold, distances <= threshold


def pixel_digests(images: NDArray[np.uint8]) -> list[bytes]:
    """A digest of each image's pixels."""
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]


def _radii(features: Features, ks: tuple[int, ...]) -> list[Distances]:
    """The distance of each to its k-th nearest neighbour in the same set, itself aside, for several k: [N] each."""
    distances: NDArray[Any] = _search(features, max(ks)).kneighbors()[0]
    return [distances[:, k - 1].astype(np.float64) for k in ks]


def _search(features: Features, k: int) -> Any:
    """Scikit-learn's search by brute force, which works block by block."""
    from sklearn.neighbors import NearestNeighbors  # here, so that ganrt train does without scikit-learn

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(features)
