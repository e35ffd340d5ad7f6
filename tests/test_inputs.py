"""The images that a dataset is made of: which files count, what is read of them, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ganrt
from ganrt import translation
from ganrt.errors import DatasetError, UsageError
from ganrt.names import file_stem
from tests.datasets import contents, images, members
from tests.models import translated
from tests.pictures import Pixels, folder_of, picture, translate, translator_file, two_classes, write_picture

posix = pytest.mark.skipif(os.name == "nt", reason="names and links of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return translator_file(tmp_path_factory.mktemp("models"), dynamic=True)


def names_of(root: Path) -> list[str]:
    return sorted(images(root, "folder"))


# What is read of a file ---------------------------------------------------------------------------------------------


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(pixels: Pixels, format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format == "JPEG" else {}
    return saved(Image.fromarray(pixels), format, exif=exif, **options)


def rgb16(pixels: Pixels) -> bytes:
    """A PNG with 16 bits a sample, which Pillow reads and does not write."""
    height, width, _ = pixels.shape
    rows = (pixels.astype(np.uint16) * 257).astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


FLAT: Pixels = np.full((4, 6, 3), (200, 100, 50), np.uint8)
TALL: Pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3
GREY: Pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def transparent() -> Pixels:
    """Opaque at the left, half so in the middle, not at all at the right."""
    return np.dstack([FLAT, np.repeat([[255, 255, 128, 128, 0, 0]], 4, axis=0).astype(np.uint8)])


def on_white() -> Pixels:
    alpha = transparent()[..., 3:].astype(int)
    mixed = (FLAT * alpha + 255 * (255 - alpha)) / 255
    pixels: Pixels = np.round(mixed).astype(np.uint8)
    return pixels


def two_frames() -> bytes:
    first, second = Image.fromarray(FLAT).quantize(4), Image.new("RGB", (6, 4), "blue").quantize(4)
    return saved(first, "GIF", save_all=True, append_images=[second])


def keyed() -> bytes:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return saved(image, "PNG", transparency=0)


FILES: dict[str, tuple[str, Callable[[], bytes], Pixels]] = {
    "rgb": ("a.png", lambda: saved(Image.fromarray(TALL), "PNG"), TALL),
    "grey": ("a.png", lambda: saved(Image.fromarray(GREY), "PNG"), GREY[..., None].repeat(3, axis=2)),
    "alpha": ("a.png", lambda: saved(Image.fromarray(transparent()), "PNG"), on_white()),
    "alpha in webp": (
        "a.webp",
        lambda: saved(Image.fromarray(transparent()), "WEBP", lossless=True, exact=True),
        on_white(),
    ),
    "palette with a transparent colour": ("a.png", keyed, FLAT),
    "palette": ("a.bmp", lambda: saved(Image.fromarray(FLAT).quantize(4), "BMP"), FLAT),
    "16 bits of grey": (
        "a.png",
        lambda: saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        GREY[..., None].repeat(3, axis=2),
    ),
    "16 bits of colour": ("a.png", lambda: rgb16(TALL), TALL),
    "one bit": ("a.tif", lambda: saved(Image.new("1", (6, 4), 1), "TIFF"), np.full((4, 6, 3), 255, np.uint8)),
    "cmyk": ("a.tiff", lambda: saved(Image.new("CMYK", (6, 4), 0), "TIFF"), np.full((4, 6, 3), 255, np.uint8)),
    "first frame": ("a.gif", two_frames, FLAT),
    "upper case": ("a.BMP", lambda: saved(Image.fromarray(TALL), "BMP"), TALL),
    "another format than its name says": ("a.jpg", lambda: saved(Image.fromarray(TALL), "PNG"), TALL),
    "turned PNG": ("a.png", lambda: turned(TALL, "PNG", 6), np.rot90(TALL, -1)),
    "turned WebP": ("a.webp", lambda: turned(TALL, "WEBP", 8), np.rot90(TALL)),
    "turned TIFF": ("a.tif", lambda: turned(TALL, "TIFF", 6), np.rot90(TALL, -1)),
    "mirrored": ("a.png", lambda: turned(TALL, "PNG", 2), TALL[:, ::-1]),
    "upside down": ("a.png", lambda: turned(TALL, "PNG", 3), TALL[::-1, ::-1]),
    "no orientation that there is": ("a.png", lambda: turned(TALL, "PNG", 9), TALL),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_any_kind_is_read_as_it_is_shown(kind: str, model: Path, tmp_path: Path) -> None:
    name, data, wanted = FILES[kind]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data())
    translate(model, tmp_path / "in", tmp_path / "out")
    found = images(tmp_path / "out", "folder")["a.png"]
    assert found.shape == wanted.shape
    # Of half transparent pixels two programs may differ by a level, and so may what is made of them.
    assert np.abs(found.astype(int) - translated(np.ascontiguousarray(wanted)[None])[0]).max() <= 1 + ("alpha" in kind)


def test_a_turned_photograph_has_the_size_that_it_is_shown_with(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(turned(TALL, "JPEG", 6))
    translate(model, tmp_path / "in", tmp_path / "out")
    assert images(tmp_path / "out", "folder")["a.png"].shape == (4, 6, 3)
    fixed = translator_file(tmp_path, "fixed", width=6, height=4)
    translate(fixed, tmp_path / "in", tmp_path / "fits")
    with pytest.raises(UsageError, match="takes images of 4x6; 1 of 1 in .* a.jpg is 6x4\n"):
        translate(translator_file(tmp_path, "other", width=4, height=6), tmp_path / "in", tmp_path / "other")


@pytest.mark.parametrize(("given", "wanted"), [(1, 3), (3, 1), (1, 1)])
def test_images_get_the_channels_that_the_network_takes(given: int, wanted: int, tmp_path: Path) -> None:
    model = translator_file(tmp_path, channels=3, in_channels=wanted)
    pixels = picture(0, channels=given)
    write_picture(tmp_path / "in/a.png", pixels)
    translate(model, tmp_path / "in", tmp_path / "out")
    image = Image.fromarray(pixels[..., 0] if given == 1 else pixels).convert("L" if wanted == 1 else "RGB")
    right = translated(np.asarray(image).reshape(1, 8, 8, wanted))[0]
    assert np.abs(images(tmp_path / "out", "folder")["a.png"].astype(int) - right).max() <= 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"no image", "no image of a kind that is read"),
        (lambda: saved(Image.new("F", (6, 4)), "TIFF"), None),
        (lambda: saved(Image.new("1", (9000, 9000)), "PNG"), "has 9000x9000 pixels; up to 67,108,864 are decoded"),
    ],
    ids=["empty", "text", "32 bits", "bomb"],
)
def test_a_file_that_is_no_image_is_named(
    data: Callable[[], bytes], why: str | None, model: Path, tmp_path: Path
) -> None:
    folder_of(tmp_path / "in", ["a/1.png", "a/3.png"])
    (tmp_path / "in/a/2.png").write_bytes(data())
    with pytest.raises(DatasetError) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    why = why or "has pixels of 32 bits (mode F), of which none knows the range: convert to 8 or 16"
    assert str(error.value) == f"{tmp_path / 'in/a/2.png'} cannot be read: {why}\nMend it, or move it away."
    assert error.value.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_cut_is_named_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    two_classes(tmp_path / "in")
    path = tmp_path / "in/dog/20 photo.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    with pytest.raises(DatasetError) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    assert str(error.value).startswith(f"{path} cannot be read: ")
    assert not (tmp_path / "out").exists()
    path.write_bytes(whole)
    assert translate(model, tmp_path / "in", tmp_path / "out").complete


def test_an_image_that_changes_while_it_is_translated_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_classes(tmp_path / "in")
    real = translation.load_translation

    def late(*arguments: Any) -> Any:
        write_picture(tmp_path / "in/dog/20 photo.png", picture(77))
        return real(*arguments)

    monkeypatch.setattr("ganrt.translation.load_translation", late)
    with pytest.raises(
        DatasetError, match=r"20 photo\.png has changed since the run began\nLet nothing write there"
    ) as error:
        translate(model, tmp_path / "in", tmp_path / "out", workers=1)
    assert error.value.__notes__ == ["16 of 21 images are finished and kept; the same command goes on from there."]


# Which files count --------------------------------------------------------------------------------------------------


def test_what_is_no_image_by_its_name_is_passed_over(model: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", ["a/2.png", "a/10.png", "b/x.png"])
    for name in ("README.md", "notes.txt", "a/Thumbs.db", "a/labels.csv", ".DS_Store", "a/.hidden.png"):
        (tmp_path / "in" / name).write_text("no image")
    (tmp_path / "in/empty").mkdir()
    (tmp_path / "in/.git/objects").mkdir(parents=True)
    (tmp_path / "in/__MACOSX").mkdir()
    write_picture(tmp_path / "in/__MACOSX/a.png", picture(0))
    translate(model, tmp_path / "in", tmp_path / "out", layout="webdataset")
    found = members(tmp_path / "out")
    told = [found[name].decode() for name in sorted(found) if name.endswith(".json")]
    assert [text.split('"source": ')[1].split(",")[0] for text in told] == ['"a/10.png"', '"a/2.png"', '"b/x.png"']


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "x/b.png"], "{} holds images beside class folders: a.png and x/b.png\nPut every image into the"),
        (["x/a.png", "x/y/b.png"], "{} is nested deeper than a folder a class: x/y/b.png\nExpected images, or folders"),
        ([], "{} holds no images\nImages end in .png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff, .gif."),
    ],
)
def test_folders_of_another_shape_are_refused(names: list[str], message: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    folder_of(tmp_path / "in", names)
    with pytest.raises(UsageError) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    assert str(error.value).startswith(message.format(tmp_path / "in"))
    assert not (tmp_path / "out").exists()


def test_images_must_be_a_folder(model: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", picture(0))
    for where in (tmp_path / "a.png", tmp_path / "nowhere"):
        with pytest.raises(UsageError) as error:
            translate(model, where, tmp_path / "out")
        assert str(error.value) == f"{where} is no folder\nName a folder of images, or of a dataset."


@posix
def test_links_are_followed_within_the_folder_and_refused_beyond_it(model: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", ["a/1.png", "b/1.png"])
    write_picture(tmp_path / "private.png", picture(9))
    (tmp_path / "in/b/2.png").symlink_to("../a/1.png")
    (tmp_path / "in/c").symlink_to("a")
    translate(model, tmp_path / "in", tmp_path / "out")
    assert names_of(tmp_path / "out") == ["a/1.png", "b/1.png", "b/2.png", "c/1.png"]
    (tmp_path / "in/b/3.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(UsageError) as error:
        translate(model, tmp_path / "in", tmp_path / "out2")
    assert str(error.value) == (
        f"{tmp_path / 'in/b/3.png'} is a link that leads out of the folder\n"
        "What it leads to would be read, and shown to whoever gets the dataset: copy it there if it is meant."
    )


@pytest.mark.parametrize(
    ("images_at", "out_at", "message"),
    [
        ("in", "in", "{out} is the folder of the images itself\nName another folder"),
        ("in", "in/out", "{out} lies in {images}\nImages and dataset would be mixed up"),
        ("out/in", "out", "{images} lies in {out}\nImages and dataset would be mixed up"),
        ("in", "in/../in", "{out} is the folder of the images itself\n"),
    ],
)
def test_images_and_dataset_lie_apart(images_at: str, out_at: str, message: str, model: Path, tmp_path: Path) -> None:
    where, out = tmp_path / images_at, tmp_path / out_at
    folder_of(where, ["a/1.png"])
    before = contents(tmp_path)
    with pytest.raises(UsageError) as error:
        ganrt.translate(model, where, out=out, device="cpu")
    assert str(error.value).startswith(message.format(images=where, out=out))
    assert contents(tmp_path) == before


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "stem"),
    [("a.png", "a.jpg", "a"), ("Photo.png", "photo.bmp", "photo"), ("con.png", "con_.png", "con_"),
     pytest.param("a:b.png", "a_b.png", "a_b", marks=posix),
     pytest.param("\u00e9.png", "e\u0301.png", "\u00e9", marks=posix)],
)  # fmt: skip
def test_two_images_that_would_share_a_file_are_named_before_anything_is_written(
    one: str, other: str, stem: str, model: Path, tmp_path: Path
) -> None:
    folder_of(tmp_path / "in", [f"x/{one}", f"x/{other}", "y/a.png"])
    first, second = sorted([one, other])
    with pytest.raises(UsageError) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    assert str(error.value).startswith(f"x/{first} and x/{second} would both be written as ")
    assert str(error.value).endswith(
        "\nSome systems cannot tell such names apart: rename one, or use --layout webdataset."
    )
    assert not (tmp_path / "out").exists()
    assert translate(model, tmp_path / "in", tmp_path / "out", layout="webdataset").complete


def test_one_name_in_two_classes_is_no_clash(model: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", ["x/a.png", "y/a.png", "y/A b.c.png"])
    translate(model, tmp_path / "in", tmp_path / "out")
    assert names_of(tmp_path / "out") == ["x/a.png", "y/A b.c.png", "y/a.png"]


@posix
def test_classes_that_would_share_a_folder_are_refused(model: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", ["Cat/a.png", "cat/b.png"])
    with pytest.raises(UsageError, match=r"classes 'Cat' and 'cat' would share the folder 'cat'\nUse --layout webdata"):
        translate(model, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@posix
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\nb.png", "the name 'a\\nb.png' holds characters that cannot be printed\nRename the file."),
        ("\x1b[31m.png", "the name '\\x1b[31m.png' holds characters"),
        (os.fsdecode(b"\xff.png"), "the name '\\udcff.png' holds characters that cannot be printed"),
        ("é" * 101 + ".png", "the name of " + "é" * 101 + ".png is too long: 202 bytes\nRename it."),
    ],
)
def test_names_that_cannot_be_kept_are_refused(name: str, message: str, model: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", ["a.png"])
    (tmp_path / "in/a.png").rename(tmp_path / "in" / name)
    with pytest.raises(UsageError) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    assert str(error.value).startswith(message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("photo 1", "photo 1"), ("été", "été"), ("靴", "靴"), ("a:b?c", "a_b_c"), ("a/../b", "a_.._b"), ("..", "_"),
        (".hidden", "_hidden"), ("dot.", "dot_"), (" blank ", "_blank_"), ("v1.5", "v1.5"), ("NUL", "NUL_"),
        ("com1.x", "com1_.x"), ("contour", "contour"), ("", "_"),
    ],
)  # fmt: skip
def test_names_are_mended_for_every_system(name: str, stem: str) -> None:
    assert file_stem(name) == stem
    assert file_stem(stem) == stem
