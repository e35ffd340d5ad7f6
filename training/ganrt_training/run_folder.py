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
from ganrt_training.readers.source import check_file

RECIPE, STATS, CHECKPOINT, BEST = "recipe.json", "stats.jsonl", "checkpoint.pt", "best.safetensors"


_FIGURES = ("kimg", "quality", "diversity", "real_accuracy", "fake_accuracy")  # that a run looks back at


@contextlib.contextmanager
def claimed(run_dir: Path, about: dict[str, Any], *, write: bool = True) -> Iterator[None]:
    """Makes the folder, or makes sure that it holds this very run; nobody else trains in it meanwhile.

    Without ``write`` neither: another process of the run does so. Raises TrainingError, naming what differs, when it
    holds another run, and when a run is training in it.
    """
    path = run_dir / RECIPE
    text = json.dumps(about, indent=1) + "\n"
    check_file(path)
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
    if (there := path.read_bytes()) != text.encode():
        try:
            old, new = ({**d.pop("recipe"), **d} for d in (json.loads(there), json.loads(text)))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise TrainingError(
                f"{path} is not what a run writes ({type(error).__name__})", "Name another --run-dir."
            ) from None
        differing = sorted(k for k in old | new if old.get(k) != new.get(k))
        raise TrainingError(
            f"{path.parent} holds another run: it differs in {', '.join(differing)}",
            "Name another --run-dir, or start with the settings in its recipe.json.",
        )


def read_stats(path: Path, step: int) -> list[dict[str, Any]]:
    """The ticks up to a step; drops from the file what a run wrote after its last checkpoint.

    Raises TrainingError for a line that is no tick.
    """
    check_file(path)
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    ticks = ((line, _tick(path, number, line)) for number, line in enumerate(lines, 1))
    kept = [(line, tick) for line, tick in ticks if tick and tick["step"] <= step]
    if len(kept) != len(lines):
        write_synced(path, b"".join(line for line, _ in kept))
    return [tick for _, tick in kept]


def _tick(path: Path, number: int, line: bytes) -> dict[str, Any] | None:
    """A line's tick; None for a line that a crash tore or filled with zeros."""
    if not line.endswith(b"\n") or b"\0" in line:
        return None
    try:
        tick = json.loads(line)
        if type(tick["step"]) is not int or not all(isinstance(tick.get(name, 0.0), (int, float)) for name in _FIGURES):
            raise TypeError
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise TrainingError(
            f"{path}: line {number} is no tick of a run", "Remove the line, or the file: only the report needs it."
        ) from None
    assert isinstance(tick, dict)
    return tick


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
