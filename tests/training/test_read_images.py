"""Folders and zips of image files, through read_images."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ganrt
from ganrt.errors import TrainingError, UsageError
from ganrt_training.data import read_images
from tests.models import tiny_model

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
Pack = Callable[[Path], Path]


def plain(colour: object, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def save(root: Path, **images: Image.Image) -> Path:
    """Writes ``cat__1_png=image`` as ``cat/1.png``."""
    for name, image in images.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return root


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def one(tmp_path: Path, data: bytes | Image.Image, size: int = 8, **options: Any) -> NDArray[np.uint8]:
    """The single image of a folder that holds it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "image.png").write_bytes(data if isinstance(data, bytes) else encoded(data))
    image: NDArray[np.uint8] = read_images(tmp_path / "one", size, **options).images[0]
    return image


def zipped(root: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for found in sorted(root.rglob("*")):
            archive.write(found, found.relative_to(root))
    return path


def zipped_below_a_folder(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for found in sorted(root.rglob("*")):
            archive.write(found, Path("some name") / found.relative_to(root))
        archive.writestr("__MACOSX/some name/._1.png", b"")
    return path


def refused(path: Path, *, says: str, **options: Any) -> TrainingError:
    with pytest.raises(TrainingError) as raised:
        read_images(path, 8, **options)
    assert says in raised.value.message
    assert raised.value.hint
    return raised.value


@pytest.mark.parametrize(
    "pack", [lambda root: root, zipped, zipped_below_a_folder], ids=["folder", "zip", "zip of one"]
)
def test_class_folders_give_sorted_classes_and_images_at_any_depth(tmp_path: Path, pack: Pack) -> None:
    root = save(
        tmp_path / "data", dog__b__2_png=plain(BLUE), dog__10_JPG=plain("white"), cat__1_webp=plain(RED),
        dog__a_gif=plain(GREEN).quantize(),
    )  # fmt: skip
    for junk in (".DS_Store", "cat/.hidden.png", "cat/Thumbs.db", "__MACOSX/cat/._1.png", "notes.txt", ".git/x.png"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_bytes(b"no image")
    calls: list[tuple[int, int]] = []
    data = read_images(pack(root), 8, progress=lambda *call: calls.append(call))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 1, 1]
    assert (data.images.shape, str(data.images.dtype), str(data.labels.dtype)) == ((4, 8, 8, 3), "uint8", "int64")
    seen = data.images[:, 4, 4].astype(int)
    np.testing.assert_allclose(seen, [RED, (255, 255, 255), GREEN, BLUE], atol=3)  # as cat/1, dog/10, dog/a, dog/b/2
    assert data.skipped == ()
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    "pack", [lambda root: root, zipped, zipped_below_a_folder], ids=["folder", "zip", "zip of one"]
)
def test_images_alone_have_no_classes(tmp_path: Path, pack: Pack) -> None:
    root = save(tmp_path / "data", b_png=plain(60, mode="L"), a_bmp=plain(20, mode="L"), c_tif=plain(90, mode="L"))
    data = read_images(pack(root), 8)
    assert (data.class_names, data.labels.tolist()) == ((), [0, 0, 0])
    assert data.images[:, 0, 0, 0].tolist() == [20, 60, 90]


@pytest.mark.parametrize("classes", [(), ("T-shirt/top", "Bag")])
def test_a_dataset_that_ganrt_wrote_is_read(tmp_path: Path, classes: tuple[str, ...]) -> None:
    model = tmp_path / "tiny.onnx"
    model.write_bytes(tiny_model(class_names=classes))
    ganrt.generate(model, n=6, out=tmp_path / "made", device="cpu")
    data = read_images(tmp_path / "made", 8)
    assert len(data) == 6
    assert data.class_names == (("Bag", "T-shirt_top") if classes else ())


def test_folders_called_as_splits_are_splits(tmp_path: Path) -> None:
    root = save(tmp_path / "data", train__a__1_png=plain(1), train__b__1_png=plain(2), test__a__1_png=plain(RED))
    assert (read_images(root, 8).class_names, len(read_images(root, 8))) == (("a", "b"), 2)
    assert read_images(zipped(root), 8, split="test").images[0, 0, 0].tolist() == list(RED)
    refused(save(tmp_path / "other", train__a__1_png=plain(1)), split="test", says="no folder test, but train")
    refused(save(tmp_path / "third", a__1_png=plain(1)), split="test", says="no folder test")


def test_what_cannot_be_meant_in_a_folder_is_told(tmp_path: Path) -> None:
    mixed = save(tmp_path / "mixed", a__1_png=plain(1), loose_png=plain(1))
    refused(mixed, says="images beside class folders: loose.png and a/1.png")
    bare = save(tmp_path / "bare", a__1_png=plain(1))
    (bare / "c" / "d").mkdir(parents=True)
    (bare / "b").mkdir()
    (bare / "b" / "x.txt").touch()
    refused(bare, says="no images in b, c")
    refused(zipped(bare), says="no images in b, c")
    (tmp_path / "nothing").mkdir()
    error = refused(tmp_path / "nothing", says="no images")
    assert all(word in str(error) for word in ("zip", "png", "tiff", "IDX", "CIFAR", "MedMNIST"))
    refused(tmp_path / "absent", says="No such file")
    (tmp_path / "text").write_text("nothing of the kind")
    refused(tmp_path / "text", says="nothing that can be trained on")


@pytest.mark.parametrize("name", ["a\x1b[31m", "‮cba", "n" * 201, " "])
def test_class_names_that_no_card_may_hold_are_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{name}/1.png", encoded(plain(1)))
        file.writestr("fine/1.png", encoded(plain(1)))
    error = refused(archive, says=f"class {name!r} cannot be a class's name")
    assert error.message.isprintable()


def test_more_classes_than_a_card_may_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganrt_training.data.MAX_CLASSES", 2)
    refused(save(tmp_path / "x", a__1_png=plain(1), b__1_png=plain(1), c__1_png=plain(1)), says="3 classes")


def test_links_are_followed_and_may_go_in_circles(tmp_path: Path) -> None:
    root = save(tmp_path / "data", a__1_png=plain(1))
    save(tmp_path / "elsewhere", x_png=plain(2))
    os.symlink(tmp_path / "elsewhere", root / "b")
    os.symlink(root / "a", root / "a" / "again")
    assert read_images(root, 8).labels.tolist() == [0, 1]
    os.symlink("nowhere", root / "a" / "2.png")
    refused(root, says="2.png: cannot be read: No such file")


# What an image is, and what becomes of it.


def test_the_short_side_becomes_the_size_and_the_middle_stays(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = RED, GREEN, BLUE
    for name, pixels in (("wide", wide), ("tall", wide.transpose(1, 0, 2))):
        (tmp_path / name).mkdir()
        image = Image.fromarray(np.ascontiguousarray(pixels))
        middle = one(tmp_path / name, image, 10)
        assert middle.shape == (10, 10, 3)
        assert (middle[3:-3, 3:-3].argmax(axis=2) == 1).all()
        # As resizing all of it and cropping then.
        whole = image.resize((30, 10) if name == "wide" else (10, 30), Image.Resampling.LANCZOS)
        box = (10, 0, 20, 10) if name == "wide" else (0, 10, 10, 20)
        assert np.abs(middle.astype(int) - np.asarray(whole.crop(box))).max() <= 1


@pytest.mark.parametrize("shape", [(4, 4), (40, 40)])
def test_resizing_is_lanczos_up_and_down(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    wanted = Image.fromarray(pixels).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(pixels))[..., 0], np.asarray(wanted))


def test_an_image_that_fits_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(pixels)), pixels[:, :8])


def test_a_strip_does_not_become_huge(tmp_path: Path) -> None:
    assert one(tmp_path, plain(7, (60_000, 1), "L"), 512).shape == (512, 512, 1)


def test_grey_is_found_by_the_pixels_and_may_be_forced(tmp_path: Path) -> None:
    grey = save(tmp_path / "grey", a_png=plain((9, 9, 9)), b_png=plain(200, mode="L"))
    assert read_images(grey, 8).images[:, 0, 0].tolist() == [[9], [200]]
    assert read_images(grey, 8, mode="rgb").images[:, 0, 0].tolist() == [[9] * 3, [200] * 3]
    mixed = save(tmp_path / "mixed", a_png=plain(9, mode="L"), b_png=plain(RED), c_png=plain(7, mode="L"))
    assert read_images(mixed, 8).images[:, 0, 0].tolist() == [[9] * 3, [255, 0, 0], [7] * 3]
    assert read_images(mixed, 8, mode="l").images[:, 0, 0].tolist() == [[9], [76], [7]]


def test_transparency_lies_on_the_background(tmp_path: Path) -> None:
    palette = plain(0, mode="P")
    palette.putpalette([*RED, *GREEN])
    palette.paste(1, (0, 0, 8, 4))
    kinds = {
        "rgba": encoded(plain((0, 0, 0, 0), mode="RGBA")),
        "la": encoded(plain((0, 0), mode="LA")),
        "palette": encoded(palette, transparency=0),
        "grey with one transparent": encoded(plain(5, mode="L"), transparency=5),
        "gif": encoded(palette, "GIF", transparency=0),
    }
    for name, data in kinds.items():
        (tmp_path / name).mkdir()
        seen = one(tmp_path / name, data, background="#0000ff")
        assert seen[6, 6].tolist() == list(BLUE), name
        assert seen[0, 0].tolist() == list(GREEN if name in ("palette", "gif") else BLUE), name
    half = one(tmp_path, plain((*RED, 128), mode="RGBA"))
    assert half[0, 0].tolist() == [255, 127, 127]  # on white


def test_rotation_in_exif_is_applied(tmp_path: Path) -> None:
    image = plain(RED, (8, 16))
    image.paste(BLUE, (0, 8, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it
    seen = one(tmp_path, encoded(image, "JPEG", exif=exif, quality=95), 8)
    np.testing.assert_allclose(seen[4, [0, 7]].astype(int), [BLUE, RED], atol=3)


def test_broken_exif_does_not_spoil_an_image(tmp_path: Path) -> None:
    assert one(tmp_path, encoded(plain(RED), "JPEG", exif=b"Exif\0\0rubbish that is no TIFF")).shape == (8, 8, 3)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    values = np.repeat(np.array([[0, 257, 25700, 65535, 128, 129, 300, 40000]], np.uint16), 8, 0)
    wanted = [0, 1, 100, 255, 0, 1, 1, 156]
    for format in ("PNG", "TIFF"):
        (tmp_path / format).mkdir()
        assert one(tmp_path / format, encoded(Image.fromarray(values), format))[0, :, 0].tolist() == wanted


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (encoded(plain((0, 255, 255, 0), mode="CMYK"), "TIFF"), RED),
        (encoded(plain((0, 255, 255, 0), mode="CMYK"), "JPEG"), (254, 0, 0)),
        (encoded(plain(1, mode="1")), (255,)),
        (encoded(plain(RED).convert("YCbCr"), "TIFF"), (254, 0, 0)),
    ],
    ids=["CMYK TIFF", "CMYK JPEG", "one bit", "YCbCr"],
)
def test_other_kinds_of_pixels_become_rgb_or_grey(tmp_path: Path, data: bytes, wanted: tuple[int, ...]) -> None:
    np.testing.assert_allclose(one(tmp_path, data)[4, 4].astype(int), wanted, atol=1)


def test_only_the_first_frame_counts(tmp_path: Path) -> None:
    data = encoded(plain(RED), "GIF", save_all=True, append_images=[plain(BLUE)])
    assert one(tmp_path, data)[0, 0].tolist() == list(RED)


# What cannot be decoded.


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
CORRUPT = {
    "cut png": (encoded(NOISE)[:-5000], "truncated"),
    "cut jpeg": (encoded(NOISE, "JPEG")[:-1000], "truncated"),
    "broken png": (encoded(NOISE)[:300] + bytes(300) + encoded(NOISE)[600:], ""),
    "empty": (b"", "is empty"),
    "text": (b"version https://git-lfs.github.com/spec/v1", "no image of a kind that is read"),
    "script": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no image of a kind that is read"),
    "bomb": (bomb(9000, 9000), "has 9000x9000 pixels; up to 67,108,864 are decoded"),
    "larger bomb": (bomb(60_000, 60_000), "exceeds limit"),
    "floats": (encoded(plain(0.5, mode="F"), "TIFF"), "convert to 8 or 16"),
}


@pytest.mark.parametrize(("data", "reason"), CORRUPT.values(), ids=CORRUPT.keys())
@pytest.mark.parametrize("pack", [lambda root: root, zipped], ids=["folder", "zip"])
def test_a_corrupt_image_stops_or_is_skipped_by_name(tmp_path: Path, data: bytes, reason: str, pack: Pack) -> None:
    root = save(tmp_path / "data", a__1_png=plain(RED), b__1_png=plain(GREEN), c__1_png=plain(BLUE))
    (root / "b" / "2.png").write_bytes(data)
    path = pack(root)
    refused(path, says=f"{path}/b/2.png: ")
    error = refused(path, says=reason)
    assert "skip" in str(error.hint)
    read = read_images(path, 8, on_corrupt="skip")
    assert read.images[:, 0, 0].tolist() == [list(RED), list(GREEN), list(BLUE)]
    assert read.labels.tolist() == [0, 1, 2]
    assert [text.startswith(f"{path}/b/2.png: ") and reason in text for text in read.skipped] == [True]


def test_a_file_too_large_to_be_an_image_is_not_read(tmp_path: Path) -> None:
    root = save(tmp_path / "data", a_png=plain(1), b_png=plain(1))
    os.truncate(root / "b.png", 1 << 40)
    refused(root, says="b.png: has 1,099,511,627,776 bytes; up to 256 MiB are read")
    assert len(read_images(root, 8, on_corrupt="skip").skipped) == 1


def test_all_images_corrupt_or_all_of_a_class_is_an_error(tmp_path: Path) -> None:
    root = save(tmp_path / "data", a__1_png=plain(1), b__1_png=plain(1))
    (root / "b" / "1.png").write_bytes(b"")
    refused(root, on_corrupt="skip", says="no image of class b can be used")
    (root / "a" / "1.png").write_bytes(b"")
    refused(root, on_corrupt="skip", says="none of 2 images can be used")


def test_many_images_keep_their_order_however_threads_work(tmp_path: Path) -> None:
    for index in range(200):
        large = index % 7 == 0
        save(tmp_path / "data", **{f"{index:03d}_png": plain(index, (300, 300) if large else (8, 8), "L")})
    data = read_images(tmp_path / "data", 8)
    assert data.images[:, 4, 4, 0].tolist() == list(range(200))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size 0"),
        ({"mode": "rgba"}, "mode 'rgba'\nExpected l or rgb"),
        ({"on_corrupt": "ignore"}, "on_corrupt 'ignore'\nExpected stop or skip"),
        ({"split": "val"}, "split 'val'\nExpected train or test"),
        ({"background": "greenish"}, "background 'greenish'\nExpected a colour's name"),
        ({"background": "#ff000080"}, "background '#ff000080'"),
    ],
)
def test_arguments_that_cannot_be_meant_are_usage_errors(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_images(tmp_path, **({"size": 8} | options))


def test_what_progress_raises_ends_the_reading(tmp_path: Path) -> None:
    class Stop(OSError):
        pass

    def progress(done: int, total: int) -> None:
        raise Stop

    for path in (save(tmp_path / "data", a_png=plain(1)), zipped(tmp_path / "data")):
        with pytest.raises(Stop):
            read_images(path, 8, progress=progress)
