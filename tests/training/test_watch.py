from __future__ import annotations

import pytest

from ganrt_training.watch import Stats, warning

WELL: Stats = {"quality": 10.0, "diversity": 0.9, "real_accuracy": 0.7, "fake_accuracy": 0.7}


def after(*qualities: float, **last: float) -> str:
    """What is said after ticks of these qualities, the last of them with other figures."""
    ticks = [WELL | {"quality": quality} for quality in qualities]
    return warning([*ticks[:-1], ticks[-1] | last])


def test_nothing_is_said_while_all_is_well() -> None:
    assert after(10) == after(30, 20, 10, 9, 9, 9, 9) == after(30, 10, 14, 10, 14, 10, 14) == ""


def test_images_that_vary_half_as_much_as_real_ones_are_a_collapse() -> None:
    assert after(10, 10, 10, 10, diversity=0.31).startswith(
        "mode collapse: generated images vary 31% as much as real ones. Try r1=1"
    )
    assert after(10, 10, 10, 10, diversity=0.51) == ""
    assert after(10, 10, 10, diversity=0.0) == ""  # at first the average does not vary


def test_three_ticks_far_worse_than_the_best_are_told() -> None:
    text = after(30, 20, 10, 12, 16, 17, 18.24)
    assert text.startswith("getting worse: quality is 18.2 and was 10.0. The best snapshot is kept; try lr_decay=0.5")
    assert after(30, 20, 10, 12, 16, 17, 14) == ""  # one of them is not
    assert after(10, 12, 16, 17, 18, 18) == ""  # too early to say


@pytest.mark.parametrize(("real", "fake", "told"), [(0.99, 0.97, True), (0.99, 0.94, False), (0.5, 0.99, False)])
def test_a_discriminator_that_tells_nearly_all_is_told(real: float, fake: float, told: bool) -> None:
    text = after(10, 10, real_accuracy=real, fake_accuracy=fake)
    assert text.startswith("the discriminator tells 99% of reals and 97% of fakes rightly, where 50 %") == told
    assert ("Try r1=1, label_smoothing=0.1, augment=on" in text) == told == bool(text)


@pytest.mark.parametrize(("real", "fake", "told"), [(0.2, 0.1, True), (0.3, 0.1, False)])
def test_a_discriminator_that_tells_next_to_nothing_is_told(real: float, fake: float, told: bool) -> None:
    text = after(10, 10, real_accuracy=real, fake_accuracy=fake)
    assert text.startswith("the discriminator tells only 20% of reals and 10% of fakes rightly") == told
    assert ("larger lr_discriminator or d_steps" in text) == told == bool(text)


def test_the_first_tick_is_too_early_for_any_of_it() -> None:
    assert after(10, diversity=0.0, real_accuracy=1.0, fake_accuracy=1.0) == ""


def test_only_the_last_tick_counts_not_what_is_over() -> None:
    assert warning([*[WELL] * 4, WELL | {"diversity": 0.1}, WELL]) == ""


def test_figures_that_a_recipe_does_not_have_are_not_missed() -> None:
    assert warning([{"content": 0.1}] * 9) == ""
    assert warning([{"quality": 1.0, "real_accuracy": 1.0}] * 9) == ""
