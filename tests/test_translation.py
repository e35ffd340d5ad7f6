"""Datasets made of images: what goes in, what comes out, and that both are what was asked for."""

from __future__ import annotations

import dataclasses
import getpass
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ganrt
from ganrt.errors import DatasetMismatch, UsageError
from ganrt.parts import read_parts
from ganrt.translation_plan import TranslationPlan
from tests.datasets import LAYOUTS, contents, differences, files, folders, image_files, images, marks, members
from tests.datasets import make as generate
from tests.models import tiny_model
from tests.pictures import (
    folder_of,
    looking_around,
    picture,
    translate,
    translator_file,
    two_classes,
    write_picture,
)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return translator_file(tmp_path_factory.mktemp("models"), scale=2)


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """Seven cats and fourteen dogs, 8x8."""
    two_classes(tmp_path / "cats")
    return tmp_path / "cats"


def made_by(model: Path, pictures: list[Any]) -> list[Any]:
    """What a translator makes of each image alone."""
    loaded = ganrt.load_translator(model, device="cpu", threads=1)
    return [loaded(pixels[None])[0] for pixels in pictures]


def manifest(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "ganrt.json").read_bytes())
    return found


# What comes out -----------------------------------------------------------------------------------------------------


def test_a_folder_keeps_names_and_classes_and_holds_what_the_network_makes(
    model: Path, cats: Path, tmp_path: Path
) -> None:
    pictures = two_classes(cats)
    report = translate(model, cats, tmp_path / "out")
    assert (report.images, report.already, report.total, report.complete) == (21, 0, 21, True)
    assert (report.model, report.layout, report.format, report.batch, report.shard_size) == (
        "tiny",
        "folder",
        "png",
        4,
        8,
    )
    found = images(tmp_path / "out", "folder")
    assert list(found) == list(pictures)
    for mine, wanted in zip(found.values(), made_by(model, list(pictures.values())), strict=True):
        np.testing.assert_array_equal(mine, wanted)
        assert mine.shape == (16, 16, 3)
    told = manifest(tmp_path / "out")["parts"][0]
    assert told["per_class"] == {"cat": 7, "dog": 14}
    assert (told["plan"]["kind"], told["plan"]["images"], told["plan"]["scale"]) == ("translation", 21, 2)
    assert "names" not in told["plan"]  # they are in the ledger


def test_webdataset_says_what_each_sample_was_made_of(model: Path, cats: Path, tmp_path: Path) -> None:
    pictures = two_classes(cats)
    translate(model, cats, tmp_path / "out", layout="webdataset")
    found = members(tmp_path / "out")
    wanted = made_by(model, list(pictures.values()))
    for index, name in enumerate(pictures):
        y, class_name = (0, "cat") if index < 7 else (1, "dog")
        told = {"index": index, "source": name, "label": y, "class_name": class_name}
        assert json.loads(found[f"{index:08d}.json"]) == told
        assert found[f"{index:08d}.cls"] == b"%d" % y
        np.testing.assert_array_equal(images(tmp_path / "out", "webdataset")[f"{index:08d}.png"], wanted[index])
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == [f"{k:06d}.tar" for k in range(3)]


def test_arrays_are_in_the_order_of_names(model: Path, cats: Path, tmp_path: Path) -> None:
    pictures = two_classes(cats)
    translate(model, cats, tmp_path / "out", layout="npy")
    assert np.load(tmp_path / "out/labels.npy").tolist() == [0] * 7 + [1] * 14
    np.testing.assert_array_equal(np.load(tmp_path / "out/images.npy"), made_by(model, list(pictures.values())))


def test_images_directly_in_a_folder_have_no_classes(model: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", ["b.png", "a.bmp", "F.webp", "c.JPG", "d.tiff", "e.gif"])
    translate(model, tmp_path / "in", tmp_path / "out")
    assert sorted(images(tmp_path / "out", "folder")) == ["F.png", "a.png", "b.png", "c.png", "d.png", "e.png"]
    assert not folders(tmp_path / "out")
    assert manifest(tmp_path / "out")["parts"][0]["per_class"] == {}


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_other_formats_have_their_endings(format: str, model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "out", format=format, quality=80)
    end = {"jpeg": ".jpg", "webp": ".webp"}[format]
    assert len(list((tmp_path / "out").glob(f"*/* photo{end}"))) == 21
    assert ganrt.verify(tmp_path / "out") == []


def test_huggingface_and_webdataset_read_the_classes(
    model: Path, cats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets
    import webdataset

    translate(model, cats, tmp_path / "folder")
    translate(model, cats, tmp_path / "tars", layout="webdataset")
    rows = datasets.load_dataset(str(tmp_path / "folder"), cache_dir=str(tmp_path / "cache"))["train"]
    names = rows.features["label"].names
    rows = rows.cast_column("image", datasets.Image(decode=False))
    found = {Path(row["image"]["path"]).name: names[row["label"]] for row in rows}
    assert found == {path.name: path.parent.name for path in (tmp_path / "folder").glob("*/*.png")}
    assert len(found) == 21
    archives = sorted(map(str, (tmp_path / "tars").glob("*.tar")))
    samples = list(webdataset.WebDataset(archives, shardshuffle=False).decode("pil"))
    assert [s["json"]["class_name"] for s in samples] == ["cat"] * 7 + ["dog"] * 14
    assert [s["cls"] for s in samples] == [0] * 7 + [1] * 14


@every_layout
def test_any_number_of_workers_writes_the_same_bytes(layout: str, model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "one", layout=layout, workers=1)
    translate(model, cats, tmp_path / "many", layout=layout, workers=7)
    assert differences(tmp_path / "one", tmp_path / "many") == []
    assert ganrt.verify(tmp_path / "one") == []


def test_nothing_tells_where_or_by_whom_it_was_made(model: Path, cats: Path, tmp_path: Path) -> None:
    for layout in LAYOUTS:
        translate(model, cats, tmp_path / layout, layout=layout)
        for path in files(tmp_path / layout):
            data = path.read_bytes()
            words = (str(tmp_path), tmp_path.name, f"/{socket.gethostname()}", f"{getpass.getuser()}/", "cats")
            for word in words:
                assert word.encode() not in data, (path, word)


def test_the_readme_says_what_it_was_made_of_and_how(model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "made of another image by a generative adversarial network" in text
    assert "- made of: 21 images (BLAKE2b of their names and contents " in text
    assert "- images: 16x16 pixels, RGB, png\n- scale: 2 times the sides" in text
    assert "\nganrt translate tiny IMAGES DIR --layout folder --format png --shard-size 8 --batch 4\n" in text
    assert "| 1 | dog | dog | 14 |" in text


def test_the_mark_is_in_each_image_unless_it_is_left_out(model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "with")
    translate(model, cats, tmp_path / "without", mark=False)
    assert all(b"trainedAlgorithmicMedia" in path.read_bytes() for path in image_files(tmp_path / "with"))
    assert not any(b"trainedAlgorithmicMedia" in path.read_bytes() for path in image_files(tmp_path / "without"))


def test_a_preview_shows_images_of_several_sizes(tmp_path: Path) -> None:
    model = translator_file(tmp_path, dynamic=True)
    for seed, (width, height) in enumerate([(8, 8), (20, 10), (600, 30)]):
        write_picture(tmp_path / "in" / f"{seed}.png", picture(seed, width, height))
    translate(model, tmp_path / "in", tmp_path / "out")
    grid = ganrt.preview(tmp_path / "out", cols=3)
    assert grid.shape == (2 + 26 + 2, 2 + 3 * (512 + 2), 3)  # the largest, which is 600 wide, is shown in 512
    np.testing.assert_array_equal(grid[2:10, 2:10], images(tmp_path / "out", "folder")["0.png"])


# A dataset of ganrt's goes in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", LAYOUTS)
@pytest.mark.parametrize("mine", LAYOUTS)
def test_a_dataset_in_any_layout_becomes_one_in_any(theirs: str, mine: str, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    source.write_bytes(tiny_model(class_names=("a", "b/c", "d"), name="source"))
    generate(source, tmp_path / "in", 30, layout=theirs, classes=["d", "b/c"], start=5, batch=4, shard_size=12)
    translate(model, tmp_path / "in", tmp_path / "out", layout=mine)
    told = manifest(tmp_path / "out")["parts"][0]
    assert told["per_class"] == {"a": 0, "b/c": 15, "d": 15}
    wanted = made_by(model, list(ganrt.load(source, "cpu", 4, 1).sample(30, start=5, classes=["d", "b/c"])))
    found = images(tmp_path / "out", mine)
    labels = [1 if index % 2 else 2 for index in range(5, 35)]
    if mine == "folder":
        names = [f"{'b_c' if y == 1 else 'd'}/{index:08d}.png" for index, y in zip(range(5, 35), labels, strict=True)]
        found = {name: found[name] for name in names}
    if mine == "npy":
        assert np.load(tmp_path / "out/labels.npy").tolist() == labels
    if mine == "webdataset":
        source_name = {"folder": "b_c/00000005.png", "webdataset": "000000.tar/00000005", "npy": "images.npy/00000005"}
        told = json.loads(members(tmp_path / "out")["00000000.json"])
        assert told == {"index": 0, "source": source_name[theirs], "label": 1, "class_name": "b/c"}
    assert len(found) == 30
    for image, right in zip(found.values(), wanted, strict=True):
        assert np.abs(image.astype(int) - right).max() <= 1
    assert ganrt.verify(tmp_path / "out") == []


def test_a_translated_dataset_is_translated_again(tmp_path: Path) -> None:
    model = translator_file(tmp_path, dynamic=True)
    for seed, width in enumerate((8, 9, 9, 10)):
        write_picture(tmp_path / "in" / f"n{seed}.png", picture(seed, width))
    for layout in ("folder", "webdataset"):
        translate(model, tmp_path / "in", tmp_path / layout, layout=layout)
        translate(model, tmp_path / layout, tmp_path / f"twice-{layout}")
    twice = images(tmp_path / "twice-folder", "folder")
    assert list(twice) == ["n0.png", "n1.png", "n2.png", "n3.png"]
    again = images(tmp_path / "twice-webdataset", "folder")
    for mine, theirs in zip(twice.values(), again.values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_unfinished_or_damaged_dataset_is_refused(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    source.write_bytes(tiny_model(class_names=()))
    generate(source, tmp_path / "in", 30, shard="0/2", batch=4, shard_size=8)
    with pytest.raises(ganrt.DatasetError) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    assert str(error.value) == (
        f"the dataset of {tmp_path / 'in'} lacks 14 of 30 images\n"
        "Finish it first: give the ganrt generate command that made it again."
    )
    generate(source, tmp_path / "in", 30, shard="1/2", batch=4, shard_size=8)
    (tmp_path / "in/00000003.png").write_bytes(b"changed")
    with pytest.raises(ganrt.DatasetDamaged) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    assert str(error.value).startswith(f"{tmp_path / 'in'}: 00000003.png is not as it was written: changed: 7 bytes, ")
    assert str(error.value).endswith(f"\nMend the dataset first: ganrt verify {tmp_path / 'in'} --repair")
    assert not (tmp_path / "out").exists()


# Which of several kinds of dataset a folder holds -------------------------------------------------------------------


def test_a_translated_dataset_shares_its_folder_with_no_other(model: Path, cats: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    source.write_bytes(tiny_model())
    translate(model, cats, tmp_path / "out")
    with pytest.raises(
        DatasetMismatch, match=r"holds another dataset:\n  made by ganrt generate, there by ganrt translate\n"
    ):
        generate(source, tmp_path / "out", 10)
    with pytest.raises(DatasetMismatch, match="has the dataset, which ganrt translate made; this one is of ganrt gen"):
        generate(source, tmp_path / "out", 10, part="b")
    generate(source, tmp_path / "other", 10, part="b")
    with pytest.raises(DatasetMismatch, match="has part b, which ganrt generate made; .*\n.*shares no folder"):
        translate(model, cats, tmp_path / "other")


def test_overwrite_removes_what_ganrt_wrote_and_nothing_else(model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "out", layout="npy")
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(DatasetMismatch, match="layout: folder, there npy"):
        translate(model, cats, tmp_path / "out")
    translate(model, cats, tmp_path / "out", overwrite=True)
    translate(model, cats, tmp_path / "out", overwrite=True, layout="webdataset")
    (tmp_path / "out/mine.txt").unlink()
    translate(model, cats, tmp_path / "fresh", layout="webdataset")
    assert differences(tmp_path / "out", tmp_path / "fresh") == []


def test_a_complete_dataset_is_left_as_it_is(model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "out")
    before = marks(tmp_path / "out")
    report = translate(model, cats, tmp_path / "out")
    assert (report.images, report.already, report.device, report.complete) == (0, 21, None, True)
    assert marks(tmp_path / "out") == before


Change = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: write_picture(d / "dog/new.png", picture(99)), "  dog/new.png was not there then\n"),
        (lambda d: (d / "cat/00 photo.png").unlink(), "  cat/00 photo.png is not there now\n"),
        (lambda d: write_picture(d / "cat/00 photo.png", picture(98)), "the same names: some have changed\n"),
        (lambda d: (d / "cat").rename(d / "cow"), "  class_names: ['cow', 'dog'], there ['cat', 'dog']\n"),
    ],
    ids=["more", "fewer", "changed", "renamed"],
)
def test_other_images_under_the_same_folder_are_refused(
    change: Change, told: str, model: Path, cats: Path, tmp_path: Path
) -> None:
    translate(model, cats, tmp_path / "out")
    before = contents(tmp_path / "out")
    change(cats)
    with pytest.raises(DatasetMismatch) as error:
        translate(model, cats, tmp_path / "out")
    assert error.value.exit_code == 3
    assert f"{tmp_path / 'out'} holds another dataset:\n" in str(error.value) and told in str(error.value)
    assert str(error.value).endswith("\nName another folder, or replace it with --overwrite.")
    assert contents(tmp_path / "out") == before


# Networks that enlarge, and those that do not -------------------------------------------------------------------------


def test_upscale_is_translate_with_a_network_that_enlarges(model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "one")
    ganrt.upscale(model, cats, out=tmp_path / "two", device="cpu", batch=4, shard_size=8)
    assert differences(tmp_path / "one", tmp_path / "two") == []
    same = translator_file(tmp_path, "same")
    with pytest.raises(UsageError) as error:
        ganrt.upscale(same, cats, out=tmp_path / "out", device="cpu")
    assert str(error.value) == (
        "generator same makes images of the size it is given: it enlarges nothing\nUse ganrt translate."
    )
    (tmp_path / "latents.onnx").write_bytes(tiny_model(name="latents"))
    with pytest.raises(UsageError, match="generator latents is latent-to-image: it takes latents, not images\n"):
        translate(tmp_path / "latents.onnx", cats, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Sizes --------------------------------------------------------------------------------------------------------------


def test_images_of_another_size_are_counted_and_named_before_anything_is_written(
    model: Path, cats: Path, tmp_path: Path
) -> None:
    for seed, (width, height) in enumerate([(9, 8), (8, 7), (20, 30), (1, 1)]):
        write_picture(cats / "ant" / f"{seed}.png", picture(seed, width, height))
    with pytest.raises(UsageError) as error:
        translate(model, cats, tmp_path / "out")
    assert str(error.value) == (
        f"generator tiny takes images of 8x8; 4 of 25 in {cats} have another size: "
        "ant/0.png is 9x8, ant/1.png is 8x7, ant/2.png is 20x30, …\n"
        "Let them be made to fit: --resize crop keeps the middle, --resize stretch all of it."
    )
    assert not (tmp_path / "out").exists()


def test_resize_keeps_the_middle_or_stretches(tmp_path: Path) -> None:
    model = translator_file(tmp_path)
    wide = picture(0, 24, 12)
    write_picture(tmp_path / "in/wide.png", wide)
    write_picture(tmp_path / "in/fits.png", fits := picture(1))
    write_picture(tmp_path / "in/tall.png", tall := picture(2, 8, 11))
    for how, resample in (("crop", None), ("stretch", "bilinear")):
        translate(model, tmp_path / "in", tmp_path / how, resize=how, resample=resample, layout="npy")
    whole = Image.fromarray(wide)
    lanczos, bilinear = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR
    middle = [
        fits,
        Image.fromarray(tall).resize((8, 8), lanczos, (0, 1.5, 8, 9.5)),
        whole.resize((8, 8), lanczos, (6, 0, 18, 12)),
    ]
    stretched = [fits, Image.fromarray(tall).resize((8, 8), bilinear), whole.resize((8, 8), bilinear)]
    for how, wanted in (("crop", middle), ("stretch", stretched)):
        np.testing.assert_array_equal(
            np.load(tmp_path / how / "images.npy"), made_by(model, [np.asarray(image) for image in wanted])
        )
    assert "was resized to 8x8: all of them, bilinear" in (tmp_path / "stretch/README.md").read_text()


def test_a_network_of_any_size_makes_images_of_several_sizes(tmp_path: Path) -> None:
    model = translator_file(tmp_path, dynamic=True, scale=2)
    sizes = [(8, 8), (8, 8), (5, 9), (8, 8), (8, 8), (8, 8), (1, 1), (30, 2), (30, 2)]
    pictures = [picture(seed, *size) for seed, size in enumerate(sizes)]
    for seed, pixels in enumerate(pictures):
        write_picture(tmp_path / "in" / f"{seed}.png", pixels)
    for layout in ("folder", "webdataset"):
        translate(model, tmp_path / "in", tmp_path / layout, layout=layout)
        found = images(tmp_path / layout, layout)
        for image, wanted in zip(found.values(), made_by(model, pictures), strict=True):
            np.testing.assert_array_equal(image, wanted)
        assert ganrt.verify(tmp_path / layout) == []
        assert manifest(tmp_path / layout)["parts"][0]["plan"]["size"] is None
    with pytest.raises(UsageError) as error:
        translate(model, tmp_path / "in", tmp_path / "npy", layout="npy")
    assert str(error.value) == (
        "layout npy needs images of one size: 0.png is 8x8, 2.png 5x9\nUse folder or webdataset."
    )


def test_a_batch_has_images_of_one_size_and_fewer_of_large_ones(tmp_path: Path) -> None:
    model = translator_file(tmp_path, dynamic=True, scale=2)
    write_picture(tmp_path / "in/a.png", picture(0))
    assert ganrt.translate(model, tmp_path / "in", out=tmp_path / "small", device="cpu").batch == 16
    write_picture(tmp_path / "in/b.png", picture(0, 1200, 1000))
    report = ganrt.translate(model, tmp_path / "in", out=tmp_path / "large", device="cpu")
    assert (report.batch, report.shard_size) == (2, 512)


# Tiles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius", "tile", "overlap"), [(1, 7, 2), (3, 16, 6), (3, 16, 7), (2, 9, 8), (5, 40, 10)])
@pytest.mark.parametrize("scale", [1, 2])
def test_tiles_that_overlap_enough_make_what_the_whole_makes(
    radius: int, tile: int, overlap: int, scale: int, tmp_path: Path
) -> None:
    model = translator_file(tmp_path, data=looking_around(radius, scale))
    for seed, (width, height) in enumerate([(50, 31), (16, 90), (7, 7), (9, 40), (41, 17)]):
        write_picture(tmp_path / "in" / f"{seed}.png", picture(seed, width, height, 1))
    translate(model, tmp_path / "in", tmp_path / "whole")
    translate(model, tmp_path / "in", tmp_path / "tiles", tile=tile, overlap=overlap)
    whole, tiles = images(tmp_path / "whole", "folder"), images(tmp_path / "tiles", "folder")
    for name in whole:
        np.testing.assert_array_equal(tiles[name], whole[name], name)
    assert f"tiles of {tile} pixels that overlap by {overlap}" in (tmp_path / "tiles/README.md").read_text()


def test_tiles_that_overlap_too_little_show_seams_and_only_there(tmp_path: Path) -> None:
    model = translator_file(tmp_path, data=looking_around(3))
    write_picture(tmp_path / "in/a.png", picture(0, 50, 8, 1))
    translate(model, tmp_path / "in", tmp_path / "whole")
    translate(model, tmp_path / "in", tmp_path / "tiles", tile=20, overlap=2)
    whole, tiles = (images(tmp_path / name, "folder")["a.png"] for name in ("whole", "tiles"))
    wrong = np.flatnonzero((whole != tiles).any(axis=(0, 2)))
    # Tiles begin at 0, 18 and 30, and share the overlap: seams before column 19 and before column 34.
    assert wrong.size and set(wrong) <= {*range(17, 21)}


def test_sides_are_padded_to_multiples_and_the_result_is_cropped(tmp_path: Path) -> None:
    from tests.test_translator import halving

    model = translator_file(tmp_path, data=halving(dynamic=True))
    odd = picture(0, 13, 7)
    write_picture(tmp_path / "in/a.png", odd)
    with pytest.raises(ganrt.InferenceError) as error:
        translate(model, tmp_path / "in", tmp_path / "out")
    assert str(error.value) == (
        "a.png (13x7): generator tiny made uint8 [1, 6, 12, 3], not uint8 [1, 7, 13, 3]\n"
        "The network may not take this size: try sides that are multiples of 32. "
        "--multiple 32 pads the sides, --tile 256 runs the image in pieces."
    )
    translate(model, tmp_path / "in", tmp_path / "padded", multiple=4)
    wanted = made_by(model, [np.pad(odd, ((0, 1), (0, 3), (0, 0)), mode="edge")])[0][:7, :13]
    np.testing.assert_array_equal(images(tmp_path / "padded", "folder")["a.png"], wanted)
    translate(model, tmp_path / "in", tmp_path / "tiles", multiple=4, tile=8, overlap=0)
    np.testing.assert_array_equal(images(tmp_path / "tiles", "folder")["a.png"], wanted)


@pytest.mark.parametrize(
    ("dynamic", "options", "message"),
    [
        (False, {"resize": "fit"}, "resize 'fit'\nExpected crop or stretch."),
        (False, {"resample": "lanczos"}, "resample does not apply without resize\n"),
        (False, {"resize": "crop", "resample": "cubic"}, "resample 'cubic'\nExpected nearest, bilinear, lanczos."),
        (False, {"tile": 4}, "tile does not apply: generator tiny takes images of 8x8 alone\nLeave it out; --resize"),
        (
            False,
            {"multiple": 4, "resize": "crop"},
            "multiple does not apply: generator tiny takes images of 8x8 alone\n",
        ),
        (True, {"resize": "crop"}, "resize does not apply: generator tiny takes any size\nLeave it out."),
        (True, {"overlap": 4}, "overlap does not apply without tile\n"),
        (True, {"tile": 0}, "tile 0\nExpected a whole number of 1 to 16384."),
        (True, {"tile": 8, "overlap": 8}, "overlap 8 leaves nothing of a tile of 8\nExpected at most 7."),
        (True, {"tile": 8, "overlap": -1}, "overlap -1\nExpected a whole number"),
        (True, {"tile": 8, "multiple": 3}, "tile 8 is no multiple of 3\n"),
        (True, {"multiple": 0}, "multiple 0\nExpected a whole number of 1 to 1024."),
        (True, {"layout": "zip"}, "layout 'zip'\nExpected folder, webdataset, npy."),
        (True, {"layout": "npy", "format": "png"}, "format does not apply to layout npy\n"),
        (True, {"quality": 90}, "quality does not apply to png, which loses nothing\n"),
        (True, {"shard_size": 10}, "shard size 10 is no multiple of the batch 4\n8 would be one."),
        (True, {"workers": 0}, "workers 0\n"),
        (True, {"device": "gpu"}, "device 'gpu'\n"),
    ],
)
def test_options_that_cannot_be_meant(
    dynamic: bool, options: dict[str, Any], message: str, cats: Path, tmp_path: Path
) -> None:
    model = translator_file(tmp_path, dynamic=dynamic)
    with pytest.raises(UsageError) as error:
        translate(model, cats, tmp_path / "out", **options)
    assert str(error.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_images_that_would_become_too_large_are_named_before_anything_is_written(tmp_path: Path) -> None:
    model = translator_file(tmp_path, dynamic=True, scale=16)
    write_picture(tmp_path / "in/a.png", picture(0, 1100, 2, 1))
    with pytest.raises(
        UsageError, match=r"a\.png would become 17600x32 pixels: more than 16,383 a side, as webp has\n"
    ):
        translate(model, tmp_path / "in", tmp_path / "out", format="webp")
    write_picture(tmp_path / "in/b.png", picture(0, 900, 900, 1))
    with pytest.raises(UsageError, match=r"b\.png would become 14400x14400 pixels: more than 178,956,970, as most"):
        translate(model, tmp_path / "in", tmp_path / "out")


# The plan -----------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "model": "other", "model_digest": "1" * 64, "class_names": ("cat", "cow"), "in_channels": 1, "channels": 1,
    "scale": 3, "names": ("x.png",) * 21, "label_list": (0,) * 21, "inputs": "0" * 32, "size": None, "resize": "crop",
    "resample": "nearest", "tile": 4, "overlap": 1, "multiple": 2, "layout": "webdataset", "format": "jpeg",
    "quality": 80, "mark": False, "shard_size": 16, "batch": 8,
}  # fmt: skip


def test_the_fingerprint_tells_plans_apart_by_every_field(model: Path, cats: Path, tmp_path: Path) -> None:
    translate(model, cats, tmp_path / "out")
    plan = read_parts(tmp_path / "out")[""].plan
    assert isinstance(plan, TranslationPlan)
    assert set(CHANGES) == {f.name for f in dataclasses.fields(plan) if f.init} - {"part"}, "name a change of it here"
    others = [dataclasses.replace(plan, **{name: value}) for name, value in CHANGES.items()]
    assert len({plan.fingerprint(), *(other.fingerprint() for other in others)}) == len(CHANGES) + 1
    again = TranslationPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and again.fingerprint() == plan.fingerprint()
