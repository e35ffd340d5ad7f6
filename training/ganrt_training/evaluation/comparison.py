"""What one evaluation looks at: generated and real images, and what the networks see in them, once for all figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ganrt_training.data import ImageData
from ganrt_training.evaluation import manifold
from ganrt_training.evaluation.classifiers import School, probabilities
from ganrt_training.evaluation.features import FeatureNetwork, Seen
from ganrt_training.evaluation.sets import RealImages, draws, stratified, subset
from ganrt_training.evaluation.sources import Source, Tell

PerClass = dict[str, tuple[float, float | None]]
NEIGHBOURS = 3  # that are shown of an image


class NotApplicable(Exception):
    """A metric that says nothing about these images; the text is the reason."""


@dataclass
class Comparison:
    """Generated images beside real ones.

    ``generated`` are all that are judged one by one. Where sets are compared, ``compared`` of them are held against
    half A of the real training images, and half B, as many, against the same half A.
    """

    source: Source
    real: RealImages
    network: FeatureNetwork | None
    school: School
    seed: int
    cas_n: int
    confidence: float | None
    whole: bool  # whether all training images will be looked at
    tell: Tell
    generated: ImageData = field(init=False)  # set once they are made, which may take the judge

    @property
    def labelled(self) -> bool:
        """Whether both sides have classes."""
        return bool(self.source.class_names and self.real.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of both sides; empty unless both have classes."""
        return self.real.class_names if self.labelled else ()

    @cached_property
    def compared(self) -> NDArray[np.int64]:
        """Which generated images are held against half A: as many as it has."""
        count = min(len(self.generated), len(self.real.half_a))
        return np.sort(stratified(self.generated.labels, count, draws(self.seed, 4)))

    @cached_property
    def half_a(self) -> ImageData:
        """Real images that sets are held against."""
        return subset(self.real.known, self.real.half_a)

    @cached_property
    def half_b(self) -> ImageData:
        """As many others."""
        return subset(self.real.known, self.real.half_b)

    @cached_property
    def seen_held_compared(self) -> Seen | None:
        """In as many held-out images as half A has; None where there are fewer.

        A classifier of the real images has seen half B in its training, and these not: for its features they are the
        stricter ceiling.
        """
        held, count = self.real.held, len(self.real.half_a)
        if len(held) < count:
            return None
        some = np.sort(stratified(held.labels, count, draws(self.seed, 7)))
        return _some(self.seen_held, some) if self.whole else self._see(subset(held, some), "held-out real")

    @cached_property
    def generated_compared(self) -> ImageData:
        """The generated images that are held against half A."""
        return subset(self.generated, self.compared)

    @cached_property
    def seen(self) -> Seen:
        """What the feature network sees in the generated images."""
        return self._see(self.generated, "generated")

    @cached_property
    def seen_compared(self) -> Seen:
        return _some(self.seen, self.compared)

    @cached_property
    def seen_known(self) -> Seen:
        """In all real images that a classifier may have been trained on here."""
        return self._see(self.real.known, "real training")

    @cached_property
    def seen_train(self) -> Seen:
        """In all training images, those held out too where there is no test split: known ones first."""
        if self.real.has_test:
            return self.seen_known
        return Seen(np.concatenate([self.seen_known.features, self.seen_held.features]), None)

    @cached_property
    def nearest(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances and indices [N, 3] of the training images nearest to each generated one, the nearest first."""
        return manifold.neighbours(self.seen.features, self.seen_train.features, NEIGHBOURS)

    @cached_property
    def train(self) -> ImageData:
        """The training images in the order of ``seen_train``."""
        real = self.real
        if real.has_test:
            return real.known
        labels = np.concatenate([real.known.labels, real.held.labels])
        return ImageData(np.concatenate([real.known.images, real.held.images]), labels, real.class_names)

    @cached_property
    def seen_a(self) -> Seen:
        return self._see_half(self.half_a, self.real.half_a)

    @cached_property
    def seen_b(self) -> Seen:
        return self._see_half(self.half_b, self.real.half_b)

    @cached_property
    def seen_held(self) -> Seen:
        """In the real images that nothing was trained on."""
        return self._see(self.real.held, "held-out real")

    @property
    def judges(self) -> bool:
        """Whether the feature network is a classifier of the data's classes."""
        return self.network is not None and bool(self.class_names) and same_classes(self.network, self.class_names)

    @property
    def judge_is_there(self) -> bool:
        """Whether there is a judge, without one that would have to be trained first."""
        return self.judges or "judge" in vars(self)

    @cached_property
    def judge(self) -> FeatureNetwork:
        """The classifier of the data's classes: the feature network where it is one, else one trained here."""
        if not self.labelled:
            raise NotApplicable("the real images and the generated ones must both have classes")
        if self.judges:
            assert self.network is not None
            return self.network
        return self.school.network()

    @cached_property
    def chances(self) -> NDArray[np.float64]:
        """The judge's probability of each class of the data for each generated image: [N, classes]."""
        return self._chances(self.generated, self.seen if self.judges else None)

    @cached_property
    def chances_held(self) -> NDArray[np.float64]:
        """The same for the held-out real images."""
        return self._chances(self.real.held, self.seen_held if self.judges else None)

    def chances_of(self, data: ImageData) -> NDArray[np.float64]:
        """The same for other images."""
        return self._chances(data, None)

    def of_class(self, data: ImageData) -> list[NDArray[np.int64]]:
        """The indices of each class's images."""
        return [np.flatnonzero(data.labels == label) for label in range(len(self.class_names))]

    def of_class_equally(self) -> Iterator[tuple[str, tuple[NDArray[np.int64], ...]]]:
        """Each class with the indices of as many images in half A, half B and the generated ones held against them.

        Where one of the three has no images of the class, the others are equally many.
        """
        random = draws(self.seed, 8)
        sets = (self.half_a, self.half_b, self.generated_compared)
        for name, lots in zip(self.class_names, zip(*map(self.of_class, sets), strict=True), strict=True):
            many = min((len(lot) for lot in lots if len(lot)), default=0)
            yield name, tuple(np.sort(random.permutation(lot)[:many]) for lot in lots)

    def _chances(self, data: ImageData, seen: Seen | None) -> NDArray[np.float64]:
        judge = self.judge
        logits = (seen or judge.see(data.images)).logits
        if logits is None:
            raise NotApplicable(f"the network {judge.name} gives no logits")
        order = [judge.class_names.index(name) for name in self.class_names]
        return probabilities(logits[:, order])

    def _see_half(self, half: ImageData, indices: NDArray[np.int64]) -> Seen:
        return _some(self.seen_known, indices) if self.whole else self._see(half, "real")

    def _see(self, data: ImageData, what: str) -> Seen:
        assert self.network is not None
        text = f"looking at {len(data):,} {what} images"
        return self.network.see(data.images, lambda done, total: self.tell(text, done, total))


def same_classes(network: FeatureNetwork, class_names: tuple[str, ...]) -> bool:
    """Whether a network's logits mean these classes, in any order."""
    return set(class_names) <= set(network.class_names) and len(network.class_names) == len(class_names)


def _some(seen: Seen, indices: NDArray[np.int64]) -> Seen:
    return Seen(seen.features[indices], None if seen.logits is None else seen.logits[indices])
