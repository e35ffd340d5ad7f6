"""What an evaluation found: figures, each with its protocol and beside the same for real images, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ganrt.errors import UsageError

Picture: TypeAlias = NDArray[np.uint8]
"""uint8 [H, W, C], C 1 or 3. Pictures of one evaluation may differ in size."""

Neighbours: TypeAlias = tuple[Picture, list[Picture], list[float]]
"""A generated image, the training images nearest to it (nearest first), and their distances in feature space."""

ClassPictures: TypeAlias = tuple[str, list[Picture], list[Picture], list[Picture], list[Picture]]
"""A class name; real images of it, generated ones, and of those the best and the worst by the classifier's
probability of the label asked for (best first, worst first). Lists may be empty."""


@dataclass(frozen=True)
class Figure:
    """One figure of generated images, and the same of real ones.

    ``generated`` and ``real`` may be NaN, where a figure has no value; ``real`` is None where real images have none by
    the figure's meaning. ``per_class`` maps class names to the two, and may be empty. ``percent`` figures are shares
    in [0, 1], or above 1 for density. ``meaning`` is one plain sentence: what the figure says and which defect shows
    in it. ``protocol`` is what differs from, or adds to, the evaluation's.
    """

    key: str
    title: str
    generated: float
    real: float | None
    better: Literal["lower", "higher"]
    meaning: str
    per_class: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    percent: bool = False

    def to_json(self) -> dict[str, Any]:
        """Everything, with None for what is no finite number."""
        return {
            "key": self.key,
            "title": self.title,
            "generated": _plain(self.generated),
            "real": _plain(self.real),
            "better": self.better,
            "percent": self.percent,
            "meaning": self.meaning,
            "protocol": _plain(self.protocol),
            "per_class": {
                name: {"generated": _plain(generated), "real": _plain(real)}
                for name, (generated, real) in self.per_class.items()
            },
        }


@dataclass(frozen=True)
class Pictures:
    """Images to look at. Each list may be empty.

    ``neighbours``: generated images, some near to training images and some typical (median), with the nearest ones.
    ``closest``: the generated images nearest to a training image, nearest first: what a memoriser shows.
    ``by_class``: real beside generated images of each class, and the best and worst of the generated.
    """

    neighbours: list[Neighbours] = field(default_factory=list)
    closest: list[Neighbours] = field(default_factory=list)
    by_class: list[ClassPictures] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated (``source``: the name of a model or a folder's own, never a path), how, and what was found."""

    source: str
    protocol: dict[str, Any]
    figures: tuple[Figure, ...]
    warnings: tuple[str, ...] = ()
    pictures: Pictures = field(default_factory=Pictures)

    def to_json(self) -> dict[str, Any]:
        """All but the pictures, as what ``json.dumps(..., allow_nan=False)`` takes: None for what is not finite."""
        return {
            "source": self.source,
            "protocol": _plain(self.protocol),
            "figures": [figure.to_json() for figure in self.figures],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """What ``to_json`` gave, as a card or ``evaluation.json`` holds it; without pictures, NaN where it says None.

        Raises UsageError for what is no evaluation.
        """
        try:
            figures = tuple(_figure(found) for found in values["figures"])
            warnings = tuple(str(text) for text in values["warnings"])
            return cls(str(values["source"]), dict(values["protocol"]), figures, warnings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"this is no evaluation: {error!r:.80}", "Expected what ganrt evaluate wrote.") from None


def _figure(found: Mapping[str, Any]) -> Figure:
    if found["better"] not in ("lower", "higher"):
        raise ValueError(f"better is {found['better']!r:.40}")
    per_class = {
        str(name): (_number(pair["generated"]), _real(pair["real"])) for name, pair in found["per_class"].items()
    }
    generated, real = _number(found["generated"]), _real(found["real"])
    key, title, meaning = (str(found[name]) for name in ("key", "title", "meaning"))
    percent = bool(found["percent"])
    return Figure(key, title, generated, real, found["better"], meaning, per_class, dict(found["protocol"]), percent)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _real(value: Any) -> float | None:
    return None if value is None else float(value)


def _plain(value: Any) -> Any:
    """The value as JSON has it: numpy's numbers as Python's, paths by their own name, no NaN."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, PurePath):
        return value.name
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
