"""What applies and what sees the images is settled before the work: refusals, who judges, what is left out, folders."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ganrt import evaluate_command
from ganrt.errors import Cancelled, StorageError, TrainingError, UnknownModel, UsageError
from ganrt.generator import load
from ganrt_training import evaluation
from ganrt_training.data import FASHION_CLASSES, ImageData
from ganrt_training.evaluation import Evaluation, evaluate
from ganrt_training.evaluation.sets import subset
from ganrt_training.evaluation.sources import HOPELESS, ModelImages
from tests.datasets import ROOT
from tests.models import tiny_model
from tests.training.seeing import saved
from tests.training.shapes import NAMES, QUICK, SIDE, dataset_file, made

BRIEF = replace(QUICK, epochs=2)
SLICED = ["sliced-wasserstein"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images; the same without classes, without a test split, of other classes; a generator."""
    root = tmp_path_factory.mktemp("planning")
    root.joinpath("model.onnx").write_bytes(tiny_model(class_names=NAMES, width=SIDE, height=SIDE, channels=1))
    data = made(200, 3)
    split(root / "digits", data, made(60, 4))
    dataset_file(root, data.images, None, "bare")
    dataset_file(root, data.images, data.labels, "unsplit")
    np.savez(root / "strangers", images=data.images, labels=data.labels % 2, class_names=np.array(["cat", "dog"]))
    return root


def split(path: Path, train: ImageData, test: ImageData) -> Path:
    """An .npz with both splits; classes without names have no labels."""
    arrays: dict[str, Any] = {"class_names": np.array(train.class_names)}
    for name, data in (("train", train), ("test", test)):
        arrays |= {f"{name}_images": data.images} | ({f"{name}_labels": data.labels} if data.class_names else {})
    np.savez(path, **arrays)
    return path.with_suffix(".npz")


def run(source: Path, real: Path, **options: Any) -> Evaluation:
    """A small evaluation on one thread."""
    given: dict[str, Any] = {"n": 60, "threads": 1, "device": "cpu", "protocol": BRIEF}
    return evaluate(source, real, **given | options)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a network that is not there": ({"features": "nothing", "metrics": SLICED}, "digits", "no feature network named"),
    "weights that are not there": (
        {"features": "inception-v3", "weights": "nowhere.pth", "metrics": ["cas"]},
        "digits",
        "nowhere.pth",
    ),
    "inception without weights": ({"features": "inception-v3", "metrics": SLICED}, "digits", "needs its weights"),
    "a trained network without classes": ({"features": "trained", "metrics": SLICED}, "bare", "have no classes"),
    "cas without a test split": (
        {"metrics": ["frechet", "cas"]},
        "unsplit",
        "cas does not apply: the real data has no",
    ),
    "cas without classes": ({"metrics": ["sliced-wasserstein", "cas"]}, "bare", "cas does not apply: .* have classes"),
    "a score of logits that are not there": (
        {"features": "net.onnx", "metrics": ["frechet", "inception-score"]},
        "digits",
        "inception-score does not apply: the feature network net gives no logits",
    ),
    "other classes": ({"metrics": ["frechet"]}, "strangers", "class 'zero' is none of"),
    "confidence without classes": ({"confidence": 0.5, "metrics": SLICED}, "bare", "confidence does not apply"),
    "cas-n without cas": ({"cas_n": 100, "metrics": SLICED}, "digits", "cas-n does not apply without the metric cas"),
    "a folder to keep nothing in": ({"keep": "kept", "metrics": SLICED}, "digits", "keep does not apply"),
    "a folder whose place is taken": ({"keep": "taken"}, "digits", "taken is no folder"),
    "a folder below a file": ({"keep": "taken/kept"}, "digits", "cannot read or write"),
    "a colour that is none": ({"background": "reddish"}, "digits", "background 'reddish'"),
    "an unknown way with damaged images": ({"on_corrupt": "mend"}, "digits", "on-corrupt 'mend'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_anything_is_made_or_trained(
    what: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    saved(tmp_path)  # net.onnx
    options, real, says = REFUSED[what]
    told: list[str] = []
    with pytest.raises((UsageError, UnknownModel, TrainingError, StorageError), match=says):
        run(folder / "model.onnx", folder / f"{real}.npz", progress=lambda what, *_: told.append(what), **options)
    assert set(told) <= {"reading real images"}


def test_confidence_with_a_dataset_is_refused_before_real_images_are_read(folder: Path) -> None:
    with pytest.raises(UsageError, match="confidence does not apply to a dataset"):
        run(folder / "unsplit.npz", folder / "nowhere", confidence=0.5)


def fashion(folder: Path, *, test: bool) -> tuple[Path, Path]:
    """A generator and real images of Fashion-MNIST's kind, in which nothing can be seen."""
    model = folder / "m.onnx"
    model.write_bytes(tiny_model(class_names=FASHION_CLASSES, width=28, height=28, channels=1))
    noise = np.random.default_rng(0).integers(0, 256, (160, 28, 28, 1), np.uint8)
    data = ImageData(noise, np.arange(160) % 10, FASHION_CLASSES)
    if test:
        return model, split(folder / "real", subset(data, np.arange(100)), subset(data, np.arange(100, 160)))
    np.savez(folder / "real", images=noise, labels=data.labels, class_names=np.array(FASHION_CLASSES))
    return model, folder / "real.npz"


def test_the_shipped_classifier_judges_whatever_the_metrics_and_is_named(tmp_path: Path) -> None:
    digest = hashlib.sha256((ROOT / "exported" / "features" / "fashion.onnx").read_bytes()).hexdigest()
    named = {"name": "fashion", "digest": f"sha256:{digest}"}
    model, real = fashion(tmp_path, test=True)
    for metrics, confidence in ((["cas"], 0.0), (["fidelity"], None)):
        found = run(model, real, metrics=metrics, confidence=confidence, n=20)
        assert found.protocol["classifier"] == named
        assert found.protocol["features"]["name"] == "fashion"
    about = run(model, real, metrics=SLICED, n=20).protocol
    assert not {"features", "classifier"} & about.keys()


def test_without_a_test_split_the_shipped_classifier_is_not_taken_for_it_may_know_the_images(tmp_path: Path) -> None:
    found = run(*fashion(tmp_path, test=False), metrics=["fidelity"], n=20)
    assert found.protocol["classifier"]["name"] == "trained"
    assert found.protocol["classifier"]["digest"].startswith("sha256:")


def test_labels_of_a_generator_are_dropped_where_the_real_images_have_none(folder: Path) -> None:
    found = run(folder / "model.onnx", folder / "bare.npz", metrics=SLICED)
    assert found.figures[0].generated > 0


def test_without_classes_and_without_a_network_there_are_the_figures_of_pixels(folder: Path) -> None:
    images = made(200, 3).images[:60].copy()
    images[30:40] = images[30]
    found = run(dataset_file(folder, images, None, "copies"), folder / "bare.npz")
    figures = {one.key: one.generated for one in found.figures}
    assert figures.keys() == {"exact_copies", "exact_duplicates", "sliced_wasserstein"}
    assert figures["exact_copies"] == 1
    assert figures["exact_duplicates"] == pytest.approx(1 / 6)
    left = [text for text in found.warnings if text.startswith("left out: ")]
    assert left[0].startswith("left out: frechet, kernel, inception-score, manifold, memorised, near duplicates: ")
    assert "no classes" in left[0] and "--features NETWORK.onnx" in left[0]
    assert left[1].startswith("left out: fidelity, cas: ")


def broken_npz(folder: Path) -> Path:
    np.savez(folder / "data", train_images=made(200, 3).images, test_labels=np.arange(100))
    return folder / "data.npz"


def broken_folder(folder: Path) -> Path:
    (folder / "data" / "test").mkdir(parents=True)
    save(folder / "data" / "train", made(60, 4).images)
    return folder / "data"


def broken_idx(folder: Path) -> Path:
    for kind, array in (("images-idx3", made(60, 4).images[..., 0]), ("labels-idx1", made(60, 4).labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"train-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"torn")
    return folder


def save(folder: Path, images: NDArray[np.uint8]) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{number}.png")


@pytest.mark.parametrize("broken", [broken_npz, broken_folder, broken_idx])
def test_a_broken_test_split_is_an_error_and_not_none(
    broken: Callable[[Path], Path], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="test"):
        run(folder / "model.onnx", broken(tmp_path), metrics=SLICED)


def test_a_test_split_without_labels_judges_nobody(folder: Path, tmp_path: Path) -> None:
    real = split(tmp_path / "real", made(200, 3), replace(made(60, 4), class_names=()))
    found = run(folder / "model.onnx", real, metrics=["fidelity"])
    assert found.protocol["real"]["split"] == "a test split without classes, left out: 40 training images held out"
    with pytest.raises(UsageError, match="no test split with classes"):
        run(folder / "model.onnx", real, metrics=["cas"])


def test_transparency_and_damage_are_as_in_training(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = np.repeat(made(200, 3).images, 4, axis=3)  # as transparent as they are dark
    save(tmp_path / "real", images)
    white, black = (
        run(folder / "model.onnx", tmp_path / "real", metrics=SLICED, n=20, background=name).protocol["real"]
        for name in ("white", "black")
    )
    assert white["digest"] != black["digest"]
    assert "skipped" not in white
    (tmp_path / "real" / "7.png").write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"7\.png"):
        run(folder / "model.onnx", tmp_path / "real", metrics=SLICED, n=20)
    with caplog.at_level(logging.WARNING, "ganrt.training"):
        found = run(folder / "model.onnx", tmp_path / "real", metrics=SLICED, n=20, on_corrupt="skip")
    assert (found.protocol["real"]["images"], found.protocol["real"]["skipped"]) == (199, 1)
    assert [record.message.startswith("skipped: ") and "7.png" in record.message for record in caplog.records] == [True]


def test_a_classifier_that_cannot_be_kept_costs_nothing_else_and_random_states_stay(
    folder: Path, tmp_path: Path
) -> None:
    keep = tmp_path / "kept"

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("training") and keep.is_dir():
            keep.rmdir()
            keep.touch()

    state = torch.random.get_rng_state()
    found = run(folder / "model.onnx", folder / "unsplit.npz", metrics=["fidelity"], keep=keep, progress=progress)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert any(text.startswith("the classifier of real images is not kept: ") for text in found.warnings)
    assert [one.key for one in found.figures] == ["label_fidelity"]


def test_figures_are_printed_though_the_report_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, called = tmp_path / "report", list[int]()

    def fill(*arguments: Any, **options: Any) -> Evaluation:
        called.append(1)
        found = evaluate(*arguments, **options)
        out.rmdir()
        out.touch()
        return found

    monkeypatch.setattr(evaluation, "evaluate", fill)
    monkeypatch.setattr(evaluate_command, "before_running", lambda *_: None)  # which is for a process of its own
    words: dict[str, Any] = {"metrics": SLICED, "n": 60, "device": "cpu", "threads": 1, "quiet": True}
    with pytest.raises(UsageError, match="report is no folder"):
        evaluate_command.evaluate(str(folder / "model.onnx"), folder / "digits.npz", out=out, as_json=True, **words)
    assert json.loads(capsys.readouterr().out)["figures"][0]["key"] == "sliced_wasserstein"
    with pytest.raises(UsageError, match="report is no folder"):
        evaluate_command.evaluate(str(folder / "model.onnx"), folder / "digits.npz", out=out, **words)
    assert len(called) == 1  # a folder that is none is found before the work


def of_two(folder: Path) -> ModelImages:
    """A generator of two classes, of tiny images."""
    path = folder / "two.onnx"
    path.write_bytes(tiny_model(class_names=("a", "b"), channels=1))
    return ModelImages(load(path, "cpu", threads=1), "two", 0, None, 1.0, "l", {})


def test_a_class_of_which_none_is_sure_is_given_up_early_and_progress_is_told(tmp_path: Path) -> None:
    source, told = of_two(tmp_path), list[tuple[int, int]]()
    looked: list[int] = []

    def confident(data: ImageData) -> NDArray[np.bool_]:
        looked.append(len(data))
        return np.equal(data.labels, 0)

    with pytest.raises(UsageError, match="of class 'b' 0 images of 5000 were found among 2,0") as caught:
        source.take_confident(10_000, confident, tell=lambda what, done, total: told.append((done, total)))
    assert 2 * HOPELESS <= sum(looked) < 2 * HOPELESS + 2500
    assert "lower --confidence" in str(caught.value)
    assert told[0] == (0, 10_000)
    assert told[-1] == (1024, 10_000)  # those of class a, when the last lot was begun
    assert len(told) > 50


def test_making_images_hears_that_it_is_to_stop(folder: Path) -> None:
    cancel, told = threading.Event(), list[int]()

    def progress(what: str, done: int, total: int) -> None:
        if what == "making images":
            told.append(done)
            cancel.set()

    with pytest.raises(Cancelled):
        run(folder / "model.onnx", folder / "digits.npz", metrics=SLICED, n=300, progress=progress, cancel=cancel)
    assert len(told) == 1 and told[0] < 300
