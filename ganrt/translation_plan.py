"""The plan of a dataset that an image-to-image generator makes of images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ganrt.decoding import MAX_PIXELS
from ganrt.encode import FORMATS, RESAMPLE
from ganrt.errors import UsageError
from ganrt.names import MAX_STEM, file_stem, is_text, same_file
from ganrt.shards import MAX_SIZE, DatasetPlan, require, require_text

KIND = "translation"
RESIZE = ("crop", "stretch")
MAX_MULTIPLE = 1 << 10


@dataclass(frozen=True, kw_only=True)
class TranslationPlan(DatasetPlan):
    """All that decides a dataset made of images, the images themselves among it.

    Sample i is made of the i-th input. ``names`` are theirs, relative, and ``inputs`` is the digest of what they
    hold; ``label_list`` has a label each, and is empty without classes. ``size`` is (width, height) of the images
    that the network is given, None where they are of several; ``resize`` and ``resample`` say how they got it.
    ``tile`` and ``overlap`` are in pixels of the network's input, ``multiple`` is what its sides are padded to.
    """

    command: ClassVar[str] = "translate"
    shared: ClassVar[bool] = False
    alike: ClassVar[bool] = False

    part: str = ""
    model: str
    model_digest: str
    class_names: tuple[str, ...]
    in_channels: int
    channels: int
    scale: int
    names: tuple[str, ...]
    label_list: tuple[int, ...]
    inputs: str
    size: tuple[int, int] | None
    resize: str | None
    resample: str | None
    tile: int | None
    overlap: int | None
    multiple: int
    layout: str
    format: str | None
    quality: int | None
    mark: bool
    shard_size: int
    batch: int
    start: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.check()
        require("multiple", self.multiple, 1, MAX_MULTIPLE)
        if self.tile is None:
            return
        require("tile", self.tile, 1, MAX_SIZE)
        overlap = require("overlap", 0 if self.overlap is None else self.overlap, 0, MAX_SIZE)
        if self.tile % self.multiple:
            raise UsageError(f"tile {self.tile} is no multiple of {self.multiple}", "Tiles begin and end at multiples.")
        if self.tile - overlap < self.multiple:
            raise UsageError(
                f"overlap {overlap} leaves nothing of a tile of {self.tile}",
                f"Expected at most {self.tile - self.multiple}.",
            )

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def pixels(self) -> tuple[int, int, int] | None:
        if self.size is None:
            return None
        width, height = self.size
        return height * self.scale, width * self.scale, self.channels

    @property
    def labelled(self) -> bool:
        return bool(self.class_names)

    def labels(self, start: int, stop: int) -> NDArray[np.int64]:
        return np.array(self.label_list[start:stop], np.int64)

    def label(self, index: int) -> int | None:
        return self.label_list[index] if self.labelled else None

    def stems(self, start: int, stop: int) -> list[str]:
        return list(self._stems[start:stop])

    @cached_property
    def _stems(self) -> tuple[str, ...]:
        return tuple(file_stem(PurePosixPath(name).stem) for name in self.names)

    def about(self, index: int) -> dict[str, object]:
        return {"index": index, "source": self.names[index]}

    def per_class(self, n: int) -> dict[str, int]:
        counts = Counter(self.label_list[:n])
        return {name: counts[y] for y, name in enumerate(self.class_names)}

    def to_dict(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {"kind": KIND, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}

    def summary(self) -> dict[str, Any]:
        values = {k: v for k, v in self.to_dict().items() if k not in ("names", "label_list")}
        return {**values, "images": self.count}

    def differences(self, other: DatasetPlan) -> list[str]:
        told = super().differences(other)
        if isinstance(other, TranslationPlan) and self.inputs != other.inputs:
            mine, theirs = set(self.names), set(other.names)
            new, gone = sorted(mine - theirs), sorted(theirs - mine)
            told += [f"{', '.join(new[:3])}{_more(new)} was not there then"] if new else []
            told += [f"{', '.join(gone[:3])}{_more(gone)} is not there now"] if gone else []
            if not new and not gone:
                told.append("the images have the same names: some have changed")
        return told

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TranslationPlan:
        """The plan back from its JSON values. Raises TypeError, ValueError or UsageError when they are none."""
        given = {k: v for k, v in values.items() if k != "kind"}
        tuples = {k: tuple(given[k]) for k in ("class_names", "names", "label_list")}
        plan = cls(**{**given, **tuples, "size": tuple(given["size"]) if given["size"] else None})
        for text in (plan.model, plan.model_digest, plan.part, plan.inputs, *plan.class_names, *plan.names):
            require_text(text)
        for side in plan.size or ():
            require("size", side, 1, MAX_PIXELS)
        require("scale", plan.scale, 1, MAX_SIZE)
        if len(plan.label_list) != (plan.count if plan.class_names else 0):
            raise ValueError("a label each expected")
        for y in set(plan.label_list):
            require("class", y, 0, len(plan.class_names) - 1)
        if plan.channels not in (1, 3) or plan.in_channels not in (1, 3) or plan.format not in (None, *FORMATS):
            raise ValueError("unknown channels or format")
        if plan.resize not in (None, *RESIZE) or plan.resample not in (None, *RESAMPLE):
            raise ValueError("unknown resize or resample")
        if (plan.format is None) != (plan.layout == "npy"):
            raise ValueError("no format")
        if plan.layout == "npy" and plan.size is None:
            raise ValueError("no size")
        if plan.part:
            raise ValueError("a part")
        return plan


def check_names(names: tuple[str, ...], labels: tuple[int, ...], layout: str) -> None:
    """Raises UsageError for names that cannot be written down, and for two that would share a file, case ignored."""
    for name in names:
        if not is_text(name):
            raise UsageError(f"the name {name!a} holds characters that cannot be printed", "Rename the file.")
    if layout != "folder":
        return
    there: dict[tuple[int, str], str] = {}
    for name, y in zip(names, labels or (0,) * len(names), strict=True):
        stem = file_stem(PurePosixPath(name).stem)
        if len(stem.encode()) > MAX_STEM:
            raise UsageError(f"the name of {name} is too long: {len(stem.encode())} bytes", "Rename it.")
        other = there.setdefault((y, same_file(stem)), name)
        if other != name:
            raise UsageError(
                f"{other} and {name} would both be written as {stem}",
                "Some systems cannot tell such names apart: rename one, or use --layout webdataset.",
            )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""
