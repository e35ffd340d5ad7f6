from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import fashion_classifier
from ganrt.errors import UsageError
from ganrt_training import metrics
from ganrt_training.data import FASHION_CLASSES
from ganrt_training.evaluation.networks import open_network
from ganrt_training.run_folder import to_float
from tests.models import tiny_model
from tests.training.test_data import noise
from tests.training.tiny import tiny_data

QUICK = metrics.Protocol(widths=(4, 4, 8), hidden=8, epochs=4, batch_size=20, dropout=0)


def test_a_classifier_learns_what_a_glance_tells_and_the_same_each_time() -> None:
    data = tiny_data(300)
    state = torch.random.get_rng_state()
    first, again = (metrics.train_classifier(data.images[:240], data.labels[:240], 3, QUICK) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    found = metrics.agreement(metrics.predict(first, data.images[240:]), data.labels[240:], data.class_names)
    assert found["share"] > 0.9
    assert (found["n"], found["per_class"].keys()) == (60, {"band 0", "band 1", "band 2"})


def test_agreement_counts_by_class() -> None:
    predicted, labels = np.array([0, 0, 1, 1, 2, 0]), np.array([0, 0, 1, 0, 1, 0])
    expected = {"share": 0.6667, "n": 6, "per_class": {"a": 0.75, "b": 0.5}}
    assert metrics.agreement(predicted, labels, ["a", "b", "c"]) == expected


def test_the_precision_of_training_is_the_protocols() -> None:
    data = tiny_data(40)
    trained = {
        precision: metrics.train_classifier(data.images, data.labels, 3, replace(QUICK, epochs=1, precision=precision))
        for precision in ("bf16", "fp32")
    }
    bf16, fp32 = (model.state_dict()["0.weight"] for model in trained.values())
    assert not torch.equal(bf16, fp32)
    assert torch.allclose(bf16, fp32, atol=0.05)
    told = {
        precision: metrics.describe(model, replace(QUICK, precision=precision)) for precision, model in trained.items()
    }
    assert told["bf16"]["optimizer"] == "AdamW, one cycle, bf16 autocast"  # as cards have it that were written before
    assert told["fp32"]["optimizer"] == "AdamW, one cycle, fp32"
    with pytest.raises(UsageError, match="precision 'fp64'"):
        replace(QUICK, precision="fp64")


def test_features_are_what_the_last_layer_is_given() -> None:
    model = metrics.build_classifier((28, 28), 1, 3, replace(QUICK, dropout=0.5)).eval()
    images = tiny_data(50).images
    found = metrics.features(model, images, batch_size=20)
    assert found.shape == (50, 8)
    assert isinstance(model, torch.nn.Sequential)
    with torch.no_grad():
        logits = model(to_float(torch.from_numpy(images)))
        assert torch.allclose(model[-1](torch.from_numpy(found)), logits, atol=1e-5)


def test_the_frechet_distance_is_that_of_the_formula() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((400, 5))
    values = (values - values.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(values, rowvar=False))).T  # exactly I
    assert metrics.frechet_distance(values, values) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(values, values + 2) == pytest.approx(5 * 4)
    scales = np.array([1, 2, 3, 0.5, 0])
    # Diagonal covariances: each dimension adds the squared difference of the deviations.
    assert metrics.frechet_distance(values, values * scales) == pytest.approx(np.square(scales - 1).sum())
    # Covariances that do not commute: the root of the product by its eigenvalues, which are real and not negative.
    first, second = (values @ random.standard_normal((5, 5)) for _ in range(2))
    covariances = [np.cov(one, rowvar=False) for one in (first, second)]
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real).sum()
    expected = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert metrics.frechet_distance(first, second) == pytest.approx(expected)
    assert metrics.frechet_distance(second, first) == pytest.approx(expected)


def test_the_frechet_distance_bears_features_that_do_not_vary_and_few_images() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((50, 6)).astype(np.float32)
    values[:, 3:] = 0
    assert metrics.frechet_distance(values, values) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(values[:3], values[:3]) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(np.zeros((4, 6)), np.ones((4, 6))) == pytest.approx(6)


def test_images_are_moved_and_flipped_but_not_else_changed() -> None:
    images = torch.zeros(400, 9, 9, 1, dtype=torch.uint8)
    images[:, 4, 3] = 200
    moved = metrics._augmented(images, metrics.Protocol(shift=2))
    places = {tuple(place[1:3]) for place in torch.nonzero(moved).tolist()}
    columns = {1, 2, 3, 4, 5} | {8 - column for column in (1, 2, 3, 4, 5)}
    assert places == {(row, column) for row in range(2, 7) for column in columns}
    assert moved.shape == images.shape
    assert (moved.sum((1, 2, 3)) == 200).all()
    assert torch.equal(metrics._augmented(images, metrics.Protocol(shift=0, flip=False)), images)


def test_a_kept_classifier_is_taken_only_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"

    def new() -> torch.nn.Module:
        return metrics.build_classifier((28, 28), 1, 3, QUICK)

    assert metrics.load_classifier(path, new(), {"data": "a"}) is None
    kept = new()
    metrics.save_classifier(path, kept, {"data": "a"})
    assert metrics.load_classifier(path, new(), {"data": "b"}) is None
    found = metrics.load_classifier(path, new(), {"data": "a"})
    assert found is not None
    assert not found.training
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), found.parameters(), strict=True))


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    noise(tmp_path / "fashion-mnist", train=300, t10k=150)
    (tmp_path / "g.onnx").write_bytes(tiny_model(class_names=FASHION_CLASSES, width=28, height=28, channels=1))
    return tmp_path


def test_the_classifier_that_is_shipped_is_made_by_one_command(
    fashion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics, "Protocol", lambda: replace(QUICK, epochs=1))
    arguments = f"--out {fashion}/c.onnx --real {fashion}/fashion-mnist --judge {fashion}/c.safetensors --threads 1"
    assert fashion_classifier.main(arguments.split()) == 1
    assert "error: it reaches 0." in capsys.readouterr().err
    assert not (fashion / "c.onnx").exists()
    monkeypatch.setattr(fashion_classifier, "LEAST_ACCURACY", 0.0)
    assert fashion_classifier.main(arguments.split()) == 0
    printed = capsys.readouterr()
    assert "taken from" in printed.err
    network = open_network(fashion / "c.onnx", device="cpu", threads=1)
    assert network.about["classifier"] == json.loads(printed.out)
    assert (network.class_names, network.about["classifier"]["accuracy"]["n"]) == (FASHION_CLASSES, 150)
