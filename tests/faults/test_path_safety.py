"""Nothing is written outside of a dataset's root: whatever names, cards, ledgers, parts and links say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ganrt
from ganrt.errors import GanrtError, UsageError
from ganrt.layouts import LAYOUTS, layout_of
from ganrt.names import DEVICE, file_stem
from ganrt.parts import ledger_name, read_parts
from ganrt.shards import Plan
from ganrt.translation_plan import TranslationPlan, check_names
from tests.datasets import make, model_file
from tests.faults.conftest import Tally
from tests.faults.hostile_images import NAMES
from tests.pictures import folder_of, translate, translator_file

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
# Names as people and attackers give them: pieces that mean something to some system, put together.
PIECES = (
    *(
        "..",
        ".",
        "/",
        "\\",
        "~",
        "C:",
        "con",
        "nul",
        "\0",
        "\n",
        "\x1b",
        "\u202e",
        "\ud800",
        "a",
        "B",
        "é",
        "e\u0301",
        " ",
    ),
    *("-", "_", "ganrt", ".ledger", ".part", "README.md", "metadata.csv", "images.npy", "%2f", "$(x)", "x" * 99),
)
names = st.one_of(
    st.text(max_size=12),
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
)


def leads_out(name: str) -> str | None:
    """What is wrong with a relative name under a root, on any system."""
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or any(p in ("", ".", "..") for p in parts):
        return f"{name!r} leads out of the root"
    if any(DEVICE.match(part) or part != part.strip(" ") or part.startswith(".") for part in parts):
        return f"{name!r} is no name everywhere"
    if re.search(r'[<>:"|?*\x00-\x1f\x7f]', name):
        return f"{name!r} holds what some system refuses"
    return None


def plan_of(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "part": "", "model": "m", "model_digest": "0" * 64, "class_names": (), "width": 8, "height": 8, "channels": 3,
        "seed": 0, "start": 0, "classes": (), "psi": None, "latent_std": 1.0, "size": None, "resample": None,
        "mode": "rgb",
        "layout": "folder", "format": "png", "quality": None, "mark": True, "shard_size": 4, "batch": 4,
    }  # fmt: skip
    return Plan(**(values | changes))


def translation_of(**changes: Any) -> TranslationPlan:
    values: dict[str, Any] = {
        "model": "m", "model_digest": "0" * 64, "class_names": (), "in_channels": 3, "channels": 3, "scale": 1,
        "names": (), "label_list": (), "inputs": "0" * 32, "size": (8, 8), "resize": None, "resample": None,
        "tile": None,
        "overlap": None, "multiple": 1, "layout": "folder", "format": "png", "quality": None, "mark": True,
        "shard_size": 4, "batch": 4,
    }  # fmt: skip
    return TranslationPlan(**(values | changes))


def files_of(plan: Any, n: int) -> list[str]:
    layout = layout_of(plan)
    named = [name for shard in plan.shards(n) for name in layout.names(shard)]
    if plan.layout == "npy":  # one array for all shards
        named = sorted(set(named))
    return [*named, *(name for name in layout.common(n) if name not in named), ledger_name(plan.part, (0, 1))]


def check(tally: Tally, row: str, plan: Any, n: int) -> None:
    files = files_of(plan, n)
    wrong = [why for name in files if (why := leads_out(name))]
    if wrong or len({name.casefold() for name in files}) < len(files):
        tally.lost(row, "; ".join(wrong) or f"names that are one: {files}")
    else:
        tally.survived(row)


@pytest.mark.parametrize("effort", [few, pytest.param(many, marks=pytest.mark.faults)], ids=["few", "many"])
def test_names_of_classes_and_images_stay_in_the_root(effort: settings, tally: Tally) -> None:
    @effort
    @given(classes=st.lists(names, max_size=4, unique=True), layout=st.sampled_from(LAYOUTS))
    @example(classes=["../../etc", "..", ""], layout="folder")
    def of_classes(classes: list[str], layout: str) -> None:
        form = None if layout == "npy" else "png"
        plan = plan_of(class_names=tuple(classes), classes=tuple(range(len(classes))), layout=layout, format=form)
        try:
            check(tally, "dataset file named by a class", plan, 4)
        except UsageError:
            tally.survived("dataset file named by a class")

    @effort
    @given(found=st.lists(names, min_size=1, max_size=4, unique=True), one_class=st.one_of(st.none(), names))
    @example(found=["../../x", ".."], one_class="..")
    def of_images(found: list[str], one_class: str | None) -> None:
        under = "" if one_class is None else f"{one_class}/"
        given_names = tuple(f"{under}{name}.png" for name in found)
        labels = () if one_class is None else (0,) * len(found)
        try:
            check_names(given_names, labels, "folder")
            plan = translation_of(
                names=given_names, label_list=labels, class_names=() if one_class is None else (one_class,)
            )
            check(tally, "dataset file named by an image", plan, len(found))
        except UsageError:
            tally.survived("dataset file named by an image")

    @effort
    @given(part=names)
    def of_parts(part: str) -> None:
        try:
            check(tally, "dataset file named by --part", plan_of(part=part), 4)
        except UsageError:
            tally.survived("dataset file named by --part")

    @effort
    @given(name=names)
    def mended_once(name: str) -> None:
        assert file_stem(file_stem(name)) == file_stem(name)

    for property_ in (of_classes, of_images, of_parts, mended_once):
        property_()


def ledger(root: Path, plan: dict[str, Any], real: Any = None) -> None:
    """The ledger of a plan, as whoever means harm would write it."""
    import hashlib

    text = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    found = real.fingerprint() if real is not None else hashlib.sha256(text.encode()).hexdigest()
    lines = [{"ganrt": 1, "fingerprint": found, "plan": plan}, {"n": 4}]
    (root / "ganrt.ledger").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("effort", [few, pytest.param(many, marks=pytest.mark.faults)], ids=["few", "many"])
def test_ledgers_from_anyone_name_nothing_outside_of_their_root(effort: settings, tally: Tally, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    row = "dataset file named by a ledger"

    @effort
    @given(found=st.lists(names, min_size=4, max_size=4), classes=st.lists(names, max_size=2), part=names)
    @example(found=["../x.png", "/etc/passwd", "..", ""], classes=["../.."], part="../x")
    def of_ledgers(found: list[str], classes: list[str], part: str) -> None:
        labels = tuple(k % len(classes) for k in range(4)) if classes else ()
        for make_plan in (
            lambda: translation_of(names=tuple(found), label_list=labels, class_names=tuple(classes)),
            lambda: plan_of(class_names=tuple(classes), classes=tuple(range(len(classes)))),
            lambda: plan_of(part=part),
        ):
            try:
                real = make_plan()
                ledger(root, real.to_dict(), real)
                for kept in read_parts(root).values():
                    wrong = [why for name in files_of(kept.plan, kept.n) if (why := leads_out(name))]
                    if wrong:
                        tally.lost(row, "; ".join(wrong))
                for act in (ganrt.verify, lambda r: ganrt.verify(r, repair=True), ganrt.merge):
                    act(root)
            except GanrtError:
                pass
            except Exception as error:
                tally.lost(row, f"{found} {classes} {part!r}: {type(error).__name__}: {error}")
                continue
            tally.survived(row)

    of_ledgers()
    assert {path.name for path in tmp_path.iterdir()} == {"root"}


# Real datasets ------------------------------------------------------------------------------------------------------


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in root.rglob("*")
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_of_a_card_are_written_within_the_root(layout: str, tally: Tally, tmp_path: Path) -> None:
    hostile = ["../../escape", "/etc/passwd", "..", "a/b", "C:\\x", "con", "README.md", "ganrt.json"]
    model = model_file(tmp_path, class_names=tuple(hostile))
    before = tree(tmp_path)
    make(model, tmp_path / "out", 16, layout=layout, shard_size=32)
    written = {name: data for name, data in tree(tmp_path).items() if not name.startswith("out")}
    assert written == before
    wrong = [why for name in tree(tmp_path / "out") if (why := leads_out(name))]
    tally.lost("class names of a hostile card", "; ".join(wrong)) if wrong else tally.survived(
        "class names of a hostile card", len(hostile)
    )


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.faults)], ids=["few", "every"])
def test_no_link_in_a_dataset_is_written_through(every: bool, layout: str, tally: Tally, tmp_path: Path) -> None:
    model, row = model_file(tmp_path), "link planted in a dataset"
    (tmp_path / "target").mkdir()
    (tmp_path / "target.txt").write_text("mine")
    finals = [name for name in tree(make_whole(model, tmp_path / "whole", layout)) if name != "ganrt.json"]
    finals = finals if every else [name for name in finals if not name.endswith((".png", ".md"))]
    targets = {"file": tmp_path / "target.txt", "new file": tmp_path / "gone", "folder": tmp_path / "target"}
    for name in [*finals, *(f"{name}.part" for name in finals), *(["ganrt.json", "ganrt.json.part"] if every else [])]:
        for kind in targets if every else ["file" if "." in name else "folder"]:
            out = make_whole(model, tmp_path / "out", layout)
            link = out / name
            if link.is_dir():
                shutil.rmtree(link)
            link.unlink(missing_ok=True)
            link.symlink_to(targets[kind])
            for act in (extend, repair, replace):
                with contextlib.suppress(GanrtError):
                    act(model, out, layout)
            changed = targets["file"].read_text() != "mine" or targets["new file"].exists()
            if changed or any(targets["folder"].iterdir()):
                tally.lost(row, f"{name} as a link to a {kind}")
                shutil.rmtree(targets["folder"])
                targets["folder"].mkdir()
                targets["file"].write_text("mine")
                targets["new file"].unlink(missing_ok=True)
            else:
                tally.survived(row)
            shutil.rmtree(out)


def extend(model: Path, out: Path, layout: str) -> None:
    make(model, out, 40, layout=layout, shard_size=32)


def repair(model: Path, out: Path, layout: str) -> None:
    ganrt.verify(out, repair=True, model=model)


def replace(model: Path, out: Path, layout: str) -> None:
    make(model, out, 12, layout=layout, shard_size=32, overwrite=True)


def make_whole(model: Path, out: Path, layout: str) -> Path:
    make(model, out, 8, layout=layout, shard_size=32)
    return out


def test_a_translation_of_strange_names_stays_in_its_root(tally: Tally, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", ["..a/..b.png", "..a/con.png", "-x/$(touch y).png", "c_/~.png"])
    translate(translator_file(tmp_path), tmp_path / "in", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "tiny.onnx"}
    wrong = [why for name in tree(tmp_path / "out") if (why := leads_out(name))]
    tally.lost("dataset file named by an image", str(wrong)) if wrong else tally.survived(
        "dataset file named by an image"
    )
