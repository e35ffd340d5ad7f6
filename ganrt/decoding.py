"""Image files of any kind → 8 bits of grey or colour, upright."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image

MAX_PIXELS = 1 << 26  # of an encoded image: 8192x8192
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_MAX_SCANS = 100  # of a JPEG; as libtiff has it
WHITE = (255, 255, 255)

_ORIENTATION = 0x0112  # the Exif tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of an image file as it is shown, from its header.

    Raises ValueError and what Pillow raises, of any type, for what is no image, or one of too many pixels.
    """
    image, turn = _header(data)
    return (image.height, image.width) if turn in (5, 6, 7, 8) else image.size


def upright(data: bytes) -> Image.Image:
    """The first image of a file, decoded, turned as its Exif data say. Raises as :func:`size_of` does."""
    image, turn = _header(data)
    image.load()
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def flat(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """8 bits of grey (``L``) or colour (``RGB``), on the background where it is transparent.

    Raises ValueError for pixels of 32 bits.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"has pixels of 32 bits (mode {image.mode}), of which none knows the range: convert to 8 or 16"
        )
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*background, 255))
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def check_scans(data: bytes) -> None:
    """Raises ValueError for a JPEG whose many scans, each a pass over all pixels, would take hours."""
    if data[:2] == b"\xff\xd8" and (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise ValueError(f"has {scans:,} scans; up to {_MAX_SCANS} are decoded")


def _header(data: bytes) -> tuple[Image.Image, int]:
    """A file's first image, not decoded yet, and its Exif orientation, 1 to 8."""
    if not data:
        raise ValueError("is empty")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"has {image.width}x{image.height} pixels; up to {MAX_PIXELS:,} are decoded")
    check_scans(data)
    if image.format == "TIFF":  # Pillow turns it by itself
        return image, 1
    # Of a PNG Pillow would decode all to look for what may follow the pixels.
    if image.format != "PNG" or any(word in data for word in (b"eXIf", b"Raw profile type", b"iTXt")):
        with contextlib.suppress(Exception):  # broken metadata around sound pixels: shown as it lies, as viewers do
            turn = image.getexif().get(_ORIENTATION, 1)
            return image, turn if isinstance(turn, int) else 1
    return image, 1
