"""The distance to real images of the class: that it tells what an image set lacks, and that runs learn by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganrt
from ganrt.errors import TrainingError, UsageError
from ganrt_training import metrics
from ganrt_training.checkpoint import load_checkpoint, load_generator
from ganrt_training.data import ImageData
from ganrt_training.describe import describe
from ganrt_training.energy import CLASSIFIER, PROTOCOLS, Energy
from ganrt_training.export import export_run
from ganrt_training.layers import LatentNoise
from ganrt_training.loop import train
from ganrt_training.run_folder import to_float
from tests.training.tiny import QUICK_SNAPSHOT, quick_data, quick_recipe

ENERGY = ("cgan_projection_28", "adversarial=0", "energy=1")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return quick_data(400)


@pytest.fixture(scope="module")
def classifiers(data: ImageData) -> list[nn.Module]:
    return [metrics.train_classifier(data.images, data.labels, 2, of) for of in PROTOCOLS]


@pytest.fixture(scope="module")
def energy(classifiers: list[nn.Module], data: ImageData) -> Energy:
    return Energy(classifiers, data, CPU)


def of(energy: Energy, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    torch.manual_seed(0)
    return float(energy(to_float(torch.from_numpy(images)), torch.from_numpy(labels)))


def test_other_images_of_the_same_kind_are_nearest(energy: Energy) -> None:
    """What a generator may get wrong is each farther away than new images of the distribution are."""
    random = np.random.default_rng(7)
    labels = np.arange(100) % 2
    images = random.integers(0, 60, (100, 8, 8, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label] += 180
    right = of(energy, images, labels)
    wrong = {
        "the other class": of(energy, images, 1 - labels),
        "one image a class": of(energy, images[labels], labels),
        "less varied": of(energy, (images * 0.5 + images[labels] * 0.5).astype(np.uint8), labels),
        "darker": of(energy, images // 2, labels),
    }
    assert right < min(wrong.values()), (right, wrong)


def moved(energy: Energy, images: Tensor, y: Tensor) -> Tensor:
    """What images become that are let go where the distance falls."""
    torch.manual_seed(0)
    images = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(energy(images, y))
        optimizer.step()
    return images.detach()


def nearly_equal(data: ImageData) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    images = to_float(torch.from_numpy(data.images[:1])).repeat(16, 1, 1, 1)
    return images + 0.01 * torch.randn(images.shape), torch.from_numpy(data.labels[:1]).repeat(16)


def test_the_gradient_drives_equal_images_apart_and_all_to_the_real_ones(energy: Energy, data: ImageData) -> None:
    images, y = nearly_equal(data)
    after = moved(energy, images, y)
    assert energy(after, y) < energy(images, y)
    assert after.var(dim=0).mean() > 3 * images.var(dim=0).mean()


def test_with_more_spread_they_end_farther_apart(classifiers: list[nn.Module], data: ImageData) -> None:
    images, y = nearly_equal(data)
    less, more = (moved(Energy(classifiers, data, CPU, spread=spread), images, y) for spread in (0.5, 2.0))
    assert more.var(dim=0).mean() > 1.2 * less.var(dim=0).mean()


def test_twins_are_far_from_what_is_real(energy: Energy, data: ImageData) -> None:
    """Near duplicates change little of what is far apart, which alone would differ by less than 0.2."""
    chosen = np.flatnonzero(data.labels == 0)[:32]
    different, half = data.images[chosen], data.images[chosen[:16]]
    twins = np.concatenate([half, np.clip(half.astype(np.int64) + 4, 0, 255).astype(np.uint8)])
    y = np.zeros(32, np.int64)
    assert of(energy, twins, y) > of(energy, different, y) + 0.4


def test_classifiers_should_tell_the_class(classifiers: list[nn.Module], data: ImageData) -> None:
    """Images between two classes become such of the class that they were made for, by a classifier's word that had no
    part in it."""
    judge = metrics.train_classifier(data.images, data.labels, 2, metrics.Protocol(seed=9, epochs=10))
    reals = to_float(torch.from_numpy(data.images))
    zeros, ones = (reals[data.labels == label][:40] for label in (0, 1))
    between, y = (zeros + ones) / 2, torch.arange(40) % 2

    def sure(telling: float) -> float:
        made = moved(Energy(classifiers, data, CPU, telling=telling), between, y)
        with torch.no_grad():
            return float(F.cross_entropy(judge(made), y))

    assert sure(1.0) < 0.8 * sure(0.0)


def test_classes_that_cannot_be_compared_are_left_out(energy: Energy, data: ImageData) -> None:
    images = to_float(torch.from_numpy(data.images[:3])).requires_grad_()
    torch.manual_seed(0)
    both = energy(images, torch.tensor([0, 1, 0]))
    torch.manual_seed(0)
    assert both.item() == pytest.approx(energy(images[[0, 2]], torch.tensor([0, 0])).item(), rel=1e-6)
    nothing = energy(images[:2], torch.tensor([0, 1]))
    torch.autograd.backward(nothing)
    assert nothing.item() == 0 and images.grad is not None and not images.grad.any()


def test_a_class_without_images_and_classes_of_one_do_no_harm() -> None:
    few = quick_data(5)
    data = ImageData(few.images, np.array([0, 0, 0, 0, 2]), ("a", "b", "c"))
    models = [metrics.build_classifier((8, 8), 1, 3, of).eval() for of in PROTOCOLS]
    energy = Energy(models, data, CPU)
    assert torch.isfinite(energy(torch.rand(6, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2, 2])))
    assert {label for _ in range(20) for label in energy.labels(8).tolist()} == {0, 2}


@pytest.mark.parametrize(("count", "classes"), [(128, 2), (127, 1), (65, 1), (8, 1), (400, 2)])
def test_images_that_are_made_to_be_compared_are_of_few_classes(energy: Energy, count: int, classes: int) -> None:
    found = [energy.labels(count) for _ in range(20)]
    assert all(len(y) == count and len(set(y.tolist())) == classes for y in found)
    assert {label for y in found for label in y.tolist()} == {0, 1}


def test_a_run_learns_by_it_alone_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    recipe = quick_recipe(*ENERGY, "noise=0.5", "z_dim=10")
    train(recipe, quick_data(), whole)
    for _ in range(4):
        train(recipe, quick_data(), run, minutes=0)
    for name in (QUICK_SNAPSHOT, "best.safetensors", "recipe.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    ticks = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert all({"energy", "quality"} <= tick.keys() and "generator_loss" not in tick for tick in ticks)
    assert "Distance within classes" in (run / "report.html").read_text()


def test_it_lowers_the_distance(tmp_path: Path) -> None:
    recipe = quick_recipe(*ENERGY, "total_kimg=1.6", "tick_kimg=0.4", "lr_generator=0.01", "batch_size=16")
    run = train(recipe, quick_data(), tmp_path / "run")
    ticks = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert ticks[-1]["energy"] < 0.9 * ticks[0]["energy"]


def test_without_the_adversarial_loss_discriminator_and_norms_stand_still(tmp_path: Path) -> None:
    states = {}
    for kimg in ("0.016", "0.064"):
        run = train(quick_recipe(*ENERGY, f"total_kimg={kimg}"), quick_data(), tmp_path / kimg)
        states[kimg] = load_checkpoint(run / "checkpoint.pt")
    first, last = states.values()
    for name, value in first["discriminator"].items():
        assert torch.equal(value, last["discriminator"][name]), name
    for name, value in first["generator"].items():
        assert torch.equal(value, last["generator"][name]) == ("running" in name or "tracked" in name), name


def test_both_losses_together_move_both_networks(tmp_path: Path) -> None:
    run = train(quick_recipe("cgan_projection_28", "energy=0.5", "accumulate=2"), quick_data(), tmp_path / "run")
    tick = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])
    assert {"energy", "generator_loss", "discriminator_loss", "real_accuracy"} <= tick.keys()


def test_a_run_begins_with_the_generator_of_another(tmp_path: Path) -> None:
    first = train(quick_recipe("cgan_projection_28"), quick_data(), tmp_path / "first")
    begin = load_generator(first / "best.safetensors")
    still = ("lr_generator=0", "total_kimg=0.016")
    run = train(quick_recipe(*ENERGY, *still), quick_data(), tmp_path / "run", start=first)
    assert _same(load_generator(run / "best.safetensors").generator.state_dict(), begin.generator.state_dict())
    assert json.loads((run / "recipe.json").read_text())["start"] == {
        "snapshot_digest": begin.digest,
        "kimg": begin.kimg,
    }
    second = train(quick_recipe("cgan_projection_28"), quick_data(), tmp_path / "second", seed=1)
    with pytest.raises(TrainingError, match="holds another run: it differs in start"):
        train(quick_recipe(*ENERGY, *still), quick_data(), tmp_path / "run", start=second / QUICK_SNAPSHOT)
    with pytest.raises(TrainingError, match="holds another run: it differs in start"):
        train(quick_recipe(*ENERGY, *still), quick_data(), tmp_path / "run")
    with pytest.raises(
        TrainingError, match=r"the generator to start from, a cgan_projection_28, .* is float32 \["
    ) as e:
        train(quick_recipe("cgan_projection_28", "width=4"), quick_data(), tmp_path / "wide", start=first)
    assert "recipe.json" in str(e.value.hint)
    with pytest.raises(TrainingError, match="no such file"):
        train(quick_recipe("cgan_projection_28"), quick_data(), tmp_path / "none", start=tmp_path / "nothing")


def test_noise_is_added_to_a_generator_that_was_trained_without(tmp_path: Path) -> None:
    """Its images are the old ones where the noise is zero, and the noise is in proportion to the hidden units."""
    first = train(quick_recipe("cgan_projection_28"), quick_data(), tmp_path / "first")
    old: Any = load_generator(first / "best.safetensors").generator
    settings = ("noise=0.5", "z_dim=16", "lr_generator=0", "total_kimg=0.016")
    run = train(quick_recipe(*ENERGY, *settings), quick_data(), tmp_path / "run", start=first)
    new: Any = load_generator(run / "best.safetensors").generator
    z, y = torch.randn(64, 4), torch.arange(64) % 2
    with torch.no_grad():
        torch.testing.assert_close(new(torch.cat([z, torch.zeros(64, 12)], dim=1), y), old(z, y))
        assert not torch.allclose(new(torch.cat([z, torch.ones(64, 12)], dim=1), y), old(z, y))
        hidden = torch.nn.functional.leaky_relu(old.mix(old.latent(torch.randn(4000, 4), torch.arange(4000) % 2)), 0.2)
    torch.testing.assert_close(new.noise0.deviation, hidden.std(dim=0), rtol=0.15, atol=0)

    export_run(run, tmp_path / "noisy.onnx")
    generator = ganrt.load(str(tmp_path / "noisy.onnx"), "cpu")
    assert generator.card.z_dim == 16
    latents = np.zeros((3, 16), np.float32)
    latents[1, 11], latents[2, 15] = 9, 9  # the last of the hidden units', the last of the channels'
    images = generator(latents, np.zeros(3, np.int64))
    assert (images[0] != images[1]).any() and (images[0] != images[2]).any() and (images[1] != images[2]).any()


def test_noise_is_as_strong_as_is_said() -> None:
    layer = LatentNoise(3, 0.5)
    x = torch.randn(20_000, 3) * torch.tensor([1.0, 10.0, 0.0])
    layer(x, torch.zeros(20_000, 3))
    added = layer.eval()(x, torch.randn(20_000, 3)) - x
    torch.testing.assert_close(added.std(dim=0), torch.tensor([0.5, 5.0, 0.0]), rtol=0.03, atol=1e-6)
    before = layer.deviation.clone()
    layer(x * 2, torch.zeros(20_000, 3))
    assert torch.equal(before, layer.deviation)

    maps = torch.randn(500, 3, 4, 4) * torch.tensor([1.0, 10.0, 0.0])[:, None, None]
    layer = LatentNoise(3, 0.5)
    layer(maps, torch.zeros(500, 3))
    added = layer.eval()(maps, torch.ones(500, 3)) - maps
    torch.testing.assert_close(added[0, :, 0, 0], torch.tensor([0.5, 5.0, 0.0]), rtol=0.05, atol=1e-4)
    torch.testing.assert_close(added, added[:1, :, :1, :1].expand_as(added), rtol=1e-3, atol=1e-4)


def test_images_of_another_run_are_not_compared_with(tmp_path: Path) -> None:
    run = train(quick_recipe(*ENERGY), quick_data(), tmp_path / "run", minutes=0)
    other = metrics.build_classifier((8, 8), 1, 2, PROTOCOLS[0])
    metrics.save_classifier(run / CLASSIFIER.format(0), other, {"data": "others"})
    with pytest.raises(
        TrainingError, match=r"classifier-0\.safetensors: not the classifier of these images\nRemove it"
    ):
        train(quick_recipe(*ENERGY), quick_data(), run)


def test_what_a_step_would_cost_is_told_without_training_the_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> Tensor:
        raise AssertionError("trained")

    monkeypatch.setattr(metrics, "train_classifier", forbidden)
    assert describe(quick_recipe(*ENERGY), quick_data()).images_per_second > 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("cgan_projection_28", "adversarial=0"), "adversarial and energy are both 0"),
        (("cyclegan_64", "energy=1"), "adversarial=1 energy=1\nIt has losses of its own"),
        (("srgan_x2", "energy=1"), "energy=1\nIt has losses of its own"),
        (("cyclegan_64", "adversarial=2"), "adversarial=2 energy=0\nIt has losses of its own"),
        (("cgan_projection_28", "noise=0.5", "z_dim=5"), "z_dim is 5 with noise=0.5\nExpected 4 .* 196 for 64"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises((TrainingError, UsageError), match=told):
        train(quick_recipe(*settings), quick_data(), tmp_path / "run")


@pytest.mark.parametrize("settings", [(*ENERGY, "conditional=false"), ("dcgan_28", "energy=1")])
def test_without_classes_there_is_no_distance_within_them(settings: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="energy=1 for images of 2 classes, 8x8, conditional=false"):
        train(quick_recipe(*settings), quick_data(), tmp_path / "run")
    bare = ImageData(quick_data().images, np.zeros(40, np.int64), ())
    with pytest.raises(TrainingError, match="energy=1 for images of 0 classes"):
        train(quick_recipe(*ENERGY), bare, tmp_path / "run")


def _same(some: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return some.keys() == other.keys() and all(torch.equal(some[name], other[name]) for name in some)
