"""Which pictures of an evaluation are worth looking at."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ganrt_training.evaluation.comparison import Comparison, NotApplicable
from ganrt_training.evaluation.result import ClassPictures, Neighbours, Pictures
from ganrt_training.evaluation.sets import draws

CLOSEST, NEAR, TYPICAL, OF_CLASS = 12, 4, 8, 10


def pictures_of(compared: Comparison, *, with_neighbours: bool) -> Pictures:
    """Generated images beside their nearest training images, and each class's beside real ones."""
    closest, shown = _neighbours(compared) if with_neighbours else ([], [])
    return Pictures(neighbours=shown, closest=closest, by_class=_by_class(compared) if compared.labelled else [])


def _neighbours(compared: Comparison) -> tuple[list[Neighbours], list[Neighbours]]:
    distances, indices = compared.nearest
    order = np.argsort(distances[:, 0], kind="stable")
    middle = max(0, len(order) // 2 - TYPICAL // 2)
    groups = order[:CLOSEST], np.concatenate([order[:NEAR], order[middle : middle + TYPICAL]])
    found = []
    for group in groups:
        found.append(
            [
                (compared.generated.images[index], [compared.train.images[i] for i in near], [float(d) for d in apart])
                for index, near, apart in zip(group, indices[group], distances[group], strict=True)
            ]
        )
    return found[0], found[1]


def _by_class(compared: Comparison) -> list[ClassPictures]:
    chances: NDArray[np.float64] | None = None
    if compared.judge_is_there:  # none is trained for pictures
        with suppress(NotApplicable):
            chances = compared.chances
    generated, real = compared.generated, compared.half_a
    random = draws(compared.seed, 6)
    shown: list[ClassPictures] = []
    both = zip(compared.class_names, compared.of_class(real), compared.of_class(generated), strict=True)
    for label, (name, of_real, of_generated) in enumerate(both):
        best = worst = of_generated[:0]
        if chances is not None:
            order = of_generated[np.argsort(-chances[of_generated, label], kind="stable")]
            best, worst = order[:OF_CLASS], order[::-1][:OF_CLASS]
        some = [random.permutation(one)[:OF_CLASS] for one in (of_real, of_generated)]
        shown.append(
            (
                name,
                [real.images[i] for i in some[0]],
                [generated.images[i] for i in some[1]],
                [generated.images[i] for i in best],
                [generated.images[i] for i in worst],
            )
        )
    return shown
