"""Arrays in an ``.npz``: ours to take as ``images`` and ``labels``, or one of MedMNIST (medmnist.com)."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganrt.card import MAX_CLASSES
from ganrt.errors import TrainingError
from ganrt_training.readers.source import MAX_ARRAY, ImageData, Labels, NoSplit, Pixels, shown, unreadable
from ganrt_training.readers.zips import BROKEN, check_member

_MAX_HEADER = 1 << 14  # bytes
_KEYS = "Expected the keys images and labels (or none), or MedMNIST's train_images, train_labels, test_images, …"


def is_npz(archive: zipfile.ZipFile) -> bool:
    """Whether a zip holds arrays and nothing else."""
    names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_npz(archive: zipfile.ZipFile, path: Path, split: str) -> ImageData:
    """``images`` and, if there are any, ``labels`` and ``class_names``; without a prefix they are the split train.

    Raises TrainingError for pixels that are not uint8, shapes that could mean two things, labels that do not fit.
    """
    keys = [name.removesuffix(".npy") for name in archive.namelist()]
    prefix = f"{split}_" if f"{split}_images" in keys else ""
    missing = TrainingError if any(key.startswith(f"{split}_") for key in keys) else NoSplit
    if f"{prefix}images" not in keys:
        raise missing(f"{path}: keys {', '.join(map(shown, keys[:12]))}, without images of {split}", _KEYS)
    if not prefix and split != "train":
        raise missing(f"{path}: no {split}_images", "It has no splits: leave the split out, or add the key.")
    images = _pixels(_array(archive, f"{prefix}images", path, "u"), path)
    if f"{prefix}labels" not in keys:
        return ImageData(images, np.zeros(len(images), np.int64), ())
    numbers = _labels(_array(archive, f"{prefix}labels", path, "ui"), len(images), path)
    if "class_names" in keys:
        listed = _array(archive, "class_names", path, "U")
        names = _texts(listed, path)
        if numbers.max() >= len(names):
            raise TrainingError(f"{path}: label {numbers.max()} with {len(names)} class_names", "Name every class.")
        return ImageData(images, numbers, names)
    # Numbers that do not occur are no classes: labels may well start at 1.
    there, labels = np.unique(numbers, return_inverse=True)
    return ImageData(images, labels.reshape(-1).astype(np.int64), tuple(str(number) for number in there.tolist()))


def _array(archive: zipfile.ZipFile, key: str, path: Path, kinds: str) -> NDArray[np.generic]:
    """One array of NPY format (numpy.org/neps/nep-0001-npy-format), checked before its memory is asked for."""
    try:
        info = archive.getinfo(f"{key}.npy")
        check_member(info, path, MAX_ARRAY)
        with archive.open(f"{key}.npy") as file:
            start = io.BytesIO(file.read(_MAX_HEADER))  # numpy would read a header of whatever length it promises
        shape, dtype = _header(start)
        _check_kind(dtype, key, path, kinds)
        if min(shape, default=0) < 0 or math.prod(shape) * max(1, dtype.itemsize) > info.file_size:
            raise TrainingError(
                f"{path}: {key} promises shape {list(shape)} in {info.file_size:,} bytes",
                f"Arrays of up to {MAX_ARRAY >> 30} GiB are read, and whole ones.",
            )
        with archive.open(f"{key}.npy") as file:
            array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, *BROKEN) as error:
        raise unreadable(f"{path}: {key}", error) from error
    return array


def _header(start: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and dtype. Raises ValueError."""
    try:
        version = np.lib.format.read_magic(start)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(start)
    except Exception as error:  # it is parsed as Python's literals, and its dtype built: they raise errors of all types
        raise ValueError(f"its header is none of numpy's: {shown(str(error))}") from error
    return shape, dtype


def _texts(array: NDArray[np.generic], path: Path) -> tuple[str, ...]:
    """Class names out of an array of texts, which may hold what is no character."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if len(flat) > MAX_CLASSES:
        raise TrainingError(f"{path}: {len(flat):,} class_names", f"A generator has up to {MAX_CLASSES:,}.")
    codes = flat.view(np.dtype(np.uint32).newbyteorder(flat.dtype.byteorder))
    if codes.size and codes.max() > 0x10FFFF:
        raise TrainingError(f"{path}: class_names holds what is no text", "Make it an array of text anew.")
    return tuple(str(name) for name in flat)


def _check_kind(dtype: np.dtype[np.generic], key: str, path: Path, kinds: str) -> None:
    if dtype.kind in kinds and (kinds != "u" or dtype.itemsize == 1):
        return
    hints = {
        "u": "Convert the pixels to uint8 of 0 to 255; from floats of 0 to 1: (images * 255).round().astype('uint8').",
        "ui": "Labels are integers: labels.astype('int64').",
        "U": "Make it an array of text: np.array(['first', 'second']).",
    }
    raise TrainingError(f"{path}: {key} is an array of {dtype}", hints[kinds])


def _pixels(array: NDArray[np.generic], path: Path) -> Pixels:
    """uint8 [N, H, W], [N, H, W, 1|3|4] or [N, 1|3, H, W] → [N, H, W, C]."""
    shape = array.shape
    if array.ndim not in (3, 4) or 0 in shape:
        raise TrainingError(
            f"{path}: images of shape {list(shape)}", "Expected [N, H, W], [N, H, W, C] or [N, C, H, W]."
        )
    images = array.astype(np.uint8, copy=False)
    if array.ndim == 3:
        return images[..., None]
    last, first = shape[3] in (1, 3, 4), shape[1] in (1, 3)
    if last == first:
        raise TrainingError(
            f"{path}: images of shape {list(shape)}: "
            + ("channels could come first or last" if last else "no 1, 3 or 4 channels"),
            "Save them as [N, H, W, C]; grey images as [N, H, W].",
        )
    return images if last else images.transpose(0, 2, 3, 1)


def _labels(array: NDArray[np.generic], count: int, path: Path) -> Labels:
    if array.ndim == 2 and array.shape[1] > 1:
        raise TrainingError(
            f"{path}: labels of shape {list(array.shape)}: several an image",
            "A conditional generator has one label an image; leave the labels out, or keep one class each.",
        )
    if array.shape not in ((count,), (count, 1)):
        raise TrainingError(
            f"{path}: {count} images with labels of shape {list(array.shape)}", "Expected a label each."
        )
    labels = array.reshape(count).astype(np.int64)
    if labels.min() < 0:
        raise TrainingError(f"{path}: label {labels.min()}", "Labels count from 0.")
    return labels
