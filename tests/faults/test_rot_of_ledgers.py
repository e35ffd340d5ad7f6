"""Ledgers whose lines are torn, changed or gone: what they said is made again, and nothing else is believed instead."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import pytest

import ganrt
from ganrt.errors import DatasetDamaged
from tests.datasets import LAYOUTS, differences, make, marks
from tests.faults.conftest import SIZES, N, Tally
from tests.pictures import translate, translator_file, two_classes

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@every_layout
@pytest.mark.parametrize("times", [1, pytest.param(40, marks=pytest.mark.faults)])
@pytest.mark.parametrize("mends", ["verify --repair", "generate"])
def test_each_line_in_turn_is_flipped_torn_or_gone(
    layout: str, times: int, mends: str, whole: dict[str, Path], model: Path, tmp_path: Path, tally: Tally
) -> None:
    lines = (whole[layout] / "ganrt.ledger").read_bytes().splitlines(keepends=True)
    assert len(lines) == 6  # plan, n, software, three shards
    for at, line in enumerate(lines):
        for number in range(times + 2):
            dice, out = random.Random(f"{layout} {at} {number}"), tmp_path / f"{at} {number}"
            changed = bytearray(line)
            if number < times:
                how = "flipped bit"
                changed[dice.randrange(len(line))] ^= 1 << dice.randrange(8)
            elif number == times:
                how, changed = "torn", changed[: dice.randrange(1, len(line) - 1)] + b"\n"
            else:
                how, changed = "gone", bytearray()
            shutil.copytree(whole[layout], out)
            (out / "ganrt.ledger").write_bytes(b"".join([*lines[:at], changed, *lines[at + 1 :]]))
            try:
                mended(out, whole[layout], layout, model, mends, at, how)
            except (AssertionError, ganrt.GanrtError) as error:
                tally.lost(f"ledger line {how}, {mends}, {layout}", f"line {at + 1}, {bytes(changed)!r}: {error}")
            else:
                tally.survived(f"ledger line {how}, {mends}, {layout}")
            shutil.rmtree(out)


def mended(out: Path, whole: Path, layout: str, model: Path, mends: str, at: int, how: str) -> None:
    before = marks(out)
    if at == 0:  # without its plan nothing is known of a dataset, and nothing is touched until it is looked for
        for do in (lambda: ganrt.verify(out), lambda: make(model, out, N, layout=layout, **SIZES)):
            with pytest.raises(DatasetDamaged, match="its first line is no plan"):
                do()
        assert marks(out) == before
        assert ganrt.verify(out, repair=True) == []  # from the manifest, without the generator
        assert (out / "ganrt.ledger").read_bytes().splitlines()[0] == (
            whole / "ganrt.ledger"
        ).read_bytes().splitlines()[0]
        assert differences(out, whole) == []
        assert {name for name, mark in marks(out).items() if mark != before.get(name)} == {"ganrt.ledger"}
        return
    found = ganrt.verify(out)
    # Without the line that says how many, the shards say so.
    assert found or (at == 1 and how == "gone"), "nothing was seen"
    assert marks(out) == before
    if mends == "generate":
        report = make(model, out, N, layout=layout, **SIZES)
        assert report.complete and report.total == N
        assert all(d.name == "ganrt.ledger" for d in ganrt.verify(out))  # a torn line stays until it is repaired
    assert ganrt.verify(out, repair=True, model=model, device="cpu") == []
    assert ganrt.verify(out) == []
    assert differences(out, whole) == []
    if layout == "folder" and mends != "generate":
        # The files of a shard of which nothing is known are made again; of the others none.
        touched = {name for name, mark in marks(out).items() if before.get(name) != mark}
        assert len([name for name in touched if name.endswith(".png")]) in ((0,) if at < 3 else (26, 32, 58, 64))


def test_a_ledger_cut_at_any_byte_loses_no_more_than_its_last_line(
    whole: dict[str, Path], model: Path, tmp_path: Path, tally: Tally
) -> None:
    # As a crash leaves it.
    data = (whole["webdataset"] / "ganrt.ledger").read_bytes()
    head = data.index(b"\n") + 1
    for size in range(head, len(data), 31):
        out = Path(shutil.copytree(whole["webdataset"], tmp_path / str(size)))
        (out / "ganrt.ledger").write_bytes(data[:size])
        shards = data[:size].count(b'{"shard":') - (b'{"shard":' in data[:size].rpartition(b"\n")[2])
        report = make(model, out, N, layout="webdataset", **SIZES)
        assert report.complete and report.already == min(32 * shards, N)
        assert differences(out, whole["webdataset"]) == []
        assert ganrt.verify(out) == []
        tally.survived("ledger cut at any byte, generate goes on")
        shutil.rmtree(out)


@every_layout
def test_two_ledgers_of_one_part_that_disagree(
    layout: str, whole: dict[str, Path], model: Path, tmp_path: Path, tally: Tally
) -> None:
    out = Path(shutil.copytree(whole[layout], tmp_path / "out"))
    make(model, tmp_path / "other", N, layout=layout, seed=1, **SIZES)
    shutil.copy(tmp_path / "other/ganrt.ledger", out / "ganrt.0-of-2.ledger")
    before = marks(out)
    for do in (lambda: ganrt.verify(out), lambda: make(model, out, N, layout=layout, **SIZES)):
        with pytest.raises(DatasetDamaged, match="hold different plans of one part"):
            do()
    assert marks(out) == before
    tally.survived(f"two ledgers that disagree, {layout}")


def test_a_plan_that_is_lost_twice_stays_lost(
    whole: dict[str, Path], model: Path, tmp_path: Path, tally: Tally
) -> None:
    # A bit of it in the manifest has changed too: a plan that the fingerprint does not prove is not believed.
    out = Path(shutil.copytree(whole["folder"], tmp_path / "out"))
    ledger, manifest = out / "ganrt.ledger", out / "ganrt.json"
    ledger.write_bytes(ledger.read_bytes().partition(b"\n")[2])
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    before = marks(out)
    with pytest.raises(DatasetDamaged, match=r"first line is no plan(.|\n)*in a new folder"):
        ganrt.verify(out, repair=True, model=model)
    assert marks(out) == before
    tally.survived("plan lost in ledger and manifest, refused")


@pytest.mark.parametrize("line", [0, 1, 3])
def test_the_ledger_of_a_translation_is_mended_from_the_images(line: int, tmp_path: Path, tally: Tally) -> None:
    two_classes(tmp_path / "in")
    model, out = translator_file(tmp_path, scale=2), tmp_path / "out"
    translate(model, tmp_path / "in", out, workers=1)
    shutil.copytree(out, tmp_path / "whole")
    lines = (out / "ganrt.ledger").read_bytes().splitlines(keepends=True)
    lines[line] = lines[line][:30] + b"?" + lines[line][31:] if line != 1 else b""
    (out / "ganrt.ledger").write_bytes(b"".join(lines))
    if line != 1:
        with pytest.raises(DatasetDamaged) if line == 0 else contextlib.nullcontext():
            assert ganrt.verify(out)
    assert ganrt.verify(out, repair=True, model=model, images=tmp_path / "in") == []
    assert differences(out, tmp_path / "whole") == []
    tally.survived("ledger line changed, translate")
