"""Classifiers as ONNX files: proven equal, with what they are in their metadata; the one that is shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import ganrt
from ganrt.errors import ContractError, ParityError, UsageError
from ganrt.models import list_models
from ganrt_training import metrics
from ganrt_training.data import FASHION_CLASSES
from ganrt_training.evaluation import classifier_file
from ganrt_training.evaluation.classifier_file import KEY, Classifier, export_classifier
from ganrt_training.evaluation.networks import open_network, shipped_for
from ganrt_training.export import traced
from tests.training.seeing import ABOUT, pictures, proto, saved

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    torch.manual_seed(0)
    protocol = metrics.Protocol(widths=(4, 8, 8), hidden=16)
    model = metrics.build_classifier((8, 8), 3, 3, protocol).train()
    model(torch.randn(64, 3, 8, 8))
    return model.eval()


TOLD = Classifier(
    **ABOUT,
    accuracy={"share": 0.9, "n": 10},
    protocol={"epochs": 1},
    data="none",
    data_licence="CC0-1.0",
    licence="MIT",
)


@pytest.fixture(scope="module")
def exported(classifier: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Classifier]:
    path = tmp_path_factory.mktemp("exported") / "three.onnx"
    return path, export_classifier(classifier, TOLD, path)


def test_an_exported_classifier_sees_what_it_sees_in_pytorch(
    classifier: nn.Module, exported: tuple[Path, Classifier]
) -> None:
    path, about = exported
    assert about.parity["features_max"] <= 1e-4 and about.parity["batches"] == [1, 2, 3, 64, 65]
    network = open_network(path, device="cpu", threads=1)
    assert (network.name, network.class_names, network.channels, network.size) == ("three", ("a", "b", "c"), 3, (8, 8))
    images = pictures(70)
    seen = network.see(images)
    assert np.allclose(seen.features, metrics.features(classifier, images), atol=1e-5)
    assert seen.logits is not None
    assert np.array_equal(seen.logits.argmax(1), metrics.predict(classifier, images))
    assert network.about["classifier"] == about.told()
    assert about.told() | {"parity": {}} == TOLD.told() | {"parity": {}}
    assert network.about["input"] == "uint8 NHWC, pixels as they are" and "note" not in network.about


def test_the_same_classifier_gives_the_same_bytes(
    classifier: nn.Module, exported: tuple[Path, Classifier], tmp_path: Path
) -> None:
    data = exported[0].read_bytes()
    export_classifier(classifier, TOLD, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == data
    assert str(tmp_path).encode() not in data
    with pytest.raises(UsageError, match="is there already"):
        export_classifier(classifier, TOLD, tmp_path / "again.onnx")


def test_an_export_that_is_not_the_classifier_is_not_written(
    classifier: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: Any) -> onnx.ModelProto:
        model = traced(*arguments)
        bias = next(t for t in model.graph.initializer if list(t.dims) == [3])
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.001), bias.name))
        return model

    monkeypatch.setattr(classifier_file, "traced", wrong)
    with pytest.raises(ParityError, match="logits at batch 1 are .* apart"):
        export_classifier(classifier, Classifier(**ABOUT), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": []}, "names no classes"),
        ({"class_names": ["a", "a"]}, "names a class twice"),
        ({"class_names": ["a", "\x1b[2J"]}, "names no classes"),
        ({"size": [8]}, r"has the size \[8\]"),
        ({"channels": True}, "has True channels"),
        ({"data": 5}, "holds no plain texts"),
        ({"accuracy": []}, "holds no objects"),
        ({"accuracy": {"share": float("nan")}}, "is not JSON"),
    ],
)
def test_metadata_that_cannot_be_meant(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = proto(outputs=("features", "logits"))
    values = json.loads(Classifier(**ABOUT).to_json())
    helper.set_model_props(model, {KEY: json.dumps(values | change)})
    with pytest.raises(ContractError, match=message):
        open_network(saved(tmp_path, model))


def test_the_shipped_classifier_is_that_of_fashion_mnist_and_of_no_other_data() -> None:
    assert shipped_for(FASHION_CLASSES, (28, 28), 1) == "fashion"
    assert shipped_for(FASHION_CLASSES, (32, 32), 1) is None
    assert shipped_for(FASHION_CLASSES, (28, 28), 3) is None
    assert shipped_for(FASHION_CLASSES[::-1], (28, 28), 1) is None
    network = open_network("fashion", device="cpu", threads=1)
    assert network.class_names == FASHION_CLASSES
    told = network.about["classifier"]
    assert told["accuracy"]["share"] >= 0.925 and told["accuracy"]["n"] == 10_000
    assert (
        told["data"].startswith("Fashion-MNIST") and told["licence"] == "Apache-2.0" and "MIT" in told["data_licence"]
    )
    assert "fashion" in {model.name for model in list_models()}  # the generator alone
    assert "features/fashion.onnx" in (ROOT / "ganrt" / "shipped.sha256").read_text()
    samples = ganrt.load("fashion", device="cpu", threads=1).sample(40, seed=1)
    logits = network.see(samples).logits
    assert logits is not None and (logits.argmax(1) == np.arange(40) % 10).mean() > 0.7
