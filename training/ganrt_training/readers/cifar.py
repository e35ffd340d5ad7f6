"""CIFAR-10 and CIFAR-100 (www.cs.toronto.edu/~kriz/cifar.html): binary or Python version, archive or extracted.

Every image is 3 planes of 32x32 bytes: red, green, blue. In the binary version a record is the label (CIFAR-100:
the coarse, then the fine label) and the image; in the Python version a pickled dict holds ``data`` [N, 3072] and
a list of labels.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ganrt.errors import TrainingError
from ganrt_training.readers.opcodes import plain_dict
from ganrt_training.readers.source import (
    ACCEPTED,
    MAX_FILE,
    ImageData,
    Labels,
    NoSplit,
    Pixels,
    Unusable,
    read_whole,
    unreadable,
)

_MAX_UNPACKED = 1 << 28  # of a whole archive: CIFAR's have 186 MB
_MAX_MEMBERS = 1000  # CIFAR's have eight
_SIDE = 32
_BYTES = 3 * _SIDE * _SIDE
_AGAIN = "Get the archive again from www.cs.toronto.edu/~kriz/cifar.html."


@dataclass(frozen=True)
class _Version:
    """A dataset in one of its versions: its files; where labels and names are."""

    splits: dict[str, tuple[str, ...]]
    meta: str
    labels: str | int  # the Python version's key, or which byte of a binary record
    names: str | None  # the Python version's key

    def files(self) -> set[str]:
        return {self.meta, *self.splits["train"], *self.splits["test"]}


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_VERSIONS = (
    _Version(
        {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)}, "batches.meta.txt", 0, None
    ),
    _Version({"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt", 1, None),
    _Version({"train": _BATCHES, "test": ("test_batch",)}, "batches.meta", "labels", "label_names"),
    _Version({"train": ("train",), "test": ("test",)}, "meta", "fine_labels", "fine_label_names"),
)


def is_cifar(names: Collection[str]) -> bool:
    """Whether files of a version are among those of a folder."""
    return _version(names) is not None


def read_cifar(folder: Path, split: str) -> ImageData:
    """An extracted archive's split. Raises TrainingError."""

    def read(name: str) -> bytes:
        try:
            return read_whole(folder / name)
        except Unusable as error:
            raise TrainingError(f"{folder}/{name}: {error}", _AGAIN) from error

    return _read(folder, {path.name for path in folder.iterdir()}, split, read)


def read_cifar_archive(path: Path, split: str) -> ImageData:
    """A split out of a tar, gzipped or not, of which nothing is extracted. Raises TrainingError."""
    there: set[str] = set()
    held: dict[str, bytes] = {}
    wanted = {name for version in _VERSIONS for name in (version.meta, *version.splits[split])}
    try:
        with open(path, "rb") as probe:
            gzipped = probe.read(2) == b"\x1f\x8b"
        opened: IO[bytes] = gzip.open(path, "rb") if gzipped else open(path, "rb")  # type: ignore[assignment]  # noqa: SIM115
        with opened as file, tarfile.open(fileobj=_Bounded(file, path), mode="r|") as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                if number == _MAX_MEMBERS:
                    raise TrainingError(f"{path}: holds more than {_MAX_MEMBERS:,} members", _AGAIN)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):  # no links, devices, sparse files
                    continue
                name = member.name.rpartition("/")[2]
                if name in held:
                    raise TrainingError(f"{path}: holds {name} twice", _AGAIN)
                there.add(name)
                if name in wanted and (content := tar.extractfile(member)) is not None:
                    if member.size > MAX_FILE:
                        raise TrainingError(f"{path}: {name} has {member.size:,} bytes", _AGAIN)
                    held[name] = content.read()
    except tarfile.ReadError as error:
        raise TrainingError(f"{path}: no tar archive that can be read: {error}", ACCEPTED) from error
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    return _read(path, there, split, held.__getitem__)


class _Bounded:
    """The start of a file, for tarfile, which reads whatever a header promises."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._left = file, path, _MAX_UNPACKED

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise TrainingError(f"{self._path}: unpacks to more than {_MAX_UNPACKED >> 20} MiB", ACCEPTED)
        return data


def _version(names: Collection[str]) -> _Version | None:
    # Two files: a folder may hold one file called "train" or "meta" by chance, or lack one.
    return next((version for version in _VERSIONS if len(version.files() & set(names)) > 1), None)


def _read(where: Path, there: set[str], split: str, read: Callable[[str], bytes]) -> ImageData:
    version = _version(there)
    if version is None:
        raise TrainingError(f"{where}: a tar without the files of CIFAR-10 or CIFAR-100", ACCEPTED)
    missing = TrainingError if there & set(version.splits[split]) else NoSplit
    for name in (version.meta, *version.splits[split]):
        if name not in there:
            raise missing(f"{where}: lacks {name}", _AGAIN)
    names = _names(read(version.meta), version, f"{where}/{version.meta}")
    parts = [_batch(read(name), version, f"{where}/{name}") for name in version.splits[split]]
    labels = np.concatenate([labels for _, labels in parts])
    if labels.min() < 0 or labels.max() >= len(names):
        wrong = labels.max() if labels.max() >= len(names) else labels.min()
        raise TrainingError(f"{where}: label {wrong}, of {len(names)} classes", _AGAIN)
    return ImageData(np.concatenate([images for images, _ in parts]), labels, names)


def _names(data: bytes, version: _Version, path: str) -> tuple[str, ...]:
    if version.names is None:
        texts = [line.strip() for line in data.splitlines()]
    else:
        texts = plain_dict(data, path).get(version.names) or []
    names = tuple(_decoded(text) for text in texts if text) if isinstance(texts, list) else ()
    if not names:
        raise TrainingError(f"{path}: no class names", _AGAIN)
    return names


def _decoded(text: object) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _batch(data: bytes, version: _Version, path: str) -> tuple[Pixels, Labels]:
    """Images [N, 32, 32, 3] and labels [N] of one file."""
    if isinstance(version.labels, int):
        record = version.labels + 1 + _BYTES
        if not data or len(data) % record:
            raise TrainingError(f"{path}: {len(data):,} bytes are no whole number of records of {record}", _AGAIN)
        records = np.frombuffer(data, np.uint8).reshape(-1, record)
        rows, labels = records[:, version.labels + 1 :], records[:, version.labels].astype(np.int64)
    else:
        values = plain_dict(data, path)
        array, listed = values.get("data"), values.get(version.labels)
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != _BYTES or not len(array):
            raise TrainingError(f"{path}: no data of shape [N, {_BYTES}]", _AGAIN)
        rows = array
        if not isinstance(listed, list) or not all(type(y) is int and 0 <= y < 1 << 31 for y in listed):
            raise TrainingError(f"{path}: no list of labels under {version.labels!r}", _AGAIN)
        if len(listed) != len(rows):
            raise TrainingError(f"{path}: {len(rows)} images with {len(listed)} labels", _AGAIN)
        labels = np.array(listed, np.int64)
    return np.ascontiguousarray(rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)), labels
