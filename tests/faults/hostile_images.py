"""Image files and folders of them that are unusual, broken or mean harm, each with what is to be said of it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.hostile_data import png

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
KINDS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def cut(format: str, share: float) -> bytes:
    data = saved(NOISE, format)
    return data[: max(20, int(len(data) * share))]


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_of(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


PIXELS = chunk(b"IDAT", zlib.compress(bytes(9 * 8)))  # 8x8, grey


def turned(format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(NOISE, format, exif=exif)


def animated(format: str) -> bytes:
    return saved(NOISE, format, save_all=True, append_images=[NOISE.rotate(90)] * 3, duration=50)


def scans(count: int) -> bytes:
    """A JPEG of 36 million pixels whose last scan comes again and again, each time over all of them."""
    data = saved(Image.new("L", (6000, 6000), 128), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:last] + data[last:end] * count + data[end:]


def tiff(entries: list[tuple[int, int, int, int]], after: int = 0) -> bytes:
    """A TIFF of these (tag, type, count, value), whose next directory is said to lie at ``after``."""
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + tags + struct.pack("<I", after) + bytes(64)


def grey_tiff(width: int = 8, height: int = 8, strip: int = 8, length: int = 64, **changes: Any) -> bytes:
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 4, 1, strip), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, length)]  # fmt: skip
    return tiff(entries + changes.get("more", []), changes.get("after", 0))


# What is read as it is shown: name → file, bytes.
READ: dict[str, tuple[str, Callable[[], bytes]]] = {
    "CMYK": ("x.jpg", lambda: saved(Image.new("CMYK", (8, 8), (9, 9, 9, 9)), "JPEG")),
    "16 bits": ("x.png", lambda: saved(Image.fromarray(np.full((8, 8), 4000, np.uint16)))),
    "palette": ("x.png", lambda: saved(NOISE.quantize(16))),
    "palette with transparency": ("x.png", lambda: saved(NOISE.quantize(16), transparency=bytes(range(16)))),
    "one bit": ("x.png", lambda: saved(NOISE.convert("1"))),
    "grey with alpha": ("x.png", lambda: saved(NOISE.convert("LA"))),
    "RGBA": ("x.png", lambda: saved(NOISE.convert("RGBA"))),
    "animated GIF": ("x.gif", lambda: animated("GIF")),
    "animated WebP": ("x.webp", lambda: animated("WEBP")),
    "animated PNG": ("x.png", lambda: animated("PNG")),
    "several pages": ("x.tiff", lambda: saved(NOISE, "TIFF", save_all=True, append_images=[NOISE])),
    "packed TIFF": ("x.tif", lambda: saved(NOISE, "TIFF", compression="tiff_lzw")),
    "turned JPEG": ("x.jpg", lambda: turned("JPEG")),
    "turned WebP": ("x.webp", lambda: turned("WEBP")),
    "progressive JPEG": ("x.jpg", lambda: saved(NOISE, "JPEG", progressive=True)),
    "1x1": ("x.png", lambda: png((1, 1))),
    "65,500 pixels wide": ("x.png", lambda: png((65_500, 1))),
    "65,500 pixels high": ("x.jpg", lambda: saved(Image.new("L", (1, 65_500)), "JPEG")),
    "a PNG named .jpg": ("x.jpg", png),
    "a JPEG named .PNG": ("x.PNG", lambda: saved(NOISE, "JPEG")),
    "broken Exif": ("x.jpg", lambda: saved(NOISE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")),
    "a chunk after the pixels": ("x.png", lambda: png_of(8, 8, PIXELS, chunk(b"eXIf", b"MM\0*" + b"\xff" * 400))),
    "a vast tag": ("x.tif", lambda: grey_tiff(more=[(270, 2, 0xFFFFFFF0, 8)])),
    "a wrong sum": ("x.png", lambda: png_of(8, 8, PIXELS[:-1] + b"!")),
    "a next page at itself": ("x.tif", lambda: grey_tiff(after=8)),
    "tens of thousands of chunks": ("x.png", lambda: png_of(8, 8, *[chunk(b"tRNs", b"")] * 30_000, PIXELS)),
}

# What cannot be: name → bytes, what is said.
BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    **{f"cut {kind}": (partial(cut, kind, 2 / 3), "") for kind in KINDS},
    **{f"only the start of a {kind}": (partial(cut, kind, 0.02), "") for kind in KINDS},
    "100 million pixels": (lambda: saved(Image.new("1", (10_000, 10_000))), "has 10000x10000 pixels; up to 67,108,864"),
    "65,500 pixels square": (lambda: png_of(65_500, 65_500, PIXELS), "exceeds limit"),
    "8000x8000 that are 8x8": (lambda: png_of(8000, 8000, PIXELS), "truncated"),
    "no pixels at all": (lambda: png_of(8, 8), ""),
    "0x0": (lambda: png_of(0, 0, PIXELS), ""),
    "2^31 wide": (lambda: png_of(1 << 31, 1, PIXELS), ""),
    "a palette that is missing": (lambda: png_of(8, 8, PIXELS, colour=3), ""),
    "a colour type that there is not": (lambda: png_of(8, 8, PIXELS, colour=5), ""),
    "a text that unpacks to a gigabyte": (
        lambda: png_of(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26), 9)), PIXELS), ""),
    "a chunk longer than the file": (lambda: png()[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(50), ""),
    "a GIF with a vast canvas": (lambda: b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + bytes(50), ""),
    "a BMP with a vast height": (lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 8, -(1 << 31), 1, 24, 0,
                                                             0, 1, 1, 0, 0), ""),
    "a TIFF that points beyond its end": (lambda: grey_tiff(strip=1 << 30), ""),
    "a TIFF that promises a vast strip": (lambda: grey_tiff(8000, 8000, length=64_000_000), ""),
    "a TIFF of a vast size": (lambda: grey_tiff(0xFFFFFFFF, 0xFFFFFFFF), ""),
    "a JPEG of a hundred thousand scans": (lambda: scans(100_000), "scans"),
    "a WebP of a vast size": (lambda: b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6 + bytes(200), ""),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "no image of"),
    "HTML": (lambda: b"<!DOCTYPE html><title>404</title>", "no image of a kind that is read"),
    "JSON": (lambda: b'{"error": "rate limit"}', "no image of a kind that is read"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(%pipe%touch x) (w) file", "no image of"),
    "an icon": (lambda: saved(NOISE, "ICO"), "no image of a kind that is read"),
    "empty": (lambda: b"", "is empty"),
    "zeros": (lambda: bytes(10_000), "no image of a kind that is read"),
}  # fmt: skip


# Folders ------------------------------------------------------------------------------------------------------------

Folder = Callable[[Path], object]


def good(folder: Path, name: str = "good.png") -> None:
    (folder / name).write_bytes(png())


def crossing(folder: Path, count: int = 9) -> None:
    """Folders of links to all others: a million ways through nine of them."""
    for k in range(count):
        (folder / f"{k}").mkdir()
        good(folder / f"{k}")
        for other in range(count):
            (folder / f"{k}" / f"to{other}").symlink_to(f"../{other}")


def deep(folder: Path, depth: int = 1500) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    file = os.open("x.png", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, png())
    os.close(file)
    os.close(here)


# name → how it is made; what training says, what translation says: None where it is read.
FOLDERS: dict[str, tuple[list[Folder], str | None, str | None]] = {
    "FIFO": ([good, lambda f: os.mkfifo(f / "x.png")], None, None),
    "link to a FIFO": ([good, lambda f: os.mkfifo(f / "pipe"), lambda f: (f / "x.png").symlink_to("pipe")], None, None),
    "nothing but a FIFO": ([lambda f: os.mkfifo(f / "x.png")], "no images", "no images"),
    "folder named .png": ([lambda f: (f / "x.png").mkdir(), good], None, None),
    "link to a device": ([good, lambda f: (f / "x.png").symlink_to("/dev/zero")], None, None),
    "link out of the folder": ([good, lambda f: (f / "x.png").symlink_to("/etc/passwd")], "x.png: no image of a kind",
                               "leads out of the folder"),
    "link to nowhere": ([good, lambda f: (f / "x.png").symlink_to("gone")], "x.png", "x.png"),
    "link to itself": ([good, lambda f: (f / "x.png").symlink_to("x.png")], "x.png", "x.png"),
    "folder link to itself": ([good, lambda f: (f / "x").symlink_to("x")], "/x", "/x"),
    "folder link up": ([lambda f: (f / "c").mkdir(), lambda f: good(f / "c"), lambda f: (f / "c/up").symlink_to("..")],
                       None, "nested deeper"),
    "links across folders": ([crossing], "links lead there in more than 100 ways", "nested deeper"),
    "1,500 folders deep": ([lambda f: good(f, "good.txt"), deep], "more than 100 folders deep", "nested deeper"),
    "no images": ([lambda f: good(f, "notes.txt")], "no images", "no images"),
    "one image": ([good], None, None),
    "one image in one class": ([lambda f: (f / "c").mkdir(), lambda f: good(f / "c")], None, None),
}  # fmt: skip

# Names of class folders and, with .png, of files.
NAMES = (
    "cafe\u0301", "caf\u00e9", " ", "  lead", "trail ", "-rf", "--help", ".hidden", "..hidden", "...", "a..", "é" * 127,
    "n" * 255, "n" * 196, "CAT", "cat", "a:b", "a_b", "a?b", "a\nb", "a\tb", "a\x7f", "\x1b[31mred", "\u202egnp.exe",
    "\u200bzero", "\ud800", os.fsdecode(b"\xff\xfe"), "con", "CON", "nul.txt", "com1", "aux ", "README.md",
    "ganrt.json",
    "ganrt.ledger", "metadata.csv", "__pycache__", "$(touch x)", "`id`", "a'b\"c", "%2e%2e%2f", "~", "*", "\\", "C:",
    "猫", "🐱", "a&b<c>", "train", "images.npy", "000000", "{0}", "%s", "\ufeff", "a\u00a0b", "ﬁ", "İ", "ß", "SS",
    "𝕮𝖆𝖙",
)  # fmt: skip
