"""One training step of an adversarial pair. docs/nine-steps.md walks through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ganrt_training import ema, penalties
from ganrt_training.losses import find_loss, told_rightly
from ganrt_training.recipe import Recipe

if TYPE_CHECKING:
    from ganrt_training.energy import Energy


@dataclass
class Players:
    """The networks of a run, the averaged generator, the two optimisers and the scaler of float16's gradients."""

    generator: nn.Module
    discriminator: nn.Module
    averaged: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


@dataclass(frozen=True)
class Turn:
    """What one step is given.

    ``images`` float [N, C, H, W] in [-1, 1] and ``y`` int64 [N], or None without classes, are this process's share of
    the batch; ``draw_z(count)`` gives latents float [count, z_dim]; ``augment`` varies what the discriminator sees,
    with probability ``augment_p``; ``share`` averages the gradients of a network over all processes; ``energy`` is the
    distance of images from real ones of their classes, where the recipe asks for it.
    """

    number: int  # of steps done before
    images: Tensor
    y: Tensor | None
    draw_z: Callable[[int], Tensor]
    ema_decay: float | Tensor
    augment_p: float = 0.0
    augment: Callable[[Tensor], Tensor] = field(default=lambda images: images)
    share: Callable[[nn.Module], None] = field(default=lambda network: None)
    energy: Energy | None = None

    def parts(self, count: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The batch in ``count`` parts; each has every ``count``-th image, so that classes stay spread as they are."""
        for part in range(count):
            yield self.images[part::count], None if self.y is None else self.y[part::count]


def adversarial_step(recipe: Recipe, players: Players, turn: Turn) -> dict[str, Tensor]:
    """Updates the discriminator and, every ``d_steps``-th time, the generator and its average.

    Fakes wear the labels of the reals. Returns scalars: losses and penalties, and the shares of reals and fakes that
    the discriminator tells rightly. Without ``adversarial`` only the generator is updated; its batch norms then keep
    the statistics they began with.
    """
    figures = discriminator_step(recipe, players, turn) if recipe.adversarial else {}
    if not recipe.adversarial or (turn.number + 1) % recipe.d_steps == 0:
        figures |= generator_step(recipe, players, turn)
        ema.update(players.averaged, players.generator, turn.ema_decay)
    return figures


def discriminator_step(recipe: Recipe, players: Players, turn: Turn) -> dict[str, Tensor]:
    """One update of the discriminator: real images should score high, generated ones low."""
    loss = find_loss(recipe.loss, recipe.label_smoothing)
    on_reals, on_fakes, between = (
        penalties.due(weight, recipe.penalty_interval, turn.number)
        for weight in (recipe.r1, recipe.r2, recipe.gradient_penalty)
    )
    # A gradient's gradient is computed in float32.
    half = not (on_reals or on_fakes or between)
    figures: dict[str, Tensor] = {}
    players.discriminator_optimizer.zero_grad(set_to_none=True)
    for images, y in turn.parts(recipe.accumulate):
        with torch.no_grad(), autocast(recipe, images):
            fakes = players.generator(turn.draw_z(len(images)), y).to(images)
        reals, fakes = turn.augment(images), turn.augment(fakes)
        reals.requires_grad_(bool(on_reals))
        fakes.requires_grad_(bool(on_fakes))
        with autocast(recipe, images, half):
            real_logits = players.discriminator(reals, y).float()
            fake_logits = players.discriminator(fakes, y).float()
        terms = {"discriminator_loss": loss.discriminator(real_logits, fake_logits)}
        if on_reals:
            terms["r1"] = penalties.r1(real_logits, reals, on_reals)
        if on_fakes:
            terms["r2"] = penalties.r2(fake_logits, fakes, on_fakes)
        if between:
            judge = partial(players.discriminator, y=y)
            terms["gradient_penalty"] = penalties.gradient_penalty(judge, reals, fakes, between)
        backward(players, torch.stack(list(terms.values())).sum(), recipe.accumulate)
        real, fake = told_rightly(loss, real_logits, fake_logits)
        add(figures, terms | {"real_accuracy": real, "fake_accuracy": fake}, recipe.accumulate)
    turn.share(players.discriminator)
    update(players, players.discriminator_optimizer)
    if recipe.clip:
        with torch.no_grad():
            for parameter in players.discriminator.parameters():
                parameter.clamp_(-recipe.clip, recipe.clip)
    return figures


def generator_step(recipe: Recipe, players: Players, turn: Turn) -> dict[str, Tensor]:
    """One update of the generator: its images should score high with a discriminator that stands still."""
    loss = find_loss(recipe.loss, recipe.label_smoothing)
    generator_turn = turn.number // recipe.d_steps
    stretch = penalties.due(recipe.path_length, recipe.path_length_interval, generator_turn)
    figures: dict[str, Tensor] = {}
    if not recipe.adversarial:
        players.generator.eval()
    players.discriminator.requires_grad_(False)
    players.generator_optimizer.zero_grad(set_to_none=True)
    for images, y in turn.parts(recipe.accumulate):
        terms: dict[str, Tensor] = {}
        if turn.energy is not None and not recipe.adversarial:
            y = turn.energy.labels(len(images))
        with autocast(recipe, images):
            fakes = players.generator(turn.draw_z(len(images)), y)
        if recipe.adversarial:
            with autocast(recipe, images):
                fake_logits = players.discriminator(turn.augment(fakes), y).float()
                with torch.no_grad():
                    real_logits = (
                        players.discriminator(turn.augment(images), y).float() if loss.needs_reals else fake_logits
                    )
            terms["generator_loss"] = recipe.adversarial * loss.generator(real_logits, fake_logits)
        if turn.energy is not None and y is not None:
            terms["energy"] = recipe.energy * turn.energy(fakes.float(), y)
        if recipe.orthogonal:
            terms["orthogonal"] = penalties.orthogonal(players.generator, recipe.orthogonal)
        if stretch:
            half = max(1, len(images) // 2)  # the paper's batch for it, to save memory
            w = players.generator.styles(turn.draw_z(half), None if y is None else y[:half])  # type: ignore[operator]
            terms["path_length"] = penalties.path_length(
                players.generator.synthesis(w),  # type: ignore[operator]
                w,
                players.generator.path_mean,  # type: ignore[arg-type]
                stretch,
            )
        backward(players, torch.stack(list(terms.values())).sum(), recipe.accumulate)
        add(figures, terms, recipe.accumulate)
    turn.share(players.generator)
    update(players, players.generator_optimizer)
    players.discriminator.requires_grad_(True)
    return figures


def autocast(recipe: Recipe, images: Tensor, wanted: bool = True) -> AbstractContextManager[object]:
    """Half precision where the recipe asks for it."""
    kind = torch.float16 if recipe.precision == "fp16" else torch.bfloat16
    return torch.autocast(images.device.type, kind, enabled=wanted and recipe.precision != "fp32")


def update(players: Players, optimizer: torch.optim.Optimizer) -> None:
    """A step of an optimiser along the gradients there are."""
    players.scaler.step(optimizer)
    players.scaler.update()


def backward(players: Players, loss: Tensor, parts: int) -> None:
    """Adds the gradients of a loss of one of so many parts of a batch."""
    players.scaler.scale(loss / parts).backward()


def add(figures: dict[str, Tensor], terms: dict[str, Tensor], parts: int) -> None:
    """Adds the terms of one of so many parts to their means."""
    for name, value in terms.items():
        figures[name] = figures.get(name, 0) + value.detach() / parts
