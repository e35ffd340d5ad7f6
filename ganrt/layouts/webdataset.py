"""``000000.tar``, …: POSIX tar archives of ``key.png key.cls key.json``, as webdataset and HF datasets stream them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ganrt.encode import FORMATS, Pixels, decode, encoder
from ganrt.files import PART, Held, no_link
from ganrt.layouts.folder import damaged_files, files_are_there
from ganrt.shards import DatasetPlan, Record, Shard, Staged

if TYPE_CHECKING:
    from ganrt.generator import Batch

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_KNOWN = 16  # archives whose members are kept in mind
_SIZE, _SUM = 124, 148  # where these fields of a header begin


class WebDataset:
    """One archive a shard; the bytes depend on the samples alone (no times, no owners)."""

    shard_size: ClassVar[int] = 1024
    format: ClassVar[str | None] = "png"
    divisible: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    def __init__(self, plan: DatasetPlan) -> None:
        assert plan.format is not None
        self._plan = plan
        self._encode = encoder(plan.format, plan.quality, plan.mark)
        self._stem = f"{plan.part}-" if plan.part else ""
        self._end = FORMATS[plan.format]
        self._moulds: dict[tuple[int | None, int], _Mould] = {}
        self._where: dict[tuple[Path, int, int], dict[str, tuple[int, int]]] = {}  # an archive's members, once read

    def prepare(self, root: Path) -> None:
        pass

    def begin(self, root: Path, shard: Shard, only: Collection[str] | None = None) -> _Archive:
        return _Archive(root / self.names(shard)[0], shard, self._alike if self._plan.alike else self._members)

    def _members(self, batch: Batch) -> bytes:
        """The members of each sample."""
        pieces: list[bytes] = []
        for data, index in zip(self._encode(batch.images), batch.indices.tolist(), strict=True):
            key = f"{self._stem}{index:08d}".encode()
            y = self._plan.label(index)
            pieces.append(member(key + f".{self._end}".encode(), data))
            if y is not None:
                pieces.append(member(key + b".cls", b"%d" % y))
            pieces.append(member(key + b".json", json.dumps(self._about(index, y)).encode()))
        return b"".join(pieces)

    def _about(self, index: int, y: int | None) -> dict[str, object]:
        label = {} if y is None else {"label": y, "class_name": self._plan.class_names[y]}
        return self._plan.about(index) | label

    def _alike(self, batch: Batch) -> bytes:
        """The same, put together from ready pieces, where samples of a label differ by their index alone."""
        pieces: list[bytes] = []
        stem = self._stem.encode()
        for data, index in zip(self._encode(batch.images), batch.indices.tolist(), strict=True):
            number = b"%d" % index
            key = stem + number.rjust(8, b"0")
            size, keyed = b"%011o" % len(data), sum(key)
            mould = self._mould(self._plan.label(index), len(number), len(key))
            pieces += (key, mould.name, size, mould.time)
            pieces += (b"%06o" % (mould.total + keyed + sum(size)), mould.rest, data, bytes(-len(data) % _BLOCK))
            for before, total, after in mould.others:
                pieces += (key, before, b"%06o" % (total + keyed), after)
            pieces += (number, mould.end)
        return b"".join(pieces)

    def _mould(self, y: int | None, digits: int, key: int) -> _Mould:
        found = self._moulds.get((y, digits))
        if found is None:
            found = self._moulds[y, digits] = self._make_mould(y, digits, key)
        return found

    def _make_mould(self, y: int | None, digits: int, key: int) -> _Mould:
        """The pieces of samples of a class whose indices have so many digits, and whose keys have ``key`` letters."""
        about = self._about(10 ** (digits - 1), y)
        blank = bytes(key)  # adds nothing to a checksum
        image = member(blank + f".{self._end}".encode(), b"")
        others = [] if y is None else [member(blank + b".cls", b"%d" % y)]
        others.append(member(blank + b".json", json.dumps(about).encode()))
        split = [(m[key:_SUM], int(m[_SUM : _SUM + 6], 8), m[_SUM + 6 :]) for m in others]
        before, total, after = split.pop()
        start = after.index(b'{"index": ') + len(b'{"index": ')
        return _Mould(
            name=image[key:_SIZE],
            time=image[_SIZE + 11 : _SUM],
            total=int(image[_SUM : _SUM + 6], 8) - sum(b"00000000000"),
            rest=image[_SUM + 6 :],
            others=(*split, (before, total, after[:start])),
            end=after[start + digits :],
        )

    def finish(self, root: Path, n: int) -> None:
        pass

    def names(self, shard: Shard) -> list[str]:
        return [f"{self._stem}{shard.number:06d}.tar"]

    def is_there(self, root: Path, shard: Shard, record: Record) -> bool:
        return files_are_there(root, self.names(shard), record)

    def damage(self, root: Path, shard: Shard, record: Record) -> Iterator[tuple[str, str]]:
        yield from damaged_files(root, self.names(shard), record)

    def common(self, n: int) -> dict[str, tuple[int, Iterable[bytes]]]:
        return {}

    def read(self, root: Path, shard: Shard, index: int) -> Pixels:
        path = root / self.names(shard)[0]
        stat = path.stat()
        key = (path, stat.st_ino, stat.st_mtime_ns)
        if (where := self._where.get(key)) is None:
            try:
                with tarfile.open(path) as archive:
                    where = {member.name: (member.offset_data, member.size) for member in archive if member.isreg()}
            except tarfile.TarError as error:
                raise ValueError(str(error)) from error
            if len(self._where) >= _KNOWN:
                self._where = {}
            self._where[key] = where
        offset, size = where[f"{self._stem}{index:08d}.{self._end}"]
        with open(path, "rb") as file:
            file.seek(offset)
            return decode(file.read(size), self._plan.pixels and self._plan.pixels[:2])

    def pattern(self) -> str:
        return "*.tar"


class _Mould(NamedTuple):
    """The members of a sample but for its key, its index, its image and the sums that depend on them.

    Of the image's header what stands between key, size and checksum, and the checksum of that; of the
    others what stands before and after the checksum. ``end`` follows the index in the last one.
    """

    name: bytes
    time: bytes
    total: int
    rest: bytes
    others: tuple[tuple[bytes, int, bytes], ...]
    end: bytes


class _Archive:
    """The archive of a shard: ``.part`` until it is whole."""

    def __init__(self, path: Path, shard: Shard, members: Callable[[Batch], bytes]) -> None:
        self._path, self._part, self._shard, self._members = path, path.with_name(path.name + PART), shard, members
        self._size = 0
        self._whole = False  # under its final name
        self._digest = hashlib.blake2b(digest_size=16)
        self._pixels = hashlib.blake2b(digest_size=16)
        self._root = Held(path.parent)
        try:
            self._file = open(no_link(self._part), "wb", buffering=0)  # noqa: SIM115 - closed by close() or abort()
        except BaseException:
            self._root.close()
            raise

    def stage(self, batch: Batch) -> Staged:
        return Staged(batch.images, self._members(batch))

    def append(self, staged: Staged) -> None:
        self._pixels.update(staged.images.data)
        self._put(staged.data)

    def close(self) -> Record:
        self._put(_END)
        os.fsync(self._file.fileno())
        self._file.close()
        base, folder = self._root.base, self._root.descriptor
        os.replace(base + self._part.name, base + self._path.name, src_dir_fd=folder, dst_dir_fd=folder)
        self._whole = True
        self._root.close()
        shard = self._shard
        return Record(shard.number, len(shard), (self._size,), (self._digest.hexdigest(),), self._pixels.hexdigest())

    def abort(self) -> None:
        if self._whole:
            return
        self._file.close()
        with contextlib.suppress(OSError):  # what went wrong before is what has to be told
            os.unlink(self._root.base + self._part.name, dir_fd=self._root.descriptor)
        self._root.close()

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]


def member(name: bytes, data: bytes) -> bytes:
    """One file of a USTAR archive (POSIX.1-2008, pax: ustar Interchange Format): header, data, padding."""
    header = b"".join(
        (
            name.ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" + b"0000000\0",  # mode, owner, group
            b"%011o\0" % len(data),
            b"00000000000\0",  # time
            b"        ",  # the checksum counts as blanks
            b"0".ljust(101, b"\0"),  # a regular file, no link
            b"ustar\x0000".ljust(_BLOCK - 257, b"\0"),
        )
    )
    header = header[:_SUM] + b"%06o\0 " % sum(header) + header[_SUM + 8 :]
    return header + data + bytes(-len(data) % _BLOCK)
