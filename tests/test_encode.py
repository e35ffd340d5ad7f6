"""Pixels to image files: nothing lost, nothing wrong in the bytes, the mark where it is wanted."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ganrt.encode import decode, encode_image, encoder, resize, to_mode
from tests.datasets import ROOT

Pixels = NDArray[np.uint8]
SIZES = [(1, 1), (1, 5), (5, 1), (64, 48), (28, 28), (129, 33)]  # width, height
MARK = b"trainedAlgorithmicMedia"


def noise(count: int, width: int, height: int, channels: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)


def photograph(side: int, channels: int, seed: int) -> Pixels:
    """Light that changes slowly, edges, and a sensor's noise: uint8 [side, side, channels]."""
    random = np.random.default_rng(seed)
    waves = np.fft.fftfreq(side)
    falling = 1 / (np.hypot(waves[:, None], waves[None]) + 1 / side) ** 1.5  # as natural images' spectra fall
    planes = []
    for _ in range(channels):
        spectrum = np.fft.fft2(random.standard_normal((side, side))) * falling
        plane = np.fft.ifft2(spectrum).real
        planes.append((plane - plane.mean()) / plane.std())
    image = np.stack(planes, axis=-1) * 0.4 + planes[0][:, :, None]
    image += (planes[-1] > 0.5)[:, :, None]
    made: Pixels = (128 + 45 * image + random.standard_normal(image.shape)).clip(0, 255).astype(np.uint8)
    return made


def pillow(image: Pixels) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG; asserts that each has the right checksum and that nothing follows the last."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(data):
        [length] = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        [checksum] = struct.unpack_from(">I", data, at + 8 + length)
        assert checksum == zlib.crc32(kind + body), f"checksum of {kind!r}"
        at += 12 + length
        yield kind, body
    assert at == len(data)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_png_gives_the_same_pixels_back(width: int, height: int, channels: int) -> None:
    images = noise(3, width, height, channels)
    images[1] = 7
    encoded = list(encoder("png", None, True)(images))
    assert len(encoded) == 3
    for data, image in zip(encoded, images, strict=True):
        read = opened(data)
        assert read.mode == ("L" if channels == 1 else "RGB")
        assert read.size == (width, height)
        assert np.array_equal(np.asarray(read).reshape(image.shape), image)
        assert np.array_equal(decode(data), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mark", [True, False])
def test_png_is_well_formed(channels: int, mark: bool) -> None:
    for width, height in SIZES:
        [data] = encoder("png", None, mark)(noise(1, width, height, channels))
        found = list(chunks(data))
        assert [kind for kind, _ in found] == [b"IHDR", *([b"tEXt"] if mark else []), b"IDAT", b"IEND"]
        assert found[0][1] == struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
        assert len(zlib.decompress(found[-2][1])) == height * (1 + width * channels)
        assert found[-1][1] == b""


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_mark_is_short_and_can_be_left_out(format: str) -> None:
    images = np.stack([photograph(48, 3, seed) for seed in range(3)])
    for marked, plain in zip(encoder(format, None, True)(images), encoder(format, None, False)(images), strict=True):
        assert MARK in marked
        assert MARK not in plain
        assert 0 < len(marked) - len(plain) < 100
        assert np.array_equal(decode(marked), decode(plain))


def test_the_mark_is_where_readers_look_for_it() -> None:
    images = noise(1, 8, 8, 3)
    text = MARK.decode()
    read = {format: opened(next(encoder(format, None, True)(images))) for format in ("png", "jpeg", "webp")}
    assert read["png"].info["DigitalSourceType"] == text
    assert read["jpeg"].info["comment"] == b"DigitalSourceType=" + MARK
    assert read["webp"].getexif()[270] == text  # ImageDescription


@pytest.mark.parametrize(("format", "quality"), [("png", None), ("jpeg", 90), ("webp", 90)])
def test_bytes_depend_on_the_image_alone(format: str, quality: int | None) -> None:
    images = noise(5, 21, 17, 3)
    together = list(encoder(format, quality, True)(images))
    encode = encoder(format, quality, True)
    assert [next(encode(images[k : k + 1])) for k in reversed(range(5))] == together[::-1]
    strided = np.repeat(images, 2, axis=0)[::2]
    assert not strided.flags.c_contiguous
    assert list(encode(strided)) == together


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_quality_is_what_pillow_makes_of_it(format: str, channels: int) -> None:
    image = photograph(64, channels, 1)
    sizes = []
    for quality in (10, 50, 90, 100):
        [data] = encoder(format, quality, False)(image[None])
        sizes.append(len(data))
        file = io.BytesIO()
        pillow(image).save(file, format, quality=quality, **({"method": 2} if format == "webp" else {}))
        assert data == file.getvalue()
    assert sizes == sorted(set(sizes))
    assert list(encoder(format, None, False)(image[None])) == list(encoder(format, 90, False)(image[None]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 64, 256])
def test_fast_png_is_at_most_a_fifth_larger_than_pillows(side: int, channels: int) -> None:
    ours = theirs = 0
    for seed in range(4):
        image = photograph(side, channels, seed)
        ours += len(encode_image(image))
        file = io.BytesIO()
        pillow(image).save(file, "png")
        theirs += len(file.getvalue())
    assert ours <= 1.2 * theirs


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resample", ["nearest", "bilinear", "lanczos"])
@pytest.mark.parametrize("size", [(64, 48), (7, 31), (1, 1)])
def test_resizing_is_pillows(size: tuple[int, int], resample: str, channels: int) -> None:
    images = noise(3, 24, 16, channels)
    resized = resize(images, size, resample)
    assert resized.shape == (3, size[1], size[0], channels)
    for image, made in zip(images, resized, strict=True):
        wanted = pillow(image).resize(size, Image.Resampling[resample.upper()])
        assert np.array_equal(made, np.asarray(wanted).reshape(made.shape))


def test_resizing_to_the_same_size_changes_nothing() -> None:
    images = noise(2, 9, 5, 3)
    assert np.array_equal(resize(images, (9, 5), "lanczos"), images)


def test_grey_is_pillows_luma_for_every_colour() -> None:
    steps = np.array([*range(0, 256, 5), 1, 2, 254], np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, len(steps), 3)
    wanted = np.asarray(Image.fromarray(colours[0]).convert("L"))
    grey = to_mode(colours, "l")
    assert grey.dtype == np.uint8
    assert np.array_equal(grey[0, :, :, 0], wanted)


def test_modes_that_are_there_already_and_grey_as_rgb() -> None:
    grey, colour = noise(2, 4, 3, 1), noise(2, 4, 3, 3)
    assert np.array_equal(to_mode(grey, "l"), grey)
    assert np.array_equal(to_mode(colour, "rgb"), colour)
    assert np.array_equal(to_mode(grey, "rgb"), np.concatenate([grey] * 3, axis=3))


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_what_is_no_image_is_not_decoded(data: bytes) -> None:
    with pytest.raises((OSError, ValueError)):
        decode(data)


def test_a_cut_image_is_not_decoded() -> None:
    data = encode_image(noise(1, 64, 64, 3)[0])
    with pytest.raises((OSError, ValueError)):
        decode(data[: len(data) // 2])


# Prints a digest of the PNGs of many small images of few colours, in this thread and in three others.
_DIGESTS = """
import hashlib, threading
import numpy as np
from ganrt.encode import encoder
random = np.random.default_rng(0)
shapes = [(120, side, side, 1 + 2 * (side % 2)) for side in range(5, 29)]
sets = [random.integers(0, 2 + shape[1] % 3, shape).astype(np.uint8) for shape in shapes]
def work():
    digest = hashlib.sha256()
    for images in sets:
        for data in encoder("png", None, False)(images):
            digest.update(data)
    print(digest.hexdigest(), flush=True)
for thread in [threading.Thread(target=work) for _ in range(3)]:
    thread.start()
    thread.join()
work()
"""


def test_every_process_and_thread_writes_the_same_bytes() -> None:
    # With ISA-L's level 1 about half of the threads write other bytes than the first (docs/decisions/0003-png.md).
    digests = [subprocess.check_output([sys.executable, "-c", _DIGESTS], text=True, cwd=ROOT).split() for _ in range(4)]
    assert [len(each) for each in digests] == [4] * 4
    assert len({digest for each in digests for digest in each}) == 1
