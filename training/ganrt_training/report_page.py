"""The page of a training report: what a run's files say, as HTML around ``report.html.template``.

All text comes from files that anyone may have made, so none of it gets into the page unescaped.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ganrt_training.pages import fill, settings, warned, without_folders
from ganrt_training.report_charts import charts_of

_TEMPLATE = Path(__file__).with_name("report.html.template")
_MAX_LABELS = 30  # class names beside a grid
_SHOWN_SIDE = 640  # CSS pixels that small grids are scaled up to


@dataclass(frozen=True)
class Tick:
    """A line of ``stats.jsonl``. A figure that is not finite is None."""

    kimg: float
    figures: dict[str, float | None]
    warning: str


@dataclass(frozen=True)
class Grid:
    """A sample grid: its size in the run folder in pixels, and a data: URI, of fewer pixels if ``reduced``."""

    kimg: int
    width: int
    height: int
    source: str
    reduced: bool


@dataclass(frozen=True)
class Best:
    """What the metadata of ``best.safetensors`` says."""

    kimg: float
    quality: float | None


@dataclass(frozen=True)
class Run:
    """What the files of a run folder say.

    ``about`` is ``recipe.json``; ``grids`` are those to embed of ``found``; ``notes`` say what could not be read.
    """

    folder: str
    about: dict[str, Any]
    ticks: list[Tick]
    best: Best | None
    grids: list[Grid]
    found: int
    notes: list[str]


def page(run: Run) -> str:
    """The whole page. The same run makes the same page."""
    charts = charts_of([tick.figures for tick in run.ticks], _network(run.about))
    data = {
        "kimg": [tick.kimg for tick in run.ticks],
        "best": run.best and {"kimg": run.best.kimg, "quality": run.best.quality},
        "charts": charts,
    }
    embedded = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":  # so that no text in it ends the script element or begins a comment
        embedded = embedded.replace(character, f"\\u{ord(character):04x}")
    target = run.folder if re.match(r"[\w.]", run.folder) else f"./{run.folder}"
    parts = {
        "title": escape(f"{run.about['recipe']['name']}: training report of {run.folder}"),
        "name": escape(run.about["recipe"]["name"]),
        "state": _state(run),
        "warnings": _warnings(run),
        "samples": _samples(run),
        "charts": "".join(map(_chart, charts)) or "<p>The run has not finished a tick yet.</p>",
        "figures": "" if charts else "hidden",
        "settings": settings(_shown(run.about)),
        "classes": _class_list(run.about["class_names"]),
        "command": escape(f"ganrt export {shlex.quote(target)} --out {shlex.quote(f'{target}.onnx')}"),
        "data": embedded,
    }
    return fill(_TEMPLATE, parts)


def _chart(chart: dict[str, Any]) -> str:
    """What the script draws a chart into."""
    about = escape(chart["about"]).replace(" %", "&nbsp;%")
    keys = " ".join(series["key"] for series in chart["series"])
    return (
        f"<figure class='chart' data-figures='{escape(keys)}'><figcaption><h3>{escape(chart['title'])}</h3>"
        f"<p>{about}</p></figcaption><p class='legend'></p><div class='plot'></div></figure>"
    )


def _state(run: Run) -> str:
    recipe, last = run.about["recipe"], run.ticks[-1] if run.ticks else Tick(0.0, {}, "")
    reached, progress = f"{_kimg(last.kimg)} kimg", ""
    if total := _plain_number(recipe.get("total_kimg")):
        share = min(1.0, last.kimg / total)
        state = "finished" if share == 1 else "not finished" if run.ticks else "at its beginning"
        reached = f"{_kimg(last.kimg)} of {_kimg(total)} kimg, {state}"
        progress = f"<progress max='1' value='{share:.4f}' aria-label='Share of the run'></progress>"
    facts = [("Reached", reached + progress)]
    if (seconds := last.figures.get("seconds")) is not None:
        facts.append(("Time", _duration(seconds)))
    if (speed := last.figures.get("images_per_second")) is not None:
        facts.append(("Speed", f"{speed:,.4g} images/s"))
    if run.best:
        quality = "" if run.best.quality is None else f"quality {run.best.quality:.4g} "
        facts.append(("Best", f"{quality}at {_kimg(run.best.kimg)} kimg"))
    if images := _plain_number(run.about.get("images")):
        size, channels = _plain_number(recipe.get("image_size")), run.about.get("channels")
        pixels = f" of {size:g}x{size:g} pixels" if size else ""
        colours = ", grey" if channels == 1 else ", RGB" if channels == 3 else ""
        facts.append(("Data", f"{images:,.10g} images{pixels}{colours}"))
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)


def _plain_number(value: Any) -> float:
    """The number, or 0 for what is none or not positive."""
    return value if type(value) in (int, float) and 0 < value < 1e15 else 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _warnings(run: Run) -> str:
    """The warnings with their kimg; one that is repeated from tick to tick is listed once."""
    found: list[tuple[float, str]] = []
    for key in dict.fromkeys(key for tick in run.ticks for key, value in tick.figures.items() if value is None):
        spoilt = [tick.kimg for tick in run.ticks if tick.figures.get(key, 0.0) is None]
        found.append((spoilt[0], f"{_span(spoilt)}: <code>{escape(key)}</code> is not a finite number."))
    ticks = [tick for tick in run.ticks if tick.warning]
    first = 0
    for after, tick in enumerate(ticks, 1):
        if after == len(ticks) or ticks[after].warning != tick.warning:
            kimgs = [ticks[k].kimg for k in range(first, after)]
            found.append((kimgs[0], f"{_span(kimgs)}: {escape(without_folders(tick.warning))}"))
            first = after
    texts = [escape(note) for note in run.notes] + [text for _, text in sorted(found)]
    return warned(texts)


def _span(kimgs: list[float]) -> str:
    if len(kimgs) == 1:
        return f"<b>{_kimg(kimgs[0])} kimg</b>"
    return f"<b>{_kimg(kimgs[0])} to {_kimg(kimgs[-1])} kimg</b> ({len(kimgs)} ticks)"


def _kimg(kimg: float) -> str:
    return f"{round(kimg, 3 if kimg < 100 else 1):,.10g}"


def _samples(run: Run) -> str:
    if not run.grids:
        return "<p>There are no sample grids yet.</p>"
    at = run.best.kimg if run.best else None
    best = None if at is None else min(run.grids, key=lambda grid: abs(grid.kimg - at))
    images = "".join(
        _image(grid, " (nearest to the best)" if grid is best else "", shown=grid is run.grids[-1])
        for grid in run.grids
    )
    count = len(run.grids)
    said = f"{count} of {run.found} grids" if count < run.found else f"{count} grids" if count > 1 else "One grid"
    rows = _row_names(run)
    text = f"{said}, from the same inputs each time{', a class a row' if rows else ''}."
    if any(grid.reduced for grid in run.grids):
        text += " Large ones are shown reduced; the files in the folder are whole."
    labels = f"<ol class='rows'>{''.join(f'<li>{escape(name)}</li>' for name in rows)}</ol>" if rows else ""
    return (
        f"<p>{text}</p><div class='controls'><button type='button' id='play'>Play</button>"
        f"<input type='range' id='slider' min='1' max='{count}' value='{count}' step='1' aria-label='Sample grid'>"
        f"<output id='shown' for='slider'></output></div><div class='samples'>{labels}<div>{images}</div></div>"
    )


def _image(grid: Grid, remark: str, shown: bool) -> str:
    width = grid.width * max(1, _SHOWN_SIDE // max(grid.width, grid.height))
    classes = "pixels" if grid.width <= _SHOWN_SIDE and not grid.reduced else "fine"
    when = f"{grid.kimg:,} kimg{remark}"
    return (
        f"<img class='{classes}' alt='Generated images at {when}' data-when='{when}' width='{grid.width}' "
        f"height='{grid.height}' style='width:{width}px'{'' if shown else ' hidden'} src='{grid.source}'>"
    )


def _row_names(run: Run) -> list[str]:
    """Class names to stand beside the grids: where every grid can be a class a row, and there is room."""
    names, recipe = run.about["class_names"], run.about["recipe"]
    size = int(_plain_number(recipe.get("image_size"))) or 1
    if not 2 <= len(names) <= _MAX_LABELS or run.about.get("kind") == "image-to-image":
        return []
    return names if all(grid.height % (len(names) * size) == 0 for grid in run.grids) else []


def _network(about: dict[str, Any]) -> str:
    """The name of the network whose features the quality is measured in; empty where there is none."""
    features = about.get("features")
    return without_folders(str(features.get("name", ""))) if isinstance(features, dict) else ""


def _shown(about: dict[str, Any]) -> dict[str, Any]:
    return {**about["recipe"], **{k: v for k, v in about.items() if k not in ("recipe", "class_names")}}


def _class_list(names: list[str]) -> str:
    return f"<ol>{''.join(f'<li>{escape(name)}</li>' for name in names)}</ol>" if names else "<p>No classes.</p>"
