"""A recipe: everything that decides a training run, as one frozen dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from ganrt.errors import UsageError
from ganrt_training.losses import Loss


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run does.

    ``build(recipe, channels, classes)`` returns the generator and the discriminator. The generator
    maps ``z`` float [N, z_dim] and ``y`` int64 [N] to images float [N, channels, size, size] in
    [-1, 1]; the discriminator maps images and ``y`` to logits float [N].
    """

    name: str
    build: Callable[[Recipe, int, int], tuple[nn.Module, nn.Module]]
    loss: Loss
    image_size: int  # pixels, square
    z_dim: int = 128
    width: int = 32  # channels of the widest feature map's layer
    batch_size: int = 64
    total_kimg: float = 1000.0  # thousands of real images shown
    lr_generator: float = 2e-4
    lr_discriminator: float = 4e-4
    betas: tuple[float, float] = (0.0, 0.99)
    lr_decay: float = 0.0  # the last part of the run, 0..1, over which both rates fall to zero
    ema_decay: float = 0.999  # per step
    precision: str = "bf16"  # bf16 (autocast) or fp32
    tick_kimg: float = 10.0  # statistics and checkpoint
    snapshot_kimg: float = 100.0  # snapshot and sample grid

    def __post_init__(self) -> None:
        """Raises UsageError when a setting has a value that cannot be meant."""
        for setting, low, high in _BOUNDS:
            value = getattr(self, setting)
            if not low <= value <= high:
                raise UsageError(
                    f"recipe {self.name}: {setting} is {value!r}", f"Expected a number of {low:g} to {high:g}."
                )
        if self.precision not in ("bf16", "fp32"):
            raise UsageError(f"recipe {self.name}: precision is {self.precision!r}", "Expected bf16 or fp32.")

    def with_overrides(self, overrides: list[str]) -> Recipe:
        """The recipe with ``key=value`` strings applied, each typed as the field is.

        Raises UsageError for an unknown key or a value that does not fit.
        """
        changes: dict[str, Any] = {}
        tunable = {f.name for f in fields(self)} - {"name", "build", "loss", "betas"}
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator or key not in tunable:
                raise UsageError(
                    f"{override!r} is not a setting of recipe {self.name}",
                    f"Write key=value with one of: {', '.join(sorted(tunable))}.",
                )
            kind = type(getattr(self, key))
            try:
                changes[key] = kind(text)
            except ValueError:
                raise UsageError(
                    f"{key}={text!r}: {kind.__name__} expected", f"The recipe has {key}={getattr(self, key)!r}."
                ) from None
        return replace(self, **changes)

    def settings(self) -> dict[str, Any]:
        """The recipe as JSON values: what ``recipe.json`` in a run folder holds."""
        return {
            f.name: list(value) if isinstance(value := getattr(self, f.name), tuple) else value
            for f in fields(self)
            if f.name not in ("build", "loss")
        } | {"loss": self.loss.name}


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("image_size", 4, 1 << 14),
    ("z_dim", 1, 1 << 16),
    ("width", 1, 1 << 14),
    ("batch_size", 2, 1 << 20),
    ("total_kimg", 0.001, 1e9),
    ("lr_generator", 0, 10),
    ("lr_discriminator", 0, 10),
    ("lr_decay", 0, 1),
    ("ema_decay", 0, 1),
    ("tick_kimg", 0.001, 1e9),
    ("snapshot_kimg", 0.001, 1e9),
)
