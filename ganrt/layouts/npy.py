"""``images.npy`` and ``labels.npy``: two arrays, as ``numpy.load(..., mmap_mode="r")`` reads them."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ganrt.files import PART, file_digest, holds, no_link, write_synced
from ganrt.shards import DatasetPlan, Record, Shard, Staged

if TYPE_CHECKING:
    from ganrt.encode import Pixels
    from ganrt.generator import Batch

_HEADER = 128  # bytes, padded so that a larger n fits in place
_LABELS = 1 << 16  # at a time


class Npy:
    """Images uint8 [n, H, W, C] and labels int64 [n]; row k is the sample start + k.

    ``images.npy.part`` is filled by plain writes and takes its name when every shard is in.
    """

    shard_size: ClassVar[int] = 512
    format: ClassVar[str | None] = None
    divisible: ClassVar[bool] = False
    durable: ClassVar[bool] = True

    def __init__(self, plan: DatasetPlan) -> None:
        self._plan = plan
        stem = f"{plan.part}-" if plan.part else ""
        self._images, self._labels = f"{stem}images.npy", f"{stem}labels.npy"
        assert plan.pixels is not None
        self._pixels = plan.pixels
        self._image_bytes = math.prod(plan.pixels)

    def prepare(self, root: Path) -> None:
        final, part = root / self._images, root / (self._images + PART)
        if final.is_symlink() or (final.exists() and final.stat().st_nlink > 1):
            if final.exists():  # what it leads to, and what else has its name, is not ours to write to
                shutil.copyfile(final, part)
            final.unlink()
        elif final.exists():
            os.replace(final, part)
        with open(no_link(part), "ab"):
            pass

    def begin(self, root: Path, shard: Shard, only: Collection[str] | None = None) -> _Rows:
        return _Rows(root / (self._images + PART), self._offset(shard), shard)

    def finish(self, root: Path, n: int) -> None:
        final, part = root / self._images, root / (self._images + PART)
        files = self.common(n)
        labels = root / self._labels
        if self._labels in files and (labels.is_symlink() or not holds(labels, *files[self._labels])):
            write_synced(labels, self._label_pieces(n))
        size, beginning = files[self._images]
        if final.exists() and not final.is_symlink() and holds(final, size, beginning):
            return
        there = final if final.exists() else part  # beside the final one, a part is a copy that was never finished
        if n and not (there.is_file() and there.stat().st_size >= size):
            return  # images are gone; never make it look whole
        self.prepare(root)
        with open(no_link(part), "r+b") as file:
            file.writelines(beginning)
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, final)

    def names(self, shard: Shard) -> list[str]:
        return [self._images]

    def is_there(self, root: Path, shard: Shard, record: Record) -> bool:
        wanted = self._offset(shard) + len(shard) * self._image_bytes
        paths = (root / self._images, root / (self._images + PART))
        return any(path.is_file() and path.stat().st_size >= wanted for path in paths)

    def damage(self, root: Path, shard: Shard, record: Record) -> Iterator[tuple[str, str]]:
        path = root / self._images
        if not path.exists():
            path = root / (self._images + PART)
        try:
            if file_digest(path, self._offset(shard), record.sizes[0]) == record.digests[0]:
                return
            what = "changed: other bytes than were written"
        except OSError as error:
            what = "missing" if not path.exists() else f"cannot be read: {error.strerror}"
        rows = f"{shard.start - self._plan.start} to {shard.stop - self._plan.start - 1}"
        yield self._images, f"rows {rows} {what}"

    def common(self, n: int) -> dict[str, tuple[int, Iterable[bytes]]]:
        header = _header("|u1", (n, *self._pixels))
        files: dict[str, tuple[int, Iterable[bytes]]] = {
            self._images: (_HEADER + n * self._image_bytes, [header]),
        }
        if self._plan.labelled:
            files[self._labels] = (_HEADER + 8 * n, self._label_pieces(n))
        return files

    def _label_pieces(self, n: int) -> Iterator[bytes]:
        yield _header("<i8", (n,))
        for first in range(0, n, _LABELS):
            start = self._plan.start + first
            yield self._plan.labels(start, start + min(_LABELS, n - first)).astype("<i8").tobytes()

    def read(self, root: Path, shard: Shard, index: int) -> Pixels:
        path = root / self._images
        with open(path if path.exists() else root / (self._images + PART), "rb") as file:
            file.seek(self._offset(shard) + (index - shard.start) * self._image_bytes)
            return np.frombuffer(file.read(self._image_bytes), np.uint8).reshape(self._pixels)

    def pattern(self) -> str:
        return self._images

    def _offset(self, shard: Shard) -> int:
        return _HEADER + (shard.start - self._plan.start) * self._image_bytes


class _Rows:
    """The rows of a shard, in a file that is there already."""

    def __init__(self, path: Path, offset: int, shard: Shard) -> None:
        self._shard, self._size = shard, 0
        self._pixels = hashlib.blake2b(digest_size=16)
        self._file = open(no_link(path), "r+b", buffering=0)  # noqa: SIM115 - closed by close() or abort()
        self._file.seek(offset)

    def stage(self, batch: Batch) -> Staged:
        return Staged(batch.images)

    def append(self, staged: Staged) -> None:
        left = staged.images.reshape(-1).data
        self._size += len(left)
        self._pixels.update(left)
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> Record:
        with self._file:
            os.fsync(self._file.fileno())
        pixels = self._pixels.hexdigest()
        return Record(self._shard.number, len(self._shard), (self._size,), (pixels,), pixels)

    def abort(self) -> None:
        self._file.close()


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file, format version 1.0 (numpy.org: NEP 1), of always the same length."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11) + b"\n"
