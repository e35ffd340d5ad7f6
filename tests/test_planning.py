"""Plans: what may be asked for, which shards it falls into, what tells one plan from another."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ganrt
from ganrt.card import Card
from ganrt.errors import UnknownClass, UsageError
from ganrt.planning import make_plan, parse_shard
from ganrt.shards import Plan, class_folders
from tests.models import tiny_card, tiny_model

CARD = tiny_card()
COLOURS = tiny_card(class_names=("Crimson", "crimson red", "Teal", "Olive", "Royal blue", "Navy", "Grey", "Gray"))
DIGEST = "0" * 64


def plan_of(card: Card = CARD, **options: Any) -> Plan:
    return make_plan(card, DIGEST, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed -1\nExpected a whole number of 0 to 18446744073709551615."),
        ({"seed": 2**64}, "seed 18446744073709551616\nExpected a whole number of 0 to 18446744073709551615."),
        ({"seed": 1.0}, "seed 1.0\nExpected a whole number"),
        ({"seed": True}, "seed True\nExpected a whole number"),
        ({"start": -1}, "start -1\nExpected a whole number of 0 to 281474976710655."),
        ({"start": 2**48}, "start 281474976710656\nExpected"),
        ({"batch": 0}, "batch 0\nExpected a whole number of 1 to 65536."),
        ({"batch": 65537}, "batch 65537\nExpected"),
        ({"shard_size": 0}, "shard size 0\nExpected a whole number of 1 to"),
        ({"shard_size": 100}, "shard size 100 is no multiple of the batch 64\n128 would be one."),
        ({"shard_size": 10, "batch": 64}, "shard size 10 is no multiple of the batch 64\n64 would be one."),
        ({"layout": "parquet"}, "layout 'parquet'\nExpected folder, webdataset, npy."),
        ({"format": "gif"}, "format 'gif'\nExpected png, jpeg, webp."),
        ({"quality": 90}, "quality does not apply to png, which loses nothing\nLeave it out."),
        ({"format": "jpeg", "quality": 0}, "quality 0\nExpected a whole number of 1 to 100."),
        ({"format": "webp", "quality": 101}, "quality 101\nExpected"),
        (
            {"layout": "npy", "format": "png"},
            "format does not apply to layout npy\nIt holds plain arrays: leave it out.",
        ),
        ({"layout": "npy", "quality": 9}, "quality does not apply to layout npy\n"),
        ({"layout": "npy", "mark": False}, "mark does not apply to layout npy\n"),
        ({"resample": "nearest"}, "resample does not apply without a size\nGive a size too, or leave it out."),
        ({"size": 8, "resample": "cubic"}, "resample 'cubic'\nExpected nearest, bilinear, lanczos."),
        ({"size": (0, 8)}, "width 0\nExpected a whole number of 1 to 16384."),
        ({"mode": "L"}, "mode 'L'\nExpected l (grey) or rgb."),
        ({"psi": 0.7}, "psi 0.7: generator tiny takes no truncation\nLeave psi out."),
        ({"psi": 1.5}, "psi 1.5\nExpected a number of 0 (the mean image) to 1 (no truncation)."),
        ({"latent_std": -1.0}, "latent std -1.0\nExpected a number above 0, up to 100; 1.0 is as trained."),
        ({"classes": ["a", "b", 0]}, "class 'a' is named twice\nName each class once."),
        ({"classes": ["z"]}, "generator tiny has no class 'z'\nIt has 3: a, b, c."),
        ({"classes": []}, "no class is named\nName at least one, or leave the classes out to have them all."),
        ({"part": "a b"}, "part 'a b'\nExpected up to 40 letters, digits, '-' and '_'"),
        ({"part": "-a"}, "part '-a'\n"),
        ({"part": "x" * 41}, f"part '{'x' * 41}'\n"),
        ({"part": "../up"}, "part '../up'\n"),
        ({"part": "0-of-3"}, "part '0-of-3'\n"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_of(**options)
    assert str(error.value).startswith(message)
    assert error.value.exit_code == 2


def test_options_at_their_limits() -> None:
    plan = plan_of(
        seed=2**64 - 1, start=2**48 - 1, batch=1, shard_size=1, size=(16384, 1), latent_std=100, part="x" * 40
    )
    assert (plan.seed, plan.start, plan.size) == (2**64 - 1, 2**48 - 1, (16384, 1))
    assert plan_of(tiny_card(psi=True), psi=0).psi == 0.0
    assert plan_of(format="jpeg", quality=1).quality == 1


def test_defaults() -> None:
    plan = plan_of()
    assert (plan.classes, plan.psi, plan.size, plan.resample, plan.mode) == ((0, 1, 2), None, None, None, "rgb")
    assert (plan.layout, plan.format, plan.quality, plan.mark) == ("folder", "png", None, True)
    assert (plan.batch, plan.shard_size % 64, plan.pixels) == (64, 0, (8, 8, 3))
    assert plan_of(psi=1.0) == plan, "no truncation is what a generator without psi does"
    assert plan_of(tiny_card(psi=True)).psi == 1.0
    assert plan_of(size=(64, 48), mode="l").pixels == (48, 64, 1)
    assert plan_of(size=9).resample == "lanczos"
    assert (plan_of(format="jpeg").quality, plan_of(format="webp").quality) == (90, 90)
    assert (plan_of(layout="npy").format, plan_of(layout="npy").mark) == (None, False)
    for batch in (7, 100, 5000):
        assert plan_of(batch=batch).shard_size % batch == 0


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("Crimsn", "Did you mean 'Crimson'"),
        ("Gery", "Did you mean 'Grey'"),
        ("royal-blue", "Did you mean 'Royal blue'"),
    ],
)
def test_an_unknown_class_is_told_the_near_ones(wanted: str, near: str) -> None:
    with pytest.raises(UnknownClass) as error:
        plan_of(COLOURS, classes=[wanted])
    assert str(error.value).startswith(f"generator tiny has no class {wanted!r}\n{near}")
    assert "It has 8: Crimson, crimson red, " in str(error.value)


@pytest.mark.parametrize("shard", ["0/1", "2/3", (2, 3), "999999/1000000"])
def test_shares_of_machines(shard: str | tuple[int, int]) -> None:
    k, m = shard.split("/") if isinstance(shard, str) else shard
    assert parse_shard(shard) == (int(k), int(m))


@pytest.mark.parametrize(
    "shard", ["3/3", "-1/3", "1", "1/2/3", "a/b", "", "/", "0/0", "1.0/2", "0/1000001", (1,), (2, 2), 5]
)
def test_what_is_no_share(shard: Any) -> None:
    with pytest.raises(UsageError) as error:
        parse_shard(shard)
    assert str(error.value) == (
        f"shard {shard!r}\nExpected K/M: of M machines the K-th from 0, as in 0/4, 1/4, 2/4, 3/4."
    )


INDICES = st.integers(0, 2**48 - 5000) | st.integers(0, 3000)
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 90)).map(lambda pair: (pair[0], pair[0] * pair[1]))


@given(INDICES, st.integers(0, 2000), SIZES)
def test_shards_hold_every_index_once_and_lie_at_absolute_places(start: int, n: int, sizes: tuple[int, int]) -> None:
    batch, shard_size = sizes
    plan = plan_of(start=start, batch=batch, shard_size=shard_size)
    shards = list(plan.shards(n))
    assert [index for shard in shards for index in range(shard.start, shard.stop)] == list(range(start, start + n))
    for shard in shards:
        assert 0 < len(shard) <= shard_size
        assert shard.number * shard_size <= shard.start < shard.stop <= (shard.number + 1) * shard_size
        assert plan.shard(shard.number, n) == shard
    for number in (start // shard_size - 1, (start + n - 1) // shard_size + 1):
        assert plan.shard(number, n) is None
    grown = list(plan.shards(n + 1))
    assert grown[: max(0, len(shards) - 1)] == shards[:-1], "a larger n changes the last shard at most"


@given(INDICES, st.integers(0, 500), st.permutations(range(8)), st.integers(1, 8))
def test_classes_are_counted_as_they_are_labelled(start: int, n: int, order: list[int], chosen: int) -> None:
    plan = plan_of(COLOURS, start=start, classes=order[:chosen])
    names = Counter(COLOURS.class_names[plan.label(index) or 0] for index in range(start, start + n))
    counts = plan.per_class(n)
    assert {name: count for name, count in counts.items() if count} == dict(names)
    assert list(counts) == [COLOURS.class_names[y] for y in order[:chosen]]
    assert max(counts.values()) - min(counts.values()) <= 1


def test_without_classes_there_is_nothing_to_count() -> None:
    plan = plan_of(tiny_card(class_names=()))
    assert plan.per_class(5) == {}
    assert plan.label(3) is None


CHANGES: dict[str, Any] = {
    "part": "b", "model": "other", "model_digest": "1" * 64, "class_names": ("a", "b", "d"), "width": 9, "height": 9,
    "channels": 1, "seed": 1, "start": 1, "classes": (0, 2, 1), "psi": 0.5, "latent_std": 0.5, "size": (8, 9),
    "resample": "nearest", "mode": "l", "layout": "webdataset", "format": "jpeg", "quality": 80, "mark": False,
    "shard_size": 640, "batch": 32,
}  # fmt: skip


def test_the_fingerprint_tells_plans_apart_by_every_field() -> None:
    plan = plan_of()
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Plan)}, "name a change of the new field here"
    others = {name: dataclasses.replace(plan, **{name: value}) for name, value in CHANGES.items()}
    assert len({plan.fingerprint(), *(other.fingerprint() for other in others.values())}) == len(CHANGES) + 1
    for name, other in others.items():
        [difference] = plan.differences(other)
        assert difference.startswith(f"{name}: ")
    assert plan.differences(plan_of()) == []
    assert plan.fingerprint() == plan_of().fingerprint()


def test_a_plan_comes_back_from_its_json() -> None:
    for plan in (plan_of(size=(9, 7), classes=["c", "a"]), plan_of(tiny_card(class_names=(), psi=True), layout="npy")):
        again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
        assert again == plan
        assert again.fingerprint() == plan.fingerprint()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("Bag", "Bag"),
        ("T-shirt/top", "T-shirt_top"),
        ("ankle boot", "ankle boot"),
        ("a//b\\c:d", "a_b_c_d"),
        ("Knöchelschuh", "Kn_chelschuh"),
        ("靴", "_"),
        ("..", "_"),
        (".hidden", "_hidden"),
        ("dot.", "dot_"),
        (" blank ", "_blank_"),
        ("v1.5", "v1.5"),
        ("con", "con_"),
        ("NUL.txt", "NUL_.txt"),
        ("com1", "com1_"),
        ("contour", "contour"),
        ("README.md", "README.md_"),
        ("ganrt.json", "ganrt.json_"),
        ("metadata.csv", "metadata.csv_"),
        ("test", "test"),
        ("__private", "_private"),
        ("_(x", "_x"),
    ],
)
def test_class_names_become_folders(name: str, folder: str) -> None:
    assert class_folders((name, "another")) == (folder, "another")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("Cat", "cat"), "classes 'Cat' and 'cat' would share the folder 'cat'"),
        (("a", "x/y", "x:y"), "classes 'x/y' and 'x:y' would share the folder 'x_y'"),
        (("靴", "鞄"), "classes '靴' and '鞄' would share the folder '_'"),
        (("con", "con_"), "classes 'con' and 'con_' would share the folder 'con_'"),
    ],
)
def test_classes_that_would_share_a_folder_are_refused_before_anything_is_written(
    names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model(class_names=names))
    with pytest.raises(UsageError) as error:
        ganrt.generate(tmp_path / "tiny.onnx", n=4, out=tmp_path / "out", device="cpu")
    assert str(error.value).startswith(f"{message}\nUse --layout webdataset or npy, or rename")
    assert not (tmp_path / "out").exists()
    report = ganrt.generate(tmp_path / "tiny.onnx", n=4, out=tmp_path / "out", device="cpu", layout="webdataset")
    assert report.complete


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n -1\nExpected a whole number of 0 to 281474976710655."),
        ({"n": 2**48}, "n 281474976710656\n"),
        ({"n": 10, "start": 2**48 - 10}, "start + n 281474976710656\nExpected a whole number of 0 to 281474976710655."),
        ({"n": 1, "workers": 0}, "workers 0\nExpected a whole number of 1 to 1024."),
        ({"n": 1, "shard": "1/1"}, "shard '1/1'\nExpected K/M"),
        ({"n": 1, "shard": "0/2", "layout": "npy"}, "layout npy cannot be made by several machines\nUse folder or"),
        ({"n": 1, "device": "gpu"}, "device 'gpu'\nExpected auto, cpu, cuda"),
    ],
)
def test_a_request_is_checked_before_anything_is_written(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model())
    for run in (ganrt.generate, ganrt.forecast):
        with pytest.raises(UsageError) as error:
            run(tmp_path / "tiny.onnx", out=tmp_path / "out", **arguments)
        assert str(error.value).startswith(message)
    assert not (tmp_path / "out").exists()
