"""What readers give: images that wait to be decoded, or arrays of any size; and the limits that they keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganrt.errors import TrainingError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

MAX_FILE = 1 << 28  # bytes of one image file or one member of an archive: CIFAR-100's largest has 155 MB
MAX_ARRAY = 1 << 32  # bytes of one array
_MAX_RATIO = 100  # of what is unpacked, beyond MAX_FILE
_MAX_SHOWN = 500  # characters of a name

EXTENSIONS = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff")
ACCEPTED = (
    f"Accepted are: a folder or a zip of images ({', '.join(EXTENSIONS)}), with a folder a class or without "
    "classes; a folder with the IDX files of the MNIST family; CIFAR-10 or CIFAR-100, binary or Python version, as "
    "the .tar.gz or extracted; an .npz with images and labels, or of MedMNIST."
)


class NoSplit(TrainingError):
    """The data has no such split, to go by its names; what is there of one and is broken is another error."""


class Unusable(Exception):
    """One image cannot be used; the text is the reason."""


@dataclass(frozen=True)
class ImageData:
    """Labelled images in memory: uint8 [N, H, W, C], int64 [N], and the classes' names.

    Data without classes has no names and labels of 0. ``skipped`` names the files that were left out, each
    with the reason.
    """

    images: Pixels
    labels: Labels
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Encoded:
    """N encoded images: ``load(i)`` gives a file's bytes, or raises Unusable.

    It may be called from any thread. ``name(i)`` says which image it is, in messages.
    """

    labels: Labels
    class_names: tuple[str, ...]
    load: Callable[[int], bytes]
    name: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.labels)


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether so many bytes come of so few that they are none of images: memory is meant to be filled."""
    return unpacked > MAX_FILE and unpacked > _MAX_RATIO * packed


def shown(name: str) -> str:
    """A file's or archive member's name as it may be printed: archives come from anyone."""
    name = name if len(name) <= _MAX_SHOWN else f"{name[: _MAX_SHOWN // 2]}…{name[-_MAX_SHOWN // 2 :]}"
    return name if name.isprintable() else ascii(name)


def unreadable(path: Path | str, error: Exception) -> TrainingError:
    """What the system or a decompressor said of a path."""
    reason = shown(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        reason, path = error.strerror, error.filename or path
    return TrainingError(f"{shown(str(path))}: cannot be read: {reason}", "Get the file again, or make it readable.")


def check_file(path: Path) -> None:
    """Raises TrainingError for a pipe, which would be waited for, and a device, which may never end."""
    if path.exists() and not path.is_file():
        raise TrainingError(f"{path}: is no file", "A folder, a pipe or a device is not read: name a file.")


def read_whole(path: Path | str) -> bytes:
    """A file's bytes. Raises Unusable when they are more than MAX_FILE, TrainingError when the system refuses."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE:
                raise Unusable(f"has {size:,} bytes; up to {MAX_FILE >> 20} MiB are read")
            return file.read(size)
    except OSError as error:
        raise unreadable(path, error) from error
