"""uint8 pixels → pixels of another size or mode → the bytes of image files."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

from ganrt.decoding import check_scans
from ganrt.shards import CHANNELS

Pixels = NDArray[np.uint8]
Encoder = Callable[[Pixels], Iterator[bytes]]

RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
DEFAULT_RESAMPLE = "lanczos"
FORMATS = {"png": "png", "jpeg": "jpg", "webp": "webp"}  # format → file name ending
DEFAULT_QUALITY = {"jpeg": 90, "webp": 90}

# The IPTC's term for media made by a trained model (cv.iptc.org/newscodes/digitalsourcetype), so that
# whoever meets a single image can tell that it is synthetic.
_MARK_KEY, _MARK_VALUE = b"DigitalSourceType", b"trainedAlgorithmicMedia"

# ISA-L's level 3 on rows filtered by Up. Levels 0 to 2 do not always give the same bytes: docs/decisions/0003-png.md.
PNG_LEVEL = 3
_PNG_UP = 2


def resize(images: Pixels, size: tuple[int, int], resample: str) -> Pixels:
    """uint8 [N, H, W, C] → uint8 [N, height, width, C] for size (width, height)."""
    width, height = size
    if images.shape[1:3] == (height, width):
        return images
    resized = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for image, out in zip(images, resized, strict=True):
        out[:] = np.asarray(_pillow(image).resize(size, RESAMPLE[resample])).reshape(out.shape)
    return resized


def to_mode(images: Pixels, mode: str) -> Pixels:
    """uint8 [N, H, W, C] → C = 1 for ``l``, 3 for ``rgb``. Grey is ITU-R 601 luma, rounded as Pillow does."""
    channels = CHANNELS[mode]
    if images.shape[3] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    weights = np.array([19595, 38470, 7471], np.uint32)
    luma: NDArray[np.uint32] = (images.astype(np.uint32) * weights).sum(axis=3, keepdims=True, dtype=np.uint32)
    return ((luma + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint8)


def decode(data: bytes, size: tuple[int, int] | None = None) -> Pixels:
    """An image as it was encoded here, as uint8 [H, W, 1|3]; ``size`` is (height, width), where that is known.

    Raises OSError or ValueError when it is none.
    """
    try:
        check_scans(data)
        # No other kind: Pillow would give PostScript to a program.
        with Image.open(io.BytesIO(data), formats=[name.upper() for name in FORMATS]) as image:
            if image.mode not in ("L", "RGB") or size not in (None, (image.height, image.width)):
                raise ValueError(f"is {image.width}x{image.height} {image.mode}, which was not written here")
            pixels = np.asarray(image)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def encoder(format: str, quality: int | None, mark: bool) -> Encoder:
    """A function from uint8 [N, H, W, C] to N encoded images. Bytes depend on the pixels and these options alone."""
    if format == "png":
        return lambda images: _png(images, mark)
    return lambda images: _pillow_encoded(images, format, quality or DEFAULT_QUALITY[format], mark)


def encode_image(image: Pixels) -> bytes:
    """One uint8 [H, W, C] as PNG, without a mark."""
    return next(_png(image[None], False))


def _png(images: Pixels, mark: bool) -> Iterator[bytes]:
    """PNG (W3C, third edition) with one IDAT and the Up filter on every row."""
    count, height, width, channels = images.shape
    rows = images.reshape(count, height, width * channels)
    filtered = np.empty((count, height, 1 + width * channels), np.uint8)
    filtered[:, :, 0] = _PNG_UP
    filtered[:, 0, 1:] = rows[:, 0]
    np.subtract(rows[:, 1:], rows[:, :-1], out=filtered[:, 1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header)
    if mark:
        start += _png_chunk(b"tEXt", _MARK_KEY + b"\0" + _MARK_VALUE)
    end = _png_chunk(b"IEND", b"")
    for image in filtered:
        yield b"".join((start, _png_chunk(b"IDAT", isal_zlib.compress(image, PNG_LEVEL)), end))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join((len(data).to_bytes(4, "big"), kind, data, checksum.to_bytes(4, "big")))


def _pillow_encoded(images: Pixels, format: str, quality: int, mark: bool) -> Iterator[bytes]:
    options: dict[str, object] = {"quality": quality}
    if format == "webp":
        options["method"] = 2
    if mark and format == "jpeg":
        options["comment"] = _MARK_KEY + b"=" + _MARK_VALUE
    if mark and format == "webp":
        options["exif"] = _exif_description(_MARK_VALUE)
    for image in images:
        file = io.BytesIO()
        _pillow(image).save(file, format, **options)
        yield file.getvalue()


def _exif_description(text: bytes) -> bytes:
    """The smallest Exif block: one ImageDescription (tag 270) of ASCII text."""
    text += b"\0"
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HHHIII", 1, 270, 2, len(text), 26, 0) + text


def _pillow(image: Pixels) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
