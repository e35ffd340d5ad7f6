"""A recipe: everything that decides a training run, as one frozen dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ganrt.errors import UsageError
from ganrt_training.losses import find_loss

if TYPE_CHECKING:
    from ganrt_training.step import Players, Turn

# (recipe, channels, classes) → generator, discriminator; classes is 0 for a run without labels
Build = Callable[[Any, int, int], tuple[nn.Module, nn.Module]]
Step = Callable[[Any, "Players", "Turn"], dict[str, Tensor]]


@dataclass(frozen=True)
class Shown:
    """What an image-to-image generator makes of real images: float [N, C, H, W] in [-1, 1].

    ``fakes`` are measured against ``reals``; ``columns`` are pictures of equal size that belong together, for the grid.
    ``error`` is a distance to lower, where there is a better one than between the two sets.
    """

    fakes: Tensor
    reals: Tensor
    columns: tuple[Tensor, ...]
    error: float | None = None


@dataclass(frozen=True)
class ImageToImage:
    """What a recipe says beyond its networks where images come from images, not from latents.

    ``show(recipe, generator, images, y)`` lets a generator in inference mode work on real images; ``translators(
    generator, class_names)`` are the networks to export by name, x float [N, C, H, W] in [-1, 1] → the same, with sides
    ``scale`` times as long; H and W may be any if ``any_size``. ``domains`` is how many classes the data must have, 0
    if it does not matter.
    """

    show: Callable[[Any, nn.Module, Tensor, Tensor], Shown]
    translators: Callable[[nn.Module, Sequence[str]], Mapping[str, nn.Module]]
    scale: int = 1
    any_size: bool = False
    domains: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run does.

    ``build(recipe, channels, classes)`` returns the generator and the discriminator. The generator maps ``z`` float
    [N, z_dim] and ``y`` int64 [N] (None without classes) to images float [N, channels, size, size] in [-1, 1]; the
    discriminator maps images and ``y`` to logits float [N]. A GAN that does not fit the common step brings its own
    ``step``; one that makes images from images says so by ``translation``.
    """

    bounds: ClassVar[tuple[tuple[str, float, float], ...]] = ()  # of the settings that a GAN's own recipe adds

    name: str
    build: Build
    step: Step | None = None
    translation: ImageToImage | None = None
    image_size: int  # pixels, square
    z_dim: int = 128
    width: int = 32  # channels (dense layers: a unit of them) that all layers' widths are multiples of
    conditional: bool = True  # uses the data's classes, where it has any
    batch_size: int = 64  # of all processes together
    accumulate: int = 1  # parts a batch is computed in, to save memory
    total_kimg: float = 1000.0  # thousands of real images shown
    loss: str = "non_saturating"  # a key of losses.LOSSES
    label_smoothing: float = 0.0  # one-sided: real images' target is 1 less this
    adversarial: float = 1.0  # weight of the loss in the generator's step; at 0 the discriminator stands still
    energy: float = 0.0  # weight of the distance to real images of the class (energy.py)
    energy_spread: float = 1.0  # how strongly generated images drive each other apart in it; real ones draw with 1
    energy_labels: float = 0.0  # weight in it of the loss of classifiers that should tell the class
    d_steps: int = 1  # steps of the discriminator for one of the generator
    optimizer: str = "adam"  # or rmsprop
    lr_generator: float = 2e-4
    lr_discriminator: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.99)
    lr_decay: float = 0.0  # the last part of the run, 0..1, over which both rates fall to zero
    clip: float = 0.0  # the discriminator's weights are kept within -clip … clip
    r1: float = 0.0  # weights of the penalties
    r2: float = 0.0
    gradient_penalty: float = 0.0
    penalty_interval: int = 1  # steps from one r1, r2 or gradient penalty to the next
    orthogonal: float = 0.0
    path_length: float = 0.0
    path_length_interval: int = 4
    ema_decay: float = 0.999  # per step of the generator
    augment: str = "auto"  # auto (under 10,000 images), on, off
    augment_kimg: float = 100.0  # in which its probability may go from 0 to 1
    flip: bool = False  # left to right, half of the images
    balanced: bool = False  # every class is shown as often as every other
    precision: str = "fp32"  # or bf16, fp16 (autocast)
    tick_kimg: float = 10.0  # statistics, quality and checkpoint
    snapshot_kimg: float = 100.0  # snapshot and sample grid

    def __post_init__(self) -> None:
        """Raises UsageError when a setting has a value that cannot be meant."""
        for setting, low, high in (*_BOUNDS, *self.bounds):
            value = getattr(self, setting)
            if not low <= value <= high:
                raise UsageError(
                    f"recipe {self.name}: {setting} is {value!r}", f"Expected a number of {low:g} to {high:g}."
                )
        for setting, choices in _CHOICES.items():
            if (value := getattr(self, setting)) not in choices:
                raise UsageError(
                    f"recipe {self.name}: {setting} is {value!r}",
                    f"Expected {', '.join(choices[:-1])} or {choices[-1]}.",
                )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"recipe {self.name}: betas is {self.betas}", "Expected two numbers of 0 to below 1.")
        if self.batch_size % self.accumulate:
            raise UsageError(
                f"recipe {self.name}: a batch_size of {self.batch_size} in {self.accumulate} parts",
                "Expected accumulate to divide batch_size.",
            )
        if self.step is None and not (self.adversarial or self.energy):
            raise UsageError(
                f"recipe {self.name}: adversarial and energy are both 0", "Expected one of them to teach the generator."
            )
        find_loss(self.loss, self.label_smoothing)

    def with_overrides(self, overrides: list[str]) -> Recipe:
        """The recipe with ``key=value`` strings applied, each typed as the field is.

        Raises UsageError for an unknown key, with the valid ones, or a value that does not fit.
        """
        changes: dict[str, Any] = {}
        tunable = [f.name for f in fields(self) if f.name not in _FIXED]
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator or key not in tunable:
                raise UsageError(
                    f"{override!r} is not a setting of recipe {self.name}",
                    f"Write key=value with one of: {', '.join(sorted(tunable))}.",
                )
            now = getattr(self, key)
            try:
                changes[key] = _parsed(text, now)
            except ValueError:
                shown = ",".join(map(str, now)) if isinstance(now, tuple) else now
                raise UsageError(
                    f"{key}={text!r}: {_EXPECTED[type(now)]} expected", f"The recipe has {key}={shown}."
                ) from None
        return replace(self, **changes)

    def settings(self) -> dict[str, Any]:
        """The recipe as JSON values: what ``recipe.json`` in a run folder holds."""
        return {
            f.name: list(value) if isinstance(value := getattr(self, f.name), tuple) else value
            for f in fields(self)
            if f.name == "name" or f.name not in _FIXED
        }


_FIXED = ("name", "build", "step", "translation")
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", tuple: "numbers with commas", str: "text"}


def _parsed(text: str, now: Any) -> Any:
    """A value typed as the one it replaces. Raises ValueError."""
    if isinstance(now, bool):
        return {"true": True, "false": False}.get(text.lower()) if text.lower() in ("true", "false") else int("none")
    if isinstance(now, tuple):
        return tuple(float(part) for part in text.split(","))
    return type(now)(text)


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("image_size", 4, 1 << 14),
    ("z_dim", 1, 1 << 16),
    ("width", 1, 1 << 14),
    ("batch_size", 2, 1 << 20),
    ("accumulate", 1, 1 << 20),
    ("total_kimg", 0.001, 1e9),
    ("label_smoothing", 0, 0.5),
    ("adversarial", 0, 1e6),
    ("energy", 0, 1e6),
    ("energy_spread", 0, 100),
    ("energy_labels", 0, 1e6),
    ("d_steps", 1, 1000),
    ("lr_generator", 0, 10),
    ("lr_discriminator", 0, 10),
    ("lr_decay", 0, 1),
    ("clip", 0, 1e6),
    ("r1", 0, 1e6),
    ("r2", 0, 1e6),
    ("gradient_penalty", 0, 1e6),
    ("penalty_interval", 1, 10_000),
    ("orthogonal", 0, 1e6),
    ("path_length", 0, 1e6),
    ("path_length_interval", 1, 10_000),
    ("ema_decay", 0, 1),
    ("augment_kimg", 0.001, 1e9),
    ("tick_kimg", 0.001, 1e9),
    ("snapshot_kimg", 0.001, 1e9),
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adam", "rmsprop"),
    "augment": ("auto", "on", "off"),
    "precision": ("fp32", "bf16", "fp16"),
}
