"""The files of a run folder that are not weights: what decides the run, statistics, sample grids."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ganrt.errors import TrainingError
from ganrt.files import write_synced
from ganrt.ledger import try_lock

RECIPE, STATS, CHECKPOINT, BEST = "recipe.json", "stats.jsonl", "checkpoint.pt", "best.safetensors"


@contextlib.contextmanager
def claimed(run_dir: Path, about: dict[str, Any], *, write: bool = True) -> Iterator[None]:
    """Makes the folder, or makes sure that it holds this very run; nobody else trains in it meanwhile.

    Without ``write`` neither: another process of the run does so. Raises TrainingError, naming what differs, when it
    holds another run, and when a run is training in it.
    """
    path = run_dir / RECIPE
    text = json.dumps(about, indent=1) + "\n"
    with contextlib.ExitStack() as held:
        if write:
            if not path.is_file():
                run_dir.mkdir(parents=True, exist_ok=True)
                write_synced(path, text.encode())
            # The system's lock ends with the process, however it ends.
            if not try_lock(held.enter_context(open(path, "r+b"))):
                raise TrainingError(
                    f"another run is training in {run_dir}", "Wait for it, or stop it, or name another --run-dir."
                )
        if path.is_file():
            _check_same(path, text)
        yield


def _check_same(path: Path, text: str) -> None:
    if (there := path.read_text(encoding="utf-8")) != text:
        try:
            old, new = ({**d.pop("recipe"), **d} for d in (json.loads(there), json.loads(text)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{path} is not what a run writes ({type(error).__name__})", "Name another --run-dir."
            ) from None
        differing = sorted(k for k in old | new if old.get(k) != new.get(k))
        raise TrainingError(
            f"{path.parent} holds another run: it differs in {', '.join(differing)}",
            "Name another --run-dir, or start with the settings in its recipe.json.",
        )


def read_stats(path: Path, step: int) -> list[dict[str, Any]]:
    """The ticks up to a step; drops from the file what a run wrote after its last checkpoint."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []
    kept = [(line, tick) for line in lines if (tick := _tick(line)) and tick["step"] <= step]
    if len(kept) != len(lines):
        write_synced(path, "".join(line for line, _ in kept).encode())
    return [tick for _, tick in kept]


def _tick(line: str) -> dict[str, Any] | None:
    """A line's tick; None for a line that a crash tore or filled with zeros."""
    try:
        tick = json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None
    return tick if isinstance(tick, dict) and isinstance(tick.get("step"), int) else None


def add_stats(path: Path, step: int, stats: dict[str, Any]) -> None:
    """A line for a tick, on the disk when this returns: the checkpoint that follows is not to know more."""
    values = {k: round(v, 5) if isinstance(v, float) else v for k, v in stats.items()}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step} | values) + "\n")
        file.flush()
        os.fsync(file.fileno())


def save_grid(path: Path, rows: list[torch.Tensor]) -> None:
    """A picture of rows of images float [N, C, H, W] in [-1, 1], all N alike."""
    lines = [np.concatenate(list(to_pixels(row)), axis=1) for row in rows]
    grid = np.concatenate(lines, axis=0)
    buffer = io.BytesIO()
    Image.fromarray(grid.squeeze(-1) if grid.shape[2] == 1 else grid).save(buffer, "PNG")
    write_synced(path, buffer.getvalue())


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, H, W, C] → float [N, C, H, W] in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: torch.Tensor) -> NDArray[np.uint8]:
    """float [N, C, H, W] in [-1, 1] → finished pixels uint8 [N, H, W, C], as the contract makes them."""
    pixels = (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    finished: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return finished
