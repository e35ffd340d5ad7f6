"""Defects that are planted, each shown by the figure that is there to show it; and that good images show none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ganrt.errors import Cancelled, TrainingError, UsageError
from ganrt_training.evaluation import Evaluation, Figure, evaluate
from ganrt_training.evaluation.classifier_file import Classifier, export_classifier
from ganrt_training.metrics import train_classifier
from tests.training.shapes import NAMES, QUICK, SIDE, TRAIN, dataset_file, made, real_file

N = 500
FEW = ["frechet", "manifold", "fidelity", "neighbours", "duplicates"]
Made = tuple[NDArray[np.uint8], NDArray[np.int64]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real images: a training and a test split."""
    return real_file(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module", autouse=True)
def judge(real: Path) -> None:
    """A classifier of such images beside them, so that not every test has to train one."""
    data = made(TRAIN, 0)
    model = train_classifier(data.images, data.labels, len(NAMES), QUICK)
    about = Classifier(class_names=NAMES, size=(SIDE, SIDE), channels=1)
    export_classifier(model, about, real.parent / "judge.onnx")


def run(real: Path, images: Made, **options: Any) -> Evaluation:
    """An evaluation of images, by a classifier that is there already unless said otherwise."""
    source, features = dataset_file(real.parent, *images), str(real.parent / "judge.onnx")
    given: dict[str, Any] = {"features": features, "protocol": QUICK, "threads": 1, "device": "cpu", "metrics": FEW}
    return evaluate(source, real, **given | options)


def good() -> Made:
    """Images as a good generator makes them: drawn as the real ones were drawn."""
    data = made(N, 2)
    return data.images, data.labels


@pytest.fixture(scope="module")
def sound(real: Path) -> Evaluation:
    """The evaluation of good images, with all figures."""
    return run(real, good(), metrics=None, features="trained")


def figure(found: Evaluation, key: str) -> Figure:
    """The figure of that name."""
    return next(one for one in found.figures if one.key == key)


def test_good_images_are_as_good_as_real_ones_and_nothing_is_warned_of(sound: Evaluation) -> None:
    keys = "frechet kernel inception_score precision recall density coverage label_fidelity accuracy_score memorised "
    keys += "exact_copies duplicates exact_duplicates sliced_wasserstein"
    assert [one.key for one in sound.figures] == keys.split()
    assert sound.warnings == ()
    for key in ("precision", "recall", "coverage", "label_fidelity", "accuracy_score"):
        one = figure(sound, key)
        assert one.real is not None and one.real > 0.7, key
        assert one.generated == pytest.approx(one.real, abs=0.12), key
        assert one.per_class.keys() == {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
    assert figure(sound, "memorised").real == pytest.approx(0.01, abs=0.003)  # by its definition
    for key in ("memorised", "exact_copies", "duplicates", "exact_duplicates"):
        assert figure(sound, key).generated < 0.05, key
    shown = sound.pictures
    assert len(shown.by_class) == 10
    assert [distances for _, _, distances in shown.closest] == sorted(distances for _, _, distances in shown.closest)
    assert all(len(near) == 3 and near[0].shape == (SIDE, SIDE, 1) for _, near, _ in shown.neighbours)


def test_the_protocol_says_how_and_names_no_folder(sound: Evaluation, real: Path) -> None:
    told = sound.to_json()
    about = told["protocol"]
    assert (about["generated"]["images"], about["compared"]["images"], about["real"]["images"]) == (N, N, TRAIN)
    assert about["real"]["held_out"] == 400
    assert (about["size"], about["channels"], about["seed"], about["threads"]) == ("16x16", 1, 0, 1)
    assert about["features"]["name"] == "trained"
    assert about["features"]["trained_on"] == TRAIN
    assert about["real"]["digest"].startswith("sha256:")
    assert {"ganrt", "torch", "scikit-learn", "torchmetrics"} <= about["versions"].keys()
    assert str(real.parent) not in str(told)
    assert told["source"] == "made"


def test_a_class_that_is_one_image_is_named(real: Path) -> None:
    images, labels = made(N, 2).images.copy(), made(N, 2).labels
    images[labels == 3] = images[3]
    found = run(real, (images, labels))
    recall = figure(found, "recall").per_class
    assert recall["three"][0] == 0 and (recall["three"][1] or 0) > 0.7
    assert min(generated for name, (generated, _) in recall.items() if name != "three") > 0.7
    assert figure(found, "exact_duplicates").per_class["three"] == (1, 0)
    assert figure(found, "duplicates").generated == pytest.approx(0.1, abs=0.05)
    named = [text for text in found.warnings if "class three" in text]
    assert any("recall 0.00 where real images have" in text and "collapsed" in text for text in named)
    assert any("100.0% of the images are exact duplicates" in text for text in named)
    assert not any(f"class {other}:" in text for text in found.warnings for other in ("two", "four", "eight"))


def test_a_memoriser_is_shown_by_its_neighbours_alone(real: Path, sound: Evaluation) -> None:
    train = made(TRAIN, 0)
    found = run(real, (train.images[:N], train.labels[:N]))
    assert figure(found, "memorised").generated == 1
    assert figure(found, "exact_copies").generated == 1
    assert figure(found, "exact_copies").real == 0
    assert figure(found, "recall").generated > 0.8  # the other figures praise it
    assert figure(found, "frechet").generated < 2 * figure(sound, "frechet").generated
    assert any("memorised" in text for text in found.warnings)
    assert any("pixel for pixel" in text for text in found.warnings)
    picture, near, distances = found.pictures.closest[0]
    assert np.array_equal(picture, near[0])
    assert distances[0] == pytest.approx(0, abs=1e-3)


def test_a_memoriser_that_changes_a_grey_level_is_shown_too(real: Path) -> None:
    train = made(TRAIN, 0)
    found = run(real, (train.images[:N] ^ np.uint8(1), train.labels[:N]), metrics=["neighbours"])
    assert figure(found, "memorised").generated > 0.9
    assert figure(found, "exact_copies").generated == 0


def test_a_tenth_of_wrong_labels_costs_ten_points_of_fidelity(real: Path, sound: Evaluation) -> None:
    images, labels = good()
    random = np.random.default_rng(0)
    wrong = random.permutation(N)[: N // 10]
    labels = labels.copy()
    labels[wrong] = (labels[wrong] + random.integers(1, 10, len(wrong))) % 10
    found = run(real, (images, labels))
    lost = figure(sound, "label_fidelity").generated - figure(found, "label_fidelity").generated
    assert lost == pytest.approx(0.1, abs=0.03)
    assert figure(found, "frechet").generated == pytest.approx(figure(sound, "frechet").generated, rel=0.5)
    assert any(text.startswith("label fidelity 8") for text in found.warnings)


def blurred(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    def blur(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(image[..., 0]).filter(ImageFilter.GaussianBlur(1.5)))[..., None]

    return np.stack([blur(image) for image in images])


def test_blurred_images_lie_far_off(real: Path, sound: Evaluation) -> None:
    images, labels = good()
    found = run(real, (blurred(images), labels), metrics=["frechet", "kernel", "manifold", "sliced-wasserstein"])
    for key in ("frechet", "kernel", "sliced_wasserstein"):
        usual = figure(sound, key)
        assert figure(found, key).generated > 3 * max(usual.generated, usual.real or 0), key
    assert figure(found, "precision").generated < 0.7 * figure(sound, "precision").generated
    assert any(text.startswith("precision") and "blurred" in text for text in found.warnings)


def test_classes_in_another_order_are_the_same_classes(real: Path, sound: Evaluation, tmp_path: Path) -> None:
    images, labels = good()
    path = tmp_path / "turned.npz"
    np.savez(path, images=images, labels=9 - labels, class_names=np.array(NAMES[::-1]))
    judge = str(real.parent / "judge.onnx")
    found = evaluate(path, real, features=judge, metrics=["fidelity"], threads=1, device="cpu")
    assert figure(found, "label_fidelity").generated == pytest.approx(
        figure(sound, "label_fidelity").generated, abs=0.03
    )


def test_a_class_that_is_missing_is_named(real: Path) -> None:
    images, labels = good()
    kept = labels != 7
    found = run(real, (images[kept], labels[kept]), metrics=["manifold", "fidelity"])
    assert figure(found, "recall").per_class["seven"][0] == 0
    assert figure(found, "label_fidelity").per_class["seven"][1] is not None
    assert "class seven: no generated images" in found.warnings
    assert any("other shares" in text for text in found.warnings)


def test_two_evaluations_agree_and_leave_random_states_alone(real: Path) -> None:
    state, numpy_state, threads = torch.random.get_rng_state(), np.random.get_state(), torch.get_num_threads()
    metrics = ["frechet", "kernel", "fidelity", "cas", "duplicates"]
    quick = replace(QUICK, epochs=1)
    options: dict[str, Any] = {"n": 200, "protocol": quick, "features": "trained"}
    one, again = (run(real, good(), metrics=metrics, **options).to_json() for _ in range(2))
    assert one == again
    assert torch.equal(torch.random.get_rng_state(), state)
    assert str(np.random.get_state()) == str(numpy_state)
    assert torch.get_num_threads() == threads
    other = run(real, good(), metrics=["frechet"], seed=1, **options).to_json()
    assert other["figures"][0]["generated"] != one["figures"][0]["generated"]


def test_the_classifier_of_real_images_is_trained_once(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganrt_training import metrics

    trained: list[int] = []
    train_classifier = metrics.train_classifier

    def counting(images: Any, *arguments: Any, **options: Any) -> Any:
        trained.append(len(images))
        return train_classifier(images, *arguments, **options)

    monkeypatch.setattr(metrics, "train_classifier", counting)
    quick = replace(QUICK, epochs=1)
    options: dict[str, Any] = {"metrics": ["fidelity", "frechet", "cas"], "protocol": quick, "features": "auto"}
    run(real, good(), cas_n=5000, **options)
    assert trained == [TRAIN, N, N]  # the dataset has no more; on as many real ones the classifier is another
    trained.clear()
    big = made(TRAIN, 2)
    run(real, (big.images, big.labels), cas_n=5000, **options)
    assert trained == [TRAIN, TRAIN]
    trained.clear()
    run(real, good(), metrics=["fidelity"])
    assert trained == []  # the network that was given knows the classes


def test_images_without_labels_have_the_figures_that_need_none(real: Path) -> None:
    bare = dataset_file(real.parent, made(N, 2).images, None, "bare")
    found = evaluate(bare, real, features=str(real.parent / "judge.onnx"), threads=1, device="cpu")
    assert figure(found, "recall").generated > 0.6
    assert figure(found, "recall").per_class == {}
    left = [text for text in found.warnings if text.startswith("left out")]
    assert [text.split(":")[1].strip() for text in left] == ["fidelity, cas"]
    assert found.pictures.by_class == []


def test_without_a_test_split_images_are_held_out_and_there_is_no_accuracy_score(tmp_path: Path) -> None:
    train = made(400, 0)
    real = dataset_file(tmp_path, train.images, train.labels, "unsplit")
    found = run(real, (made(200, 2).images, made(200, 2).labels), metrics=None, n=160, features="auto")
    assert found.protocol["real"]["held_out"] == 80
    assert any("cas" in text and "no test split" in text for text in found.warnings)
    assert figure(found, "memorised").real == pytest.approx(0.01, abs=0.02)
    copies = run(real, (train.images[:160], train.labels[:160]), metrics=["neighbours"], features="auto")
    assert figure(copies, "memorised").generated == 1  # those held out too: a generator may have seen them


REFUSED: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "an unknown metric": (lambda d, r: evaluate(d, r, metrics=["fid"]), "metric 'fid'\nExpected frechet, kernel"),
    "no metric": (lambda d, r: evaluate(d, r, metrics=[]), "no metric is named"),
    "too few images asked for": (lambda d, r: evaluate(d, r, n=5), "n 5"),
    "a seed below 0": (lambda d, r: evaluate(d, r, seed=-1), "seed -1"),
    "psi with a dataset": (lambda d, r: evaluate(d, r, psi=0.5), "psi does not apply to a dataset"),
    "latent std with a dataset": (lambda d, r: evaluate(d, r, latent_std=2), "latent-std does not apply"),
    "confidence with a dataset": (
        lambda d, r: evaluate(d, r, confidence=0.5, metrics=["sliced-wasserstein"]),
        "confidence does not apply to a dataset",
    ),
    "a confidence above 1": (lambda d, r: evaluate(d, r, confidence=90), "confidence 90"),
    "weights without a network": (lambda d, r: evaluate(d, r, weights="w.pth"), "weights do not apply"),
    "a mode that is none": (lambda d, r: evaluate(d, r, mode="cmyk"), "mode 'cmyk'"),
    "RGB where the real images are grey": (
        lambda d, r: evaluate(rgb(d.parent), r),
        "the generated images are RGB, the real ones grey\nSay --mode l",
    ),
    "too few images there": (lambda d, r: evaluate(few(d.parent, 10), r), "10 generated images are too few"),
    "too few real images": (lambda d, r: evaluate(d, few(d.parent, 30)), "too few real images: 10 in each half"),
    "images of several sizes": (lambda d, r: evaluate(sizes(d.parent), r), "images of 16x16, 24x16"),
    "classes that the real images lack": (lambda d, r: evaluate(d, strangers(d.parent)), "class 'zero' is none of"),
    "real images without classes": (
        lambda d, r: evaluate(d, bare(d.parent), metrics=["frechet"]),
        "have no classes: no classifier can be trained",
    ),
    "fidelity without labels": (
        lambda d, r: evaluate(bare(d.parent), r, metrics=["fidelity"], protocol=QUICK),
        "fidelity does not apply: the real images and the generated ones must both have classes",
    ),
    "a model that is not there": (lambda d, r: evaluate("nothing-of-the-kind", r), "no model named"),
}


def rgb(folder: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, SIDE, SIDE, 3), np.uint8)
    return dataset_file(folder, images, np.arange(60) % 10, "rgb")


def few(folder: Path, count: int) -> Path:
    return dataset_file(folder, made(count, 3).images, made(count, 3).labels, "few")


def bare(folder: Path) -> Path:
    return dataset_file(folder, made(200, 3).images, None, "bare")


def strangers(folder: Path) -> Path:
    path = folder / "strangers.npz"
    np.savez(path, images=made(200, 3).images, labels=np.arange(200) % 2, class_names=np.array(["cat", "dog"]))
    return path


def sizes(folder: Path) -> Path:
    root = folder / "sizes"
    root.mkdir()
    for number, width in enumerate((16, 16, 24)):
        Image.new("L", (width, 16), number).save(root / f"{number}.png")
    return root


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_evaluated_is_refused(what: str, tmp_path: Path) -> None:
    source = dataset_file(tmp_path, made(60, 2).images, made(60, 2).labels)
    data = made(100, 0)
    real = dataset_file(tmp_path, data.images, data.labels, "real")
    call, message = REFUSED[what]
    with pytest.raises(UsageError) as caught:
        call(source, real)
    assert message in str(caught.value)


def test_real_data_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such|cannot be read|is no file"):
        evaluate(dataset_file(tmp_path, *good()), tmp_path / "nowhere")


def test_it_can_be_cancelled(tmp_path: Path) -> None:
    import threading

    cancel = threading.Event()
    cancel.set()
    source = dataset_file(tmp_path, *good())
    with pytest.raises(Cancelled):
        evaluate(source, source, cancel=cancel)
