"""verify names whatever is not as it was written, --repair makes exactly that again, merge joins what machines made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ganrt
from ganrt import manifest
from ganrt.errors import Cancelled, DatasetDamaged, DatasetError, DatasetMismatch, UnknownModel
from ganrt.parts import read_parts
from tests.datasets import DIVISIBLE, LAYOUTS, differences, make, marks, model_file, run

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
N = 1000  # 8 shards of 128 images, the last one short


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whole")
    for layout in LAYOUTS:
        make(model, root / layout, N, layout=layout, workers=1)  # so that the ledger's lines are in order
    return {layout: root / layout for layout in LAYOUTS}


@pytest.fixture
def copy(whole: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A dataset of its own to break."""

    def made(layout: str) -> Path:
        return Path(shutil.copytree(whole[layout], tmp_path / "out"))

    return made


def command_line(*words: str | Path) -> tuple[int, str, str]:
    done = run([sys.executable, "-m", "ganrt", *map(str, words)])
    return done.returncode, done.stdout, done.stderr


Break = Callable[[Path], Any]


def flip(path: Path, at: int = -40) -> None:
    """Changes one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace("tiny", "Tiny"))


def tear(root: Path, what: bytes, line: bytes | None = b'{"shard": 7, "ima\n') -> None:
    """Puts another line in the place of the first ledger line that begins so; takes it away with None."""
    path = root / "ganrt.ledger"
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(number for number, text in enumerate(lines) if text.startswith(what))
    lines[at : at + 1] = [line] if line is not None else []
    path.write_bytes(b"".join(lines))


def on(name: str, do: Break) -> Break:
    return lambda root: do(root / name)


# What is broken, and how verify calls it: (layout, what to do, name, what is said of it).
DAMAGES: dict[str, tuple[str, Break, str, str]] = {
    "image flipped": ("folder", lambda d: flip(d / "b/00000001.png"), "b/00000001.png", "other bytes"),
    "image cut": ("folder", lambda d: cut(d / "b/00000001.png", 50), "b/00000001.png", "50 bytes"),
    "image emptied": ("folder", lambda d: cut(d / "c/00000998.png", 0), "c/00000998.png", "0 bytes"),
    "image longer": ("folder", lambda d: append(d / "a/00000000.png"), "a/00000000.png", "bytes"),
    "image deleted": ("folder", lambda d: (d / "a/00000999.png").unlink(), "a/00000999.png", "missing"),
    "images swapped": (
        "folder",
        lambda d: shutil.copy(d / "a/00000000.png", d / "a/00000003.png"),
        "a/00000003.png",
        "",
    ),
    "archive flipped": ("webdataset", lambda d: flip(d / "000002.tar", 3000), "000002.tar", "other bytes"),
    "archive flipped in its padding": ("webdataset", lambda d: flip(d / "000002.tar", -1), "000002.tar", "other bytes"),
    # tarfile reads such a file to its end without an error
    "archive cut between members": (
        "webdataset",
        lambda d: cut(d / "000002.tar", 512 * 90),
        "000002.tar",
        "46080 bytes",
    ),
    "archive deleted": ("webdataset", lambda d: (d / "000007.tar").unlink(), "000007.tar", "missing"),
    "array flipped": ("npy", lambda d: flip(d / "images.npy", 128 + 192 * 300), "images.npy", "rows 256 to 383"),
    "array cut": ("npy", lambda d: cut(d / "images.npy", 128 + 192 * 999), "images.npy", "rows 896 to 999"),
    "array longer": ("npy", lambda d: append(d / "images.npy"), "images.npy", "other bytes"),
    "array deleted": ("npy", lambda d: (d / "images.npy").unlink(), "images.npy", "rows 0 to 127 missing"),
    "array's header": ("npy", lambda d: flip(d / "images.npy", 30), "images.npy", "other bytes"),
    "labels flipped": ("npy", lambda d: flip(d / "labels.npy", 128 + 8 * 500), "labels.npy", "other bytes"),
    "labels cut": ("npy", lambda d: cut(d / "labels.npy", 1000), "labels.npy", "other bytes"),
    "labels longer": ("npy", lambda d: append(d / "labels.npy"), "labels.npy", "other bytes"),
    "labels deleted": ("npy", lambda d: (d / "labels.npy").unlink(), "labels.npy", "missing"),
    **{
        f"{name} {how} ({layout})": (layout, on(name, f), name, said)
        for layout in LAYOUTS
        for name in ("ganrt.json", "README.md")
        for how, f, said in (("edited", edit, "other bytes"), ("deleted", Path.unlink, "missing"))
    },
    **{
        f"ledger line torn ({layout})": (layout, lambda d: tear(d, b'{"shard":'), "ganrt.ledger", "torn or changed")
        for layout in LAYOUTS
    },
    "ledger's n torn": ("webdataset", lambda d: tear(d, b'{"n":'), "ganrt.ledger", "torn or changed"),
    "ledger line gone": ("webdataset", lambda d: tear(d, b'{"shard":', None), "samples 0 to 127", "not finished"),
}
every_damage = pytest.mark.parametrize("damage", DAMAGES)


@every_layout
def test_a_dataset_as_it_was_written_is_clean(layout: str, whole: dict[str, Path]) -> None:
    before = marks(whole[layout])
    counts: list[tuple[int, int]] = []
    assert ganrt.verify(whole[layout], progress=lambda done, total: counts.append((done, total))) == []
    assert counts == sorted(counts) and counts[-1] == (N, N)
    assert marks(whole[layout]) == before
    status, said, complaint = command_line("verify", whole[layout])
    assert status == 0 and "every file is as it was written" in said
    assert [line for line in complaint.splitlines() if not line.startswith("ganrt: device ")] == []


@every_damage
def test_damage_is_named(damage: str, copy: Callable[[str], Path]) -> None:
    layout, do, name, said = DAMAGES[damage]
    out = copy(layout)
    do(out)
    before = marks(out)
    found = [(d.name, d.what) for d in ganrt.verify(out)]
    assert any(n == name and said in what for n, what in found), found
    # Beside it, what follows from it: the array's other rows or its size, the shard and manifest of a ledger line.
    most = {"array deleted": 9, "array cut": 2}.get(damage, 3 if "ledger" in damage else 1)
    assert len(found) <= most, found
    assert marks(out) == before


@every_damage
def test_repair_makes_exactly_that_again(
    damage: str, copy: Callable[[str], Path], whole: dict[str, Path], model: Path
) -> None:
    layout, do, name, _ = DAMAGES[damage]
    out = copy(layout)
    (out / "notes.txt").write_text("mine")
    do(out)
    before = marks(out)
    left = ganrt.verify(out, repair=True, model=model, device="cpu")
    assert [(d.name, d.what) for d in left] == [("notes.txt", "extra: not of this dataset")]
    assert differences(out, whole[layout]) == ["notes.txt"]
    after = marks(out)
    touched = {path for path in after if after[path] != before.get(path)}
    if "ledger" in damage:  # what the ledger forgot is made again
        assert all(path in (name, "ganrt.ledger", "000000.tar", "images.npy") or ".png" in path for path in touched)
        assert len(touched) <= 1 + (128 if layout == "folder" else 1)
    else:
        assert touched - {"ganrt.ledger"} == {name}
    assert (out / "notes.txt").read_text() == "mine"
    assert make(model, out, N, layout=layout).images == 0


def test_the_command_names_damage_and_ends_with_5(copy: Callable[[str], Path], model: Path) -> None:
    out = copy("folder")
    flip(out / "b/00000001.png")
    (out / "a/00000003.png").unlink()
    (out / "c/extra.png").write_bytes(b"mine")
    status, said, complaint = command_line("verify", out)
    assert status == 5
    assert "b/00000001.png: changed: other bytes than were written\n" in said
    assert "a/00000003.png: missing\n" in said and "c/extra.png: extra: not of this dataset\n" in said
    assert "3 things are not as they should be" in complaint and "--repair" in complaint
    status, said, _ = command_line("verify", out, "--json")
    about = json.loads(said)
    assert status == 5 and about["well"] is False
    assert {d["name"] for d in about["damage"]} == {"b/00000001.png", "a/00000003.png", "c/extra.png"}
    status, said, complaint = command_line("verify", out, "--repair", "--model", model)
    assert status == 5 and said == "c/extra.png: extra: not of this dataset\n"
    assert "Extra files are left alone" in complaint
    (out / "c/extra.png").unlink()
    assert command_line("verify", out)[0] == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_command_repairs_and_ends_with_0(
    layout: str, copy: Callable[[str], Path], whole: dict[str, Path], model: Path
) -> None:
    out = copy(layout)
    flip(next(path for path in sorted(out.rglob("*")) if path.suffix in (".png", ".tar", ".npy")), 200)
    status, said, complaint = command_line("verify", out, "--repair", "--model", model)
    assert status == 0 and "every file is as it was written" in said
    assert [line for line in complaint.splitlines() if not line.startswith("ganrt: device ")] == []
    assert differences(out, whole[layout]) == []


def test_a_renamed_class_folder_is_missing_and_extra(
    copy: Callable[[str], Path], whole: dict[str, Path], model: Path
) -> None:
    out = copy("folder")
    (out / "b").rename(out / "bb")
    found = {(d.name, d.what) for d in ganrt.verify(out)}
    assert found == {(f"b/{i:08d}.png", "missing") for i in range(1, N, 3)} | {
        (f"bb/{i:08d}.png", "extra: not of this dataset") for i in range(1, N, 3)
    }
    left = ganrt.verify(out, repair=True, model=model)
    assert {d.name for d in left} == {f"bb/{i:08d}.png" for i in range(1, N, 3)}
    shutil.rmtree(out / "bb")
    assert differences(out, whole["folder"]) == []


def test_an_empty_folder_is_extra(copy: Callable[[str], Path]) -> None:
    # Readers would take it for a class.
    out = copy("folder")
    (out / "d").mkdir()
    assert [(d.name, d.what) for d in ganrt.verify(out)] == [("d/", "extra: not of this dataset")]


@every_layout
def test_a_leftover_of_a_run_is_extra(layout: str, copy: Callable[[str], Path]) -> None:
    out = copy(layout)
    (out / "images.npy.part").write_bytes(b"")
    assert ("images.npy.part", "extra: not of this dataset") in [(d.name, d.what) for d in ganrt.verify(out)]


def test_a_ledger_without_its_plan_is_damage(copy: Callable[[str], Path], model: Path) -> None:
    out = copy("folder")
    tear(out, b'{"ganrt"', b"[]\n")
    status, _, complaint = command_line("verify", out)
    assert status == 5 and "ganrt.ledger: its first line is no plan" in complaint
    with pytest.raises(DatasetDamaged, match="first line is no plan"):
        make(model, out, N)


# The generator that repair needs.


@every_layout
def test_repair_wants_the_generator_that_made_it(
    layout: str, copy: Callable[[str], Path], whole: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    out = copy(layout)
    flip(next(path for path in sorted(out.rglob("*")) if path.suffix in (".png", ".tar", ".npy")), 200)
    before = marks(out)
    with pytest.raises(DatasetMismatch, match="is not the generator that made the dataset"):
        ganrt.verify(out, repair=True, model=model_file(tmp_path, seed=1))
    with pytest.raises(UnknownModel, match=r"the generator tiny of the dataset is not found(.|\n)*--model PATH"):
        ganrt.verify(out, repair=True)
    assert marks(out) == before, "a refused repair leaves everything as it was"
    assert ganrt.verify(out, repair=True, model=model) == []
    assert differences(out, whole[layout]) == []


def test_repair_finds_the_generator_by_its_name(
    copy: Callable[[str], Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy("folder")
    (out / "a/00000000.png").unlink()
    monkeypatch.setenv("GANRT_MODELS", str(model.parent))
    assert ganrt.verify(out, repair=True) == []


@every_layout
def test_manifest_and_readme_are_repaired_without_the_generator(layout: str, copy: Callable[[str], Path]) -> None:
    out = copy(layout)
    edit(out / "ganrt.json")
    (out / "README.md").unlink()
    assert ganrt.verify(out, repair=True) == []


# More than one ledger.


@pytest.mark.parametrize("layout", DIVISIBLE)
def test_what_several_machines_made_is_repaired_too(
    layout: str, whole: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for share in ("0/2", "1/2"):
        make(model, out, N, layout=layout, shard=share)
    victims = (
        ["000002.tar", "000003.tar"]
        if layout == "webdataset"
        else ["b/00000256.png", "b/00000400.png", "a/00000513.png"]
    )
    for name in victims:
        (out / name).unlink()
    before = marks(out)
    assert {d.name for d in ganrt.verify(out)} == set(victims)
    assert ganrt.verify(out, repair=True, model=model) == []
    assert differences(out, whole[layout]) == []
    after = marks(out)
    assert {name for name in after if after[name] != before.get(name)} == set(victims)


def test_damage_in_one_part_leaves_the_other_alone(tmp_path: Path) -> None:
    one, two, out = model_file(tmp_path, "one"), model_file(tmp_path, "two", seed=1), tmp_path / "out"
    for layout in LAYOUTS:
        make(one, out / layout, 300, layout=layout, part="one")
        make(two, out / layout, 300, layout=layout, part="two")
        victim = next(path for path in sorted((out / layout).rglob("two-*")) if "labels" not in path.name)
        flip(victim, 200)
        before = marks(out / layout)
        found = ganrt.verify(out / layout)
        assert {d.part for d in found} == {"two"}
        assert ganrt.verify(out / layout, repair=True, model=two) == []
        after = marks(out / layout)
        assert [n for n in after if after[n] != before[n]] == [victim.relative_to(out / layout).as_posix()]


# Not finished.


@every_layout
def test_an_unfinished_dataset_is_not_well_and_says_what_lacks(layout: str, tmp_path: Path) -> None:
    model, out = model_file(tmp_path), tmp_path / "out"
    calls: list[int] = []

    def progress(state: ganrt.Progress) -> None:
        calls.append(state.made)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(model, out, 40_000, layout=layout, progress=progress)
    found = ganrt.verify(out)
    assert found and all(d.what == "not finished" for d in found if d.shard is not None)
    assert any(d.name == "samples 39936 to 39999" for d in found)
    status, said, _ = command_line("verify", out)
    assert status == 5 and "samples 39936 to 39999: not finished" in said


@pytest.mark.parametrize("layout", DIVISIBLE)
def test_repair_of_an_unfinished_share_finishes_it(
    layout: str, whole: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make(model, out, N, layout=layout, shard="1/2")
    assert {d.name for d in ganrt.verify(out)} == {f"samples {k} to {k + 127}" for k in (0, 256, 512, 768)}
    assert ganrt.verify(out, repair=True, model=model) == []
    assert differences(out, whole[layout]) == []


@pytest.mark.parametrize("command", ["verify", "merge"])
def test_a_folder_without_a_dataset_is_named(command: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    status, _, complaint = command_line(command, tmp_path)
    assert status == 1 and f"{tmp_path} holds no ganrt dataset" in complaint and "--out" in complaint
    status, _, complaint = command_line(command, tmp_path / "nowhere")
    assert status == 1 and "is no folder" in complaint and "Traceback" not in complaint


# merge


@every_layout
def test_merge_of_a_complete_dataset_changes_nothing(layout: str, whole: dict[str, Path]) -> None:
    before = marks(whole[layout])
    assert ganrt.merge(whole[layout]) == N
    assert marks(whole[layout]) == before
    assert command_line("merge", whole[layout])[0] == 0


@pytest.mark.parametrize("layout", DIVISIBLE)
def test_merge_of_an_incomplete_dataset_names_the_shares_that_lack(layout: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for k in (0, 3):
        make(model, out, N, layout=layout, shard=(k, 4))
    before = marks(out)
    with pytest.raises(DatasetError) as error:
        ganrt.merge(out)
    assert "the dataset of" in error.value.message and "lacks 512 of 1,000 images (shards 1, 2, 5, 6)" in str(
        error.value
    )
    assert "--shard 1/4, --shard 2/4" in str(error.value) and "--shard 0/4" not in str(error.value)
    assert marks(out) == before


@every_layout
def test_merge_writes_what_the_last_machine_could_not(
    layout: str, whole: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    # Killed after its last ledger line.
    out = copy(layout)
    for name in ("README.md", "ganrt.json"):
        (out / name).unlink()
    if layout == "npy":
        (out / "images.npy").rename(out / "images.npy.part")
        (out / "labels.npy").unlink()
    assert ganrt.merge(out) == N
    assert differences(out, whole[layout]) == []


@every_layout
def test_merge_sees_that_files_are_missing(layout: str, copy: Callable[[str], Path]) -> None:
    out = copy(layout)
    next(path for path in sorted(out.rglob("*")) if path.suffix in (".png", ".tar", ".npy")).unlink()
    (out / "README.md").unlink()
    with pytest.raises(DatasetDamaged, match=r"missing or cut(.|\n)*ganrt verify .* --repair"):
        ganrt.merge(out)
    assert not (out / "README.md").exists()


def test_completing_one_part_never_fills_the_holes_of_another(tmp_path: Path) -> None:
    # An array that lost its end must not get its size back, filled with zeros.
    model, out = model_file(tmp_path), tmp_path / "out"
    make(model, out, 300, layout="npy", part="one")
    cut(out / "one-images.npy", 5000)
    make(model, out, 100, layout="npy", part="two")
    assert (out / "one-images.npy").stat().st_size == 5000
    assert {d.part for d in ganrt.verify(out)} == {"one"}
    assert make(model, out, 300, layout="npy", part="one").images > 0
    assert ganrt.verify(out) == []


def test_a_cancelled_repair_is_repaired_by_the_next(
    copy: Callable[[str], Path], whole: dict[str, Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copy("npy")
    flip(out / "images.npy", 400)
    import ganrt.verification as verification

    def stopped(*_: object, **__: object) -> None:
        raise Cancelled("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(verification, "make_shard", stopped)
        with pytest.raises(Cancelled):
            ganrt.verify(out, repair=True, model=model)
    assert ganrt.verify(out, repair=True, model=model) == []
    assert differences(out, whole["npy"]) == []


def rewritten(root: Path, **changes: Any) -> None:
    """A ledger whose first line says something else, with the fingerprint to match."""
    path = root / "ganrt.ledger"
    head, *rest = path.read_text().splitlines(keepends=True)
    entry = json.loads(head)
    entry["plan"] |= changes
    text = json.dumps(entry["plan"], sort_keys=True, separators=(",", ":"))
    entry["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()[:32]
    path.write_text(json.dumps(entry) + "\n" + "".join(rest))


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": [99]},
        {"format": "exe"},
        {"class_names": [1, 2, 3]},
        {"mode": "cmyk"},
        {"width": -1},
        {"format": None},
    ],
    ids=str,
)
def test_a_ledger_that_cannot_be_meant_is_an_error_and_no_traceback(
    changes: dict[str, Any], copy: Callable[[str], Path]
) -> None:
    out = copy("folder")
    rewritten(out, **changes)
    with pytest.raises(DatasetDamaged, match="ganrt.ledger: its first line is no plan"):
        ganrt.verify(out)


def test_a_line_nested_too_deep_is_a_torn_line(copy: Callable[[str], Path]) -> None:
    out = copy("webdataset")
    with open(out / "ganrt.ledger", "a") as file:
        file.write("[" * 200_000 + "\n")
    assert any("is torn or changed" in damage.what for damage in ganrt.verify(out))


def test_names_of_foreign_files_are_shown_and_not_obeyed(copy: Callable[[str], Path]) -> None:
    out = copy("folder")
    (out / "\x1b[31mred").touch()
    if sys.platform == "linux":
        Path(os.fsdecode(os.fsencode(out) + b"/\xff.png")).touch()
    status, said, complaint = command_line("verify", out)
    assert status == 5 and "Traceback" not in complaint
    assert "\\x1b[31mred: extra" in said and "\x1b" not in said


@every_layout
def test_a_preview_of_damaged_files_is_an_error_and_no_traceback(layout: str, copy: Callable[[str], Path]) -> None:
    out = copy(layout)
    for path in out.rglob("*"):
        if path.suffix in (".png", ".tar", ".npy"):
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetDamaged, match="cannot be read"):
        ganrt.preview(out)


def test_the_last_writer_sees_what_others_finished_where_there_are_no_locks(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganrt.manifest._root_lock", lambda root: contextlib.nullcontext())
    out, real = tmp_path / "set", read_parts
    made: list[ganrt.Report] = []

    def overtaken(root: Path) -> Any:
        parts = real(root)
        if not made and len(parts[""].finished) == 2:  # machine 0 has ended its work and looks: now 1 overtakes it
            monkeypatch.setattr(manifest, "read_parts", real)
            made.append(make(model, out, 500, shard="1/2"))
        return parts

    monkeypatch.setattr(manifest, "read_parts", overtaken)
    make(model, out, 500, shard="0/2")
    assert [report.complete for report in made] == [True]
    assert json.loads((out / "ganrt.json").read_text())["complete"] is True
    assert (out / "README.md").is_file() and ganrt.verify(out) == []
