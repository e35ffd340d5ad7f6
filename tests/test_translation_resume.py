"""Translations that are stopped, in each other's way, or damaged afterwards: the bytes are the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ganrt
from ganrt.errors import Cancelled, DatasetLocked, DatasetMismatch, UsageError
from tests.datasets import LAYOUTS, differences, start, wait_for_shards
from tests.models import tiny_model
from tests.pictures import (
    command,
    picture,
    slow_translator_file,
    translate,
    translator_file,
    two_classes,
    write_picture,
)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
N = 160  # 20 shards of two batches


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A slow model and its images."""
    folder = tmp_path_factory.mktemp("slow")
    two_classes(folder / "in", N)
    return slow_translator_file(folder), folder / "in"


def test_cancelled_before_it_began_it_writes_nothing(slow: tuple[Path, Path], tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match="stopped before anything was written"):
        translate(*slow, tmp_path / "out", cancel=cancel)
    assert not (tmp_path / "out").exists()


@posix
def test_two_runs_do_not_write_one_folder(slow: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(command(*slow, out))
    try:
        wait_for_shards(process, out, 1)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(DatasetLocked) as error:
            translate(*slow, out)
        assert str(error.value) == f"another run is writing the dataset of {out}\nWait for it, or stop it."
    finally:
        process.kill()
        process.communicate()


def test_progress_is_told_up_to_the_end(slow: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[ganrt.Progress] = []
    translate(*slow, tmp_path / "out", progress=told.append)
    assert (told[-1].done, told[-1].total, told[-1].made) == (N, N, N)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)


# verify and --repair ------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Path, Path, Path]]:
    """A model, its images, and what was made of them; images of one size unless the model takes any."""

    def made(layout: str) -> tuple[Path, Path, Path]:
        model = translator_file(tmp_path, dynamic=True, scale=2)
        two_classes(tmp_path / "in")
        if layout != "npy":
            write_picture(tmp_path / "in/dog/20 photo.png", picture(5, 13, 9))
        translate(model, tmp_path / "in", tmp_path / "out", layout=layout, workers=1)
        return model, tmp_path / "in", tmp_path / "out"

    return made


def broken(layout: str, root: Path) -> str:
    """Breaks a file of a dataset; its name."""
    name = {"folder": "dog/20 photo.png", "webdataset": "000002.tar", "npy": "images.npy"}[layout]
    data = bytearray((root / name).read_bytes())
    data[-1500 if layout != "folder" else -20] ^= 1
    (root / name).write_bytes(data)
    return name


@every_layout
def test_damage_is_named_and_made_again_from_the_images(
    layout: str, made: Callable[[str], tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    model, where, out = made(layout)
    shutil.copytree(out, tmp_path / "whole")
    name = broken(layout, out)
    [damage] = ganrt.verify(out)
    assert damage.name == name and "other bytes than were written" in damage.what
    with pytest.raises(UsageError) as error:
        ganrt.verify(out, repair=True, model=model)
    assert str(error.value) == (
        f"{out} was made of images, and which they were is not known\n"
        "Name their folder with --images DIR, as it was given to ganrt translate."
    )
    assert ganrt.verify(out, repair=True, model=model, images=where) == []
    assert differences(out, tmp_path / "whole") == []


def test_a_repair_with_other_images_is_refused(made: Callable[[str], tuple[Path, Path, Path]], tmp_path: Path) -> None:
    model, where, out = made("folder")
    broken("folder", out)
    (where / "cat/00 photo.png").rename(where / "cat/zero.png")
    with pytest.raises(DatasetMismatch) as error:
        ganrt.verify(out, repair=True, model=model, images=where)
    told = str(error.value)
    assert told.startswith(f"{where} holds other images than {out} was made of:\n  inputs: ")
    assert "  cat/zero.png was not there then\n  cat/00 photo.png is not there now\n" in told
    assert told.endswith("\nName the right folder with --images DIR.")
    assert [damage.name for damage in ganrt.verify(out)] == ["dog/20 photo.png"]


def test_a_missing_readme_needs_no_images(made: Callable[[str], tuple[Path, Path, Path]]) -> None:
    _, _, out = made("webdataset")
    (out / "README.md").unlink()
    assert ganrt.verify(out, repair=True) == []


def test_images_do_not_apply_to_datasets_of_latents(tmp_path: Path) -> None:
    model = tmp_path / "tiny.onnx"
    model.write_bytes(tiny_model())
    ganrt.generate(model, n=4, out=tmp_path / "out", device="cpu")
    with pytest.raises(UsageError) as error:
        ganrt.verify(tmp_path / "out", repair=True, images=tmp_path)
    assert str(error.value) == f"images do not apply: {tmp_path / 'out'} was made of latents\nLeave them out."


@pytest.mark.parametrize(
    "changes",
    [
        {"names": [1] * 21},
        {"names": ["a.png"]},
        {"label_list": [5] * 21},
        {"label_list": []},
        {"kind": "poem"},
        {"size": [0, 3]},
        {"tile": 0},
        {"channels": 2},
        {"format": "exe"},
        {"layout": "npy"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_ledger_that_cannot_be_meant_is_an_error_and_no_traceback(
    changes: dict[str, Any], made: Callable[[str], tuple[Path, Path, Path]]
) -> None:
    from tests.test_verify import rewritten

    _, _, out = made("folder")
    rewritten(out, **changes)
    with pytest.raises(ganrt.DatasetDamaged, match=r"ganrt.ledger: its first line is no plan"):
        ganrt.verify(out)


def test_names_in_a_ledger_cannot_lead_out_of_the_dataset(
    made: Callable[[str], tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    from tests.test_verify import rewritten

    model, where, out = made("folder")
    (tmp_path / "victim.png").write_text("mine")
    names = json.loads((out / "ganrt.ledger").read_text().splitlines()[0])["plan"]["names"]
    rewritten(out, names=["../../victim.png", "x/..\\..\\victim.png", *names[2:]], class_names=["../..", "dog"])
    translate(model, where, out, overwrite=True)
    assert (tmp_path / "victim.png").read_text() == "mine"
