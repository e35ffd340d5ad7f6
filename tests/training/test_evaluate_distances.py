from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ganrt_training.evaluation import distances, manifold

Values = NDArray[np.float32]


def features(count: int, seed: int, dim: int = 6, shift: float = 0.0) -> Values:
    """Normal features that are correlated, float32 [count, dim]."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((dim, dim))
    return (random.standard_normal((count, dim)) @ mixing + shift).astype(np.float32)


def apart(first: Values, second: Values) -> NDArray[np.float64]:
    """All Euclidean distances, one by one."""
    return np.array([[np.sqrt(np.sum((a.astype(float) - b) ** 2)) for b in second] for a in first])


def kth(values: Values, k: int) -> list[float]:
    """The distance of each to its k-th nearest neighbour among the others."""
    return [sorted(d for j, d in enumerate(row) if j != i)[k - 1] for i, row in enumerate(apart(values, values))]


def by_hand(real: Values, generated: Values) -> dict[str, float]:
    """Precision, recall, density and coverage, as the papers write them."""
    across = apart(generated, real)
    near, wide, of_generated = kth(real, 3), kth(real, 5), kth(generated, 3)
    count, others = len(generated), len(real)
    return {
        "precision": sum(any(across[j, i] <= near[i] for i in range(others)) for j in range(count)) / count,
        "recall": sum(any(across[j, i] <= of_generated[j] for j in range(count)) for i in range(others)) / others,
        "density": sum(across[j, i] <= wide[i] for j in range(count) for i in range(others)) / (5 * count),
        "coverage": sum(min(across[:, i]) <= wide[i] for i in range(others)) / others,
    }


@pytest.mark.parametrize(("count", "shift"), [(60, 0.0), (40, 1.5), (60, 50.0)])
def test_the_overlap_is_that_of_the_papers(count: int, shift: float) -> None:
    real, generated = features(60, 0), features(count, 1, shift=shift)
    assert vars(manifold.overlap(real, generated)) == pytest.approx(by_hand(real, generated))


def test_the_overlap_of_a_set_with_itself_is_whole_and_of_two_apart_none() -> None:
    real = features(50, 0)
    same, other = manifold.overlap(real, real), manifold.overlap(real, real + 1000)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert vars(other) == dict.fromkeys(("precision", "recall", "density", "coverage"), 0)


def test_a_point_again_and_again_recalls_nothing() -> None:
    real = features(80, 0)
    found = manifold.overlap(real, np.repeat(real[:1] + np.float32(1e-3), 80, axis=0))
    assert (found.precision, found.recall) == (1, 0)
    assert found.coverage < 0.2


def test_too_few_for_k_neighbours_is_said() -> None:
    with pytest.raises(ValueError, match="5 and 60 images"):
        manifold.overlap(features(5, 0), features(60, 1))


def test_neighbours_are_the_nearest() -> None:
    known, asked = features(50, 0), features(20, 1)
    found, indices = manifold.neighbours(asked, known, 3)
    expected = apart(asked, known)
    assert (indices == expected.argsort(axis=1)[:, :3]).all()
    assert found == pytest.approx(np.sort(expected, axis=1)[:, :3], rel=1e-5)
    twice = np.concatenate([known, known[:4]])
    nearest = manifold.nearest_other(twice)
    assert nearest == pytest.approx(kth(twice, 1), abs=1e-6)
    assert (nearest[:4] < 1e-6).all() and (nearest[4:50] > 1e-3).all()


def test_memory_does_not_grow_with_the_product_of_the_sets() -> None:
    real, generated = features(20_000, 0, dim=3), features(20_000, 1, dim=3)
    tracemalloc.start()
    try:
        found = manifold.overlap(real, generated)
        manifold.neighbours(generated[:5000], real, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.precision > 0.9
    whole = len(real) * len(generated) * 4
    assert peak < 150 << 20 < whole / 5


def test_pixels_have_digests_of_their_own() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    images[5] = images[2]
    found = manifold.pixel_digests(images)
    assert len(set(found)) == 5
    assert found[5] == found[2]


def mmd(first: Values, second: Values) -> float:
    """The unbiased estimate, in loops: Gretton et al. 2012, lemma 6."""

    def kernel(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float((np.dot(a.astype(float), b.astype(float)) / len(a) + 1) ** 3)

    n, m = len(first), len(second)
    within = sum(kernel(a, b) for i, a in enumerate(first) for j, b in enumerate(first) if i != j) / (n * (n - 1))
    among = sum(kernel(a, b) for i, a in enumerate(second) for j, b in enumerate(second) if i != j) / (m * (m - 1))
    return within + among - 2 * sum(kernel(a, b) for a in first for b in second) / (n * m)


def test_the_kernel_distance_is_that_of_the_paper() -> None:
    first, second = features(30, 0), features(30, 1, shift=0.5)
    distance, deviation = distances.kernel_distance(first, second)
    assert distance == pytest.approx(mmd(first, second))
    assert deviation == 0  # of the whole sets there is one subset only


def test_the_kernel_distance_of_subsets_is_the_same_for_a_seed_and_leaves_random_states_alone() -> None:
    first, second = features(300, 0), features(400, 1)
    state = torch.random.get_rng_state()
    one, again = (distances.kernel_distance(first, second, subsets=20, subset_size=100, seed=3) for _ in range(2))
    assert one == again
    assert one != distances.kernel_distance(first, second, subsets=20, subset_size=100, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    far = distances.kernel_distance(first, second + 3, subsets=20, subset_size=100)
    assert far[0] > abs(one[0]) + 3 * one[1]


def test_the_score_is_that_of_the_paper() -> None:
    logits = np.random.default_rng(0).standard_normal((200, 5)) * 3
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    usual = chances.mean(axis=0)
    divergences = [sum(p * np.log(p / q) for p, q in zip(row, usual, strict=True)) for row in chances]
    assert distances.inception_score(logits, splits=1)[0] == pytest.approx(np.exp(np.mean(divergences)))
    sure = np.eye(5)[np.arange(200) % 5] * 1000
    assert distances.inception_score(sure, splits=1)[0] == pytest.approx(5)
    assert distances.inception_score(sure[:1].repeat(200, axis=0), splits=1)[0] == pytest.approx(1)
    assert distances.inception_score(logits, seed=1) == distances.inception_score(logits, seed=1)


def test_the_frechet_distance_is_torchmetrics_where_that_is_sound() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    first, second = features(400, 0), features(500, 1, shift=0.7)
    metric = FrechetInceptionDistance(feature=distances._Given(6))
    metric.set_dtype(torch.float64)
    for values, real in ((first, True), (second, False)):
        metric.update(torch.from_numpy(values.astype(np.float64)), real=real)
    assert distances.frechet_distance(first, second) == pytest.approx(float(metric.compute()), rel=1e-6)
    few = first[:4]  # fewer images than features: covariances are singular
    assert distances.frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
