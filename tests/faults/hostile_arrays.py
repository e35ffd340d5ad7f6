"""Arrays in .npz and IDX files, and tars of CIFAR's kind, that are broken or mean harm; what is to be said of each."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.hostile_data import Case, Member, Runs, gzipped_zeros, written, zeros, zip_of

# Arrays -------------------------------------------------------------------------------------------------------------


def npy(header: bytes, data: bytes = b"", version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def described(descr: str, shape: str, data: bytes = b"") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode(), data)


def npz(*, method: int = zipfile.ZIP_STORED, **arrays: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "data.npz", "w", method) as archive:
            for name, data in arrays.items():
                archive.writestr(f"{name}.npy", data)
        return folder / "data.npz"

    return make


def objects(folder: Path) -> Path:
    array = np.empty(2, object)
    array[:] = [Runs(folder / "canary")] * 2
    np.savez(folder / "data.npz", images=array, labels=array)
    return folder / "data.npz"


def object_array(folder: Path) -> Path:
    np.save(folder / "images.npy", np.array([Runs(folder / "canary")], object))
    return folder / "images.npy"


def vast_npz(folder: Path) -> Path:
    """Three gigabytes of zeros, as they are described, in three megabytes."""
    head = described("'|u1'", "(48, 8192, 8192)")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(3072)
    (folder / "data.npz").write_bytes(zip_of(Member(b"images.npy", packed, 8, len(head) + (3 << 30))))
    return folder / "data.npz"


IMAGES = described("'|u1'", "(2, 4, 4)", bytes(32))
LABELS = described("'<i8'", "(2,)", bytes(16))
UNREAD = "cannot be read"
OBJECTS, BOMB = "object array in .npz or .npy", "array bomb"
HEADER, KIND = "array with a broken header", "array of another kind"
ARRAYS = (
    Case(OBJECTS, objects, "images is an array of object"),
    Case(OBJECTS, object_array, "nothing that can be trained on"),
    Case(BOMB, vast_npz, "unpacks to"),
    Case(BOMB, npz(images=described("'|u1'", "(1099511627776, 1)")), "promises shape"),
    Case(BOMB, npz(images=described("'|u1'", "(9223372036854775807, 4)")), "promises shape"),
    Case(BOMB, npz(images=IMAGES, labels=LABELS, class_names=described("'<U0'", "(1152921504606846976,)")),
         "class_names"),
    Case(BOMB, npz(images=IMAGES, labels=LABELS, class_names=described("'<U1'", "(4000000,)", bytes(16 << 20)),
                           method=zipfile.ZIP_DEFLATED), "class_names"),
    Case(BOMB, npz(images=IMAGES, method=zipfile.ZIP_LZMA), "is not deflated"),
    Case(BOMB, npz(images=IMAGES, method=zipfile.ZIP_BZIP2), "is not deflated"),
    Case(HEADER, npz(images=described("'|u1'", "(-2, -4, 4)", bytes(32))), "promises shape"),
    Case(HEADER, npz(images=described("'|u1'", "(-1,)", bytes(32))), "promises shape"),
    Case(HEADER, npz(images=described("'|u1'", "(2.0, 4)", bytes(32))), UNREAD),
    Case(HEADER, npz(images=described("()", "(2,)", bytes(32))), UNREAD),
    Case(HEADER, npz(images=described("[()]", "(2,)", bytes(32))), UNREAD),
    Case(HEADER, npz(images=described("[('a', '|u1', ())]", "(2,)", bytes(32))), "is an array of"),
    Case(HEADER, npz(images=described("('|u1', (4,))", "(2, 4)", bytes(32))), "is an array of"),
    Case(HEADER, npz(images=described("'|V999999999'", "(2,)", bytes(32))), "is an array of"),
    Case(HEADER, npz(images=described("'M8[ns]'", "(2,)", bytes(32))), "is an array of"),
    Case(HEADER, npz(images=npy(b"(" * 9000)), UNREAD),
    Case(HEADER, npz(images=npy(b"-" * 9000 + b"1")), UNREAD),
    Case(HEADER, npz(images=npy(b"{" * 9000)), UNREAD),
    Case(HEADER, npz(images=npy(b"[" + b"9" * 9000 + b"]")), UNREAD),
    Case(HEADER, npz(images=npy(b"__import__('os').system('true')")), UNREAD),
    Case(HEADER, npz(images=npy(b"\xff\xfe" * 50)), UNREAD),
    Case(HEADER, npz(images=npy(b"", version=9)), UNREAD),
    Case(HEADER, npz(images=b"\x93NUMPY\x01\x00\xff\xff"), UNREAD),
    Case(HEADER, npz(images=b""), UNREAD),
    Case(KIND, npz(images=described("'>u8'", "(2, 4, 4)", bytes(256))), "is an array of"),
    Case(KIND, npz(images=described("'|b1'", "(2, 4, 4)", bytes(32))), "is an array of bool"),
    Case(KIND, npz(images=IMAGES, labels=described("'<i8'", "()", bytes(8))), "labels of shape []"),
    Case(KIND, npz(images=IMAGES, labels=described("'<u8'", "(2,)", b"\xff" * 16)), "label -1"),
    Case(KIND, npz(images=IMAGES, labels=LABELS, class_names=described("'<U1'", "()", b"a\0\0\0")), None),
    Case(KIND, npz(images=IMAGES, labels=LABELS, class_names=described("'<U1'", "(1,)", b"\xff\xff\xff\x7f")),
         "class_names"),
)  # fmt: skip


def idx(folder: Path, images: bytes, labels: bytes = b"\0\0\x08\x01\0\0\0\x01\0") -> Path:
    (folder / "digits").mkdir()
    (folder / "digits/train-images-idx3-ubyte").write_bytes(images)
    (folder / "digits/train-labels-idx1-ubyte").write_bytes(labels)
    return folder / "digits"


def idx_of(*sizes: int) -> bytes:
    return b"\0\0\x08" + bytes([len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes)


IDX_BOMB, IDX_LIES = "IDX bomb", "IDX header that lies"
IDX = (
    Case(IDX_BOMB, lambda f: idx(f, gzipped_zeros(idx_of(48, 8192, 8192), 3072)), "to fill the memory"),
    Case(IDX_BOMB, lambda f: idx(f, gzipped_zeros(idx_of(1, 28, 28), 10 << 10)), "holds more"),
    Case(
        "IDX bomb", lambda f: idx(f, gzip.compress(gzip.compress(idx_of(1, 28, 28) + bytes(784)))), "starts with 1f8b"
    ),
    Case(IDX_LIES, lambda f: idx(f, idx_of(1 << 20, 1 << 20, 1)), "promises shape"),
    Case(IDX_LIES, lambda f: idx(f, idx_of(0xFFFFFFFF, 1, 1)), "promises 4294967295 bytes"),
    Case(IDX_LIES, lambda f: idx(f, idx_of(60_000, 28, 28) + bytes(100)), "holds 100"),
    Case(IDX_LIES, lambda f: idx(f, idx_of(0, 28, 28)), "promises shape"),
    Case(IDX_LIES, lambda f: idx(f, idx_of(1, 0xFFFFFFFF, 0xFFFFFFFF)), "promises shape"),
    Case(IDX_LIES, lambda f: idx(f, idx_of(784) + bytes(784)), "images of shape [784]"),
    Case(IDX_LIES, lambda f: idx(f, b"\0\0\x0e\x03" + bytes(100)), "starts with 00000e03"),
)


# Tars ---------------------------------------------------------------------------------------------------------------


def tar_of(*members: tuple[tarfile.TarInfo, bytes], end: bool = True) -> bytes:
    data = b""
    for info, content in members:
        data += info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    return data + bytes(1024 * end)


def entry(name: str, data: bytes = b"", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def flood() -> bytes:
    """Twenty thousand empty members in some kilobytes."""
    return gzip.compress(tar_of(entry("cifar/test_batch.bin"))[:512] * 20_000, 1)


TAR_BOMB, TAR_LIES = "tar bomb", "tar that contradicts itself"
TARS = (
    Case(TAR_BOMB, written("data.tar.gz", flood), "more than 1,000 members"),
    Case(TAR_BOMB, written("data.tar.gz", lambda: gzip.compress(
        b"".join(entry(f"n{k}")[0].tobuf() for k in range(2000)))), "members"),
    Case(TAR_BOMB, written("data.tar.gz", lambda: gzipped_zeros(tar_of(entry("x", size=8 << 33), end=False), 9 << 10)),
         "unpacks to more"),
    Case(TAR_BOMB, written("data.tar.gz", lambda: gzipped_zeros(
        tar_of(entry("x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 33), end=False), 9 << 10)), "data.tar.gz"),
    Case(TAR_BOMB, written("data.tar.gz", lambda: gzipped_zeros(
        tar_of(entry("x", type=tarfile.XHDTYPE, size=1 << 33), end=False), 9 << 10)), "data.tar.gz"),
    Case(TAR_LIES, written("data.tar", lambda: tar_of(
        entry("x", b"30 GNU.sparse.size=99999999999\n", type=tarfile.XHDTYPE), entry("y", b"abc"))), "data.tar"),
    Case(TAR_LIES, written("data.tar", lambda: tar_of(
        entry("x", b"20 size=-9999999999\n", type=tarfile.XHDTYPE), entry("y", b"abc"))), "data.tar"),
    Case(TAR_LIES, written("data.tar", lambda: tar_of(
        entry("x", b"5000 size=" + b"9" * 4989 + b"\n", type=tarfile.XHDTYPE), entry("y", b"abc"))), "data.tar"),
    Case(TAR_LIES, written("data.tar", lambda: tar_of(
        entry("x", b"0 a=b\n", type=tarfile.XHDTYPE), entry("y", b"abc"))), "data.tar"),
    Case("tar member that leads out or is no file", written("data.tar", lambda: tar_of(
        entry("../../etc/data_batch_1", type=tarfile.SYMTYPE, linkname="/etc/passwd"), entry("/dev/meta", b"x"))),
        "a tar without the files of CIFAR"),
    Case("tar that is cut", written("data.tar", lambda: tar_of(entry("x", bytes(5000)))[:1000]), "data.tar"),
)  # fmt: skip
