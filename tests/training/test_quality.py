from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ganrt_training.quality import Reference


def pictures(seed: int, count: int = 128, size: int = 28, channels: int = 1, classes: int = 2) -> tuple[Tensor, Tensor]:
    """Smooth random shapes, each class with a brightness of its own: float [N, C, H, W] in [-1, 1] and labels."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, 5, 5, generator=random)
    labels = torch.arange(count) % classes
    shapes = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    images = torch.tanh(shapes + 2 * labels[:, None, None, None] - (classes - 1))
    return images, labels


def noisy(images: Tensor, amount: float) -> Tensor:
    return images + amount * torch.randn(images.shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (32, 3), (45, 1), (64, 3)])
@pytest.mark.parametrize("count", [4, 48])
def test_real_images_are_at_distance_0_and_as_varied_as_themselves(size: int, channels: int, count: int) -> None:
    reals, labels = pictures(0, count, size, channels)
    same = Reference(reals, labels).look(reals.clone(), labels)
    assert same.distance == pytest.approx(0, abs=1e-3)
    assert same.diversity == pytest.approx(1, abs=1e-6)
    worse = Reference(reals, labels).look(noisy(reals, 0.5), labels)
    assert worse.distance > 10


@pytest.mark.parametrize("size", [28, 64])
def test_the_more_images_are_off_the_farther_they_are(size: int) -> None:
    reals, labels = pictures(0, 64, size)
    reference = Reference(reals, labels)
    others, _ = pictures(1, 64, size)
    near = reference.look(others).distance

    changes: dict[str, Callable[[float], Tensor]] = {
        "noise": lambda amount: noisy(others, amount),
        "brightness": lambda amount: others + amount,
        "contrast": lambda amount: others * (1 - 0.9 * amount),
        "collapse": lambda amount: others[torch.arange(len(others)) % (2 if amount == 1 else 16)],
        "blur": lambda amount: F.avg_pool2d(others, 2 * (k := int(amount * 10)) + 1, 1, k, count_include_pad=False),
    }
    for name, change in changes.items():
        assert near < reference.look(change(0.3)).distance < reference.look(change(1.0)).distance, name


def test_the_set_that_was_drawn_like_the_reals_is_the_nearest() -> None:
    reals, labels = pictures(0, 256)
    reference = Reference(reals, labels)
    alike, other = pictures(1, 256)[0], pictures(1, 256, classes=4)[0]
    assert reference.look(alike).distance < 0.5 * reference.look(other).distance


def test_which_fake_goes_with_which_real_does_not_matter() -> None:
    reals, labels = pictures(0, 64)
    reference = Reference(reals, labels)
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    # Patches are cut elsewhere then, so it is not 0 to the last digit.
    assert reference.look(reals[shuffled], labels[shuffled]).distance < 0.3 * reference.look(noisy(reals, 0.3)).distance


def test_one_image_again_and_again_has_no_diversity() -> None:
    reals, labels = pictures(0)
    assert Reference(reals, labels).look(reals[:1].expand(128, -1, -1, -1)).diversity == pytest.approx(0, abs=1e-6)


def test_diversity_is_that_within_classes() -> None:
    reals, labels = pictures(0)
    one_each = reals[labels]  # images 0 and 1 are of classes 0 and 1
    assert Reference(reals, labels).look(one_each).diversity == pytest.approx(0, abs=1e-6)
    without = Reference(reals, torch.zeros_like(labels)).look(one_each)
    assert without.diversity > 0.5


def test_half_the_deviation_is_half_the_diversity() -> None:
    reals, labels = pictures(0)
    assert Reference(reals, labels).look(0.5 * reals + 0.2).diversity == pytest.approx(0.5, abs=1e-5)


def test_other_labels_may_go_with_the_fakes() -> None:
    reals, labels = pictures(0)
    order = torch.argsort(labels, stable=True)
    assert Reference(reals, labels).look(reals[order], labels[order]).diversity == pytest.approx(1, abs=1e-5)
    assert Reference(reals, labels).look(reals[order]).diversity > 1.1  # as if classes were mixed
