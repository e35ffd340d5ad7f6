"""What the figures of an evaluation say is wrong with the generated images, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ganrt_training.evaluation.result import Figure

COLLAPSED = 0.2  # recall of a class, as a share of real images'
UNLIKE = 0.8  # precision, as a share of real images'
REPEATED = 0.05  # near duplicates or memorised images beyond the real ones' share
UNFAITHFUL = 0.05  # label fidelity below real images'; of one class three times as much
DOUBTFUL = 0.7  # label fidelity of real images: below it the classifier is no judge
UNEVEN = 0.05  # of the images would have to be of another class
_CLASSES = 5  # that are told of one by one
_CLASS_COPIES = 0.2  # of one class's images, where hundreds are looked at at most


def warnings_of(figures: Sequence[Figure], shares: dict[str, tuple[float, float]]) -> list[str]:
    """Sentences, the gravest first. ``shares`` are those of each class among generated and real images."""
    found = {figure.key: figure for figure in figures}
    told = (
        _missing(shares)
        + _unlike(found)
        + _collapsed(found)
        + _repeated(found)
        + _memorised(found)
        + _unfaithful(found)
    )
    moved = sum(abs(generated - real) for generated, real in shares.values()) / 2
    if moved > UNEVEN:
        told.append(
            f"the classes have other shares than among the real images ({moved:.0%} of the images would have to be of "
            "another class): distances between sets rise by that alone"
        )
    if (one := found.get("frechet")) and one.protocol["n"] <= one.protocol["features"]:
        told.append(
            f"Fréchet distance: {one.protocol['n']:,} images for {one.protocol['features']:,} features: it is too high "
            "on both sides, and only good for comparing equally many; take a larger n, or go by the kernel distance"
        )
    return told


def _missing(shares: dict[str, tuple[float, float]]) -> list[str]:
    return [f"class {name}: no generated images" for name, (generated, _) in shares.items() if not generated]


def _unlike(found: dict[str, Figure]) -> list[str]:
    if not (precision := found.get("precision")):
        return []
    told = []
    if precision.real and precision.generated < UNLIKE * precision.real:
        told.append(
            f"precision {precision.generated:.2f} where real images have {precision.real:.2f}: blurred, broken or "
            "unlike any real image"
        )
    return told + _of_classes(
        f"class {name}: precision {generated:.2f} where real images have {real:.2f}: blurred, broken or unlike"
        for name, (generated, real) in precision.per_class.items()
        if real and generated < UNLIKE**2 * real
    )


def _of_classes(sentences: Iterable[str]) -> list[str]:
    """The first few, and how many more there are."""
    told = list(sentences)
    if len(told) <= _CLASSES + 1:
        return told
    return [*told[:_CLASSES], f"and {len(told) - _CLASSES} more classes likewise"]


def _collapsed(found: dict[str, Figure]) -> list[str]:
    if not (recall := found.get("recall")):
        return []
    told = []
    if recall.real and recall.generated < COLLAPSED * recall.real:
        told.append(f"recall {recall.generated:.2f} where real images have {recall.real:.2f}: most kinds are missing")
    return told + _of_classes(
        f"class {name}: recall {generated:.2f} where real images have {real:.2f}: collapsed"
        for name, (generated, real) in recall.per_class.items()
        if real and generated < COLLAPSED * real
    )


def _repeated(found: dict[str, Figure]) -> list[str]:
    told = []
    if (near := found.get("duplicates")) and near.generated > (near.real or 0) + REPEATED:
        told.append(
            f"{near.generated:.1%} of the generated images are near duplicates of others, where real images have "
            f"{near.real or 0:.1%}: few images come again and again"
        )
    if exact := found.get("exact_duplicates"):
        told += _of_classes(
            f"class {name}: {generated:.1%} of the images are exact duplicates of others"
            for name, (generated, real) in exact.per_class.items()
            if generated > (real or 0) + REPEATED
        )
        if not exact.per_class and exact.generated > (exact.real or 0) + REPEATED:
            told.append(f"{exact.generated:.1%} of the generated images are exact duplicates of others")
    return told


def _memorised(found: dict[str, Figure]) -> list[str]:
    told = []
    if (near := found.get("memorised")) and near.generated > (near.real or 0) + REPEATED:
        told.append(
            f"{near.generated:.1%} of the generated images are nearer to a training image than 99 % of held-out real "
            "images are: training images were memorised, or images vary too little"
        )
    elif near:
        told += _of_classes(
            f"class {name}: {generated:.1%} of the images are very near to training images"
            for name, (generated, real) in near.per_class.items()
            if generated > (real or 0) + _CLASS_COPIES
        )
    if (exact := found.get("exact_copies")) and exact.generated > (exact.real or 0):
        told.append(
            f"{exact.generated:.2%} of the generated images are training images, pixel for pixel (held-out ones: "
            f"{exact.real or 0:.2%})"
        )
    return told


def _unfaithful(found: dict[str, Figure]) -> list[str]:
    if not (labels := found.get("label_fidelity")) or labels.real is None:
        return []
    if labels.real < DOUBTFUL:
        return [
            f"label fidelity of real images is {labels.real:.1%}: the classifier is too poor a judge of generated ones"
        ]
    told = []
    if labels.generated < labels.real - UNFAITHFUL:
        told.append(
            f"label fidelity {labels.generated:.1%} where real images have {labels.real:.1%}: wrong labels, or classes "
            "that look alike"
        )
    return told + _of_classes(
        f"class {name}: label fidelity {generated:.1%} where real images have {real:.1%}"
        for name, (generated, real) in labels.per_class.items()
        if real is not None and generated < real - 3 * UNFAITHFUL  # not so where it is NaN: no images
    )


def plain_reason(metric: str, reason: Any) -> str:
    """Why a metric of the default set is not among the figures."""
    return f"left out: {metric}: {reason}"
