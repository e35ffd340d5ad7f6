"""The metrics of an evaluation, and those that compare sets of images: each figure beside the same of real ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ganrt_training import metrics, quality
from ganrt_training.evaluation import distances, manifold
from ganrt_training.evaluation.comparison import Comparison, NotApplicable, PerClass
from ganrt_training.evaluation.judging import accuracy_score, duplicates, fidelity, neighbours
from ganrt_training.evaluation.result import Figure
from ganrt_training.evaluation.sets import draws, stratified
from ganrt_training.run_folder import to_float

LEAST_OF_CLASS = 30  # images on each side, for figures of one class


def frechet(compared: Comparison) -> list[Figure]:
    """Fréchet distance."""
    a, b, generated = compared.seen_a.features, compared.seen_b.features, compared.seen_compared.features
    per_class: PerClass = {}
    for name, (of_a, of_b, of_generated) in compared.of_class_equally():
        if min(map(len, (of_a, of_b, of_generated))) > a.shape[1]:  # fewer leave the covariances singular
            near = metrics.frechet_distance(a[of_a], b[of_b])
            per_class[name] = metrics.frechet_distance(a[of_a], generated[of_generated]), near
    return [
        Figure(
            "frechet",
            "Fréchet distance",
            metrics.frechet_distance(a, generated),
            metrics.frechet_distance(a, b),
            "lower",
            "How far the features of generated images lie from those of real ones, mean and spread together: it rises "
            "with blur, artefacts, missing kinds and wrong proportions alike.",
            per_class,
            {"n": len(generated), "features": a.shape[1], "paper": "arXiv 1706.08500"}
            | (
                {"held_out": metrics.frechet_distance(a, held.features)}
                if (held := compared.seen_held_compared)
                else {}
            ),
        )
    ]


def kernel(compared: Comparison) -> list[Figure]:
    """Kernel distance."""
    a, b, generated = compared.seen_a.features, compared.seen_b.features, compared.seen_compared.features
    (far, deviation), (near, usual) = (
        distances.kernel_distance(a, features, seed=compared.seed) for features in (generated, b)
    )
    protocol = {
        "n": len(a),
        "subsets": distances.subsets_used(a, generated),
        "subset_size": min(distances.SUBSET_SIZE, len(a)),
        "kernel": "(x·y / D + 1)³",
        "deviation": {"generated": deviation, "real": usual},
        "paper": "arXiv 1801.01401",
    }
    return [
        Figure(
            "kernel",
            "Kernel distance",
            far,
            near,
            "lower",
            "Like the Fréchet distance, but not biased where images are few; about 0 where both sets are drawn alike.",
            {},
            protocol,
        )
    ]


def inception_score(compared: Comparison) -> list[Figure]:
    """Inception-style score, by whichever network gives logits."""
    assert compared.network is not None
    seen, real = compared.seen_compared.logits, compared.seen_b.logits
    if seen is None or real is None:
        raise NotApplicable(f"the feature network {compared.network.name} gives no logits")
    (score, deviation), (usual, spread) = (
        distances.inception_score(logits, seed=compared.seed) for logits in (seen, real)
    )
    return [
        Figure(
            "inception_score",
            "Inception-style score",
            score,
            usual,
            "higher",
            f"How sure the classifier {compared.network.name} is of each image, and how evenly it sees all classes; it "
            "does not see whether images within a class vary.",
            {},
            {
                "n": len(seen),
                "splits": distances.splits_used(seen),
                "classifier": compared.network.name,
                "highest_possible": seen.shape[1],
                "deviation": {"generated": deviation, "real": spread},
                "paper": "arXiv 1606.03498",
            },
        )
    ]


def overlap(compared: Comparison) -> list[Figure]:
    """Precision, recall, density, coverage."""
    a, b, generated = compared.seen_a.features, compared.seen_b.features, compared.seen_compared.features
    far, near = manifold.overlap(a, generated), manifold.overlap(a, b)
    held = compared.seen_held_compared
    strict = manifold.overlap(a, held.features) if held else None
    by_class = {}
    for name, (of_a, of_b, of_generated) in compared.of_class_equally():
        if min(len(of_a), len(of_b)) < LEAST_OF_CLASS:
            continue
        nothing = manifold.Overlap(precision=math.nan, recall=0.0, density=math.nan, coverage=0.0)
        mine = manifold.overlap(a[of_a], generated[of_generated]) if len(of_generated) else nothing
        by_class[name] = mine, manifold.overlap(a[of_a], b[of_b])
    words = {
        "precision": (
            "Precision",
            manifold.K_BALLS,
            "Share of generated images that lie among real ones: low where images are blurred, broken or unlike any.",
        ),
        "recall": (
            "Recall",
            manifold.K_BALLS,
            "Share of real images that lie among generated ones: low where kinds are missing (mode collapse).",
        ),
        "density": (
            "Density",
            manifold.K_DENSITY,
            "How densely real images lie around generated ones: like precision, but one odd real image counts little.",
        ),
        "coverage": (
            "Coverage",
            manifold.K_DENSITY,
            "Share of real images with a generated one nearby: like recall, but one odd generated image counts little.",
        ),
    }
    return [
        Figure(
            key,
            title,
            getattr(far, key),
            getattr(near, key),
            "higher",
            meaning,
            {name: (getattr(g, key), getattr(r, key)) for name, (g, r) in by_class.items()},
            {
                "n": len(generated),
                "k": k,
                "per_class": "each class's images against as many of the same class",
                "paper": "arXiv 1904.06991" if k == manifold.K_BALLS else "arXiv 2002.09797",
            }
            | ({"held_out": getattr(strict, key)} if strict else {}),
            percent=key != "density",
        )
        for key, (title, k, meaning) in words.items()
    ]


def sliced_wasserstein(compared: Comparison) -> list[Figure]:
    """Sliced Wasserstein distance, as the ticks of a training run have it."""
    count = min(quality.IMAGES, len(compared.compared))
    if min(compared.half_a.images.shape[1:3]) < 2:
        raise NotApplicable("the images are too small")
    sets = []
    for data in (compared.half_a, compared.generated_compared, compared.half_b):
        some = np.sort(stratified(data.labels, count, draws(compared.seed, 9)))
        labels = data.labels[some] if compared.labelled else np.zeros(count, np.int64)
        sets.append((to_float(torch.from_numpy(data.images[some])), torch.from_numpy(labels)))
    reference = quality.Reference(*sets[0])
    far, near = reference.look(*sets[1]), reference.look(*sets[2])
    return [
        Figure(
            "sliced_wasserstein",
            "Sliced Wasserstein distance x 1000",
            far.distance,
            near.distance,
            "lower",
            "How far patches of generated images are from those of real ones, level by level; no network looks at "
            "them, so it favours none, and does not know what they show.",
            {},
            {
                "n": count,
                "diversity": {"generated": far.diversity, "real": near.diversity},
                "paper": "arXiv 1710.10196",
            },
        )
    ]


METRICS: dict[str, Callable[[Comparison], list[Figure]]] = {
    "frechet": frechet,
    "kernel": kernel,
    "inception-score": inception_score,
    "manifold": overlap,
    "fidelity": fidelity,
    "cas": accuracy_score,
    "neighbours": neighbours,
    "duplicates": duplicates,
    "sliced-wasserstein": sliced_wasserstein,
}
OF_FEATURES = frozenset({"frechet", "kernel", "inception-score", "manifold", "neighbours", "duplicates"})
