"""The MNIST family's IDX files."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from ganrt.errors import TrainingError
from ganrt_training.readers.source import ImageData, NoSplit, Pixels, is_bomb

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_FAMILY = re.compile(r"(train|t10k)-(images-idx3|labels-idx1)-ubyte(\.gz)?")


def is_mnist_family(names: Collection[str]) -> bool:
    """Whether files of the family are among those of a folder."""
    return any(map(_FAMILY.fullmatch, names))


def read_idx(path: Path) -> Pixels:
    """One IDX file of unsigned bytes (yann.lecun.com/exdb/mnist), gzipped or not, as an array of its shape.

    Raises TrainingError when the header is none, or promises more or less than the file holds.
    """

    def wrong(what: str) -> TrainingError:
        return TrainingError(f"{path}: {what}", "Expected an IDX file of unsigned bytes, as the MNIST family has.")

    def exactly(file: IO[bytes], count: int) -> bytes:
        data = file.read(count)
        if len(data) != count:
            raise wrong(f"ends early: {count} bytes promised, {len(data)} there")
        return data

    try:
        with open(path, "rb") as probe:
            gzipped, packed = probe.read(2) == b"\x1f\x8b", probe.seek(0, 2)
        opened: IO[bytes] = gzip.open(path, "rb") if gzipped else open(path, "rb")  # type: ignore[assignment]  # noqa: SIM115
        with opened as file:
            magic = exactly(file, 4)
            if magic[:3] != b"\x00\x00\x08" or not 1 <= magic[3] <= 4:
                raise wrong(f"starts with {magic.hex()}, not with 000008 and a number of dimensions")
            shape = np.frombuffer(exactly(file, 4 * magic[3]), ">u4").tolist()
            size = math.prod(shape)
            if not 0 < size <= 1 << 32:
                raise wrong(f"promises shape {shape}")
            if gzipped and is_bomb(size, packed):
                raise wrong(f"promises {size:,} bytes, packed into {packed:,}: it may be meant to fill the memory")
            # One byte more than promised is asked for, so that memory is bounded by what the file holds.
            data = bytearray()
            while len(data) <= size and (chunk := file.read(min(size + 1 - len(data), 1 << 24))):
                data += chunk
            if len(data) != size:
                raise wrong(f"promises {size} bytes of data and holds {'more' if len(data) > size else len(data)}")
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(f"cannot be read: {error}") from error
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_mnist_family(folder: Path, split: str = "train") -> ImageData:
    """A folder with the four files of MNIST, Fashion-MNIST and their kin; ``split`` is ``train`` or ``test``.

    Fashion-MNIST is recognised by the folder's name and gets its class names; else they are the digits.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        found = [path for end in ("", ".gz") if (path := folder / f"{prefix}-{kind}{end}").is_file()]
        if not found:
            missing = TrainingError if any(folder.glob(f"{prefix}-*-ubyte*")) else NoSplit
            raise missing(
                f"{folder}: no {prefix}-{kind}[.gz]",
                "Name a folder with the files of the MNIST family; Debian's package dataset-fashion-mnist puts them "
                "into /usr/share/datasets/fashion-mnist.",
            )
        arrays.append(read_idx(found[0]))
    images, labels = arrays
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise TrainingError(
            f"{folder}: images of shape {list(images.shape)} with labels of shape {list(labels.shape)}",
            "Expected images [N, H, W] with labels [N].",
        )
    names = FASHION_CLASSES if "fashion" in folder.resolve().name.lower() else tuple(str(i) for i in range(10))
    if labels.max() >= len(names):
        raise TrainingError(f"{folder}: label {labels.max()}", f"Expected labels of 0 to {len(names) - 1}.")
    return ImageData(images[..., None], labels.astype(np.int64), names)
