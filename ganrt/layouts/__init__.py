"""How a dataset's files are arranged: one file a layout, one protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from ganrt.layouts.folder import Folder
from ganrt.layouts.npy import Npy
from ganrt.layouts.webdataset import WebDataset
from ganrt.shards import DatasetPlan, Record, Shard, Staged

if TYPE_CHECKING:
    from ganrt.encode import Pixels
    from ganrt.generator import Batch


class ShardWriter(Protocol):
    """One shard on its way to the disk. It ends with ``close`` or with ``abort``."""

    def stage(self, batch: Batch) -> Staged:
        """All that needs no order: encoding, loose files. Several threads may do so at a time."""

    def append(self, staged: Staged) -> None:
        """Takes the next batch; called in the order of the indices, by one thread at a time."""

    def close(self) -> Record:
        """Gives a container its final name, now that every batch is in, and says what was written."""

    def abort(self) -> None:
        """Removes what is not whole."""


class Layout(Protocol):
    """What generation and verification ask of a layout. Names are relative to the dataset's root, with ``/``."""

    shard_size: ClassVar[int]  # unless the user names another
    format: ClassVar[str | None]  # likewise; None where images are not encoded
    divisible: ClassVar[bool]  # may several machines make one part?
    durable: ClassVar[bool]  # is a shard on the disk before its ledger line is?

    def prepare(self, root: Path) -> None:
        """Makes the root ready for shards to be written; called once a run, before any."""

    def begin(self, root: Path, shard: Shard, only: Collection[str] | None = None) -> ShardWriter:
        """Starts a shard, whose files get their final names only when they are whole.

        With ``only`` loose files of other names are not written, but recorded all the same.
        """

    def finish(self, root: Path, n: int) -> None:
        """Called when every shard is recorded; may be called again. A file that lacks samples stays as it is."""

    def names(self, shard: Shard) -> list[str]:
        """The files of a shard, in the order of its record."""

    def is_there(self, root: Path, shard: Shard, record: Record) -> bool:
        """Whether a recorded shard's files are there with their sizes."""

    def damage(self, root: Path, shard: Shard, record: Record) -> Iterator[tuple[str, str]]:
        """Every file of a recorded shard that is missing or changed, with what is wrong."""

    def common(self, n: int) -> dict[str, tuple[int, Iterable[bytes]]]:
        """The files that belong to no single shard, when the part is complete: their size, and how they begin."""

    def read(self, root: Path, shard: Shard, index: int) -> Pixels:
        """The image of one sample of a finished shard: uint8 [H, W, C]. Raises OSError, ValueError, KeyError."""

    def pattern(self) -> str:
        """The files that a reader wants, as a glob."""


_LAYOUTS: dict[str, type[Folder] | type[WebDataset] | type[Npy]] = {
    "folder": Folder,
    "webdataset": WebDataset,
    "npy": Npy,
}
LAYOUTS = tuple(_LAYOUTS)


def layout_kind(name: str) -> type[Folder] | type[WebDataset] | type[Npy]:
    """The layout class of that name: its defaults can be read before there is a plan."""
    return _LAYOUTS[name]


def layout_of(plan: DatasetPlan) -> Layout:
    """The layout of a plan. Raises UsageError when its class names cannot be files' names."""
    return _LAYOUTS[plan.layout](plan)
