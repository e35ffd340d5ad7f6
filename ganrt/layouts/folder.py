"""``root/<class>/<index>.png``: one file an image, as torchvision, timm, Keras, HF datasets and FiftyOne read it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ganrt.encode import FORMATS, Encoder, Pixels, decode, encoder
from ganrt.errors import DatasetError
from ganrt.files import LINK, Held, digest, file_digest, write_loose
from ganrt.shards import DatasetPlan, Record, Shard, Staged, class_folders

if TYPE_CHECKING:
    from ganrt.generator import Batch


class Folder:
    """Class folders hold images and nothing else; without classes the images lie at the root."""

    shard_size: ClassVar[int] = 512
    format: ClassVar[str | None] = "png"
    divisible: ClassVar[bool] = True
    durable: ClassVar[bool] = False

    def __init__(self, plan: DatasetPlan) -> None:
        assert plan.format is not None
        self._plan = plan
        self._prefixes = [f"{name}/" for name in class_folders(plan.class_names)]
        self._encode = encoder(plan.format, plan.quality, plan.mark)
        self._end = f".{FORMATS[plan.format]}"

    def prepare(self, root: Path) -> None:
        pass

    def begin(self, root: Path, shard: Shard, only: Collection[str] | None = None) -> _Files:
        if self._plan.labelled:  # here, so that no class gets a folder and no image
            for label in np.unique(self._plan.labels(shard.start, shard.stop)):
                folder = root / self._prefixes[label]
                folder.mkdir(exist_ok=True)
                if folder.is_symlink():
                    raise DatasetError(f"{folder} is a link", "Images would be written where it leads: remove it.")
        return _Files(root, shard, self.names(shard), self._encode, only)

    def finish(self, root: Path, n: int) -> None:
        pass

    def names(self, shard: Shard) -> list[str]:
        stems, end = self._plan.stems(shard.start, shard.stop), self._end
        if not self._plan.labelled:
            return [stem + end for stem in stems]
        labels = self._plan.labels(shard.start, shard.stop).tolist()
        return [f"{self._prefixes[y]}{stem}{end}" for y, stem in zip(labels, stems, strict=True)]

    def is_there(self, root: Path, shard: Shard, record: Record) -> bool:
        return files_are_there(root, self.names(shard), record)

    def damage(self, root: Path, shard: Shard, record: Record) -> Iterator[tuple[str, str]]:
        yield from damaged_files(root, self.names(shard), record)

    def common(self, n: int) -> dict[str, tuple[int, Iterable[bytes]]]:
        return {}

    def read(self, root: Path, shard: Shard, index: int) -> Pixels:
        pixels = self._plan.pixels
        return decode((root / self.names(shard)[index - shard.start]).read_bytes(), pixels and pixels[:2])

    def pattern(self) -> str:
        return f"*/*{self._end}" if self._plan.labelled else f"*{self._end}"


class _Files:
    """The loose files of a shard."""

    def __init__(
        self, root: Path, shard: Shard, names: list[str], encode: Encoder, only: Collection[str] | None
    ) -> None:
        self._shard, self._names, self._encode, self._only = shard, names, encode, only
        self._root = Held(root)
        self._sizes: list[int] = []
        self._digests: list[str] = []
        self._pixels = hashlib.blake2b(digest_size=16)

    def stage(self, batch: Batch) -> Staged:
        staged = Staged(batch.images)
        first = int(batch.indices[0]) - self._shard.start
        names = self._names[first : first + len(batch.images)]
        for name, data in zip(names, self._encode(batch.images), strict=True):
            if self._only is None or name in self._only:
                write_loose(self._root.base + name, data, self._root.descriptor)
            staged.sizes.append(len(data))
            staged.digests.append(digest(data))
        return staged

    def append(self, staged: Staged) -> None:
        self._pixels.update(staged.images.data)
        self._sizes += staged.sizes
        self._digests += staged.digests

    def close(self) -> Record:
        self._root.close()
        shard = self._shard
        return Record(shard.number, len(shard), tuple(self._sizes), tuple(self._digests), self._pixels.hexdigest())

    def abort(self) -> None:
        self._root.close()


def files_are_there(root: Path, names: list[str], record: Record) -> bool:
    """Whether every file of a record is there with its size."""
    base = f"{os.fspath(root)}/"
    try:
        return len(names) == len(record.sizes) and all(
            os.lstat(base + name).st_size == size for name, size in zip(names, record.sizes, strict=True)
        )
    except FileNotFoundError:
        return False


def damaged_files(root: Path, names: list[str], record: Record) -> Iterator[tuple[str, str]]:
    """Compares files with a record: yields each name with ``missing``, ``changed`` or why it cannot be read."""
    for name, size, wanted in zip(names, record.sizes, record.digests, strict=True):
        path = root / name
        try:
            if path.is_symlink():
                yield name, LINK
            elif not path.is_file():
                yield name, "missing"
            elif (there := path.stat().st_size) != size:
                yield name, f"changed: {there} bytes, {size} were written"
            elif file_digest(path) != wanted:
                yield name, "changed: other bytes than were written"
        except OSError as error:
            yield name, f"cannot be read: {error.strerror}"
