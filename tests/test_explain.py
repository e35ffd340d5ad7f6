"""A sample explained: of a generator, of a dataset; its command, its surroundings."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ganrt
from ganrt import cli
from ganrt.encode import Pixels, decode
from ganrt.errors import DatasetError, GanrtError, UnknownClass, UnknownModel, UsageError
from ganrt.latents import latents
from ganrt.walks import images_at
from tests.datasets import contents, make, model_file
from tests.models import tiny_model

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command in this process, in a folder of its own, and returns its stdout."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["ganrt", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert ended.value.code == 0, err
        return out

    return run


def made_by(run: Run, told: ganrt.Explanation, folder: Path) -> bytes:
    """The one image file that the command of an explanation writes."""
    words = shlex.split(told.command)
    assert words[:2] == ["ganrt", "generate"]
    run(*[str(folder) if word == "DIR" else word for word in words[1:]], "--device", "cpu", "--quiet")
    images = {name: data for name, data in contents(folder).items() if name not in ("README.md", "ganrt.json")}
    assert list(images) == [told.file]
    return images[told.file]


# Of a generator -----------------------------------------------------------------------------------------------------


def test_a_sample_of_a_generator_is_what_generate_makes(run: Run, tmp_path: Path) -> None:
    model = model_file(tmp_path, psi=True)
    told = ganrt.explain(model, 77, seed=9, classes="c,a", psi=0.5, latent_std=0.8, device="cpu")
    assert (told.model, told.index, told.seed, told.label, told.class_name) == ("tiny", 77, 9, 0, "a")
    assert (told.psi, told.latent_std, told.file) == (0.5, 0.8, "a/00000077.png")
    assert told.z.shape == (8,)
    assert told.z.dtype == np.float32
    assert np.array_equal(told.z, latents(9, 77, 1, 8, std=0.8)[0])
    generator = ganrt.load(model, device="cpu")
    sample = generator.sample(1, seed=9, start=77, classes="c,a", psi=0.5, latent_std=0.8)
    assert np.array_equal(told.image, sample[0])
    data = made_by(run, told, tmp_path / "one")
    assert np.array_equal(decode(data), told.image)
    more = {"seed": 9, "start": 70, "classes": "c,a", "psi": 0.5, "latent_std": 0.8}
    make(model, tmp_path / "many", 20, batch=64, shard_size=64, **more)
    assert (tmp_path / "many" / told.file).read_bytes() == data


def test_defaults_of_a_generator_without_classes_and_psi(run: Run, tmp_path: Path) -> None:
    model = model_file(tmp_path, class_names=(), channels=1)
    told = ganrt.explain(model, 3, device="cpu")
    assert (told.label, told.class_name, told.psi, told.seed, told.file) == (None, None, None, 0, "00000003.png")
    assert told.command == f"ganrt generate --n 1 --start 3 --seed 0 --out DIR --model {shlex.quote(str(model))}"
    assert np.array_equal(decode(made_by(run, told, tmp_path / "one")), told.image)


# Of a dataset -------------------------------------------------------------------------------------------------------

PLANS: list[dict[str, Any]] = [
    {},
    {"seed": 5, "start": 40, "classes": ["b"], "psi": 0.25, "latent_std": 1.5, "mark": False},
    {"size": (12, 9), "resample": "bilinear", "mode": "l", "format": "webp", "quality": 70},
    {"format": "jpeg", "part": "more", "batch": 16, "shard_size": 32},
    {"layout": "webdataset"},
    {"layout": "npy"},
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_sample_of_a_dataset_is_explained_by_its_ledger(run: Run, tmp_path: Path, plan: dict[str, Any]) -> None:
    model = model_file(tmp_path, class_names=("a", "b", "c, d"), psi=True)
    root = tmp_path / "data"
    make(model, root, 100, **plan)
    told = ganrt.explain(root, 50, model=model, device="cpu")
    assert (told.index, told.seed, told.psi) == (50, plan.get("seed", 0), plan.get("psi", 1.0))
    assert told.class_name == ("b" if "classes" in plan else "c, d")
    data = made_by(run, told, tmp_path / "one")
    if plan.get("format") != "jpeg" and plan.get("format") != "webp":
        assert np.array_equal(decode(data), told.image)
    layout = plan.get("layout", "folder")
    if layout == "folder":
        assert (root / told.file).read_bytes() == data
    elif layout == "npy":
        assert np.array_equal(np.load(root / "images.npy")[50], told.image)


def test_parts_of_a_dataset_are_named(tmp_path: Path) -> None:
    model = model_file(tmp_path)
    for part, seed in (("one", 1), ("two", 2)):
        make(model, tmp_path / "data", 40, part=part, seed=seed)
    told = ganrt.explain(tmp_path / "data", 7, part="two", model=model, device="cpu")
    assert (told.seed, told.file) == (2, "b/two-00000007.png")
    assert (tmp_path / "data" / told.file).exists()
    cases: list[tuple[str | None, str]] = [
        (None, "has 2 parts\nSay which: --part, one of 'one', 'two'."),
        ("x", "has no part 'x'\nIt has: 'one', 'two'."),
    ]
    for name, said in cases:
        with pytest.raises(UsageError) as raised:
            ganrt.explain(tmp_path / "data", 7, part=name, model=model)
        assert said in str(raised.value)


# Around it ----------------------------------------------------------------------------------------------------------


def test_the_picture_has_the_image_in_the_middle_and_neighbours_at_growing_angles(tmp_path: Path) -> None:
    model = model_file(tmp_path, z_dim=64)
    out = tmp_path / "around.png"
    told = ganrt.explain(model, 5, seed=3, out=out, device="cpu")
    picture = np.asarray(Image.open(out))
    assert picture.shape == (2 + 4 * 10, 2 + 9 * 10, 3)
    cells = np.array(
        [[picture[2 + 10 * r : 10 + 10 * r, 2 + 10 * c : 10 + 10 * c] for c in range(9)] for r in range(4)]
    ).astype(int)
    assert np.array_equal(cells[:, 4], np.repeat(told.image[None], 4, axis=0))
    apart = np.abs(cells - told.image).mean(axis=(2, 3, 4)).mean(axis=0)
    assert (np.diff(apart[:5]) < 0).all() and (np.diff(apart[4:]) > 0).all()
    assert len({cells[r, c].tobytes() for r in range(4) for c in (0, 8)}) == 8
    first = out.read_bytes()
    ganrt.explain(model, 5, seed=3, out=out, device="cpu")
    assert out.read_bytes() == first


def test_neighbours_have_the_norm_of_z_and_stay_in_the_range_of_uniform_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[NDArray[np.float32]] = []

    def watched(generator: ganrt.Generator, z: NDArray[np.float32], *more: Any) -> Pixels:
        seen.append(z)
        return images_at(generator, z, *more)

    monkeypatch.setattr("ganrt.explanation.images_at", watched)
    told = ganrt.explain(model_file(tmp_path), 5, out=tmp_path / "a.png", device="cpu")
    z, angles = told.z.astype(np.float64), np.deg2rad([-60, -45, -30, -15, 15, 30, 45, 60])
    norm = np.linalg.norm(z)
    assert len(seen) == 4
    ways = []
    for points in seen:
        assert np.linalg.norm(points, axis=1) == pytest.approx(np.full(8, norm), rel=1e-5)
        assert points @ z / norm**2 == pytest.approx(np.cos(angles), abs=1e-5)
        ways.append(points[-1] - np.cos(angles[-1]) * z)
    between = np.array(ways) @ np.array(ways).T
    assert between == pytest.approx(np.diag(np.diag(between)), abs=1e-4)  # at right angles to each other
    seen.clear()
    ganrt.explain(model_file(tmp_path, "even", card_changes={"z_distribution": "uniform"}), 5, out=tmp_path / "a.png")
    assert max(np.abs(points).max() for points in seen) <= 1


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_prints_it_and_tells_programs_all_of_z(run: Run, tmp_path: Path) -> None:
    model = model_file(tmp_path, psi=True)
    text = run("explain", model, 4, "--seed", 2, "--out", "around.png", "--device", "cpu")
    told = ganrt.explain(model, 4, seed=2, device="cpu")
    norm = np.linalg.norm(told.z)
    numbers = ", ".join(f"{number:.3f}" for number in told.z[:6])
    assert text.splitlines() == [
        "sample 4 of seed 2, generator tiny",
        f"z:       8 numbers, norm {norm:.3f}: {numbers}, …",
        "label:   1, b",
        "psi:     1",
        "file:    b/00000004.png",
        f"alone:   {told.command}",
        "around:  around.png",
    ]
    assert Image.open("around.png").size == (92, 42)
    values = json.loads(run("explain", model, 4, "--seed", 2, "--json", "--device", "cpu"))
    assert np.array_equal(np.array(values.pop("z"), np.float32), told.z)
    assert values == {
        "model": "tiny",
        "index": 4,
        "seed": 2,
        "label": 1,
        "class_name": "b",
        "psi": 1.0,
        "latent_std": 1.0,
        "file": "b/00000004.png",
        "command": told.command,
        "out": None,
    }


WRONG: list[tuple[str, int, dict[str, Any], type[GanrtError], str]] = [
    ("tiny", -1, {}, UsageError, "index -1\nExpected a whole number of 0"),
    ("tiny", 0, {"seed": -1}, UsageError, "seed -1\nExpected"),
    ("tiny", 0, {"classes": "x"}, UnknownClass, "generator tiny has no class 'x'"),
    ("tiny", 0, {"psi": 0.5}, UsageError, "psi 0.5: generator tiny takes no truncation"),
    ("tiny", 0, {"part": "a"}, UsageError, "part does not apply to a generator\nIt goes with a dataset's folder."),
    ("tiny", 0, {"model": "b"}, UsageError, "model does not apply to a generator\n"),
    ("tiny", 0, {"out": "a.gif"}, UsageError, "a.gif does not end in .png"),
    ("data", 40, {}, UsageError, "index 40 is not in data\nIt has the samples 0 to 39."),
    ("data", 0, {"seed": 1}, UsageError, "seed does not apply to a dataset, whose ledger says it\nLeave it out."),
    ("data", 0, {"latent_std": 1.0}, UsageError, "latent std does not apply to a dataset"),
    ("data", 0, {"model": None}, UnknownModel, "the generator other of the dataset is not found"),
    ("empty", 0, {}, DatasetError, "empty holds no ganrt dataset"),
]


@pytest.mark.parametrize(("source", "index", "arguments", "kind", "said"), WRONG)
def test_what_cannot_be_meant_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    index: int,
    arguments: dict[str, Any],
    kind: type[GanrtError],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.onnx").write_bytes(tiny_model())
    monkeypatch.setenv("GANRT_MODELS", str(tmp_path / "models"))
    (tmp_path / "empty").mkdir()
    make(model_file(tmp_path, "other"), tmp_path / "data", 40)
    if source == "data":
        arguments = {"model": "./other.onnx", **arguments}
    with pytest.raises(kind) as raised:
        ganrt.explain(source, index, **{"device": "cpu", **arguments})
    assert str(raised.value).startswith(said)


def test_a_z_of_one_number_has_no_surroundings(tmp_path: Path) -> None:
    model = model_file(tmp_path, z_dim=1)
    assert ganrt.explain(model, 0, device="cpu").z.shape == (1,)
    with pytest.raises(UsageError, match="a z of one number has no directions around it\nLeave the picture"):
        ganrt.explain(model, 0, out=tmp_path / "a.png", device="cpu")
    assert not (tmp_path / "a.png").exists()
