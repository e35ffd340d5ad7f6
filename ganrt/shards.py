"""The plan of a dataset, and the shards it falls into."""

from __future__ import annotations

import hashlib
import json
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ganrt import latents
from ganrt.errors import UsageError
from ganrt.latents import MAX_INDEX, MAX_SEED
from ganrt.names import DEVICE
from ganrt.values import told

if TYPE_CHECKING:
    from ganrt.encode import Pixels

PART_NAME = re.compile(r"(?![0-9]+-of-[0-9]+$)[A-Za-z0-9][A-Za-z0-9_-]{0,39}")  # K-of-M names a machine's ledger
DEFAULT_BATCH = 64
CHANNELS = {"l": 1, "rgb": 3}  # mode → channels
MAX_BATCH = 1 << 16
MAX_SIZE = 1 << 14


@dataclass(frozen=True)
class Shard:
    """A run of sample indices, start … stop-1: the unit of work, of commit, of retry, of distribution."""

    number: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Record:
    """What the ledger holds of a finished shard.

    ``sizes`` in bytes and ``digests`` of its files, in the order of the layout's ``names``; ``pixels`` is
    the digest of its uint8 pixels, the same for every format.
    """

    number: int
    images: int
    sizes: tuple[int, ...]
    digests: tuple[str, ...]
    pixels: str


@dataclass(frozen=True)
class Staged:
    """A batch on its way to the disk: its pixels, its bytes for a container, its loose files' sizes and digests."""

    images: Pixels
    data: bytes = b""
    sizes: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


class DatasetPlan(ABC):
    """What every plan has: :class:`Plan` of latents, :class:`ganrt.translation_plan.TranslationPlan` of images.

    A plan is a frozen dataclass of all that decides a dataset except how many workers make it. Shards and batches
    lie at absolute indices: shard k holds k·shard_size … (k+1)·shard_size-1.
    """

    command: ClassVar[str]  # that makes it
    shared: ClassVar[bool] = True  # may others of other parts lie under the same root?
    alike: ClassVar[bool] = True  # does about() tell samples of one label apart by their index alone?

    part: str
    model: str
    model_digest: str
    class_names: tuple[str, ...]
    start: int
    layout: str
    format: str | None
    quality: int | None
    mark: bool
    shard_size: int
    batch: int

    @property
    def count(self) -> int:
        """Of its samples, where the plan decides it; 0 where the request says how many."""
        return 0

    @property
    @abstractmethod
    def pixels(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the images written; None where they are of several sizes."""

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether its samples have labels."""

    @abstractmethod
    def labels(self, start: int, stop: int) -> NDArray[np.int64]:
        """The labels of the samples start … stop-1, of a plan that has them."""

    @abstractmethod
    def stems(self, start: int, stop: int) -> list[str]:
        """What the loose files of the samples start … stop-1 are called, without class folder and ending."""

    @abstractmethod
    def per_class(self, n: int) -> dict[str, int]:
        """How many of the first ``n`` samples each class has."""

    @abstractmethod
    def about(self, index: int) -> dict[str, object]:
        """What a container says of a sample beside its label."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""

    def summary(self) -> dict[str, Any]:
        """The plan as JSON values for the manifest, without what grows with the number of samples."""
        return self.to_dict()

    def check(self) -> None:
        """Raises UsageError for numbers and names that no plan may have."""
        require("batch", self.batch, 1, MAX_BATCH)
        require("shard size", self.shard_size, 1, MAX_INDEX)
        if self.shard_size % self.batch:
            near = max(1, round(self.shard_size / self.batch)) * self.batch
            raise UsageError(
                f"shard size {self.shard_size} is no multiple of the batch {self.batch}", f"{near} would be one."
            )
        if not isinstance(self.part, str) or (self.part and not PART_NAME.fullmatch(self.part)):
            raise UsageError(
                f"part {told(self.part)}",
                "Expected up to 40 letters, digits, '-' and '_', starting with a letter or a digit.",
            )

    def label(self, index: int) -> int | None:
        """The label of a sample, None without classes."""
        return int(self.labels(index, index + 1)[0]) if self.labelled else None

    def fingerprint(self) -> str:
        """What tells this plan from any other: 32 hex digits."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def differences(self, other: DatasetPlan) -> list[str]:
        """The fields in which two plans differ, as ``field: mine, theirs``."""
        mine, theirs = self.summary(), other.summary()
        made = (
            [f"made by ganrt {self.command}, there by ganrt {other.command}"] if self.command != other.command else []
        )
        return made + [
            f"{k}: {_short(mine[k])}, there {_short(theirs[k])}" for k in mine if k in theirs and mine[k] != theirs[k]
        ]

    def shards(self, n: int, machine: tuple[int, int] = (0, 1)) -> Iterator[Shard]:
        """The shards that hold the first ``n`` samples, in order; the first and last may be short.

        Of machine (K, M) only its share: the shards whose number leaves K when divided by M.
        """
        stop = self.start + n
        for number in self._numbers(n, machine):
            first = number * self.shard_size
            yield Shard(number, max(first, self.start), min(first + self.shard_size, stop))

    def share(self, n: int, machine: tuple[int, int]) -> tuple[int, int]:
        """How many shards, and how many of the first ``n`` samples, are a machine's."""
        numbers = self._numbers(n, machine)
        if not numbers:
            return 0, 0
        outside = max(0, self.start - numbers[0] * self.shard_size)
        outside += max(0, (numbers[-1] + 1) * self.shard_size - self.start - n)
        return len(numbers), len(numbers) * self.shard_size - outside

    def _numbers(self, n: int, machine: tuple[int, int]) -> range:
        (k, m), first = machine, self.start // self.shard_size
        return range(first + (k - first) % m, -(-(self.start + n) // self.shard_size) if n else 0, m)

    def shard(self, number: int, n: int) -> Shard | None:
        """Shard ``number`` of the first ``n`` samples; None when they do not reach into it."""
        first = number * self.shard_size
        start, stop = max(first, self.start), min(first + self.shard_size, self.start + n)
        return Shard(number, start, stop) if start < stop else None


@dataclass(frozen=True, kw_only=True)
class Plan(DatasetPlan):
    """All that decides a dataset of samples of latents, except how many images and how many workers.

    ``classes`` is the cycle of labels: label of index i = classes[i mod len(classes)]; empty for a
    generator without classes. ``size`` is (width, height) in pixels, None for the generator's own.
    """

    command: ClassVar[str] = "generate"

    part: str
    model: str
    model_digest: str
    class_names: tuple[str, ...]
    width: int
    height: int
    channels: int
    seed: int
    start: int
    classes: tuple[int, ...]
    psi: float | None
    latent_std: float
    size: tuple[int, int] | None
    resample: str | None
    mode: str
    layout: str
    format: str | None
    quality: int | None
    mark: bool
    shard_size: int
    batch: int

    def __post_init__(self) -> None:
        require("seed", self.seed, 0, MAX_SEED)
        require("start", self.start, 0, MAX_INDEX)
        self.check()

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Height, width and channels of the images written."""
        width, height = self.size or (self.width, self.height)
        return height, width, CHANNELS[self.mode]

    @property
    def labelled(self) -> bool:
        return bool(self.classes)

    def labels(self, start: int, stop: int) -> NDArray[np.int64]:
        return latents.labels(self.classes, start, stop - start)

    def label(self, index: int) -> int | None:
        return self.classes[index % len(self.classes)] if self.classes else None

    def stems(self, start: int, stop: int) -> list[str]:
        stem = f"{self.part}-" if self.part else ""
        return [f"{stem}{index:08d}" for index in range(start, stop)]

    def about(self, index: int) -> dict[str, object]:
        return {"index": index, "seed": self.seed}

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan back from its JSON values. Raises TypeError, ValueError or UsageError when they are none."""
        tuples = {k: tuple(values[k]) for k in ("class_names", "classes")}
        size = values["size"]
        plan = cls(**{**values, **tuples, "size": tuple(size) if size else None})
        for name in ("width", "height"):
            require(name, getattr(plan, name), 1, MAX_SIZE)
        for side in plan.size or ():
            require("size", side, 1, MAX_SIZE)
        for text in (plan.model, plan.model_digest, plan.part, *plan.class_names):
            require_text(text)
        for y in plan.classes:
            require("class", y, 0, len(plan.class_names) - 1)
        if plan.mode not in CHANNELS or plan.format not in (None, "png", "jpeg", "webp"):
            raise ValueError("unknown mode or format")
        if plan.format is None and plan.layout != "npy":
            raise ValueError("no format")
        return plan

    def per_class(self, n: int) -> dict[str, int]:
        cycle = len(self.classes)
        whole, rest = divmod(n, cycle) if cycle else (0, 0)
        extra = {(self.start + k) % cycle for k in range(rest)}
        return {self.class_names[y]: whole + (turn in extra) for turn, y in enumerate(self.classes)}


def require(name: str, value: SupportsIndex, low: int, high: int) -> int:
    """``value`` as an int. Raises UsageError unless it is a whole number of ``low`` to ``high``."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise UsageError(f"{name} {told(value)}", f"Expected a whole number of {low} to {high}.")
    return number


def require_text(value: object) -> None:
    """Raises TypeError or ValueError unless it is a text that can be written down."""
    if not isinstance(value, str):
        raise TypeError("texts expected")
    value.encode()  # JSON may hold halves of characters


def class_folders(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """The folder of each class: every run of characters outside ``A-Za-z0-9._ -`` becomes ``_``.

    A name that no folder may have on one of the systems or for one of the readers (a leading or trailing dot
    or blank, two leading ``_``, Windows' device names, the names of ganrt's own files) is mended with ``_``
    too. Raises UsageError when two classes would share a folder, case ignored.
    """
    folders: dict[str, str] = {}
    result = []
    for name in class_names:
        folder = re.sub(r"[^A-Za-z0-9._ -]+", "_", name)
        folder = re.sub(r"^[. ]+|[. ]+$", "_", folder) or "_"
        folder = re.sub(r"^_{2,}", "_", folder)  # HF datasets passes over what starts with two
        if _RESERVED.match(folder):
            folder += "_"
        folder = DEVICE.sub(r"\1_", folder)  # Windows looks at what comes before the first dot
        other = folders.setdefault(folder.casefold(), name)
        if other != name:
            raise UsageError(
                f"classes {other!r} and {name!r} would share the folder {folder!r}",
                "Use --layout webdataset or npy, or rename one (in the generator's card, or the folder of images).",
            )
        result.append(folder)
    return tuple(result)


_RESERVED = re.compile(r"(?i)readme\.md$|ganrt.*[.]|metadata[.]")


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
