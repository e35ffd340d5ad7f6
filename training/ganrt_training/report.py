"""The report of a training run: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
from PIL import Image

from ganrt.errors import TrainingError
from ganrt.files import storage_error
from ganrt_training.pages import data_uri, write_page
from ganrt_training.report_page import Best, Grid, Run, Tick, page

KEPT = "checkpoint and snapshots are kept"
_HINT = "Name a folder that ganrt train wrote."
_MAX_GRIDS = 40
_MAX_BYTES = 1 << 18  # of a grid; larger ones are embedded as WebP
_SIDE = 1024  # pixels of such a grid
_LARGEST = 1e30  # beyond, and below its inverse, the page's script would compute infinities


def write_report(run_dir: Path) -> Path:
    """Writes ``report.html`` into a run folder, from the files of that folder alone, and returns its path.

    The page holds everything it shows, loads nothing, and names no folder but the run's own. The same files make the
    same page. A run that is still going may be reported on; what it has half written is left out.

    Raises TrainingError when there is no valid ``recipe.json``, StorageError when a file cannot be read or written.
    """
    about = _read_about(run_dir / "recipe.json")
    try:
        ticks, notes = _read_ticks(run_dir / "stats.jsonl")
        best, more_notes = _read_best(run_dir / "best.safetensors")
        grids, found = _read_grids(run_dir, best)
        folder = run_dir.resolve().name or "RUN_DIR"
        path = run_dir / "report.html"
        write_page(path, page(Run(folder, about, ticks, best, grids, found, notes + more_notes)))
    except RecursionError:
        raise TrainingError(f"{run_dir / 'recipe.json'} is nested too deeply", _HINT) from None
    except OSError as error:
        raise storage_error(error, KEPT) from error
    return path


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror or error}", _HINT) from None
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path} is no JSON ({type(error).__name__})", _HINT) from None
    recipe = about.get("recipe") if isinstance(about, dict) else None
    if not isinstance(recipe, dict) or not isinstance(recipe.get("name"), str):
        raise TrainingError(f"{path} does not say which recipe was trained", _HINT)
    names = about.setdefault("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TrainingError(f"{path} holds class_names {names!r:.60}, not a list of names", _HINT)
    assert isinstance(about, dict)
    return about


def _read_ticks(path: Path) -> tuple[list[Tick], list[str]]:
    """The ticks by kimg, and notes on lines that are none. The last line may be one that is being written."""
    lines = path.read_bytes().decode("utf-8", "replace").split("\n") if path.is_file() else []
    while lines and not lines[-1].strip():
        lines.pop()
    ticks: dict[float, Tick] = {}
    unread = 0
    for number, line in enumerate(lines, 1):
        try:
            tick = _tick(json.loads(line))
        except (ValueError, RecursionError):
            tick = None
        if tick:
            ticks[tick.kimg] = tick
        elif line.strip() and number < len(lines):
            unread += 1
    notes = [f"Left out of stats.jsonl: lines that are no ticks, {unread} of them."] if unread else []
    return [ticks[kimg] for kimg in sorted(ticks)], notes


def _tick(values: Any) -> Tick | None:
    if not isinstance(values, dict) or (kimg := _number(values.get("kimg"))) is None or kimg < 0:
        return None
    figures = {
        name: _number(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    warning = values.get("warning") or ""
    return Tick(kimg, figures, warning if isinstance(warning, str) else json.dumps(warning))


def _number(value: Any) -> float | None:
    """The number, to six digits, or None for what is no finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -_LARGEST < value < _LARGEST:
        return None
    return float(f"{value:.6g}") if abs(value) > 1 / _LARGEST else 0.0


def _read_best(path: Path) -> tuple[Best | None, list[str]]:
    if not path.is_file():
        return None, []
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            run = json.loads((file.metadata() or {})["run"])
        kimg, quality = _number(run["kimg"]), _number(run.get("quality"))
        if kimg is not None and kimg >= 0:
            return Best(kimg, quality), []
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError):
        pass
    return None, ["best.safetensors does not say when it was made."]


def _read_grids(run_dir: Path, best: Best | None) -> tuple[list[Grid], int]:
    """The grids to embed, by kimg, and how many there are."""
    numbered = {
        int(match[1]): path
        for path in sorted(run_dir.glob("samples-*.png"))
        if (match := re.fullmatch(r"samples-([0-9]{6,12})\.png", path.name))
    }
    kimgs = sorted(numbered)
    chosen = _spread(kimgs, best.kimg if best else None)
    return [grid for kimg in chosen if (grid := _read_grid(kimg, numbered[kimg]))], len(kimgs)


def _spread(kimgs: list[int], best: float | None) -> list[int]:
    """At most 40, evenly spaced, with the first, the last and the one nearest to the best."""
    if len(kimgs) <= _MAX_GRIDS:
        return kimgs
    chosen = [round(k * (len(kimgs) - 1) / (_MAX_GRIDS - 1)) for k in range(_MAX_GRIDS)]
    if best is not None:
        wanted = kimgs.index(_nearest(kimgs, best))
        if wanted not in chosen:  # so it is neither the first nor the last
            chosen[1 + chosen[1:-1].index(_nearest(chosen[1:-1], wanted))] = wanted
    return [kimgs[index] for index in chosen]


def _nearest(values: Sequence[int], to: float) -> int:
    """The first of the values that are nearest."""
    return min(values, key=lambda value: abs(value - to))


def _read_grid(kimg: int, path: Path) -> Grid | None:
    """The grid, or None for a file that is not whole: the run may be writing it."""
    try:
        data = path.read_bytes()
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.load()
            width, height = image.size
            if reduced := len(data) > _MAX_BYTES:
                image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
                buffer = io.BytesIO()
                image.save(buffer, "WEBP", quality=90)
                data = buffer.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    return Grid(kimg, width, height, data_uri("webp" if reduced else "png", data), reduced)
