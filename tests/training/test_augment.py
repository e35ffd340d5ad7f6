from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganrt_training.augment import MOST, augment, next_probability


def varied(images: Tensor, probability: float = 1.0, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return augment(images, probability)


def test_images_stay_the_same_object_at_probability_0() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert augment(images, 0.0) is images


def test_what_is_varied_is_decided_by_the_global_seed_and_differs_by_image() -> None:
    images = torch.rand(1, 3, 16, 16).expand(6, -1, -1, -1)
    first = varied(images, 0.9)
    assert torch.equal(first, varied(images, 0.9))
    assert not torch.equal(first, varied(images, 0.9, seed=1))
    assert len({image.numpy().tobytes() for image in first}) == 6
    assert first.shape == images.shape


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_brightness_changes_by_up_to_a_half_in_so_many_images(probability: float) -> None:
    brightness = varied(torch.full((3000, 1, 8, 8), 0.75), probability).amax((1, 2, 3)) - 0.75
    changed = brightness.abs() > 1e-6
    assert changed.float().mean().item() == pytest.approx(probability, abs=0.03)
    assert -0.5 <= brightness.min() < -0.45
    assert 0.45 < brightness.max() <= 0.5


def spread(images: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    return (images.amax(dim) - images.amin(dim)).flatten(1)


def test_contrast_changes_by_half_as_much_again_either_way() -> None:
    stripes = torch.tensor([0.4, -0.4]).repeat(16).expand(500, 1, 32, 32)
    middles = varied(stripes)[:, :, 12:20, 12:20]
    factor = spread(middles[(middles != 0).all(3).all(2)[:, 0]], (2, 3)) / 0.8  # of those that nothing was cut out of
    assert 0.5 - 1e-5 <= factor.min() < 0.55
    assert 1.45 < factor.max() <= 1.5 + 1e-5


def test_saturation_changes_colours_beyond_what_contrast_does_and_leaves_grey_grey() -> None:
    colour = torch.tensor([0.5, 0.0, -0.5]).view(1, 3, 1, 1)
    images = varied(colour.expand(500, 3, 8, 8))
    factors = spread(images, 1).amax(1)
    assert factors.max() > 1.9  # of at most 2 x 1.5
    assert factors.min() < 0.1
    grey = varied(torch.rand(50, 1, 8, 8).expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey[:, 0], grey[:, 2])


def test_images_move_by_up_to_an_eighth_and_grey_comes_in() -> None:
    images = varied(torch.full((500, 1, 32, 32), 0.9))[:, 0]
    blank_rows, blank_columns = (images == 0).all(2), (images == 0).all(1)
    for blank in (blank_rows, blank_columns):  # a box that is cut out is not as wide as the image
        assert blank[:, :4].any(0).all()
        assert blank[:, -4:].any(0).all()
        assert not blank[:, 4:-4].any()
        assert not (blank[:, 0] & blank[:, -1]).any()
        assert blank.any(1).float().mean().item() == pytest.approx(8 / 9, abs=0.05)

    spot = torch.zeros(500, 1, 32, 32)
    spot[:, :, 16, 16] = 5
    images = varied(spot)[:, 0]
    found = images.flatten(1).amax(1) > 1  # not cut out
    places = images.flatten(1).argmax(1)[found]
    assert (set((places // 32).tolist()), set((places % 32).tolist())) == (set(range(12, 21)), set(range(12, 21)))


def test_a_box_of_half_the_side_is_cut_out() -> None:
    areas = []
    for image in varied(torch.full((200, 1, 32, 32), 0.9))[:, 0] == 0:
        inner = image[~image.all(1)][:, ~image.all(0)]  # without what came in from outside
        rows, columns = inner.any(1), inner.any(0)
        assert torch.equal(inner, rows[:, None] & columns[None, :])
        assert max(rows.sum(), columns.sum()) <= 17
        areas.append(int(inner.sum()))
    assert max(areas) == 17 * 17
    assert sum(area > 0 for area in areas) > 190


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_and_their_gradients_flow_through(channels: int) -> None:
    images = torch.randn(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)

    def judged(x: Tensor) -> Tensor:
        return varied(x, 0.8).pow(3).sum((1, 2, 3))

    assert torch.autograd.gradcheck(judged, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(judged, images, fast_mode=True)


def test_a_penalty_on_varied_images_reaches_the_network_behind_them() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    fakes = varied(scale * torch.randn(4, 3, 8, 8), 1.0)
    [gradient] = torch.autograd.grad(fakes.pow(3).sum(), fakes, create_graph=True)
    [reached] = torch.autograd.grad(gradient.square().sum(), scale)
    assert reached.abs() > 0


def test_the_probability_rises_while_reals_are_told_too_well_and_falls_else() -> None:
    assert next_probability(0.2, 0.81, kimg=10, adjust_kimg=100) == pytest.approx(0.3)
    assert next_probability(0.2, 0.79, kimg=10, adjust_kimg=100) == pytest.approx(0.1)
    assert next_probability(0.2, 0.81, kimg=5, adjust_kimg=500) == pytest.approx(0.21)


def test_the_probability_stays_between_0_and_where_variation_would_leak() -> None:
    assert next_probability(0.05, 0.5, kimg=10, adjust_kimg=100) == 0
    assert next_probability(0.8, 1.0, kimg=10, adjust_kimg=100) == MOST == 0.85
