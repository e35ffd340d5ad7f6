"""Training data and images to translate that are unusual, broken or mean harm.

Each is read by a process of its own, within two seconds and 500 MB, as the guides say, or ends in a typed error that
names the file. Nothing is written that was not asked for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganrt.names import DEVICE
from tests.faults.confined import Confined, Outcome, confined
from tests.faults.conftest import Tally
from tests.faults.hostile_arrays import ARRAYS, IDX, TARS
from tests.faults.hostile_data import ZIPS, Case, png
from tests.faults.hostile_images import BROKEN, FOLDERS, NAMES, READ
from tests.faults.reading import train_on, translate
from tests.pictures import translator_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits, links and names of Linux")


@pytest.fixture(scope="module")
def run() -> Iterator[Confined]:
    with confined("tests.faults.reading", "onnxruntime", "numpy.lib.format") as process:
        yield process


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return translator_file(tmp_path_factory.mktemp("models"), dynamic=True)


def told(tally: Tally, row: str, case: str, complaint: str | None) -> None:
    if complaint:
        tally.lost(row, f"{case}: {complaint}")
    else:
        tally.survived(row)


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.glob("**/*")}


@pytest.mark.parametrize("cases", [ZIPS, ARRAYS, IDX, TARS], ids=["zips", "arrays", "idx", "tars"])
@pytest.mark.parametrize(
    ("skip", "every"),
    [(False, 2), pytest.param(False, 1, marks=pytest.mark.faults), pytest.param(True, 1, marks=pytest.mark.faults)],
    ids=["half", "stop", "skip"],
)
def test_archives_and_arrays(
    cases: tuple[Case, ...], skip: bool, every: int, run: Confined, tally: Tally, tmp_path: Path
) -> None:
    for number, case in enumerate(cases[::every]):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        path = case.make(folder)
        before = tree(tmp_path)
        outcome = run(train_on, path, **({"on_corrupt": "skip"} if skip else {}))
        # Where what cannot be used is left out, there may be something that is left.
        says = None if skip and outcome.kind == "done" else case.says
        complaint = outcome.complaint("" if skip and says else says, str(path) if says is not None else None)
        if not complaint and tree(tmp_path) != before:
            complaint = f"wrote {sorted(tree(tmp_path) - before)}"
        told(tally, case.row, f"{path.name} {number}", complaint)
        shutil.rmtree(folder)


def one_image(folder: Path, name: str, data: bytes) -> Path:
    (folder / "in").mkdir()
    (folder / "in" / name).write_bytes(data)
    return folder / "in"


def read_both(run: Confined, model: Path, images: Path, both: bool) -> Iterator[Outcome]:
    """What training, and then translation if it is asked for, make of a folder."""
    yield run(train_on, images)
    if both:
        yield run(translate, model, images, images.parent / "out")


only_training = pytest.mark.parametrize(
    "both", [False, pytest.param(True, marks=pytest.mark.faults)], ids=["training", "translation too"]
)


@only_training
def test_unusual_images_are_read(both: bool, run: Confined, model: Path, tally: Tally, tmp_path: Path) -> None:
    for kind, (name, data) in list(READ.items())[:: 1 if both else 2]:
        (tmp_path / kind).mkdir()
        for outcome in read_both(run, model, one_image(tmp_path / kind, name, data()), both):
            told(tally, "unusual image is read", kind, outcome.complaint(None))


@only_training
def test_broken_images_are_named(both: bool, run: Confined, model: Path, tally: Tally, tmp_path: Path) -> None:
    for kind, (data, says) in list(BROKEN.items())[:: 1 if both else 2]:
        (tmp_path / kind).mkdir()
        images = one_image(tmp_path / kind, "x.png", data())
        for outcome in read_both(run, model, images, both):
            told(tally, "broken image or bomb is named", kind, outcome.complaint(says, f"{images}/x.png"))
        assert not (images.parent / "out").exists()


@only_training
def test_folders_of_pipes_links_and_depths(
    both: bool, run: Confined, model: Path, tally: Tally, tmp_path: Path
) -> None:
    for kind, (makers, *expected) in FOLDERS.items():
        images = tmp_path / kind / "in"
        images.mkdir(parents=True)
        for make in makers:
            make(images)
        for outcome, says in zip(read_both(run, model, images, both), expected, strict=False):
            told(tally, "pipes, devices and links among images", kind,
                 outcome.complaint(says, None if says is None else str(images)))  # fmt: skip
        subprocess.run(["rm", "-r", images], check=True)  # shutil would go too deep


# Names --------------------------------------------------------------------------------------------------------------


def can_be(name: str) -> bool:
    """Whether the file system takes it."""
    return len(name.encode("utf-8", "surrogateescape" if name != "\ud800" else "ignore")) <= 255 and name != "\ud800"


def unfit(name: str) -> str | None:
    """What some system would refuse in a part of a path."""
    if re.search(r'[<>:"|?*\\\x00-\x1f\x7f]', name) or not name.isprintable():
        return "a character"
    if DEVICE.match(name) or name != name.strip(". ") or len(name.encode()) > 255:
        return "a device, or an end, or a length"
    return None


@pytest.mark.parametrize("as_class", [True, pytest.param(False, marks=pytest.mark.faults)], ids=["class", "file"])
@only_training
def test_strange_names(as_class: bool, both: bool, run: Confined, model: Path, tally: Tally, tmp_path: Path) -> None:
    row = "strange name of a class folder" if as_class else "strange name of a file"
    for number, name in enumerate(NAMES if both else NAMES[::3]):
        folder = tmp_path / f"{number}"
        inside = folder / "in" / ("c" if not as_class else name)
        if not can_be(name) or not can_be(name if as_class else f"{name}.png"):
            continue
        inside.mkdir(parents=True)
        (inside / ("x.png" if as_class else f"{name}.png")).write_bytes(png())
        for outcome in read_both(run, model, folder / "in", both):
            complaint = None if outcome.kind in ("done", "typed") else outcome.text
            if not outcome.text.isprintable() and "\n" not in outcome.text:
                complaint = f"says {outcome.text!r}"
            told(tally, row, repr(name), complaint)
        if (folder / "out").exists():
            bad = {part: why for path in tree(folder / "out") for part in path.split("/") if (why := unfit(part))}
            told(tally, row, repr(name), f"wrote {bad}" if bad else None)
        assert {path.name for path in folder.iterdir()} <= {"in", "out"}
        shutil.rmtree(folder)


@pytest.mark.faults
def test_names_that_are_one_on_some_system(run: Confined, model: Path, tally: Tally, tmp_path: Path) -> None:
    pairs = [("CAT", "cat", True), ("a:b", "a?b", True), ("con", "con_", True), ("é", "è", True),
             ("caf\u00e9", "cafe\u0301", False), ("..a", "_.a", False), ("ß", "SS", False)]  # fmt: skip
    for number, (one, other, shared) in enumerate(pairs):
        images = tmp_path / f"{number}" / "in"
        for name in (one, other):
            (images / name).mkdir(parents=True)
            (images / name / "x.png").write_bytes(png())
        outcome = run(translate, model, images, images.parent / "out")
        says = "would share the folder" if shared else None
        told(tally, "class folders that would share a name", f"{one} {other}", outcome.complaint(says))
        if says:
            assert not (images.parent / "out").exists()
        told(tally, "class folders that would share a name", f"{one} {other} webdataset",
             run(translate, model, images, images.parent / "out2", layout="webdataset").complaint(None))  # fmt: skip
