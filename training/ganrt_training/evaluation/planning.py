"""What can be said of the images of an evaluation, and what sees them: known before anything is made or trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ganrt.errors import UsageError
from ganrt_training.evaluation.classifiers import TRAINED, School
from ganrt_training.evaluation.comparison import same_classes
from ganrt_training.evaluation.figures import OF_FEATURES
from ganrt_training.evaluation.networks import FeatureNetwork, open_network, shipped_for
from ganrt_training.evaluation.sets import RealImages, numbers_of
from ganrt_training.evaluation.sources import Source

AUTO = "auto"

_OF_PIXELS = {"neighbours": "memorised", "duplicates": "near duplicates"}  # what they lack without a network
_NAME_ONE = "Name a network: --features NETWORK.onnx, or --features inception-v3 --weights FILE."


@dataclass(frozen=True)
class Plan:
    """The metrics that apply; what is left out, with the reason; and what sees features.

    ``network`` is there already; where it is ``taught`` it is yet to be trained on the real images.
    """

    wanted: list[str]
    left_out: list[tuple[str, str]]
    network: FeatureNetwork | None
    taught: bool


def planned(
    wanted: list[str],
    images: Source,
    reals: RealImages,
    school: School,
    *,
    asked: bool,
    features: str,
    named: FeatureNetwork | None,
    confidence: float | None,
    device: str,
    threads: int | None,
) -> Plan:
    """What of the wanted metrics applies. ``named`` is the network that was named, if one was.

    Raises UsageError for classes that do not match, for what was ``asked`` for and does not apply, and for a folder
    in which nothing would be kept.
    """
    labelled = bool(len(numbers_of(images.class_names, reals.class_names, images.name)))
    if confidence is not None and not labelled:
        raise UsageError("confidence does not apply without classes", "Leave it out.")
    judged = labelled and ("fidelity" in wanted or confidence is not None)
    needed = judged or not OF_FEATURES.isdisjoint(wanted)
    network = named
    if needed and features == AUTO and (shipped := _shipped(reals)):
        network = open_network(shipped, device=device, threads=threads)
    judge = network if network and labelled and same_classes(network, reals.class_names) else None
    unfit = school.unfit
    if unfit and (features == TRAINED or (confidence is not None and judge is None)):
        raise UsageError(unfit, _NAME_ONE)

    def reasons(name: str) -> Iterator[str]:
        if name in ("fidelity", "cas") and not labelled:
            yield "the real images and the generated ones must both have classes"
        if name == "fidelity" and confidence is not None:
            yield "the images are chosen by the classifier, which would agree with itself"
        if name == "cas" and not reals.has_test:
            yield "the real data has no test split with classes, on which a classifier could be tested"
        if unfit and (name == "cas" or (name == "fidelity" and not judge) or (name in OF_FEATURES and not network)):
            yield f"{unfit}. {_NAME_ONE}"
        if name == "inception-score" and network and network.see(reals.train.images[:1]).logits is None:
            yield f"the feature network {network.name} gives no logits"

    found = {name: why for name in wanted if (why := next(reasons(name), ""))}
    for name, why in found.items():
        if asked:
            raise UsageError(f"{name} does not apply: {why}", "Leave it out of --metrics.")
    applying = [name for name in wanted if name not in found or name in _OF_PIXELS]
    judged = judged and ("fidelity" in applying or confidence is not None)
    taught = network is None and not unfit and (judged or not OF_FEATURES.isdisjoint(applying))
    if school.keep and not (taught or "cas" in applying or (judged and judge is None)):
        raise UsageError("keep does not apply: no classifier is trained on the real images", "Leave it out.")
    told = {why: ", ".join(_OF_PIXELS.get(n, n) for n in found if found[n] == why) for why in found.values()}
    return Plan(applying, [(names, why) for why, names in told.items()], network, taught)


def _shipped(reals: RealImages) -> str | None:
    """The shipped classifier of such data; not where held-out images are training images: it may have seen them."""
    _, height, width, channels = reals.train.images.shape
    if not reals.class_names or not reals.has_test:
        return None
    return shipped_for(reals.class_names, (height, width), channels)
