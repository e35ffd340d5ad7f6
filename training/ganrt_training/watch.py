"""What a run says of itself: warnings, with what to try, from the statistics of its ticks."""

from __future__ import annotations

from collections.abc import Sequence

Stats = dict[str, float]

COLLAPSED = 0.5  # of the real images' diversity
_WINS, _LOSES = 0.95, 0.25  # of both accuracies
_WORSE, _TICKS = 1.5, 3  # times the best distance, for so many ticks
_FIRST = 4  # tick at which images should vary: at first the average does not


def warning(ticks: Sequence[Stats]) -> str:
    """What is wrong at the last of the ticks, and what to try; empty when all looks well."""
    now = ticks[-1]
    if now.get("diversity", 1.0) < COLLAPSED and len(ticks) >= _FIRST:
        return (
            f"mode collapse: generated images vary {now['diversity']:.0%} as much as real ones. Try r1=1 (or a larger "
            "weight), a smaller lr_generator, another loss, or a recipe whose discriminator sees deviation (stylegan2, "
            "cgan_projection)"
        )
    best = min((tick["quality"] for tick in ticks if "quality" in tick), default=0.0)
    recent = [tick["quality"] for tick in ticks[-_TICKS:] if "quality" in tick]
    if len(recent) == _TICKS and len(ticks) > 2 * _TICKS and min(recent) > _WORSE * best:
        return (
            f"getting worse: quality is {distance_text(recent[-1])} and was {distance_text(best)}. The best snapshot "
            "is kept; try lr_decay=0.5, a smaller lr_generator and lr_discriminator, or stop here"
        )
    real, fake = now.get("real_accuracy"), now.get("fake_accuracy")
    if real is not None and fake is not None and len(ticks) > 1:
        if min(real, fake) > _WINS:
            return (
                f"the discriminator tells {real:.0%} of reals and {fake:.0%} of fakes rightly, where 50 % is the "
                "equilibrium: the generator learns little. Try r1=1, label_smoothing=0.1, augment=on or a smaller "
                "lr_discriminator"
            )
        if max(real, fake) < _LOSES:
            return (
                f"the discriminator tells only {real:.0%} of reals and {fake:.0%} of fakes rightly: it teaches "
                "nothing. Try a larger lr_discriminator or d_steps, or a larger width"
            )
    return ""


def distance_text(distance: float) -> str:
    """Sliced Wasserstein distances are of tens, Fréchet distances may be of tenths."""
    return f"{distance:.1f}" if distance >= 10 else f"{distance:.3g}"
