"""What generate() promises of the datasets it writes: the same bytes whoever makes them, in whatever order."""

from __future__ import annotations

import errno
import getpass
import io
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganrt
from ganrt.errors import Cancelled, DatasetLocked, DatasetMismatch, InferenceError, StorageFull, UsageError
from ganrt.generator import Draw, Generator
from ganrt.latents import latents
from ganrt.parts import read_parts
from tests.datasets import (
    DIVISIBLE,
    LAYOUTS,
    ROOT,
    contents,
    differences,
    files,
    folders,
    image_files,
    images,
    make,
    marks,
    members,
    model_file,
    wait_for_shards,
)
from tests.datasets import command as command_line
from tests.datasets import run as run_process
from tests.datasets import start as start_process
from tests.models import tiny_model

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_divisible_layout = pytest.mark.parametrize("layout", DIVISIBLE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A thousand images by one worker, in each layout. Only to be read."""
    root = tmp_path_factory.mktemp("whole")
    for layout in LAYOUTS:
        make(model, root / layout, 1000, layout=layout, workers=1)
    return {layout: root / layout for layout in LAYOUTS}


def manifest(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "ganrt.json").read_bytes())
    return found


# Who makes it, and in which order.


@every_layout
@pytest.mark.parametrize(("workers", "threads"), [(1, 2), (1, 4), (3, 1), (3, 4), (9, 1), (9, 2), (17, 1), (17, 4)])
def test_any_number_of_workers_and_threads_writes_the_same_bytes(
    layout: str, workers: int, threads: int, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    report = make(model, tmp_path / "out", 1000, layout=layout, workers=workers, threads=threads)
    assert (report.workers, report.threads, report.images) == (workers, threads, 1000)
    assert differences(tmp_path / "out", whole[layout]) == []
    assert ganrt.verify(tmp_path / "out") == []


@every_layout
@pytest.mark.parametrize(("start", "n"), [(31, 2), (127, 2), (129, 700), (300, 513)])
def test_workers_share_shards_that_begin_and_end_anywhere(
    layout: str, start: int, n: int, model: Path, tmp_path: Path
) -> None:
    make(model, tmp_path / "one", n, layout=layout, start=start, workers=1)
    make(model, tmp_path / "many", n, layout=layout, start=start, workers=17, threads=2)
    assert differences(tmp_path / "many", tmp_path / "one") == []
    assert ganrt.verify(tmp_path / "many") == []
    wanted = ganrt.load(model, device="cpu", batch=32, threads=1).sample(n, start=start)
    found = images(tmp_path / "many", layout)
    first = 0 if layout == "npy" else start
    assert sorted(int(Path(name).stem) - first for name in found) == list(range(n))
    for name, image in found.items():
        np.testing.assert_array_equal(image, wanted[int(Path(name).stem) - first])


@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (7, 1), (8, 2), (9, 2), (17, 3)])
def test_many_workers_have_more_than_one_shard_in_work(
    workers: int, shards: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    real = Generator.draws

    def watched(*arguments: Any) -> Iterator[Draw]:
        for draw in real(*arguments):
            order.append(draw.first)
            yield draw

    monkeypatch.setattr(Generator, "draws", watched)
    make(model, tmp_path / "out", 1000, layout="webdataset", workers=workers)
    # The first batch of each shard in work, the second of each …: shards of four batches of 32.
    assert order[: 4 * shards] == [128 * shard + 32 * k for k in range(4) for shard in range(shards)]
    assert sorted(order) == list(range(0, 1000, 32))


@pytest.mark.parametrize("batch", [64, 300])
def test_threads_within_a_call_of_the_shipped_generator_change_no_byte(batch: int, tmp_path: Path) -> None:
    shipped = ROOT / "exported" / "fashion.onnx"
    options: dict[str, Any] = {"layout": "npy", "batch": batch, "shard_size": 5 * batch, "classes": None}
    for workers, threads in ((1, 1), (1, 2), (1, 3), (2, 2)):
        report = make(shipped, tmp_path / f"{workers}x{threads}", 300, workers=workers, threads=threads, **options)
        assert report.threads == threads
        assert differences(tmp_path / f"{workers}x{threads}", tmp_path / "1x1") == []


@every_divisible_layout
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_machines_in_any_order_write_the_same_bytes(
    layout: str, order: tuple[int, ...], model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    reports = []
    for k in order:
        reports.append(make(model, out, 1000, layout=layout, shard=f"{k}/3"))
        assert (out / "README.md").exists() == reports[-1].complete == manifest(out)["complete"] == (k == order[-1])
    assert sum(report.images for report in reports) == 1000
    assert differences(out, whole[layout]) == []


@every_divisible_layout
def test_another_number_of_machines_may_finish_what_some_began(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make(model, out, 1000, layout=layout, shard="1/3")
    report = make(model, out, 1000, layout=layout)
    assert report.complete
    assert differences(out, whole[layout]) == []


def test_arrays_are_not_made_by_several_machines(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layout npy cannot be made by several machines"):
        make(model, tmp_path / "out", 1000, layout="npy", shard="0/3")
    assert not (tmp_path / "out").exists()


@every_layout
def test_another_batch_changes_neither_names_nor_labels_and_no_pixel_by_more_than_a_level(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make(model, out, 1000, layout=layout, batch=64, shard_size=192)
    mine, theirs = images(out, layout), images(whole[layout], layout)
    assert list(mine) == list(theirs)
    assert max(int(np.abs(mine[k].astype(int) - theirs[k].astype(int)).max()) for k in mine) <= 1
    if layout == "npy":
        assert (out / "labels.npy").read_bytes() == (whole[layout] / "labels.npy").read_bytes()
    if layout == "webdataset":
        assert [(k, v) for k, v in members(out).items() if not k.endswith(".png")] == [
            (k, v) for k, v in members(whole[layout]).items() if not k.endswith(".png")
        ]


# Which samples.


@every_layout
def test_a_later_start_gives_the_samples_from_there(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make(model, out, 500, layout=layout, start=500)
    if layout == "npy":
        for name in ("images.npy", "labels.npy"):
            np.testing.assert_array_equal(np.load(out / name), np.load(whole[layout] / name)[500:])
        return
    of = members if layout == "webdataset" else contents
    wanted = {k: v for k, v in of(whole[layout]).items() if Path(k).stem.isdigit() and int(Path(k).stem) >= 500}
    assert {k: v for k, v in of(out).items() if Path(k).stem.isdigit()} == wanted
    assert len(wanted) == 500 * (3 if layout == "webdataset" else 1)


@every_layout
@pytest.mark.parametrize("steps", [(1000, 1500), (100, 600, 1500), (0, 1, 1500)])
def test_a_dataset_that_grew_equals_one_made_at_once(
    layout: str, steps: tuple[int, ...], model: Path, tmp_path: Path
) -> None:
    make(model, tmp_path / "once", 1500, layout=layout)
    before = 0
    for n in steps:
        report = make(model, tmp_path / "grown", n, layout=layout)
        assert report.total == n and report.complete
        assert report.images + report.already == n and report.already <= before
        before = n
    assert differences(tmp_path / "grown", tmp_path / "once") == []


@every_divisible_layout
def test_machines_may_extend_what_one_machine_made(layout: str, model: Path, tmp_path: Path) -> None:
    make(model, tmp_path / "once", 1500, layout=layout)
    make(model, tmp_path / "grown", 1000, layout=layout)
    assert not make(model, tmp_path / "grown", 1500, layout=layout, shard="1/2").complete
    assert not (tmp_path / "grown" / "README.md").exists()
    assert make(model, tmp_path / "grown", 1500, layout=layout, shard="0/2").complete
    assert differences(tmp_path / "grown", tmp_path / "once") == []


@every_layout
def test_the_images_are_those_that_sample_gives(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    wanted = ganrt.load(model, device="cpu", batch=32, threads=1).sample(1000)
    found = images(whole[layout], layout)
    for name, image in found.items():
        np.testing.assert_array_equal(image, wanted[int(Path(name).stem)])
    assert len(found) == 1000


@every_layout
@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one_are_datasets_too(layout: str, n: int, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = make(model, out, n, layout=layout)
    assert (report.images, report.complete, report.device) == (n, True, "cpu" if n else None)
    assert len(images(out, layout)) == n
    assert manifest(out)["images"] == n and (out / "README.md").exists()
    assert ganrt.verify(out) == []
    assert len(folders(out)) == (n if layout == "folder" else 0)  # a class without images has no folder
    if layout == "npy":
        assert np.load(out / "images.npy").shape == (n, 8, 8, 3) and np.load(out / "labels.npy").shape == (n,)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("only",), ()])
def test_folders_are_the_classes_and_balanced(names: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(model_file(tmp_path, class_names=names), out, 300)
    assert folders(out) == set(names)
    for name in names:
        assert len(list((out / name).iterdir())) == 300 // len(names)
    if not names:
        assert len(list(out.glob("*.png"))) == 300
    assert manifest(out)["parts"][0]["per_class"] == {name: 300 // len(names) for name in names}


@every_layout
def test_a_choice_of_classes_takes_turns(layout: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(model, out, 101, layout=layout, classes=["c", "a"])
    if layout == "folder":
        assert folders(out) == {"a", "c"}
        found = {int(path.stem): path.parent.name for path in image_files(out)}
    elif layout == "webdataset":
        found = {int(k[:-4]): "abc"[int(v)] for k, v in members(out).items() if k.endswith(".cls")}
    else:
        found = {row: "abc"[y] for row, y in enumerate(np.load(out / "labels.npy"))}
    assert found == {index: "ca"[index % 2] for index in range(101)}


# What is there already.


@every_layout
def test_a_complete_dataset_is_left_as_it_is(layout: str, model: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole[layout], out)
    before = marks(out)
    calls: list[ganrt.Progress] = []
    report = make(model, out, 1000, layout=layout, progress=calls.append)
    assert (report.images, report.already, report.device, report.complete) == (0, 1000, None, True)
    assert (report.workers, report.threads) == (0, None)
    assert marks(out) == before


@every_layout
def test_a_dataset_does_not_shrink(layout: str, model: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole[layout], out)
    before = marks(out)
    with pytest.raises(DatasetMismatch, match=r"dataset of 1,000 images; 999 were asked for(.|\n)*grow and not shrink"):
        make(model, out, 999, layout=layout)
    assert marks(out) == before


def test_another_plan_is_refused_and_each_difference_named(model: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole["folder"], out)
    before = marks(out)
    words = command_line(model, out, 1000, "--seed", "5", "--size", "16", "--mode", "l", "--classes", "a,b", batch=64)
    done = run_process(words)
    assert done.returncode == 3
    for text in ("holds another dataset", "seed: 5, there 0", "size: [16, 16], there none", "resample: lanczos, there"):
        assert text in done.stderr
    for text in ("mode: l, there rgb", "batch: 64, there 32", "classes: [0, 1], there [0, 1, 2]", "--overwrite"):
        assert text in done.stderr
    assert "shard_size:" not in done.stderr and "Traceback" not in done.stderr
    assert marks(out) == before


def test_another_generator_of_the_same_name_is_another_plan(whole: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DatasetMismatch, match="model_digest: "):
        make(model_file(tmp_path, seed=1), whole["folder"], 1000)


@pytest.mark.parametrize("name", ["notes.txt", "README.md", "ganrt.json", ".git/config"])
def test_a_folder_of_something_else_is_refused_and_left_alone(name: str, model: Path, tmp_path: Path) -> None:
    foreign = tmp_path / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DatasetMismatch, match=f"holds no ganrt dataset: {Path(name).parts[0]}"):
            make(model, tmp_path, 10, overwrite=overwrite, layout="webdataset")
    assert files(tmp_path) == [foreign] and foreign.read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        make(model, tmp_path / "out", 10)
    assert (tmp_path / "out").read_text() == "mine"


@every_layout
def test_overwrite_removes_what_ganrt_wrote_and_nothing_else(layout: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(model, out, 1000, layout=layout)
    kept = [out / "notes.txt", *([out / "b" / "mine.png"] if layout == "folder" else [])]
    for path in kept:
        path.write_text("mine")
    make(model, out, 50, layout=layout, seed=1, classes=["a"], overwrite=True)
    make(model, tmp_path / "fresh", 50, layout=layout, seed=1, classes=["a"])
    assert differences(out, tmp_path / "fresh") == sorted(
        ["notes.txt", *(["b", "b/mine.png"] if layout == "folder" else [])]
    )
    assert all(path.read_text() == "mine" for path in kept)


@every_layout
def test_overwrite_may_change_the_layout(layout: str, model: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for other in LAYOUTS:
        make(model, out, 20, layout=other, overwrite=True)
    make(model, out, 1000, layout=layout, overwrite=True)
    assert differences(out, whole[layout]) == []


def test_overwrite_of_an_unfinished_run_leaves_nothing_of_it(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Cancelled):
        make(model, out, 100_000, **stopping_after(500))
    make(model, out, 10, seed=3, overwrite=True)
    make(model, tmp_path / "fresh", 10, seed=3)
    assert differences(out, tmp_path / "fresh") == []


# Several parts under one root.


@every_layout
def test_parts_share_a_root_and_complete_it_together(layout: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cats = model_file(tmp_path, "cats", class_names=("tabby", "lynx"))
    dogs = model_file(tmp_path, "dogs", class_names=("lynx", "husky"), seed=1)
    make(cats, out, 200, layout=layout, part="one")
    first = contents(out)
    if layout != "npy":
        assert not make(dogs, out, 300, layout=layout, part="two", shard="0/2").complete
        assert not (out / "README.md").exists()
        about = manifest(out)
        assert (about["complete"], [p["complete"] for p in about["parts"]]) == (False, [True, False])
        assert not make(cats, out, 200, layout=layout, part="one").complete
        assert make(dogs, out, 300, layout=layout, part="two", shard="1/2").complete
    else:
        make(dogs, out, 300, layout=layout, part="two")
    assert ganrt.verify(out) == []
    about = manifest(out)
    assert (about["complete"], about["images"], [p["part"] for p in about["parts"]]) == (True, 500, ["one", "two"])
    readme = (out / "README.md").read_text()
    assert "## Part one" in readme and "## Part two" in readme and "500 synthetic images by cats, dogs" in readme
    own = {name: data for name, data in first.items() if name not in ("ganrt.json", "README.md")}
    assert own.items() <= contents(out).items()
    if layout == "folder":
        assert folders(out) == {"tabby", "lynx", "husky"} and len(list((out / "lynx").iterdir())) == 100 + 150
    # Taking one away leaves the other as it was.
    make(dogs, out, 0, layout=layout, part="two", overwrite=True)
    assert own.items() <= contents(out).items() and manifest(out)["images"] == 200


def test_arrays_of_a_finished_part_are_there_while_another_is_made(tmp_path: Path) -> None:
    out, model = tmp_path / "out", model_file(tmp_path)
    with pytest.raises(Cancelled):
        make(model, out, 50_000, layout="npy", part="two", **stopping_after(500))
    assert not make(model, out, 100, layout="npy", part="one").complete
    assert np.load(out / "one-images.npy").shape == (100, 8, 8, 3)
    assert not [damage for damage in ganrt.verify(out) if damage.part == "one"]


def test_parts_must_agree_on_the_layout(model: Path, tmp_path: Path) -> None:
    make(model, tmp_path, 10, part="one")
    before = marks(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(DatasetMismatch, match="has part one in layout folder; webdataset was asked for"):
            make(model, tmp_path, 10, part="two", layout="webdataset", overwrite=overwrite)
    assert marks(tmp_path) == before


def test_a_part_cannot_be_called_like_the_ledger_of_a_machine(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="part '0-of-2'"):
        make(model, tmp_path / "out", 10, part="0-of-2")


# Locks.


def test_a_second_run_on_the_same_share_is_locked_out(
    model: Path, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    locked: list[str] = []
    tried, real = threading.Event(), Generator.make

    def waiting(generator: Generator, samples: Any, draw: Draw, *rest: Any) -> Any:
        if draw.first == 896:  # the last shard: the run is not over before all was tried
            tried.wait(60)
        return real(generator, samples, draw, *rest)

    monkeypatch.setattr(Generator, "make", waiting)

    def meanwhile(_: ganrt.Progress) -> None:
        if locked:
            return
        for changes in ({}, {"shard": "0/2"}, {"overwrite": True}):
            with pytest.raises(DatasetLocked, match="another run is writing the dataset") as error:
                make(model, out, 1000, **changes)
            locked.append(str(error.value))
        with pytest.raises(DatasetLocked):
            ganrt.verify(out, repair=True, model=model)
        tried.set()

    make(model, out, 1000, progress=meanwhile)
    assert len(locked) == 3
    assert differences(out, whole["folder"]) == []


def test_shares_without_a_shard_in_common_run_at_once_and_the_whole_waits(
    model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    seen: list[bool] = []

    def meanwhile(_: ganrt.Progress) -> None:
        if not seen:
            seen.append(make(model, out, 1000, shard="1/2").complete)
            with pytest.raises(DatasetLocked):
                make(model, out, 1000)

    assert make(model, out, 1000, shard="0/2", progress=meanwhile).complete
    assert len(seen) == 1
    assert differences(out, whole["folder"]) == []


@every_layout
def test_a_run_in_another_process_holds_the_lock_until_it_dies(layout: str, tmp_path: Path) -> None:
    out, model = tmp_path / "out", model_file(tmp_path)
    process = start_process(command_line(model, out, 200_000, "--layout", layout))
    try:
        wait_for_shards(process, out, 2)
        with pytest.raises(DatasetLocked):
            make(model, out, 200_000, layout=layout)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -9
    with pytest.raises(Cancelled):  # and not DatasetLocked
        make(model, out, 200_000, layout=layout, **stopping_after(1))


# Progress, cancellation, failure.


def stopping_after(made: int) -> dict[str, Any]:
    """Options that cancel a run once so many images are made."""
    cancel = threading.Event()

    def progress(state: ganrt.Progress) -> None:
        if state.made >= made:
            cancel.set()

    return {"cancel": cancel, "progress": progress}


@every_layout
def test_progress_counts_up_to_the_end(layout: str, model: Path, tmp_path: Path) -> None:
    make(model, tmp_path / "out", 1000, layout=layout)
    calls: list[ganrt.Progress] = []
    make(model, tmp_path / "out", 4000, layout=layout, progress=calls.append)
    assert [c.done for c in calls] == sorted(c.done for c in calls)
    assert [c.seconds for c in calls] == sorted(c.seconds for c in calls)
    assert {c.total for c in calls} == {4000}
    # 7 whole shards were there; the short one was made again
    assert (calls[-1].done, calls[-1].made) == (4000, 4000 - 7 * 128)
    assert {c.done - c.made for c in calls} == {7 * 128}


@every_divisible_layout
def test_progress_of_a_share_counts_its_own_images(layout: str, model: Path, tmp_path: Path) -> None:
    calls: list[ganrt.Progress] = []
    report = make(model, tmp_path / "out", 1000, layout=layout, shard="1/3", progress=calls.append)
    assert (calls[-1].done, calls[-1].total) == (360, 360)
    assert (report.images, report.total, report.complete) == (360, 1000, False)  # two whole shards and the short one


def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes each batch take some time, so that a run on any machine is still at work when it is told to stop."""

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.02)
        return latents(*arguments, **options)

    monkeypatch.setattr("ganrt.generator.latents", slow)


@every_layout
@pytest.mark.parametrize("workers", [2, 9])
def test_a_cancelled_run_keeps_what_is_finished_and_the_same_call_goes_on(
    layout: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, model = tmp_path / "out", model_file(tmp_path)
    slowly(monkeypatch)
    make(model, tmp_path / "once", 3_000, layout=layout)
    for _ in range(2):
        with pytest.raises(Cancelled) as error:
            make(model, out, 3_000, layout=layout, workers=workers, **stopping_after(500))
        [note] = error.value.__notes__
        only_whole_shards(out, tmp_path / "once", layout)
        assert "of 3,000 images are finished and kept; the same command goes on from there" in note
        assert not (out / "README.md").exists() and manifest(out)["complete"] is False
        parts = [path.name for path in files(out) if path.name.endswith(".part")]
        assert parts == (["images.npy.part"] if layout == "npy" else [])
    report = make(model, out, 3_000, layout=layout, workers=workers)
    assert report.already > 0 and report.images + report.already == 3_000
    assert differences(out, tmp_path / "once") == []
    assert ganrt.verify(out) == []


def test_no_thread_outlives_a_run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with pytest.raises(Cancelled):
        slowly(monkeypatch)
        make(model, tmp_path / "out", 50_000, workers=4, **stopping_after(100))
    assert threading.active_count() == before


@every_layout
def test_an_error_of_the_caller_stops_the_run_cleanly(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    def progress(_: ganrt.Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(model, tmp_path / "out", 1000, layout=layout, progress=progress)
    make(model, tmp_path / "out", 1000, layout=layout)
    assert differences(tmp_path / "out", whole[layout]) == []


def only_whole_shards(out: Path, whole: Path, layout: str, shard_size: int = 128) -> int:
    """Fails unless what the ledger of an unfinished run says is there, whole, and no ``.part`` but the array's is.

    Returns how many shards it says are finished.
    """
    parts = [path.name for path in files(out) if path.name.endswith(".part")]
    assert parts == (["images.npy.part"] if layout == "npy" else [])
    [part] = read_parts(out).values()
    for number, (count, _) in part.finished.items():
        shard = part.plan.shard(number, part.n)
        assert shard and len(shard) == count
    if layout == "webdataset":
        wanted = {f"{number:06d}.tar" for number in part.finished}
        assert {path.name for path in out.glob("*.tar*")} == wanted
        assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in wanted)
    elif layout == "folder":
        theirs = {path.name: path.read_bytes() for path in image_files(whole)}
        mine = {path.name: path.read_bytes() for path in image_files(out)}
        assert mine.items() <= theirs.items()
        finished = (part.plan.shard(number, part.n) for number in part.finished)
        assert {f"{index:08d}.png" for shard in finished if shard for index in range(shard.start, shard.stop)} <= set(
            mine
        )
    else:
        image = 8 * 8 * 3
        with open(out / "images.npy.part", "rb") as file:
            for number in part.finished:
                file.seek(128 + number * shard_size * image)
                rows = np.load(whole / "images.npy")[number * shard_size : (number + 1) * shard_size]
                assert file.read(rows.size) == rows.tobytes()
    return len(part.finished)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Makes the disk full after so many writes of images."""
    guard = threading.Lock()
    left = [0]

    def spend() -> None:
        with guard:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            spend()
            return super().write(data)

    def opened(path: Path, mode: str, buffering: int = -1) -> Any:
        return File(path, mode.replace("b", "")) if buffering == 0 else open(path, mode, buffering)

    def write(file: int, data: bytes) -> int:
        spend()
        return real(file, data)

    real = os.write

    def full_after(writes: int) -> None:
        left[0] = writes
        for module in ("webdataset", "npy"):
            monkeypatch.setattr(f"ganrt.layouts.{module}.open", opened, raising=False)
        monkeypatch.setattr("ganrt.files.os.write", write)

    yield full_after


@every_layout
@pytest.mark.parametrize("workers", [1, 9, 17])
@pytest.mark.parametrize("left", [2, 1])
def test_a_disk_that_is_full_in_the_middle_leaves_only_whole_shards(
    layout: str,
    workers: int,
    left: int,
    model: Path,
    whole: dict[str, Path],
    tmp_path: Path,
    disk: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    # Of the writes of three shards the last one or two have no room: of an archive, its end, or a batch and that.
    disk(3 * {"folder": 128, "webdataset": 4 + 1, "npy": 4}[layout] - left)
    with pytest.raises(StorageFull) as error:
        make(model, out, 1000, layout=layout, workers=workers)
    kept = only_whole_shards(out, whole[layout], layout)
    assert error.value.__notes__ == [
        f"{kept * 128:,} of 1,000 images are finished and kept; the same command goes on from there."
    ]
    assert kept == 2 if workers == 1 else kept <= 2
    assert not (out / "README.md").exists() and manifest(out)["complete"] is False
    monkeypatch.undo()
    report = make(model, out, 1000, layout=layout, workers=workers)
    assert report.already == kept * 128 and report.complete
    assert differences(out, whole[layout]) == []
    assert ganrt.verify(out) == []


@every_layout
@pytest.mark.parametrize("workers", [1, 9, 17])
def test_a_network_that_fails_in_the_middle_leaves_only_whole_shards(
    layout: str, workers: int, model: Path, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", Generator.make

    def failing(generator: Generator, samples: Any, draw: Draw, *rest: Any) -> Any:
        if draw.first == 3 * 128 + 2 * 32:
            time.sleep(0.02)  # the other workers go ahead
            raise InferenceError("the network broke", "Mend it.")
        return real(generator, samples, draw, *rest)

    before = threading.active_count()
    monkeypatch.setattr(Generator, "make", failing)
    with pytest.raises(InferenceError, match="the network broke"):
        make(model, out, 1000, layout=layout, workers=workers)
    assert threading.active_count() == before
    kept = only_whole_shards(out, whole[layout], layout)
    assert 3 not in next(iter(read_parts(out).values())).finished and kept <= 7
    monkeypatch.undo()
    report = make(model, out, 1000, layout=layout, workers=workers)
    assert report.already in (kept * 128, kept * 128 - 24)  # the last shard is short
    assert differences(out, whole[layout]) == []


@every_layout
def test_a_generator_that_fails_says_so_and_what_is_kept(layout: str, tmp_path: Path) -> None:
    # Labels 1 and 2 have no row in the generator's table: one class works, three do not.
    broken = model_file(tmp_path, "broken", table_rows=1)
    with pytest.raises(InferenceError) as error:
        make(broken, tmp_path / "out", 1000, layout=layout)
    assert error.value.__notes__ == [
        "0 of 1,000 images are finished and kept; the same command goes on from there."
    ]  # fmt: skip
    assert not (tmp_path / "out" / "README.md").exists() and not list((tmp_path / "out").glob("*.tar*"))
    assert make(broken, tmp_path / "works", 100, layout=layout, classes=["a"]).complete


@every_layout
def test_the_report_says_what_the_run_did(layout: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = make(model, out, 1000, layout=layout)
    about = report.to_dict()
    for key in ("seconds", "images_per_second"):
        assert about.pop(key) > 0
    size = sum(path.stat().st_size for path in image_files(out) if path.name != "labels.npy")
    assert about.pop("bytes") == (size - 128 if layout == "npy" else size)
    assert about == {
        "images": 1000,
        "already": 0,
        "total": 1000,
        "complete": True,
        "device": "cpu",
        "processes": 1,
        "workers": 2,
        "threads": 1,
        "batch": 32,
        "shard_size": 128,
        "layout": layout,
        "format": None if layout == "npy" else "png",
        "model": "tiny",
        "out": str(out),
    }


# Files that went missing, and ledgers that were torn.


@every_layout
@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_file_that_is_gone_or_short_is_made_again(
    layout: str, how: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole[layout], out)
    victim = {"folder": "b/00000001.png", "webdataset": "000003.tar", "npy": "images.npy"}[layout]
    if how == "deleted":
        (out / victim).unlink()
    else:
        os.truncate(out / victim, (out / victim).stat().st_size - 40)
    report = make(model, out, 1000, layout=layout)
    whole_array = layout == "npy" and how == "deleted"
    assert report.images == (1000 if whole_array else 1000 - 7 * 128 if layout == "npy" else 128)
    assert differences(out, whole[layout]) == []


def test_a_dataset_is_not_called_complete_while_lost_files_are_made_again(
    model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole["folder"], out)
    shutil.rmtree(out / "b")
    seen: list[bool] = []
    make(model, out, 1000, progress=lambda _: seen.append(manifest(out)["complete"] or (out / "README.md").exists()))
    assert seen and not any(seen)
    assert differences(out, whole["folder"]) == []


def test_loose_images_that_a_power_cut_left_with_other_bytes_are_made_again(
    model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    # The ledger is synced and single images are not: the shards recorded last are compared by digest.
    out = tmp_path / "out"
    shutil.copytree(whole["folder"], out)
    last = sorted(image_files(out), key=lambda path: path.name)[-1]
    last.write_bytes(bytes(last.stat().st_size))
    assert make(model, out, 1000).images == 1000 - 7 * 128
    assert differences(out, whole["folder"]) == []


@every_layout
@pytest.mark.parametrize("torn", [b'{"shard":', b"\0" * 700, b'{"shard":99,"images"'])
def test_a_ledger_line_that_a_crash_tore_does_not_matter(
    layout: str, torn: bytes, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole[layout], out)
    ledger = out / "ganrt.ledger"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-1]) + torn)
    assert 0 < make(model, out, 1000, layout=layout).images <= 128
    assert differences(out, whole[layout]) == []
    assert ganrt.verify(out) == []


@every_layout
@pytest.mark.parametrize("kept", [0, 20])
def test_a_crash_before_the_first_ledger_line_was_whole_does_not_matter(
    layout: str, kept: int, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "ganrt.ledger").write_bytes((whole[layout] / "ganrt.ledger").read_bytes()[:kept])
    make(model, out, 1000, layout=layout)
    assert differences(out, whole[layout]) == []


# What stands in the files.


@every_layout
def test_a_dataset_tells_no_time_path_user_or_host(layout: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret-folder"
    secret.mkdir()
    make(model_file(secret), secret / "out", 200, layout=layout)
    private = [str(tmp_path), "secret-folder", socket.gethostname(), str(Path.home())]
    if len(getpass.getuser()) > 4:  # a shorter name may stand anywhere by chance
        private.append(getpass.getuser())
    for path in files(secret / "out"):
        data = path.read_bytes()
        assert not [text for text in private if len(text) > 4 and text.encode() in data], path.name
    for name in ("ganrt.json", "README.md"):
        text = (secret / "out" / name).read_text().lower()
        assert not [word for word in ("seconds", "workers", "date:", "utc") if word in text], name


@every_layout
def test_two_runs_at_different_times_and_places_write_the_same_files(
    layout: str, model: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    done = run_process(command_line(model, tmp_path / "elsewhere", 1000, "--layout", layout))
    assert done.returncode == 0, done.stderr
    assert differences(tmp_path / "elsewhere", whole[layout]) == []


def test_parts_whose_class_folders_would_be_mixed_up_are_refused(tmp_path: Path) -> None:
    def model(name: str, class_names: tuple[str, ...]) -> Path:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(tiny_model(name=name, class_names=class_names))
        return path

    out = tmp_path / "set"
    ganrt.generate(model("first", ("Bag", "a/b")), n=4, out=out, part="first")
    for names, message in (
        (("bag",), "class 'bag' would share the folder 'bag' with 'Bag' of part first"),
        (("x", "a b", "a_b"), "class 'a_b' would share the folder 'a_b' with 'a/b' of part first"),
        ((), "part first has classes and this plan has none"),
    ):
        with pytest.raises(DatasetMismatch) as raised:
            ganrt.generate(model("second", names), n=4, out=out, part="second")
        assert message in raised.value.message
    ganrt.generate(model("third", ("Bag", "hat")), n=4, out=out, part="third")


def test_huge_datasets_are_planned_at_once(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ganrt.StorageFull, match="10,000,000,000,000 images need about"):
        ganrt.forecast(model, n=10**13, out=tmp_path / "set")
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        ganrt.generate(model, n=10**11, out=tmp_path / "set", cancel=cancel)
