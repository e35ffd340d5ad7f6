"""The training loop: from a recipe and images to a run folder that can be resumed and exported."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ganrt.errors import DeviceUnavailable, TrainingError
from ganrt.files import write_synced
from ganrt.providers import parse_device
from ganrt.shards import require
from ganrt_training import ema
from ganrt_training.checkpoint import load_checkpoint, save_checkpoint, save_snapshot
from ganrt_training.data import ImageData, epoch_order
from ganrt_training.recipe import Recipe
from ganrt_training.step import Players, adversarial_step

logger = logging.getLogger("ganrt.training")

Stats = dict[str, float]


def train(
    recipe: Recipe,
    data: ImageData,
    run_dir: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    minutes: float | None = None,
    progress: Callable[[Stats], None] | None = None,
) -> Path:
    """Trains until ``recipe.total_kimg`` is reached, or for ``minutes``, and returns ``run_dir``.

    The folder gets ``recipe.json``, ``stats.jsonl`` (a line per tick), ``samples-<kimg>.png`` (fixed z,
    a class per row), ``snapshot-<kimg>.safetensors`` (the averaged generator) and ``checkpoint.pt``.
    A folder that holds a checkpoint of the same recipe is resumed where it stood; on a CPU the weights
    then come out as those of an uninterrupted run. ``progress`` gets each tick's statistics.

    Raises UsageError and DeviceUnavailable for the device, TrainingError when the data does not fit the
    recipe, when the folder holds another run, and when a loss stops being finite (the last checkpoint stays).
    """
    require("seed", seed, 0, (1 << 63) - 1)
    device = _usable(device)
    _check_fit(recipe, data)
    about = {
        "recipe": recipe.settings(),
        "seed": seed,
        "channels": data.images.shape[3],
        "class_names": list(data.class_names),
        "images": len(data),
    }
    _claim(run_dir, about)
    torch.manual_seed(seed)
    players = _players(recipe, data.images.shape[3], len(data.class_names), device)
    draws = torch.Generator().manual_seed(seed)

    step, clock = 0, 0.0
    checkpoint_path, stats_path = run_dir / "checkpoint.pt", run_dir / "stats.jsonl"
    if checkpoint_path.is_file():
        step, clock = _restore(load_checkpoint(checkpoint_path), players, draws)
        _cut_stats(stats_path, step)
        logger.info("resuming %s at %.1f kimg", run_dir, step * recipe.batch_size / 1000)

    batch, per_epoch = recipe.batch_size, len(data) // recipe.batch_size
    total_steps = math.ceil(recipe.total_kimg * 1000 / batch)
    tick_steps = max(1, round(recipe.tick_kimg * 1000 / batch))
    snapshot_ticks = max(1, round(recipe.snapshot_kimg / recipe.tick_kimg))
    images, labels = torch.from_numpy(data.images.copy()), torch.from_numpy(data.labels)
    order, epoch = np.empty(0, np.int64), -1
    sums: dict[str, torch.Tensor] = {}
    started = tick_started = time.monotonic()
    first_step = tick_first = step

    def draw_z(count: int) -> torch.Tensor:
        return torch.randn(count, recipe.z_dim, generator=draws).to(device)

    while step < total_steps:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(len(data), epoch, seed)
        at = step % per_epoch * batch
        # By label, for discriminators that compare neighbours of one class.
        shown = order[at : at + batch]
        chosen = torch.from_numpy(shown[np.argsort(data.labels[shown], kind="stable")])
        _set_rates(recipe, players, step / total_steps)
        figures = adversarial_step(
            recipe,
            players,
            to_float(images[chosen]).to(device),
            labels[chosen].to(device),
            draw_z,
            # Shorter at first, so that the average does not drag the initial weights along.
            min(recipe.ema_decay, (1 + step) / (10 + step)),
        )
        sums = {name: sums.get(name, 0) + value for name, value in figures.items()}
        step += 1
        if step % tick_steps and step < total_steps:
            continue

        now = time.monotonic()
        means = {name: float(value) / (step - tick_first) for name, value in sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise TrainingError(
                f"loss is no longer finite at {step * batch / 1000:.1f} kimg: {means}",
                "The last checkpoint and snapshots are kept; a lower learning rate is the usual cure.",
            )
        stats: Stats = {
            "kimg": step * batch / 1000,
            "seconds": clock + now - started,
            "images_per_second": (step - tick_first) * batch / (now - tick_started),
            **means,
        }
        ticks = math.ceil(step / tick_steps)
        if ticks % snapshot_ticks == 0 or step == total_steps:
            _snapshot(run_dir, recipe, players.averaged, about, stats["kimg"])
        with open(stats_path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | {k: round(v, 5) for k, v in stats.items()}) + "\n")
        save_checkpoint(checkpoint_path, _state(players, draws, step, stats["seconds"]))
        if progress:
            progress(stats | {"total_kimg": recipe.total_kimg})
        sums, tick_started, tick_first = {}, now, step
        if minutes is not None and now - started >= minutes * 60 and step > first_step:
            break
    return run_dir


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, H, W, C] → float [N, C, H, W] in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: torch.Tensor) -> NDArray[np.uint8]:
    """float [N, C, H, W] in [-1, 1] → finished pixels uint8 [N, H, W, C], as the contract makes them."""
    pixels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    finished: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).numpy()
    return finished


def _check_fit(recipe: Recipe, data: ImageData) -> None:
    (height, width), size = data.images.shape[1:3], recipe.image_size
    if (height, width) != (size, size):
        raise TrainingError(f"images of {width}x{height} pixels", f"Recipe {recipe.name} wants {size}x{size}.")
    if len(data) < recipe.batch_size:
        raise TrainingError(
            f"{len(data)} images", f"Recipe {recipe.name} wants at least a batch of {recipe.batch_size}."
        )


def _players(recipe: Recipe, channels: int, classes: int, device: str) -> Players:
    generator, discriminator = recipe.build(recipe, channels, classes)
    for network in (generator, discriminator):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Players(
        generator,
        discriminator,
        copy.deepcopy(generator).requires_grad_(False),
        torch.optim.Adam(generator.parameters(), recipe.lr_generator, recipe.betas),
        torch.optim.Adam(discriminator.parameters(), recipe.lr_discriminator, recipe.betas),
    )


def _usable(device: str) -> str:
    """The device for PyTorch. Raises UsageError and DeviceUnavailable."""
    kind, number = parse_device(device)
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and (not torch.cuda.is_available() or number >= torch.cuda.device_count()):
        raise DeviceUnavailable(
            f"device {device}: PyTorch sees {torch.cuda.device_count() if torch.cuda.is_available() else 0} GPUs",
            "Use --device cpu, or install a build of PyTorch for your GPU.",
        )
    return device


def _set_rates(recipe: Recipe, players: Players, done: float) -> None:
    left = min(1.0, (1 - done) / recipe.lr_decay) if recipe.lr_decay else 1.0
    players.generator_optimizer.param_groups[0]["lr"] = recipe.lr_generator * left
    players.discriminator_optimizer.param_groups[0]["lr"] = recipe.lr_discriminator * left


def _claim(run_dir: Path, about: dict[str, Any]) -> None:
    path = run_dir / "recipe.json"
    text = json.dumps(about, indent=1) + "\n"
    if not path.is_file():
        run_dir.mkdir(parents=True, exist_ok=True)
        write_synced(path, text.encode())
    elif (there := path.read_text(encoding="utf-8")) != text:
        try:
            old, new = ({**d.pop("recipe"), **d} for d in (json.loads(there), json.loads(text)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{path} is not what a run writes ({type(error).__name__})", "Name another --run-dir."
            ) from None
        differing = sorted(k for k in old | new if old.get(k) != new.get(k))
        raise TrainingError(
            f"{run_dir} holds another run: it differs in {', '.join(differing)}",
            "Name another --run-dir, or start with the settings in its recipe.json.",
        )


def _state(players: Players, draws: torch.Generator, step: int, seconds: float) -> dict[str, Any]:
    parts = {name: part.state_dict() for name, part in vars(players).items()}
    return parts | {"draws": draws.get_state(), "rng": torch.get_rng_state(), "step": step, "seconds": seconds}


def _restore(state: dict[str, Any], players: Players, draws: torch.Generator) -> tuple[int, float]:
    try:
        for name, part in vars(players).items():
            part.load_state_dict(state[name])
        draws.set_state(state["draws"])
        torch.set_rng_state(state["rng"])
        return int(state["step"]), float(state["seconds"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the checkpoint does not fit the recipe: {error}", "Name another --run-dir to start anew."
        ) from error


def _cut_stats(path: Path, step: int) -> None:
    """Drops the lines that a run wrote after its last checkpoint."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) != len(lines):
        write_synced(path, "".join(kept).encode())


def _snapshot(run_dir: Path, recipe: Recipe, averaged: torch.nn.Module, about: dict[str, Any], kimg: float) -> None:
    """Weights, and a grid of the same latents each time with a class per row."""
    classes = len(about["class_names"])
    model = ema.standing_statistics(averaged, recipe.z_dim, classes)
    name = f"{round(kimg):06d}"
    save_snapshot(
        run_dir / f"snapshot-{name}.safetensors", model.state_dict(), {"run": json.dumps(about | {"kimg": kimg})}
    )
    device = next(model.parameters()).device
    z = torch.randn(classes * 10, recipe.z_dim, generator=torch.Generator().manual_seed(about["seed"] + 1))
    y = torch.arange(classes).repeat_interleave(10)
    with torch.no_grad():
        images = model(z.to(device), y.to(device)).float().cpu()
    pixels = to_pixels(images)
    rows = [np.concatenate(list(row), axis=1) for row in pixels.reshape(-1, 10, *pixels.shape[1:])]
    grid = np.concatenate(rows, axis=0)
    Image.fromarray(grid.squeeze(-1) if grid.shape[2] == 1 else grid).save(run_dir / f"samples-{name}.png")
