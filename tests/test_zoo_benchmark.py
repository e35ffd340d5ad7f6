"""The comparison of recipes on Fashion-MNIST: that its commands work, and that docs/zoo.md says what they found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks import zoo, zoo_table
from ganrt.card import Card
from ganrt.contract import read_model
from ganrt_training.checkpoint import find_snapshot, load_generator
from ganrt_training.data import FASHION_CLASSES
from ganrt_training.gans import find_recipe
from tests.models import tiny_model
from tests.training.test_data import noise

ROWS = zoo_table.read_rows(zoo_table.FIGURES)


def test_the_table_is_what_the_figures_make() -> None:
    page = zoo_table.PAGE.read_text(encoding="utf-8")
    assert page == zoo_table.filled(page, ROWS), "run python -m benchmarks.zoo table"


def test_all_figures_are_of_the_committed_classifier() -> None:
    digest = f"sha256:{hashlib.sha256(zoo.JUDGE.read_bytes()).hexdigest()}"
    assert {name: row["judge"]["digest"] for name, row in ROWS.items()} == dict.fromkeys(ROWS, digest)
    assert zoo.JUDGE.stat().st_size < 700_000


@pytest.mark.parametrize("name", sorted(set(ROWS) - {zoo_table.REAL}))
def test_a_row_has_its_samples_and_names_nothing_of_where_it_was_made(name: str) -> None:
    grid = zoo_table.FIGURES / f"{name}.png"
    assert grid.stat().st_size < 60_000
    assert Image.open(grid).size == (280, 280)
    assert f"zoo row {name} {zoo_table.ROWS[name]}".rstrip() in ROWS[name]["command"]
    assert not {"/", "host"} & set(json.dumps(ROWS[name]["machine"]))


@pytest.mark.parametrize("name", sorted(zoo_table.ROWS))
def test_every_row_has_a_second_run_of_as_many_images(name: str) -> None:
    row, again = ROWS[name], ROWS[name]["again"]
    assert again["seed"] != 0 and again["snapshot"]["digest"] != row["snapshot"]["digest"]
    assert (again["run"]["steps"], again["run"]["kimg"]) == (row["run"]["steps"], row["run"]["kimg"])
    for key in zoo_table.QUALITY:
        assert (again[key] is None) == (row[key] is None)
        for what in {"n", "seed", "trained_on"} & set(row[key] or ()):
            assert again[key][what] == row[key][what]


def test_every_row_that_is_to_be_has_a_recipe_that_takes_its_settings() -> None:
    for name, settings in zoo_table.ROWS.items():
        find_recipe(name).with_overrides(settings.split())


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command on made-up images; what is exported is a tiny generator with the labels of the run's."""
    folder = noise(tmp_path / "fashion-mnist", train=80, t10k=60)

    def export(run_dir: Path, path: Path, *, overwrite: bool) -> dict[Path, Card]:
        trained = load_generator(find_snapshot(run_dir))
        size, changes = trained.recipe.image_size, {"snapshot_digest": trained.digest, "kimg": trained.kimg}
        path.write_bytes(
            tiny_model(class_names=trained.class_names, width=size, height=size, channels=1, card_changes=changes)
        )
        return {path: read_model(path).card}

    def run(*words: str) -> int:
        places = ["--data", str(folder), "--judge", str(tmp_path / "judge.safetensors"), "--out", str(tmp_path / "out")]
        return zoo.main([words[0], *places, "--limit", "80", *words[1:]])

    monkeypatch.setattr(zoo, "export_run", export)
    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_a_trial(trial: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smallest = ["width=2", "z_dim=8", "batch_size=20", "tick_kimg=0.02"]
    settings = {"mlp_28": smallest, "dcgan_32": [*smallest, "conditional=true"]}
    words = {
        name: ["row", name, "--run-dir", str(tmp_path / "runs" / name), "--minutes", "1e-5", *settings[name]]
        for name in settings
    }
    assert trial(*words["mlp_28"]) == 1  # without a classifier
    assert trial("judge") == 0
    for name in words:
        assert trial(*words[name]) == 0
    rows = zoo_table.read_rows(tmp_path / "out")
    real, labelled, bare = rows["real"], rows["dcgan_32"], rows["mlp_28"]
    assert real["frechet"]["n"] == 80 and real["label_fidelity"]["n"] == 60
    assert labelled["label_fidelity"]["per_class"].keys() == set(FASHION_CLASSES)
    assert labelled["classification_accuracy_score"]["trained_on"] == 80
    assert (bare["label_fidelity"], bare["classification_accuracy_score"]) == (None, None)
    for name, row in (("dcgan_32", labelled), ("mlp_28", bare)):
        told = f"python -m benchmarks.zoo row {name} {' '.join(settings[name])} --minutes 1e-05 --limit 80"
        assert row["command"] == told
        assert (row["run"]["steps"], row["run"]["kimg"], row["snapshot"]["kimg"]) == (1, 0.02, 0.02)
        assert row["frechet"]["distance"] > 0 and sum(row["judged_as"].values()) == pytest.approx(1, abs=1e-3)
        assert row["judge"]["digest"] == real["judge"]["digest"]
        assert Image.open(tmp_path / "out" / f"{name}.png").size == (280, 280)
    units = 16 * 2
    assert bare["generator"]["macs"] == 8 * units + units * units + units * 784
    assert bare["generator"]["parameters"] == bare["generator"]["macs"] + 2 * units + 784

    # A run that has had its minutes is measured again, not trained; one of other settings is refused.
    assert trial(*words["mlp_28"]) == 0
    again = zoo_table.read_rows(tmp_path / "out")["mlp_28"]
    assert {**again, "generation": None} == {**bare, "generation": None}
    assert trial(*words["mlp_28"], "width=4") == 1
    assert "other settings" in capsys.readouterr().err

    assert trial("speed", "--runs", str(tmp_path / "runs"), "--rounds", "2") == 0
    page = tmp_path / "page.md"
    page.write_text(f"before\n{zoo_table.START}\nold\n{zoo_table.END}\nafter\n")
    assert trial("table", "--page", str(page)) == 0
    text = page.read_text()
    assert "old" not in text and text.startswith("before\n") and text.endswith("after\n")
    assert "| `mlp_28` | 27.2 k, " in text and "Not trained yet: `dcgan_28`, " in text
    assert zoo_table.read_rows(tmp_path / "out")["mlp_28"]["generation"]["side_by_side"]


def test_a_second_run_is_as_long_as_the_row_says(trial: Any, tmp_path: Path) -> None:
    out, run_dir = tmp_path / "out" / "dcgan_32.json", tmp_path / "again"
    settings = ["conditional=true", "width=2", "z_dim=8", "batch_size=20", "tick_kimg=0.02", "lr_decay=0.5"]
    assert trial("judge") == 0
    assert trial("row", "dcgan_32", "--run-dir", str(tmp_path / "row"), "--minutes", "1e-5", *settings) == 0
    row = json.loads(out.read_text())

    def again(kimg: float, folder: Path = run_dir) -> Any:
        out.write_text(json.dumps(row | {"run": row["run"] | {"kimg": kimg}}))
        assert trial("again", "dcgan_32", "--run-dir", str(folder)) == 0
        figures = json.loads(out.read_text())
        assert figures.pop("again")["run"]["kimg"] == kimg and figures["frechet"] == row["frechet"]
        return json.loads(out.read_text())["again"]

    again(0.04)  # as if it had been interrupted there
    whole = again(0.06)
    assert whole["seed"] == 1 and whole["run"]["steps"] == 3
    assert whole["snapshot"]["digest"] != row["snapshot"]["digest"]
    assert whole["classification_accuracy_score"]["trained_on"] == 80
    held, expected = (json.loads((folder / "recipe.json").read_text()) for folder in (run_dir, tmp_path / "row"))
    assert held == expected | {"seed": 1}  # total_kimg, by which rates fall, too
    assert [json.loads(line)["step"] for line in (run_dir / "stats.jsonl").open()] == [1, 2, 3]

    assert again(0.06) == whole  # measured only
    at_once = again(0.06, tmp_path / "at once")
    same = ("frechet", "label_fidelity", "classification_accuracy_score")
    assert [at_once[key] for key in same] == [whole[key] for key in same]
    assert at_once["run"]["quality"] == whole["run"]["quality"]


def test_a_second_run_needs_a_row_of_the_same_classifier_and_another_seed(
    trial: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial("judge") == 0
    for name in ("mlp_28", "real"):
        assert trial("again", name) == 2
        assert f"no row '{name}'" in capsys.readouterr().err
    row = {"recipe": "mlp_28", "command": "row mlp_28", "run": {"kimg": 0.02}, "judge": {"digest": "sha256:0"}}
    (tmp_path / "out" / "mlp_28.json").write_text(json.dumps(row))
    assert trial("again", "mlp_28", "--seed", "0") == 2
    assert "seed 0" in capsys.readouterr().err
    assert trial("again", "mlp_28") == 1
    assert "another classifier" in capsys.readouterr().err


def test_the_page_tells_how_far_two_runs_are_apart() -> None:
    def row(name: str, *distances: float) -> Any:
        once, *twice = ({**ROWS["mlp_28"], "recipe": name, "frechet": {"distance": one}} for one in distances)
        once.pop("again", None)
        return once | ({"again": twice[0]} if twice else {})

    rows = {"a": row("a", 4, 5), "b": row("b", 6, 4.8), "c": row("c", 6.6, 7.2), "d": row("d", 6.5)}
    text = zoo_table.filled(f"{zoo_table.START}{zoo_table.END}", rows)
    assert [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("| `")] == [
        "4.00, 5.00",
        "6.00, 4.80",
        "6.50",
        "6.60, 7.20",
    ]
    assert "One run only, so far: `d`." in text
    assert "| Fréchet distance | 1.20 (`b`) | 1.00 | `a` and `b` |" in text
    assert "| label fidelity |" not in text  # none has classes


def test_what_cannot_be_meant_is_refused(trial: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial("row", "cyclegan_64") == 2
    assert "from images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        trial("judge", "width=4")
    with pytest.raises(SystemExit):
        trial("row", "mlp_28", "--epochs")
