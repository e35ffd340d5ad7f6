"""The runs of docs/zoo.md: trained for so many minutes, or for so many images, and how they went."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fashion_quality import tell
from ganrt.card import Card
from ganrt.errors import Cancelled, TrainingError
from ganrt_training import run_folder
from ganrt_training.data import ImageData
from ganrt_training.gans import recipe_from_settings
from ganrt_training.loop import train
from ganrt_training.recipe import Recipe

_WATCHED = ("real_accuracy", "fake_accuracy", "quality", "diversity")


def train_for(
    recipe: Recipe,
    data: ImageData,
    run_dir: Path,
    *,
    minutes: float | None = None,
    kimg: float = math.inf,
    seed: int = 0,
) -> None:
    """Trains for what is left of minutes of processor time, or until the tick that ends with so many images.

    Raises TrainingError when the folder holds a run of other settings.
    """
    if (about := run_dir / run_folder.RECIPE).is_file() and (ticks := _ticks(run_dir)):
        held = json.loads(about.read_text(encoding="utf-8"))
        if recipe_from_settings(held["recipe"]) != recipe or held["seed"] != seed:
            raise TrainingError(f"{run_dir} holds a run of other settings", "Give those in its recipe.json.")
        if ticks[-1]["kimg"] >= kimg:
            return
        if minutes is not None:
            minutes -= ticks[-1]["seconds"] / 60
            # A tick is told before it is measured, minutes are looked at afterwards: a finished run lacks some seconds.
            if minutes * 60 < ticks[-1]["seconds"] / len(ticks) / 2:
                return
    enough = threading.Event()

    def progress(stats: dict[str, Any]) -> None:
        tell(f"{stats['kimg']:.1f} kimg, quality {stats['quality']:.1f}")
        if round(stats["kimg"], 5) >= kimg:  # rounded as in stats.jsonl, where the other run's comes from
            enough.set()

    # Cancelled when it is enough: the recipe's own end, its total_kimg, by which rates fall, may be later.
    with contextlib.suppress(Cancelled):
        train(
            recipe,
            data,
            run_dir,
            seed=seed,
            minutes=minutes,
            clock=time.process_time,
            progress=progress,
            cancel=enough,
        )


def course(run_dir: Path, card: Card, threads: int) -> dict[str, Any]:
    """How a run went, and where in it the snapshot of a card was taken."""
    ticks = _ticks(run_dir)
    last, best = ticks[-1], next(tick for tick in ticks if tick["kimg"] == card.kimg)
    return {
        "run": {
            "cpu_seconds": round(last["seconds"], 1),
            "threads": threads,
            "steps": last["step"],
            "kimg": last["kimg"],
            "images_per_second": round(_speed(ticks), 1),
        }
        | {name: last[name] for name in _WATCHED},
        "snapshot": {"digest": card.snapshot_digest, "kimg": card.kimg} | {name: best[name] for name in _WATCHED},
    }


def _ticks(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / run_folder.STATS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _speed(ticks: list[dict[str, Any]]) -> float:
    """Images a second of processor time in training steps alone, over all ticks."""
    images = np.diff([0.0, *(tick["kimg"] * 1000 for tick in ticks)])
    return float(images.sum() / (images / [tick["images_per_second"] for tick in ticks]).sum())
