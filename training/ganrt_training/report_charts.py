"""The charts of a training report: which figures go together, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class _Kind:
    """How figures are charted together. ``zero`` starts the axis there; ``log`` allows a logarithmic one."""

    title: str
    about: str
    keys: dict[str, str]  # figure → its label
    axis: str
    percent: bool = False
    zero: bool = False
    log: bool = False
    guides: tuple[tuple[float, str], ...] = ()


_KINDS = (
    _Kind(
        "Losses",
        "What each of the two networks lowers, at the other's cost: neither needs to fall. That one runs away while "
        "the other goes flat is a bad sign.",
        {"discriminator_loss": "discriminator", "generator_loss": "generator"},
        "loss",
    ),
    _Kind(
        "Discriminator accuracy",
        "Share of the real and of the generated images that the discriminator tells rightly. At 50 % it only guesses: "
        "the equilibrium. With both near 100 % the generator has little to learn from.",
        {"real_accuracy": "real images", "fake_accuracy": "generated images"},
        "share told rightly",
        percent=True,
        guides=((0.5, "50 %: guessing"),),
    ),
    _Kind(
        "Distance within classes",
        "From generated to real images of the same class, in what small classifiers see of both, times the recipe's "
        "weight. Only whether it falls tells: real images have neither zero nor a number known before.",
        {"energy": "energy"},
        "distance",
    ),
    _Kind(
        "Quality",
        "Distance between generated and real images, of the averaged generator: sliced Wasserstein, or for "
        "super-resolution the error in grey levels. Lower is better.",
        {"quality": "distance"},
        "distance",
        zero=True,
        log=True,
    ),
    _Kind(
        "Diversity",
        "How much generated images differ from each other, relative to real ones: at 1 they are as varied; under 0.5 "
        "the generator repeats itself (mode collapse).",
        {"diversity": "diversity"},
        "relative to real images",
        zero=True,
        guides=((0.5, "0.5: warning level"), (1.0, "1: as varied as real")),
    ),
    _Kind(
        "Augmentation",
        "Probability with which images are changed before the discriminator sees them; raised while it learns the "
        "training images by heart.",
        {"augment_p": "probability"},
        "probability",
        percent=True,
    ),
    _Kind(
        "Throughput",
        "Real images that both networks were trained on, a second.",
        {"images_per_second": "speed"},
        "images/s",
        zero=True,
    ),
    _Kind("R1 penalty", "Gradient of the discriminator on real images.", {"r1": "R1"}, "penalty", log=True),
    _Kind("R2 penalty", "Gradient of the discriminator on generated images.", {"r2": "R2"}, "penalty", log=True),
    _Kind(
        "Gradient penalty",
        "How far the discriminator's gradient is from length 1 (WGAN-GP).",
        {"gradient_penalty": "penalty"},
        "penalty",
        log=True,
    ),
    _Kind("Cycle", "Error of images that were translated and back (CycleGAN).", {"cycle": "error"}, "loss", log=True),
    _Kind("Identity", "Change of images that need none (CycleGAN).", {"identity": "change"}, "loss", log=True),
    _Kind(
        "Content",
        "Mean squared error of the enlarged image (super-resolution).",
        {"content": "error"},
        "loss",
        log=True,
    ),
    _Kind(
        "Path length penalty",
        "How unevenly images change with the latent.",
        {"path_length": "penalty"},
        "penalty",
        log=True,
    ),
    _Kind(
        "Orthogonal penalty",
        "How far the generator's weights are from orthogonal.",
        {"orthogonal": "penalty"},
        "penalty",
        log=True,
    ),
)
_NOT_CHARTED = ("step", "kimg", "seconds")


def charts_of(ticks: Sequence[Mapping[str, float | None]], network: str = "") -> list[dict[str, Any]]:
    """The charts of the ticks' figures, as the page's script takes them; in this order, then one for each other figure.

    ``network`` is the name of that whose features the quality is the Fréchet distance of, if there is one.

    A series has a value for each tick, None where the tick has no finite one.
    """
    keys = list(dict.fromkeys(key for tick in ticks for key in tick if key not in _NOT_CHARTED))
    known = {key for kind in _KINDS for key in kind.keys}
    others = [_Kind(_worded(key), "", {key: _worded(key).lower()}, "") for key in keys if key not in known]
    charts = []
    kinds = [_frechet(kind, network) if network and "quality" in kind.keys else kind for kind in _KINDS]
    for kind in (*kinds, *others):
        series = [
            {"key": key, "label": label, "values": [tick.get(key) for tick in ticks]}
            for key, label in kind.keys.items()
            if key in keys
        ]
        if series:
            chart = {"title": kind.title, "about": kind.about, "axis": kind.axis, "series": series}
            options = {"percent": kind.percent, "zero": kind.zero, "log": kind.log, "guides": kind.guides}
            charts.append(chart | {name: value for name, value in options.items() if value})
    return charts


def _frechet(kind: _Kind, network: str) -> _Kind:
    about = (
        "Fréchet distance between what the averaged generator makes and real images, in the features of the network "
        f"{network}. Lower is better."
    )
    return replace(kind, about=about, axis="Fréchet distance")


def _worded(key: str) -> str:
    text = key.replace("_", " ").strip() or "unnamed"
    return text[:1].upper() + text[1:]
