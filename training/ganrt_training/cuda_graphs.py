"""Training steps as CUDA graphs: what a step launches is recorded once and then replayed in one call.

A step of a small GAN is a thousand kernels of a few microseconds, which Python takes ten times as long to launch as a
GPU to compute. A replayed step does the same operations on the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ganrt_training import augment, penalties
from ganrt_training.crew import Crew
from ganrt_training.recipe import Recipe
from ganrt_training.step import Players, Turn, adversarial_step

logger = logging.getLogger("ganrt.training")

Figures = dict[str, Tensor]
Work = Callable[[], Figures]
_WARM = 3  # steps of a kind before it is recorded: by then all is allocated and every algorithm is chosen


def fits(recipe: Recipe, team: Crew) -> bool:
    """Whether a run's steps can be recorded: the common step, on one GPU, with nothing that waits for a number."""
    return (
        team.device.type == "cuda"
        and team.size == 1
        and recipe.step is None
        and recipe.optimizer == "adam"
        and recipe.precision != "fp16"  # its scaler looks whether gradients are finite
        and not recipe.path_length
        and not recipe.energy  # how many images of a class there are
    )


class Recorder:
    """Records work of a GPU; what comes back replays it."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def warm(self, work: Work) -> Figures:
        """Does work in the ordinary way, but off the default stream, as recording needs it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            figures = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return figures

    def record(self, work: Work) -> Work:
        """Work to be done again and again; nothing is done yet. Its figures are overwritten each time."""
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph):
                figures = work()
        finally:  # ending a recording that failed may fail too, before the stream of recordings is left
            torch.cuda.set_stream(before)

        def again() -> Figures:
            graph.replay()
            return figures

        return again


@dataclass
class _Kind:
    """Steps that launch the same: where they find what differs from step to step."""

    number: int  # a step of this kind
    images: Tensor
    y: Tensor | None
    ema_decay: Tensor
    augment_p: Tensor
    z: list[Tensor] = field(default_factory=list)
    done: int = 0
    again: Work | None = None


class GraphedStep:
    """The common step for a run of one GPU, recorded for each kind of turn that comes.

    ``recorder`` is what records; another one serves to test without a GPU.
    """

    def __init__(self, recipe: Recipe, players: Players, recorder: Any = None) -> None:
        self._recipe, self._players = recipe, players
        self._recorder = recorder or Recorder()
        self._kinds: dict[Hashable, _Kind] = {}
        self._failed = False
        for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
            group = optimizer.param_groups[0]
            group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)

    def __call__(self, turn: Turn) -> Figures:
        """Does the step of a turn. The figures are good until the next one."""
        kind = self._kinds.get(key := self._key(turn))
        if kind is None:
            device = turn.images.device
            kind = self._kinds[key] = _Kind(
                turn.number,
                torch.empty_like(turn.images),
                None if turn.y is None else torch.empty_like(turn.y),
                torch.zeros((), device=device),
                torch.zeros((), device=device),
            )
        kind.images.copy_(turn.images)
        if kind.y is not None and turn.y is not None:
            kind.y.copy_(turn.y)
        kind.ema_decay.fill_(float(turn.ema_decay))
        kind.augment_p.fill_(turn.augment_p)
        for z in kind.z:
            z.copy_(turn.draw_z(len(z)))
        if kind.again is None:
            kind.done += 1
            if kind.done > _WARM and not self._failed:
                self._record(turn, kind)
        if kind.again is None:
            return self._recorder.warm(lambda: self._step(turn, kind))
        return kind.again()

    def _record(self, turn: Turn, kind: _Kind) -> None:
        """Records the step, or says why it cannot be; nothing of it is done, and a failed one's memory is let go."""
        try:
            kind.again = self._recorder.record(lambda: self._step(turn, kind))
        except RuntimeError as error:
            short = _out_of_memory(error)
            why = "for want of memory" if short else "on this GPU"
            logger.warning("steps cannot be replayed %s, and are launched one by one: %s", why, error)
            self._failed = True
            self._players.discriminator.requires_grad_(True)

    def _key(self, turn: Turn) -> Hashable:
        recipe = self._recipe
        return (
            tuple(
                bool(penalties.due(weight, recipe.penalty_interval, turn.number))
                for weight in (recipe.r1, recipe.r2, recipe.gradient_penalty)
            ),
            (turn.number + 1) % recipe.d_steps == 0,
            turn.augment_p > 0,
        )

    def _step(self, turn: Turn, kind: _Kind) -> Figures:
        """The step, reading from the kind's tensors. Latents are drawn in it the first time, to learn how many."""
        known = iter(kind.z[:])

        def draw_z(count: int) -> Tensor:
            if (z := next(known, None)) is None:
                z = turn.draw_z(count)
                kind.z.append(z)
            return z

        return adversarial_step(
            self._recipe,
            self._players,
            replace(
                turn,
                number=kind.number,
                images=kind.images,
                y=kind.y,
                draw_z=draw_z,
                ema_decay=kind.ema_decay,
                augment=(lambda x: augment.augment(x, kind.augment_p)) if turn.augment_p > 0 else (lambda x: x),
            ),
        )


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was short; ending the recording then fails as well, and its error hides the first."""
    return error is not None and (isinstance(error, torch.OutOfMemoryError) or _out_of_memory(error.__context__))
