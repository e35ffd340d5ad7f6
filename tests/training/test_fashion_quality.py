"""How the shipped generators are made and measured: the commands, on few images. What they found is in the cards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganrt
from benchmarks import fashion_quality, fashion_train
from ganrt.contract import read_model
from ganrt_training.evaluation.result import Evaluation
from tests.models import tiny_model
from tests.training.test_data import splits


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Fashion-MNIST comes in, of images that the shipped classifier knows: they are generated."""
    generator = ganrt.load("fashion-fast", "cpu")
    arrays = {}
    for prefix, count, seed in (("train", 300, 1), ("t10k", 150, 2)):
        batches = list(generator.stream(count, seed=seed))
        images = np.concatenate([batch.images for batch in batches])[..., 0]
        labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None]).astype(np.uint8)
        arrays[prefix] = images, labels
    return splits(tmp_path_factory.mktemp("fashion-mnist"), arrays)


def measured(real: Path, out: Path, *more: str) -> dict[str, Any]:
    words = f"--model fashion-fast --real {real} --limit 120 --threads 1 --json {out} --keep {out.parent / 'kept'}"
    assert fashion_quality.main([*words.split(), *more]) == 0
    told: dict[str, Any] = json.loads(out.read_text())
    return told


def test_a_card_gets_two_evaluations_and_how_far_they_move_with_the_seed(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = measured(real, tmp_path / "q.json", "--seeds", "0")
    assert json.loads(capsys.readouterr().out) == first
    assert first["spread"] == {} and list(first["by_seed"]) == ["0"]
    plain, filtered = (Evaluation.from_json(first[kind]) for kind in ("evaluation", "filtered"))
    assert (plain.protocol["latent_std"], plain.protocol["confidence"]) == (1.0, None)
    assert (filtered.protocol["latent_std"], filtered.protocol["confidence"]) == (1.1, 0.5)
    assert "label_fidelity" not in {one.key for one in filtered.figures}  # the classifier would agree with itself
    assert "digest" not in plain.protocol["generated"]  # of a file that the figures are yet to go into
    assert first["snapshot_digest"] == ganrt.load("fashion-fast", "cpu").card.snapshot_digest

    both = measured(real, tmp_path / "q.json", "--seeds", "0,1")
    told = capsys.readouterr().err
    assert "seed 1, as it is" in told and "seed 0" not in told  # it was measured before
    assert both["evaluation"] == first["evaluation"]
    moved = [both["by_seed"][seed]["evaluation"]["recall"][0] for seed in ("0", "1")]
    assert both["spread"]["evaluation"]["recall"] == pytest.approx(abs(moved[0] - moved[1]))
    assert both["command"] == "python -m benchmarks.fashion_quality --model fashion-fast --seeds 0,1 --limit 120"


def test_a_second_measurement_says_the_same(real: Path, tmp_path: Path) -> None:
    first = measured(real, tmp_path / "a.json", "--seeds", "3")
    again = measured(real, tmp_path / "b.json", "--seeds", "3")  # with the classifier of real images that was kept
    assert again == first


def test_a_generator_of_other_classes_is_refused(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "g.onnx").write_bytes(tiny_model())
    assert fashion_quality.main(f"--model {tmp_path}/g.onnx --real {real}".split()) == 1
    assert "tiny makes 8x8 images of a, b, c\nExpected those of" in capsys.readouterr().err


def test_one_script_trains_exports_and_measures_what_is_shipped(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion_quality, "CONFIDENCE", 0.0)  # what is trained in a second convinces nobody
    name, first, second = "fashion-fast", "width=2 d_width=2 z_dim=4", "width=2 z_dim=16"
    monkeypatch.setattr(fashion_train, "GENERATORS", {name: (first, second)})
    small = "batch_size=16 tick_kimg=0.016 snapshot_kimg=0.016 precision=fp32 total_kimg=0.032"
    words = f"--out {tmp_path} --data {real} --device cpu --limit 120 --seeds 0 --set {small}"
    assert fashion_train.main(words.split()) == 0
    card = read_model(tmp_path / f"{name}.onnx").card
    assert (card.name, card.recipe, card.kimg, card.z_dim) == (name, "cgan_projection_28", 0.032, 16)
    assert card.data.startswith("Fashion-MNIST") and card.licence == "Apache-2.0"
    assert card.quality == json.loads((tmp_path / f"{name}.json").read_text())
    run = json.loads((tmp_path / name / "recipe.json").read_text())
    assert run["start"]["kimg"] == 0.032

    (tmp_path / f"{name}.onnx").unlink()
    stats = tmp_path / "first" / name / "stats.jsonl"
    before = stats.read_bytes()
    assert fashion_train.main([*words.split(), "total_kimg=0.064", "--refine"]) == 1  # its run folder is of 0.032
    shutil.rmtree(tmp_path / name)
    assert fashion_train.main([*words.split(), "total_kimg=0.064", "--refine"]) == 0
    assert read_model(tmp_path / f"{name}.onnx").card.kimg == 0.064 and stats.read_bytes() == before


def test_there_must_be_something_to_refine(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fashion_train.main(f"--out {tmp_path} --data {real} --refine".split()) == 1
    assert f"{tmp_path / 'first' / 'fashion'}: there is no snapshot" in capsys.readouterr().err
