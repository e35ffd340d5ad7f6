"""Zips of image files that are cut or mean harm, through read_images."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from ganrt_training.data import read_images
from tests.training.test_read_images import encoded, plain, refused, save, zipped


def test_an_encrypted_zip_is_told_as_such(tmp_path: Path) -> None:
    path = zipped(save(tmp_path / "data", a__1_png=plain(1)))
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for at in (i for i in range(len(data)) if data[i : i + 4] == signature):
            data[at + flags] |= 1
    path.write_bytes(data)
    refused(path, says="is encrypted")


def with_promised_size(path: Path, size: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(data)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.png").write_bytes(bytes(1000))
    path = zipped(tmp_path / "data")
    with_promised_size(path, (1 << 28) + 1)
    refused(path, says="more than 256 MiB")


def test_a_member_that_is_larger_than_it_says_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.png").write_bytes(bytes(24 << 20))
    path = zipped(tmp_path / "data")
    with_promised_size(path, 100)
    refused(path, says="Bad CRC-32")  # what is imported on the first call does not count
    tracemalloc.start()
    try:
        refused(path, says="Bad CRC-32")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_whose_unpacking_has_no_bound_are_refused(tmp_path: Path, compression: int) -> None:
    refused(zipped(save(tmp_path / "data", a_png=plain(1)), compression), says="is not deflated")


@pytest.mark.parametrize("name", ["../outside.png", "a/../../b.png", "/etc/x.png", "a\\..\\b.png"])
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, encoded(plain(1)))
    before = sorted(tmp_path.rglob("*"))
    refused(tmp_path / "x.zip", says="leads out of it")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cut_zip_is_told_and_a_changed_member_is_corrupt(tmp_path: Path) -> None:
    path = zipped(save(tmp_path / "data", a_png=plain(1), b_png=plain(2)), zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-30])
    refused(path, says="cannot be read: File is not a zip file")
    data[data.index(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    assert "a.png: Bad CRC-32" in read_images(path, 8, on_corrupt="skip").skipped[0]
