from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ganrt_training import penalties


def images(seed: int = 0, count: int = 5) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 3, 4, generator=random, dtype=torch.float64)


# Gradients at images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [penalties.r1, penalties.r2])
def test_a_linear_discriminator_pays_for_its_slope(penalty: object) -> None:
    slope = images(1, 1)[0].requires_grad_()
    shown = images().requires_grad_()
    value = penalty((shown * slope).sum((1, 2, 3)) + 7, shown, 3.0)  # type: ignore[operator]
    torch.testing.assert_close(value, 1.5 * slope.square().sum())
    value.backward()
    torch.testing.assert_close(slope.grad, 3 * slope.detach())


@pytest.mark.parametrize("penalty", [penalties.r1, penalties.r2])
def test_a_curved_discriminator_pays_for_its_slope_at_each_image(penalty: object) -> None:
    shown = images().requires_grad_()
    value = penalty(shown.pow(3).sum((1, 2, 3)), shown, 0.5)  # type: ignore[operator]
    expected = 0.25 * torch.stack([(3 * image**2).square().sum() for image in shown.detach()]).mean()
    torch.testing.assert_close(value, expected)


def test_a_slope_of_one_costs_nothing_between_reals_and_fakes_and_another_the_square_of_what_it_is_off() -> None:
    direction = images(1, 1)[0]
    direction /= direction.norm()
    for slope, cost in ((1.0, 0.0), (3.0, 4.0), (0.5, 0.25), (0.0, 1.0)):
        value = penalties.gradient_penalty(
            lambda x, slope=slope: slope * (x * direction).sum((1, 2, 3)),  # type: ignore[misc]
            images(2),
            images(3),
            10.0,
        )
        assert value.item() == pytest.approx(10 * cost, abs=1e-4)


def test_the_gradient_penalty_looks_at_places_between_a_real_and_a_fake_each() -> None:
    seen: list[Tensor] = []

    def discriminator(x: Tensor) -> Tensor:
        seen.append(x)
        return x.square().sum((1, 2, 3)) / 2

    reals, fakes = images(1, 64), images(2, 64)
    value = penalties.gradient_penalty(discriminator, reals, fakes, 10.0)
    [between] = seen
    shares = ((between - fakes) / (reals - fakes)).detach().flatten(1)
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
    assert 0 <= shares.min() < 0.1
    assert 0.9 < shares.max() <= 1
    lengths = torch.stack([image.norm() for image in between.detach()])
    assert value.item() == pytest.approx(10 * (lengths - 1).square().mean().item(), rel=1e-6)


def test_a_flat_discriminator_has_a_finite_gradient_of_its_penalty() -> None:
    slope = torch.zeros(2, 3, 4, dtype=torch.float64, requires_grad=True)
    value = penalties.gradient_penalty(lambda x: (x * slope).sum((1, 2, 3)), images(1), images(2), 10.0)
    [gradient] = torch.autograd.grad(value, slope)
    assert torch.isfinite(gradient).all()


# Weights -------------------------------------------------------------------------------------------------------------


def test_orthogonal_rows_cost_nothing_and_their_length_does_not_matter() -> None:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([1.0, 5.0, -2.0, 0.0]))[:3])
    assert penalties.orthogonal(layer, 10.0).item() == 0


def test_rows_that_are_not_orthogonal_cost_the_squares_of_their_products() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Linear(4, 2)).double()
    expected = 0.0
    for weight in (network[0].weight, network[2].weight):
        rows = weight.detach().flatten(1)  # type: ignore[operator]
        for i in range(len(rows)):
            expected += sum(float(rows[i] @ rows[j]) ** 2 for j in range(len(rows)) if j != i)
    assert penalties.orthogonal(network, 3.0).item() == pytest.approx(3 * expected)


def test_embeddings_biases_and_what_does_not_learn_are_left_out() -> None:
    parallel = torch.ones(3, 4)
    embedding, frozen = nn.Embedding(3, 4, _weight=parallel), nn.Linear(4, 3)
    frozen.weight.requires_grad_(False).copy_(parallel)
    learning = nn.Linear(4, 1)
    assert penalties.orthogonal(nn.ModuleList([embedding, frozen, learning]), 1.0).item() == 0


# Path lengths --------------------------------------------------------------------------------------------------------


def test_path_lengths_of_a_linear_synthesis_and_their_mean_that_moves() -> None:
    random = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 6, 2 * 3 * 4, generator=random, dtype=torch.float64).requires_grad_()  # a layer each
    w = torch.randn(5, 3, 6, generator=random, dtype=torch.float64, requires_grad=True)
    made = torch.einsum("nlw,lwp->np", w, matrices).view(5, 2, 3, 4)
    mean = torch.tensor(2.0, dtype=torch.float64)

    torch.manual_seed(1)
    value = penalties.path_length(made, w, mean, 4.0)
    torch.manual_seed(1)
    noise = torch.randn(5, 2, 3, 4, dtype=torch.float64).flatten(1) / math.sqrt(3 * 4)
    squares = torch.stack([torch.stack([(m @ y).square().sum() for m in matrices.detach()]).mean() for y in noise])
    lengths = squares.sqrt()
    assert mean.item() == pytest.approx(2 + 0.01 * (lengths.mean().item() - 2))
    torch.testing.assert_close(value.detach(), 4 * (lengths - mean).square().mean())
    [gradient] = torch.autograd.grad(value, matrices)
    assert gradient.abs().sum() > 0


# Intervals -----------------------------------------------------------------------------------------------------------


def test_a_penalty_is_due_every_so_many_steps_and_counts_as_much_more() -> None:
    assert [penalties.due(0.5, 4, step) for step in range(9)] == [2, 0, 0, 0, 2, 0, 0, 0, 2]
    assert [penalties.due(0.5, 1, step) for step in range(3)] == [0.5] * 3
    assert [penalties.due(0.0, 4, step) for step in range(5)] == [0] * 5


@pytest.mark.parametrize("interval", [1, 4, 16])
def test_a_penalty_acts_as_much_whatever_its_interval(interval: int) -> None:
    slope = torch.ones(2, 3, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([slope], lr=1e-3)
    for step in range(64):
        optimizer.zero_grad()
        if weight := penalties.due(0.5, interval, step):
            shown = images().requires_grad_()
            penalty = penalties.r1((shown * slope).sum((1, 2, 3)), shown, weight)
            [slope.grad] = torch.autograd.grad(penalty, slope)
            optimizer.step()
    assert slope.mean().item() == pytest.approx(math.exp(-64 * 0.5 * 1e-3), abs=5e-4)  # 0.9685
