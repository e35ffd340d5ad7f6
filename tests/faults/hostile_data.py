"""Archives and arrays that are broken or mean harm, each with what is to be said of it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Case:
    """``make(folder)`` writes it and returns what to read; ``says`` is in the error, None where it is read."""

    row: str
    make: Callable[[Path], Path]
    says: str | None


class Runs:
    """What would make a file, were it ever unpickled or called."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def png(size: tuple[int, int] = (8, 8), colour: object = (200, 100, 50)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")  # type: ignore[arg-type]
    return file.getvalue()


def zeros(mebibytes: int) -> bytes:
    """So many MiB of zeros, deflated to a thousandth, at once."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + again * (mebibytes - 1) + packer.flush()


def gzipped_zeros(start: bytes, mebibytes: int) -> bytes:
    """A gzip file of ``start`` and so many MiB of zeros, with a sum that is right for neither."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head + zeros(mebibytes) + bytes(8)


# Zips ---------------------------------------------------------------------------------------------------------------


@dataclass
class Member:
    """A member of a zip, with whatever its headers are to say."""

    name: bytes
    packed: bytes
    method: int = 0
    size: int = -1
    crc: int = 0
    flags: int = 0
    local_name: bytes | None = None
    offset: int | None = None  # in place of where it lies
    mode: int = 0


def local_header(member: Member) -> bytes:
    size, name = _size(member), member.name if member.local_name is None else member.local_name
    return (
        struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, member.flags, member.method, 0, 0, member.crc,
                    min(len(member.packed), 0xFFFFFFFF), min(size, 0xFFFFFFFF), len(name), 0)
        + name
    )  # fmt: skip


def _size(member: Member) -> int:
    return len(member.packed) if member.size < 0 else member.size


def zip_of(*members: Member, entries: int | None = None) -> bytes:
    data, offsets = b"", []
    for member in members:
        offsets.append(len(data))
        data += local_header(member) + member.packed
    return data + directory(members, offsets, len(data), entries)


def directory(members: tuple[Member, ...], offsets: list[int], at: int, entries: int | None = None) -> bytes:
    central = b""
    for member, found in zip(members, offsets, strict=True):
        offset, size, extra = found if member.offset is None else member.offset, _size(member), b""
        if size >= 0xFFFFFFFF or offset >= 0xFFFFFFFF:
            extra = struct.pack("<HHQQQ", 1, 24, size, len(member.packed), offset)
            size = packed = offset = 0xFFFFFFFF
        else:
            packed = len(member.packed)
        central += (
            struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0x031E, 20, member.flags, member.method, 0, 0, member.crc,
                        packed, size, len(member.name), len(extra), 0, 0, 0, member.mode << 16, offset)
            + member.name + extra
        )  # fmt: skip
    count = len(members) if entries is None else entries
    return central + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(central), at, 0)


def stored(name: bytes, data: bytes, **changes: Any) -> Member:
    return Member(name, data, crc=zlib.crc32(data), **changes)


def overlapping(count: int, mebibytes: int) -> bytes:
    """Members that each hold all that follow, by quoting their headers (D. Fifield, "A better zip bomb", 2019)."""
    kernel = zeros(mebibytes)
    packed, size = kernel, mebibytes << 20
    members: list[Member] = []
    for number in reversed(range(count)):
        member = Member(f"c/{number:04d}.png".encode(), packed, 8, size, zlib.crc32(b""))
        members.append(member)
        header = local_header(member)
        packed = b"\0" + struct.pack("<HH", len(header), len(header) ^ 0xFFFF) + header + packed
        size += len(header)
    members.reverse()
    data, offsets, at = local_header(members[0]) + members[0].packed, [], 0
    for member in members:
        offsets.append(at)
        at += len(local_header(member)) + 5
    return data + directory(tuple(members), offsets, len(data))


def written(name: str, data: bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data if isinstance(data, bytes) else data())
        return folder / name

    return make


def zipped(*members: Member, **options: Any) -> Callable[[Path], Path]:
    return written("data.zip", lambda: zip_of(*members, **options))


def nested_zip() -> bytes:
    """42.zip: zips in zips, of zeros."""
    inner = zip_of(*(Member(f"{k}.png".encode(), zeros(64), 8, 64 << 20) for k in range(16)))
    for _ in range(4):
        packed = zlib.compress(inner)[2:-4]
        inner = zip_of(*(Member(b"%d.zip" % k, packed, 8, len(inner)) for k in range(16)))
    return inner


GOOD = stored(b"c/good.png", png())
BOMB, OUT, CUT = "zip bomb", "zip member that leads out", "zip that is cut"
NO_FILE, TWICE = "zip member that is no file", "zip member named twice"
LIES, NAME = "zip that contradicts itself", "zip with a name that no system has"
ZIPS = (
    Case(BOMB, written("data.zip", nested_zip), "no images"),
    Case(BOMB, written("data.zip", lambda: overlapping(300, 200)), "overlap"),
    Case(BOMB, zipped(GOOD, Member(b"c/x.png", zeros(10 << 10), 8, 10 << 30)), "more than 256 MiB"),
    Case(BOMB, zipped(GOOD, Member(b"c/x.png", zeros(10 << 10), 8, 1000)), "c/x.png: Bad CRC-32"),
    Case(BOMB, zipped(GOOD, Member(b"c/x.png", zeros(200), 8, 200 << 20)), "c/x.png: "),
    Case(OUT, zipped(GOOD, stored(b"../x.png", png())), "leads out of it"),
    Case(OUT, zipped(GOOD, stored(b"/etc/x.png", png())), "leads out of it"),
    Case(OUT, zipped(GOOD, stored(b"C:\\x.png", png())), None),
    Case(NO_FILE, zipped(GOOD, stored(b"c/x.png", b"/etc/passwd", mode=0o120777)),
         "c/x.png: no image of a kind that is read"),
    Case(NO_FILE, zipped(GOOD, stored(b"c/x.png", b"", mode=0o020666)), "c/x.png: is empty"),
    Case(NO_FILE, zipped(GOOD, stored(b"c/x.png", b"", mode=0o010666)), "c/x.png: is empty"),
    Case(TWICE, zipped(GOOD, stored(b"c/good.png", png())), "twice"),
    Case(TWICE, zipped(GOOD, stored(b"c/./good.png", png())), "twice"),
    Case(LIES, zipped(stored(b"c/x.png", png(), local_name=b"c/y.png")), "c/x.png: "),
    Case(LIES, zipped(stored("c/ä.png".encode(), png(), flags=0x800, local_name=b"c/\xff\xff.png")),
         "c/ä.png: "),
    Case(LIES, zipped(GOOD, stored(b"c/x.png", png(), offset=1 << 62)), "c/x.png"),
    Case(LIES, zipped(GOOD, stored(b"c/x.png", png(), offset=(1 << 64) - 1)), "c/x.png: "),
    Case(LIES, zipped(GOOD, stored(b"c/x.png", png(), offset=10)), "c/x.png: "),
    Case(LIES, zipped(GOOD, entries=60_000), None),
    Case(LIES, zipped(Member(b"c/x.png", png(), 0, 1 << 20)), "c/x.png: "),
    Case(LIES, zipped(stored(b"c/x\0.png", png()), GOOD), None),
    Case(LIES, zipped(stored(b"", png()), stored(b"/", b"")), "leads out of it"),
    Case(LIES, zipped(Member(b"c/x.png", b"x", 99)), "is not deflated"),
    Case(NAME, zipped(stored(b"n" * 60_000 + b".png", b"")), "is empty"),
    Case(NAME, zipped(stored(b"a/" * 5000 + b"x.png", png())), None),
    Case(NAME, zipped(stored(b"\x1b[2J/x.png", png()), GOOD), "cannot be a class's name"),
    Case(CUT, written("data.zip", lambda: zip_of(GOOD)[:-10]), "cannot be read"),
    Case(CUT, written("data.zip", b"PK\x03\x04" + bytes(100)), "cannot be read"),
)  # fmt: skip
