"""``000000.tar``, …: POSIX tar archives of ``key.png key.cls key.json``, as webdataset and HF datasets stream them."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ganrt.encode import FORMATS, Pixels, decode, encoder
from ganrt.files import PART
from ganrt.layouts.folder import damaged_files, files_are_there
from ganrt.shards import Plan, Record, Shard

if TYPE_CHECKING:
    from ganrt.generator import Batch

_BLOCK = 512
_END = bytes(2 * _BLOCK)


class WebDataset:
    """One archive a shard; the bytes depend on the samples alone (no times, no owners)."""

    shard_size: ClassVar[int] = 1024
    format: ClassVar[str | None] = "png"
    divisible: ClassVar[bool] = True
    durable: ClassVar[bool] = True

    def __init__(self, plan: Plan) -> None:
        assert plan.format is not None
        self._plan = plan
        self._encode = encoder(plan.format, plan.quality, plan.mark)
        self._stem = f"{plan.part}-" if plan.part else ""
        self._end = FORMATS[plan.format]

    def prepare(self, root: Path) -> None:
        pass

    def write(self, root: Path, shard: Shard, batches: Iterable[Batch], only: Collection[str] | None = None) -> Record:
        [name] = self.names(shard)
        path, part = root / name, root / (name + PART)
        size, state, pixels = 0, hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        try:
            with open(part, "wb") as file:

                def put(data: bytes) -> None:
                    nonlocal size
                    file.write(data)
                    state.update(data)
                    size += len(data)

                for batch in batches:
                    pixels.update(batch.images.data)
                    put(b"".join(self._members(batch)))
                put(_END)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        os.replace(part, path)
        return Record(shard.number, len(shard), (size,), (state.hexdigest(),), pixels.hexdigest())

    def _members(self, batch: Batch) -> Iterator[bytes]:
        for data, index in zip(self._encode(batch.images), batch.indices.tolist(), strict=True):
            key = f"{self._stem}{index:08d}"
            about: dict[str, object] = {"index": index, "seed": self._plan.seed}
            yield member(f"{key}.{self._end}", data)
            y = self._plan.label(index)
            if y is not None:
                about |= {"label": y, "class_name": self._plan.class_names[y]}
                yield member(f"{key}.cls", str(y).encode())
            yield member(f"{key}.json", json.dumps(about).encode())

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
        try:
            with tarfile.open(root / self.names(shard)[0]) as archive:
                file = archive.extractfile(f"{self._stem}{index:08d}.{self._end}")
                if file is None:
                    raise ValueError("no regular file in the archive")
                return decode(file.read())
        except tarfile.TarError as error:
            raise ValueError(str(error)) from error

    def pattern(self) -> str:
        return "*.tar"


def member(name: str, data: bytes) -> bytes:
    """One file of a USTAR archive (POSIX.1-2008, pax: ustar Interchange Format): header, data, padding."""
    header = b"".join(
        (
            name.encode("ascii").ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" + b"0000000\0",  # mode, owner, group
            b"%011o\0" % len(data),
            b"00000000000\0",  # time
            b"        ",  # the checksum counts as blanks
            b"0".ljust(101, b"\0"),  # a regular file, no link
            b"ustar\x0000".ljust(_BLOCK - 257, b"\0"),
        )
    )
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header + data + bytes(-len(data) % _BLOCK)
