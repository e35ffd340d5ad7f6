"""Finding generators, previews of generators and datasets, and forecasts of runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ganrt
from ganrt.errors import DatasetError, DatasetMismatch, StorageFull, UnknownClass, UnknownModel, UsageError
from ganrt.models import find_model
from tests.models import float_nchw_proto, tiny_card, tiny_model, tiny_translator, tiny_translator_card

Pixels = NDArray[np.uint8]


def saved(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_model(**options))
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> ganrt.Generator:
    return ganrt.load(saved(tmp_path / "models" / "tiny.onnx"), device="cpu", batch=8, threads=1)


# Where generators live ----------------------------------------------------------------------------------------------


def test_generators_are_listed_from_their_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = saved(tmp_path / "1" / "cats.onnx", name="felis"), saved(tmp_path / "2" / "dogs.onnx")
    monkeypatch.setenv("GANRT_MODELS", os.pathsep.join(map(str, (tmp_path / "1", tmp_path / "2", tmp_path / "none"))))
    listed = {model.name: model for model in ganrt.list_models()}
    assert listed["cats"] == ganrt.Model("cats", first, first.stat().st_size, tiny_card(name="felis"), "")
    assert listed["dogs"].path == second
    assert [model.name for model in ganrt.list_models(tmp_path / "2")] == ["dogs"]
    (tmp_path / "empty").mkdir()
    assert ganrt.list_models(tmp_path / "empty") == []
    with pytest.raises(UsageError, match=r"none is no folder\nName folders that hold \.onnx files"):
        ganrt.list_models(tmp_path / "none")


def test_generators_of_images_are_listed_with_whether_they_take_any_size(tmp_path: Path) -> None:
    (tmp_path / "fixed.onnx").write_bytes(tiny_translator(scale=2))
    (tmp_path / "larger.onnx").write_bytes(tiny_translator(scale=2, dynamic=True))
    listed = {model.name: (model.card, model.dynamic, model.problem) for model in ganrt.list_models(tmp_path)}
    card = tiny_translator_card(scale=2)
    assert listed == {"fixed": (card, False, ""), "larger": (card, True, "")}


def test_broken_files_are_listed_with_what_is_wrong(tmp_path: Path) -> None:
    saved(tmp_path / "good.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "float.onnx").write_bytes(float_nchw_proto().SerializeToString())
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "gone.onnx").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no model")
    listed = {model.name: model for model in ganrt.list_models(tmp_path)}
    assert list(listed) == ["empty", "float", "folder", "gone", "good"]
    assert listed["empty"].problem.endswith("empty.onnx is empty")
    assert "does not follow the ganrt contract" in listed["float"].problem
    assert listed["folder"].problem.endswith("folder.onnx is a folder")
    assert listed["gone"].problem.startswith("there is no file ")
    assert [model.card is not None for model in listed.values()] == [False, False, False, False, True]
    assert listed["good"].problem == ""


def test_a_name_is_found_in_the_first_folder_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = saved(tmp_path / "1" / "fashion.onnx", name="first")
    saved(tmp_path / "2" / "fashion.onnx", name="second")
    monkeypatch.setenv("GANRT_MODELS", f"{tmp_path / '1'}{os.pathsep}{tmp_path / '2'}")
    assert find_model("fashion") == mine
    assert [m.card.name for m in ganrt.list_models() if m.name == "fashion" and m.card] == ["first"]


def test_a_name_never_means_a_file_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path has a separator, ends in .onnx, or is a Path; anything else is a name."""
    mine = saved(tmp_path / "here.onnx")
    shutil.copy(mine, tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    for path in ("here.onnx", "./here", str(tmp_path / "here"), Path("here"), Path("here.onnx")):
        assert find_model(path).samefile(path)
    shutil.copy(mine, tmp_path / "HERE.ONNX")
    assert find_model("HERE.ONNX") == Path("HERE.ONNX")
    with pytest.raises(UnknownModel) as error:
        find_model("here")
    assert "no model named 'here'\n" in str(error.value)
    assert str(error.value).endswith("A file is given by its path, as in ./here.onnx.")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashoin", "no model named 'fashoin'\nDid you mean fashion? There are: "),
        ("xyzzy", "no model named 'xyzzy'\nThere are: "),
        ("gone.onnx", "model gone.onnx: there is no such file\nGive the path of an .onnx file or a name that"),
        ("a/folder", "model a/folder: is a folder\n"),
        ("pipe.onnx", "model pipe.onnx: is no regular file\n"),
    ],
)
def test_models_that_are_not_there(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "models" / "fashion.onnx")
    (tmp_path / "a" / "folder").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANRT_MODELS", "models")
    with pytest.raises(UnknownModel) as error:
        ganrt.load(name)
    assert str(error.value).startswith(message)
    assert error.value.exit_code == 2


# Previews -----------------------------------------------------------------------------------------------------------


def cell(grid: Pixels, row: int, col: int, width: int = 8, height: int = 8) -> Pixels:
    top, left = 2 + row * (height + 2), 2 + col * (width + 2)
    return grid[top : top + height, left : left + width]


def test_each_cell_of_a_preview_is_the_sample_of_its_class(tiny: ganrt.Generator, tmp_path: Path) -> None:
    grid = ganrt.preview(tiny, tmp_path / "grid.png", cols=4, seed=3)
    assert grid.shape == (3 * 10 + 2, 4 * 10 + 2, 3)
    images = tiny.sample(12, seed=3)
    for row in range(3):
        for col in range(4):
            assert np.array_equal(cell(grid, row, col), images[col * 3 + row])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), grid)
    gaps = np.ones(grid.shape[:2], bool)
    for row in range(3):
        for col in range(4):
            cell(gaps[:, :, None].view(np.uint8), row, col)[:] = 0
    assert (grid[gaps] == 255).all()


def test_a_preview_of_some_classes_shows_them_in_that_order(tiny: ganrt.Generator) -> None:
    grid = ganrt.preview(tiny, cols=2, classes=["c", "a"])
    images = tiny.sample(4, classes=["c", "a"])
    assert all(np.array_equal(cell(grid, r, c), images[c * 2 + r]) for r in range(2) for c in range(2))
    one_row = ganrt.preview(tiny, cols=2, rows=1, classes=["c", "a"])
    assert np.array_equal(one_row, grid[: len(one_row)])
    assert len(one_row) == 12


def test_a_preview_without_classes_reads_like_text(tmp_path: Path) -> None:
    path = saved(tmp_path / "plain.onnx", class_names=(), width=5, height=7, channels=1)
    grid = ganrt.preview(path, rows=2, cols=3, device="cpu")
    images = ganrt.load(path, device="cpu").sample(6)
    assert all(np.array_equal(cell(grid, r, c, 5, 7), images[3 * r + c]) for r in range(2) for c in range(3))


@pytest.mark.parametrize("layout", ["folder", "webdataset", "npy"])
@pytest.mark.parametrize("class_names", [("a", "b", "c"), ()])
def test_a_preview_of_a_dataset_is_that_of_its_generator(
    layout: str, class_names: tuple[str, ...], tmp_path: Path
) -> None:
    path = saved(tmp_path / "tiny.onnx", class_names=class_names)
    generator = ganrt.load(path, device="cpu", batch=8, threads=1)
    ganrt.generate(generator, n=60, out=tmp_path / "out", layout=layout, shard_size=16, seed=3, workers=1)
    wanted = ganrt.preview(generator, cols=6, seed=3)
    assert np.array_equal(ganrt.preview(tmp_path / "out", cols=6), wanted)


def test_a_preview_of_a_dataset_shows_classes_in_the_plans_order(tiny: ganrt.Generator, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ganrt.generate(tiny, n=8, start=1, out=out, workers=1)  # its first image is of class b
    images = tiny.sample(9)
    grid = ganrt.preview(out, cols=2)
    assert [images[k].tolist() for k in (3, 1, 2)] == [cell(grid, row, 0).tolist() for row in range(3)]
    some = ganrt.preview(out, cols=2, classes="c,0")
    assert [images[k].tolist() for k in (2, 3)] == [cell(some, row, 0).tolist() for row in range(2)]
    with pytest.raises(UnknownClass, match="generator tiny has no class 'd'\nIt has 3: a, b, c"):
        ganrt.preview(out, classes=["d"])


def test_a_preview_shows_the_classes_of_every_part(tiny: ganrt.Generator, tmp_path: Path) -> None:
    other = ganrt.load(saved(tmp_path / "models" / "other.onnx", class_names=("x", "y", "z"), width=4), device="cpu")
    ganrt.generate(tiny, n=9, out=tmp_path / "out", part="one", workers=1)
    ganrt.generate(other, n=9, out=tmp_path / "out", part="two", batch=1, shard_size=1, workers=1, classes=["z", "x"])
    grid = ganrt.preview(tmp_path / "out", cols=1)
    assert grid.shape == (5 * 10 + 2, 12, 3)
    for row, image in enumerate([*tiny.sample(3), *other.sample(2, classes=["z", "x"])]):
        assert np.array_equal(cell(grid, row, 0, width=image.shape[1]), image)
    with pytest.raises(DatasetError, match="has no image of class 'y'\nIt has: a, b, c, z, x"):
        ganrt.preview(tmp_path / "out", classes=["y"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "grid.jpg"}, "grid.jpg does not end in .png\nThe grid is written as PNG."),
        ({"rows": 0}, "rows 0\nExpected a whole number of 1 to 1000."),
        ({"cols": 1001}, "cols 1001\n"),
        ({"seed": -1}, "seed -1\n"),
        ({"classes": ["d"]}, "generator tiny has no class 'd'\n"),
    ],
)
def test_previews_that_cannot_be_meant(tiny: ganrt.Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        ganrt.preview(tiny, **options)
    assert str(error.value).startswith(message)


def test_a_preview_of_a_folder_needs_a_dataset_and_no_seed(tiny: ganrt.Generator, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty holds no ganrt dataset\nName the folder that was given to generate"):
        ganrt.preview(tmp_path / "empty")
    ganrt.generate(tiny, n=3, out=tmp_path / "out", workers=1)
    with pytest.raises(UsageError, match="seed does not apply to a dataset\nLeave it out"):
        ganrt.preview(tmp_path / "out", seed=0)


# Forecasts ----------------------------------------------------------------------------------------------------------


def files_of(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("layout", ["folder", "webdataset", "npy"])
def test_a_forecast_tells_what_a_run_then_writes(layout: str, tiny: ganrt.Generator, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"out": out, "layout": layout, "shard_size": 64, "workers": 1, "start": 5}
    told = ganrt.forecast(tiny, n=300, **options)
    assert not out.exists()
    report = ganrt.generate(tiny, n=300, **options)
    assert (told.images, told.already, told.device, told.batch) == (300, 0, "cpu", 8)
    assert told.files == len(files_of(out))
    assert told.inodes == 1 + len(list(out.rglob("*")))
    assert told.bytes == pytest.approx(report.bytes, rel=0.1)
    assert told.bytes_on_disk >= told.bytes
    assert told.images_per_second > 0

    # A shard that was short is made again when the dataset grows, and counts as such.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    told = ganrt.forecast(tiny, n=500, **options)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    report = ganrt.generate(tiny, n=500, **options)
    assert (told.images, told.already) == (report.images, report.already) == (249, 251)
    assert told.bytes == pytest.approx(report.bytes, rel=0.1)
    assert ganrt.forecast(tiny, n=500, **options).images == 0


def test_a_forecast_of_a_machines_share(tiny: ganrt.Generator, tmp_path: Path) -> None:
    options: dict[str, Any] = {"n": 300, "out": tmp_path / "out", "shard_size": 64, "workers": 1}
    told = [ganrt.forecast(tiny, shard=(k, 3), **options).images for k in range(3)]
    assert told == [64 + 64, 64 + 44, 64]
    ganrt.generate(tiny, shard="1/3", **options)
    assert ganrt.forecast(tiny, shard="1/3", **options).images == 0
    assert ganrt.forecast(tiny, shard="0/3", **options).images == 128


def test_a_forecast_refuses_what_cannot_fit(
    tiny: ganrt.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ganrt.forecast(tiny, n=1000, out=tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=told.bytes_on_disk // 2))
    with pytest.raises(StorageFull, match=r"1,000 images need about [\d,]+ bytes; [\d,]+ are free\nMake room") as error:
        ganrt.forecast(tiny, n=1000, out=tmp_path / "out")
    assert error.value.exit_code == 4
    assert ganrt.forecast(tiny, n=100, out=tmp_path / "out").images == 100
    monkeypatch.undo()
    room = {"f_bavail": 1 << 30, "f_bfree": 1 << 30, "f_blocks": 1 << 30, "f_frsize": 4096}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_favail=900, f_files=1000, **room))
    with pytest.raises(
        StorageFull, match="1,000 images need about 1,007 inodes; 900 are free\nUse --layout webdataset"
    ):
        ganrt.forecast(tiny, n=1000, out=tmp_path / "out")
    assert ganrt.forecast(tiny, n=1000, out=tmp_path / "out", layout="webdataset").inodes_free == 900
    monkeypatch.setattr(
        os, "statvfs", lambda _: SimpleNamespace(f_favail=0, f_files=0, **room)
    )  # btrfs counts no inodes
    assert ganrt.forecast(tiny, n=1000, out=tmp_path / "out").inodes_free is None
    assert not (tmp_path / "out").exists()


def test_a_forecast_refuses_a_folder_that_generate_would_refuse(tiny: ganrt.Generator, tmp_path: Path) -> None:
    ganrt.generate(tiny, n=3, out=tmp_path / "out", workers=1)
    with pytest.raises(DatasetMismatch, match="holds another dataset:\n  seed: 1, there 0"):
        ganrt.forecast(tiny, n=3, out=tmp_path / "out", seed=1)
    with pytest.raises(UsageError, match=r"tiny\.onnx is a file\nName a folder for the dataset"):
        ganrt.forecast(tiny, n=3, out=tmp_path / "models" / "tiny.onnx")


def test_a_folder_hides_no_generator_of_its_name(
    tiny: ganrt.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "shoes.onnx").write_bytes(tiny_model())
    monkeypatch.setenv("GANRT_MODELS", str(shelf))
    monkeypatch.chdir(tmp_path)
    Path("shoes").mkdir()
    assert ganrt.preview("shoes", cols=2).shape == ganrt.preview(tiny, cols=2).shape
    ganrt.generate(tiny, n=4, out="shoes", classes=["a"])
    assert ganrt.preview("shoes", cols=2).shape[0] < ganrt.preview(tiny, cols=2).shape[0]  # a dataset of one class
