"""What a run would be: sizes, work and speed of a recipe on images, from a few steps that leave no trace."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ganrt_training import crew
from ganrt_training.data import ImageData
from ganrt_training.energy import untrained
from ganrt_training.fold import fold_norms
from ganrt_training.loop import check_fit
from ganrt_training.players import make_players
from ganrt_training.recipe import Recipe
from ganrt_training.run_folder import to_float
from ganrt_training.step import Turn, adversarial_step

_STEPS = 4


@dataclass(frozen=True)
class Described:
    """Settings, and figures: parameters and multiply-accumulates (MACs) an image of both networks at inference, bytes
    of weights and optimizer state, bytes at the peak of a step (``peak_of`` says of what), images a second."""

    settings: dict[str, Any]
    images: str
    generator_parameters: int
    discriminator_parameters: int
    generator_macs: int
    discriminator_macs: int
    state_bytes: int
    peak_bytes: int
    peak_of: str
    images_per_second: float
    device: str


def describe(recipe: Recipe, data: ImageData, *, device: str = "cpu") -> Described:
    """Builds the networks and takes a few steps. Raises what train raises when the recipe does not fit."""
    team = crew.join(device)
    check_fit(recipe, data, team.size)
    names = data.class_names if recipe.conditional else ()
    channels = data.images.shape[3]
    players = make_players(recipe, channels, len(names), team.device)
    count = recipe.batch_size // team.size
    if recipe.translation and recipe.translation.domains:  # some of each
        order = torch.from_numpy(data.labels).argsort(stable=True)
        chosen = order[torch.linspace(0, len(order) - 1, count).long()]
    else:
        chosen = torch.arange(count)
    images = to_float(torch.from_numpy(data.images)[chosen]).to(team.device)
    y = torch.from_numpy(data.labels)[chosen].to(team.device) if names else None
    macs = _macs(recipe, players.generator, players.discriminator, images[:1], None if y is None else y[:1], names)
    cuda = team.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(team.device)

    distance = untrained(data, team.device) if recipe.energy else None

    def step(number: int) -> None:
        turn = Turn(number, images, y, lambda n: torch.randn(n, recipe.z_dim, device=team.device), 0.9, energy=distance)
        (recipe.step or adversarial_step)(recipe, players, turn)
        if cuda:
            torch.cuda.synchronize(team.device)

    step(0)
    started = time.perf_counter()
    # As many as both networks' turns take, so that the generator's share is in it.
    steps = -(-_STEPS // recipe.d_steps) * recipe.d_steps
    for number in range(1, 1 + steps):
        step(number)
    seconds = time.perf_counter() - started
    state = _bytes(players.generator) * 2 + _bytes(players.discriminator)
    for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
        state += sum(_size(v) for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor))
    grey = "grey" if channels == 1 else "RGB"
    classes = f", {len(data.class_names)} classes" if data.class_names else ", no classes"
    if data.class_names and not names:
        classes += " (not used)"
    return Described(
        settings=recipe.settings(),
        images=f"{len(data):,} images of {recipe.image_size}x{recipe.image_size} {grey}{classes}",
        generator_parameters=parameters_of(players.generator),
        discriminator_parameters=parameters_of(players.discriminator),
        generator_macs=macs[0],
        discriminator_macs=macs[1],
        state_bytes=state,
        peak_bytes=torch.cuda.max_memory_allocated(team.device) if cuda else _peak_bytes(),
        peak_of="of the GPU" if cuda else "of the process, images among them,",
        images_per_second=recipe.batch_size * steps / seconds,
        device=str(team.device),
    )


def macs_of(network: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of a network in inference mode: convolutions and matrix products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return int(counter.get_total_flops()) // 2


def _macs(
    recipe: Recipe, generator: nn.Module, discriminator: nn.Module, image: Tensor, y: Tensor | None, names: Any
) -> tuple[int, int]:
    """Of one image through each; through all of them, where there are several."""
    device = image.device
    if recipe.translation is None:
        z = torch.zeros(1, recipe.z_dim, device=device)
        judged = macs_of(fold_norms(discriminator), image, y)
        return macs_of(fold_norms(generator), z, y), judged
    side = recipe.image_size // recipe.translation.scale
    small = torch.zeros(1, image.shape[1], side, side, device=device)
    made = sum(macs_of(fold_norms(g), small) for g in recipe.translation.translators(generator, names).values())
    judges = [d for d in discriminator.children() if hasattr(d, "layers")] or [discriminator]
    return made, sum(macs_of(fold_norms(judge), image) for judge in judges)


def parameters_of(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def _bytes(network: nn.Module) -> int:
    return sum(_size(tensor) for tensor in network.state_dict().values())


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _peak_bytes() -> int:
    """The most that this process has taken so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
