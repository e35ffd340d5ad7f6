"""What may be evaluated: generators, runs, datasets in every layout; and the command."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganrt
from ganrt import cli
from ganrt.errors import UsageError
from ganrt_training.evaluation import evaluate
from ganrt_training.evaluation.sets import halves, stratified
from tests.datasets import LAYOUTS, make
from tests.models import tiny_model, tiny_translator
from tests.training.shapes import QUICK, dataset_file, generator_file, made, real_file
from tests.training.tiny import SNAPSHOT, tiny_data

CHEAP = ["sliced-wasserstein", "duplicates"]  # without a network, and with the one that is trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real images and a generator."""
    root = tmp_path_factory.mktemp("sources")
    real_file(root)
    generator_file(root)
    return root


def distance(source: Path | str, real: Path, **options: Any) -> float:
    """One figure that needs no network."""
    found = evaluate(source, real, metrics=["sliced-wasserstein"], n=100, device="cpu", **options)
    return found.figures[0].generated


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dataset_is_evaluated_like_the_generator_that_made_it(folder: Path, tmp_path: Path, layout: str) -> None:
    model, real = folder / "digits.onnx", folder / "digits.npz"
    make(model, tmp_path / "made", 100, layout=layout)
    assert distance(tmp_path / "made", real) == distance(model, real)


def test_class_names_that_became_folders_are_known(tmp_path: Path) -> None:
    names = ("T-shirt/top", "Bag")
    model = tmp_path / "m.onnx"
    model.write_bytes(tiny_model(class_names=names, channels=1))
    make(model, tmp_path / "made", 60)
    for path in tmp_path.joinpath("made").glob("ganrt*"):
        path.unlink()  # now it is a folder like any other
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), np.uint8)
    real = tmp_path / "real.npz"
    np.savez(real, images=images, labels=np.arange(200) % 2, class_names=np.array(names))
    found = evaluate(tmp_path / "made", real, metrics=["duplicates"], protocol=QUICK, n=60, threads=1)
    assert [figure.per_class.keys() for figure in found.figures] == [set(names)] * 2


def test_of_a_run_the_best_snapshot_is_evaluated_as_an_onnx_file(finished_run: Path, tmp_path: Path) -> None:
    data = tiny_data(300)
    real = tmp_path / "real.npz"
    np.savez(real, images=data.images, labels=data.labels, class_names=np.array(data.class_names))
    found = evaluate(finished_run, real, metrics=["sliced-wasserstein"], n=60, device="cpu")
    assert found.source == "run"
    assert found.protocol["ema"] == "averaged generator"
    digest = hashlib.sha256((finished_run / "best.safetensors").read_bytes()).hexdigest()
    assert found.protocol["generated"]["snapshot_digest"] == f"sha256:{digest}"
    assert found.protocol["generated"]["digest"].startswith("sha256:")  # of the ONNX file
    assert (found.protocol["generated"]["name"], found.protocol["generated"]["snapshot"]) == ("run", "best")
    found = evaluate(finished_run / SNAPSHOT, real, metrics=["sliced-wasserstein"], n=60, device="cpu")
    about = found.protocol["generated"]
    assert (about["name"], about["snapshot"], about["kimg"]) == ("run", SNAPSHOT.partition(".")[0], 0.64)


def test_truncation_and_the_deviation_of_latents_are_those_of_the_samples(folder: Path) -> None:
    model, real = folder / "digits.onnx", folder / "digits.npz"
    assert distance(model, real, latent_std=0.5) != distance(model, real)
    assert distance(model, real, seed=1) != distance(model, real)
    with pytest.raises(UsageError, match="takes no truncation"):
        distance(model, real, psi=0.5)


def test_only_confident_images_are_taken_of_each_class_as_many(folder: Path) -> None:
    model, real = folder / "digits.onnx", folder / "digits.npz"
    options: dict[str, Any] = {"metrics": ["manifold"], "n": 100, "protocol": QUICK, "threads": 1, "device": "cpu"}
    usual, strict = (evaluate(model, real, confidence=confidence, **options) for confidence in (None, 0.3))
    assert strict.figures[0].generated > usual.figures[0].generated  # precision
    assert 0.1 < strict.protocol["share_kept"] < 1
    assert "share_kept" not in usual.protocol
    assert strict.warnings == ()  # which would say that classes have other shares
    with pytest.raises(UsageError, match="fidelity does not apply: the images are chosen by the classifier"):
        evaluate(model, real, confidence=0.3, **options | {"metrics": ["fidelity"]})
    with pytest.raises(UsageError, match="confidence: of class '.+' 0 images of 2 were found among 100"):
        evaluate(model, real, confidence=1.0, **options | {"n": 20})


def test_what_is_no_source_is_refused(folder: Path, tmp_path: Path) -> None:
    real = folder / "digits.npz"
    wide = tmp_path / "wide.onnx"
    wide.write_bytes(tiny_model(width=16, height=8, channels=1))
    with pytest.raises(UsageError, match="wide makes images of 16x8"):
        evaluate(wide, real)
    translator = tmp_path / "t.onnx"
    translator.write_bytes(tiny_translator())
    with pytest.raises(ganrt.GanrtError, match="images"):
        evaluate(translator, real)


def test_halves_share_no_image_and_have_as_many_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 31, 9])
    a, b = halves(labels, 1000, np.random.default_rng(0))
    assert not set(a) & set(b)
    assert (np.bincount(labels[a]) == [50, 15, 4]).all()
    assert (np.bincount(labels[b]) == [50, 15, 4]).all()
    a, b = halves(labels, 40, np.random.default_rng(0))
    assert len(a) == len(b) == 40
    assert (np.bincount(labels[a]) == np.bincount(labels[b])).all()


def test_a_drawn_share_of_each_class_is_its_share() -> None:
    labels = np.repeat([0, 5, 7], [60, 30, 10])
    drawn = stratified(labels, 50, np.random.default_rng(0))
    assert len(set(drawn)) == 50
    assert np.bincount(labels[drawn])[[0, 5, 7]].tolist() == [30, 15, 5]
    assert len(stratified(labels, 7, np.random.default_rng(0))) == 7


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of ``ganrt evaluate``, in this process."""
    monkeypatch.setattr(sys, "argv", ["ganrt", "evaluate", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_prints_a_table_or_json_and_writes_a_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [folder / "digits.onnx", "--real", folder / "digits.npz", "--n", 100, "--device", "cpu"]
    words += ["--metrics", "sliced-wasserstein"]
    assert command(monkeypatch, *words, "--out", tmp_path / "report") == 0
    shown = capsys.readouterr()
    assert "Sliced Wasserstein" in shown.out
    assert "computing sliced-wasserstein" in shown.err
    assert (tmp_path / "report" / "report.html").is_file()
    assert command(monkeypatch, *words, "--json", "--quiet") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert shown.err == ""
    assert command(monkeypatch, *words[:-1], "fid") == 2
    assert "metric 'fid'\n  Expected frechet" in capsys.readouterr().err


def test_colour_is_compared_in_grey_where_that_is_said(folder: Path, tmp_path: Path) -> None:
    images = np.repeat(made(100, 2).images, 3, axis=3)
    images[0, 0, 0] = (10, 20, 30)
    source = dataset_file(tmp_path, images, made(100, 2).labels)
    assert distance(source, folder / "digits.npz", mode="l") > 0
    assert distance(source, folder / "digits.npz", mode="rgb") > 0
