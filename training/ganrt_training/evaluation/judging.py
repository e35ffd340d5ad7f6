"""The metrics that judge generated images one by one: labels, what they teach, copies, duplicates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ganrt_training import metrics
from ganrt_training.data import ImageData
from ganrt_training.evaluation import manifold
from ganrt_training.evaluation.comparison import Comparison, NotApplicable, PerClass
from ganrt_training.evaluation.result import Figure
from ganrt_training.evaluation.sets import aligned
from ganrt_training.evaluation.sources import DatasetImages


def fidelity(compared: Comparison) -> list[Figure]:
    """Label fidelity."""
    judge = compared.judge
    told = _agreed(compared.chances.argmax(1), compared.generated)
    usual = _agreed(compared.chances_held.argmax(1), compared.real.held)
    return [
        Figure(
            "label_fidelity",
            "Label fidelity",
            told.share,
            usual.share,
            "higher",
            f"Share of images that the classifier {judge.name} gives the label asked for: low where labels are wrong "
            "or classes look alike.",
            {name: (told.per_class.get(name, math.nan), share) for name, share in usual.per_class.items()},
            {"n": len(compared.generated), "real_n": len(compared.real.held), "classifier": judge.name}
            | {key: judge.about[key] for key in ("digest", "trained_on") if key in judge.about},
            percent=True,
        )
    ]


def accuracy_score(compared: Comparison) -> list[Figure]:
    """Classification accuracy score."""
    school, test = compared.school, compared.real.held
    images, kept = taken(compared, compared.cas_n, again=True)
    if len(np.unique(images.labels)) < 2:
        raise NotApplicable("images of one class alone teach a classifier nothing")
    student = school.of(images, "generated")
    teacher = school.of_real(len(images))
    told, usual = (_agreed(metrics.predict(model, test.images), test) for model in (student, teacher))
    of_real = min(len(images), len(compared.real.known))
    as_many = "as many real ones" if of_real == len(images) else f"{of_real:,} real ones, all that there are"
    about = {
        "generated_n": len(images),
        "real_n": of_real,
        "tested_on": len(test),
        "classifier": school.about(),
        "paper": "arXiv 1905.10887",
    }
    return [
        Figure(
            "accuracy_score",
            "Classification accuracy score",
            told.share,
            usual.share,
            "higher",
            f"Accuracy on real test images of a classifier trained on {len(images):,} generated images alone, beside "
            f"one trained on {as_many}: what the images are worth as training data.",
            {name: (told.per_class[name], share) for name, share in usual.per_class.items()},
            about | ({} if kept is None else {"share_kept": kept}),
            percent=True,
        )
    ]


def neighbours(compared: Comparison) -> list[Figure]:
    """Memorised share and exact copies; the latter alone without a network."""
    return ([] if compared.network is None else [_memorised(compared)]) + [_copies(compared)]


def _memorised(compared: Comparison) -> Figure:
    # Where there is no test split, the held-out images are training images too: they are held against the others.
    usual = manifold.neighbours(compared.seen_held.features, compared.seen_known.features)[0][:, 0]
    near = compared.nearest[0][:, 0]
    threshold, memorised = manifold.near_share(near, usual)
    of_held = usual <= threshold
    return Figure(
        "memorised",
        "Memorised",
        float(memorised.mean()),
        float(of_held.mean()),
        "lower",
        "Share of generated images nearer to a training image than all but 1 % of held-out real images are: high "
        "where training images are copied.",
        _shares(compared, memorised, compared.generated, of_held, compared.real.held),
        {
            "n": len(near),
            "real_n": len(usual),
            "training_images": len(compared.train),
            "threshold": threshold,
            "percentile": 1,
        },
        percent=True,
    )


def _copies(compared: Comparison) -> Figure:
    known = set(manifold.pixel_digests(compared.train.images))
    of_known = known if compared.real.has_test else set(manifold.pixel_digests(compared.real.known.images))
    copies = np.array([digest in known for digest in manifold.pixel_digests(compared.generated.images)])
    held_copies = np.array([digest in of_known for digest in manifold.pixel_digests(compared.real.held.images)])
    return Figure(
        "exact_copies",
        "Exact copies",
        float(copies.mean()),
        float(held_copies.mean()),
        "lower",
        "Share of generated images whose every pixel is that of a training image.",
        _shares(compared, copies, compared.generated, held_copies, compared.real.held),
        {"n": len(copies), "real_n": len(held_copies), "training_images": len(compared.train)},
        percent=True,
    )


def duplicates(compared: Comparison) -> list[Figure]:
    """Near and exact duplicates among the generated images; the latter alone without a network."""
    return ([] if compared.network is None else [_near(compared)]) + [_exact(compared)]


def _near(compared: Comparison) -> Figure:
    generated, real = compared.generated_compared, compared.half_b
    usual = manifold.nearest_other(compared.seen_a.features)
    threshold, near = manifold.near_share(manifold.nearest_other(compared.seen_compared.features), usual)
    of_real = manifold.nearest_other(compared.seen_b.features) <= threshold
    return Figure(
        "duplicates",
        "Near duplicates",
        float(near.mean()),
        float(of_real.mean()),
        "lower",
        "Share of generated images nearer to another generated one than all but 1 % of real images are to another "
        "real one: high where few images come again and again (mode collapse).",
        _shares(compared, near, generated, of_real, real),
        {"n": len(near), "threshold": threshold, "percentile": 1},
        percent=True,
    )


def _exact(compared: Comparison) -> Figure:
    generated, real = compared.generated_compared, compared.half_b
    exact, exact_real = _repeated(generated.images), _repeated(real.images)
    return Figure(
        "exact_duplicates",
        "Exact duplicates",
        float(exact.mean()),
        float(exact_real.mean()),
        "lower",
        "Share of generated images that are another one, pixel for pixel.",
        _shares(compared, exact, generated, exact_real, real),
        {"n": len(exact)},
        percent=True,
    )


def taken(compared: Comparison, n: int, *, again: bool = False) -> tuple[ImageData, float | None]:
    """Images of the source, in the real images' labels; with a confidence, the share that was kept of them."""
    source, confidence = compared.source, compared.confidence
    if confidence is None or isinstance(source, DatasetImages):
        return aligned(source.take(n, again=again, tell=compared.tell), compared.real.class_names, source.name), None

    def confident(data: ImageData) -> NDArray[np.bool_]:
        mine = aligned(data, compared.real.class_names, source.name)
        return compared.chances_of(mine)[np.arange(len(mine)), mine.labels] >= confidence

    images, share = source.take_confident(n, confident, again=again, tell=compared.tell)
    return aligned(images, compared.real.class_names, source.name), share


def _agreed(predicted: NDArray[np.int64], data: ImageData) -> metrics.Agreement:
    return metrics.agreed(predicted, data.labels, data.class_names)


def _shares(
    compared: Comparison, found: NDArray[np.bool_], data: ImageData, usual: NDArray[np.bool_], real: ImageData
) -> PerClass:
    both = zip(compared.class_names, compared.of_class(data), compared.of_class(real), strict=True)
    return {
        name: (float(found[mine].mean()), float(usual[theirs].mean()) if len(theirs) else None)
        for name, mine, theirs in both
        if len(mine)
    }


def _repeated(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which images are among the others again."""
    digests = manifold.pixel_digests(images)
    counts: dict[bytes, int] = {}
    for digest in digests:
        counts[digest] = counts.get(digest, 0) + 1
    return np.array([counts[digest] > 1 for digest in digests])
