"""Members of zips that nobody vouches for: what is asked of them before any is unpacked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from ganrt.errors import TrainingError
from ganrt_training.readers.source import is_bomb, shown

# What Python's zipfile raises of a member that is not what the directory says.
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def check_member(info: zipfile.ZipInfo, path: Path, limit: int) -> None:
    """Raises TrainingError for a member that is encrypted, larger than ``limit``, or unpacked without a bound."""
    name = f"{path}/{shown(info.filename)}"
    if info.flag_bits & 1:
        raise TrainingError(f"{name}: is encrypted", "Unpack the zip with its password and name the folder.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unpacks other kinds without a bound on memory.
        raise TrainingError(f"{name}: is not deflated", "Pack the folder with deflate, as most programs do.")
    if info.file_size > limit:
        raise TrainingError(
            f"{name}: more than {limit >> 20} MiB", "It is no image, and may be meant to fill the memory."
        )
    if is_bomb(info.file_size, info.compress_size):
        raise TrainingError(
            f"{name}: unpacks to {info.file_size:,} bytes from {info.compress_size:,}",
            "It may be meant to fill the memory; if not, pack it without compression.",
        )


def check_apart(infos: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Raises TrainingError where members share bytes, by which some kilobytes unpack to terabytes."""
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise TrainingError(f"{path}: its members overlap", "It is damaged or means harm: pack the folder again.")
