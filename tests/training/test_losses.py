from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ganrt.errors import UsageError
from ganrt_training.losses import LOSSES, SMOOTHED, find_loss, told_rightly

Numbers = NDArray[np.float64]
Formula = Callable[[Numbers, Numbers], Numbers]


def chance(logits: Numbers) -> Numbers:
    """Of an image being real, by its logit."""
    return 1 / (1 + np.exp(-logits))


# (of the discriminator, of the generator), each to be averaged; as the papers write them
FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "minimax": (lambda r, f: -np.log(chance(r)) - np.log(1 - chance(f)), lambda r, f: np.log(1 - chance(f))),
    "non_saturating": (lambda r, f: -np.log(chance(r)) - np.log(1 - chance(f)), lambda r, f: -np.log(chance(f))),
    "least_squares": (lambda r, f: ((r - 1) ** 2 + (f + 1) ** 2) / 2, lambda r, f: (f - 1) ** 2 / 2),
    "hinge": (lambda r, f: -np.minimum(0, -1 + r) - np.minimum(0, -1 - f), lambda r, f: -f),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f: -np.log(chance(r - f)), lambda r, f: -np.log(chance(f - r))),
}


def logits(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_loss_has_its_formula_here() -> None:
    assert FORMULAS.keys() == LOSSES.keys()


@pytest.mark.parametrize("shape", [(6,), (3, 1, 2, 4)], ids=["an image", "a patch"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_pair_is_what_its_paper_writes(name: str, shape: tuple[int, ...]) -> None:
    loss, real, fake = find_loss(name), logits(1, *shape), logits(2, *shape)
    discriminator, generator = (formula(real.numpy(), fake.numpy()).mean() for formula in FORMULAS[name])
    assert loss.discriminator(real, fake).item() == pytest.approx(discriminator, rel=1e-9)
    assert loss.generator(real, fake).item() == pytest.approx(generator, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_sure_logits_are_finite_and_so_are_their_gradients(name: str) -> None:
    real = torch.tensor([-200.0, 200.0], requires_grad=True)
    fake = torch.tensor([200.0, -200.0], requires_grad=True)
    for pair in (find_loss(name).discriminator, find_loss(name).generator):
        value = pair(real, fake)
        gradients = torch.autograd.grad(value, (real, fake), allow_unused=True)
        assert torch.isfinite(value)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("name", LOSSES)
def test_the_discriminator_wants_reals_up_and_fakes_down_and_the_generator_its_fakes_up(name: str) -> None:
    loss = find_loss(name)
    real = logits(1, 8).mul(0.2).clamp(-0.9, 0.9).requires_grad_()  # where hinge and least squares still push
    fake = logits(2, 8).mul(0.2).clamp(-0.9, 0.9).requires_grad_()
    to_real, to_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    assert (to_real < 0).all()
    assert (to_fake > 0).all()
    [to_fake] = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (to_fake < 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_generator_loss_says_whether_it_looks_at_the_reals(name: str) -> None:
    loss, fake = find_loss(name), logits(1, 5)
    values = {loss.generator(logits(seed, 5), fake).item() for seed in (2, 3)}
    assert (len(values) == 2) == loss.needs_reals
    assert loss.needs_reals == (name == "relativistic")


@pytest.mark.parametrize("name", LOSSES)
def test_only_the_order_of_logits_matters_to_a_loss_that_is_not_centred(name: str) -> None:
    loss, real, fake = find_loss(name), logits(1, 5), logits(2, 5)
    moved = loss.discriminator(real + 3, fake + 3).item()
    assert (moved == pytest.approx(loss.discriminator(real, fake).item())) == (not loss.centred)


# Label smoothing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_smoothing_lowers_the_target_of_reals_and_leaves_that_of_fakes(name: str) -> None:
    real, fake = logits(1, 7), logits(2, 7)
    expected = F.binary_cross_entropy_with_logits(real, torch.full_like(real, 0.8))
    expected += F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(find_loss(name, 0.2).discriminator(real, fake), expected)


def test_smoothing_of_least_squares_is_that_of_targets_1_and_0_on_twice_the_scale() -> None:
    real, fake = logits(1, 7), logits(2, 7)
    halfway_real, halfway_fake = (real + 1) / 2, (fake + 1) / 2  # 1 is real, 0 is not
    expected = 2 * ((halfway_real - 0.8).square().mean() + halfway_fake.square().mean())
    torch.testing.assert_close(find_loss("least_squares", 0.2).discriminator(real, fake), expected)


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothing_leaves_the_generators_loss_as_it_is(name: str) -> None:
    real, fake = logits(1, 7), logits(2, 7)
    assert torch.equal(find_loss(name, 0.3).generator(real, fake), find_loss(name).generator(real, fake))


@pytest.mark.parametrize("name", ["hinge", "wasserstein", "relativistic"])
def test_a_loss_without_labels_has_none_to_smooth(name: str) -> None:
    message = (
        f"^label_smoothing is 0.1, and the {name} loss has no label to smooth\n"
        "Leave it at 0, or take one of the losses least_squares, minimax, non_saturating.$"
    )
    with pytest.raises(UsageError, match=message):
        find_loss(name, 0.1)


def test_an_unknown_loss_lists_those_there_are() -> None:
    message = "^loss is 'vanilla'\nExpected hinge, least_squares, minimax, non_saturating, relativistic, wasserstein.$"
    with pytest.raises(UsageError, match=message):
        find_loss("vanilla")


# Shares told rightly -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_equal_logits_are_told_rightly_half_of_the_time(name: str) -> None:
    same = torch.linspace(-1, 1, 10)
    real, fake = told_rightly(find_loss(name), same, same.flip(0))
    assert (real.item(), fake.item()) == (0.5, 0.5)


@pytest.mark.parametrize("name", LOSSES)
def test_the_boundary_is_zero_where_that_means_something_else_between_the_means(name: str) -> None:
    real, fake = torch.tensor([9.0, 8.0, 6.0, 1.0]), torch.tensor([2.0, 3.0, 4.0, 7.0])  # means 6 and 4
    shares = tuple(share.item() for share in told_rightly(find_loss(name), real, fake))
    assert shares == ((1.0, 0.0) if find_loss(name).centred else (0.75, 0.75))


def test_patches_are_counted_each() -> None:
    real, fake = torch.tensor([1.0, 1.0, 1.0, -1.0]), torch.tensor([-1.0, 1.0, 1.0, -1.0])
    told = told_rightly(find_loss("least_squares"), real.view(1, 1, 2, 2), fake.view(1, 1, 2, 2))
    assert tuple(share.item() for share in told) == (0.75, 0.5)
