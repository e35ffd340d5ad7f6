"""The page of an evaluation: one HTML file that needs nothing but a browser, not even its scripts."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from ganrt.files import storage_error, writable_folder, write_synced
from ganrt_training.evaluation.result import Evaluation, Figure
from ganrt_training.evaluation.sprites import show
from ganrt_training.evaluation.verdict import (
    Cell,
    against_real,
    cells,
    class_names,
    finite,
    number,
    reached,
    verdict,
    worst,
)
from ganrt_training.pages import fill, settings, warned, without_folders, write_page

_LONGEST = 40  # characters of a fact at the page's head
_TEMPLATE = Path(__file__).with_name("report.html.template")


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Writes ``report.html`` and ``evaluation.json`` into a folder, which is made, and returns the page's path.

    The page holds everything it shows, loads nothing, and names no folder. It has at most 5 MB: of more pictures it
    shows some, or smaller ones, and says so. The same evaluation makes the same page.

    Raises StorageError when they cannot be written, UsageError when the folder's place is taken by a file.
    """
    path = folder / "report.html"
    text = page(evaluation)
    values = json.dumps(evaluation.to_json(), indent=1, allow_nan=False) + "\n"
    writable_folder(folder)
    try:
        write_synced(folder / "evaluation.json", values.encode())
        write_page(path, text)
    except OSError as error:
        raise storage_error(error, "nothing is written by halves") from error
    return path


def page(evaluation: Evaluation) -> str:
    """The whole page."""
    shown = show(evaluation)
    source = without_folders(evaluation.source)
    parts = {
        "title": escape(f"Evaluation of {source}"),
        "source": escape(source),
        "facts": _facts(evaluation.protocol),
        "verdict": "".join(f"<li>{_unbroken(sentence)}</li>" for sentence in verdict(evaluation)),
        "warnings": warned([escape(without_folders(text)) for text in evaluation.warnings]),
        "figures": "".join(map(_figure, evaluation.figures)) or "<tbody><tr><td colspan='4'>None.</td></tr></tbody>",
        "classes": _classes(evaluation),
        "notes": "".join(f"<p class='note'>{escape(note)}</p>" for note in shown.notes),
        "pictures": shown.classes or "<p>There are none by class.</p>",
        "closest": shown.closest or "<p>Not measured.</p>",
        "neighbours": shown.neighbours or "<p>Not measured.</p>",
        "protocol": settings(evaluation.protocol),
        "protocols": settings({f.title: f.protocol for f in evaluation.figures if f.protocol}),
    }
    return fill(_TEMPLATE, parts)


def _unbroken(text: str) -> str:
    return escape(text).replace(" %", "&nbsp;%")


def _facts(protocol: dict[str, Any]) -> str:
    """What a reader asks first, of what the protocol tells: each a number or a few words."""
    facts = []
    for key, value in protocol.items():
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            images = value.get("images")
            value = value["name"] + (f", {images:,} images" if isinstance(images, int) else "")
        if isinstance(value, (int, float, str)) and not isinstance(value, bool) and len(str(value)) <= _LONGEST:
            text = f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)
            facts.append(f"<div><dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(without_folders(text))}</dd></div>")
    return "".join(facts[:8])


def _figure(figure: Figure) -> str:
    """Its row, and one beneath that says what it means."""
    near = reached(figure.better, figure.generated, figure.real)
    beside = against_real(figure.better, figure.generated, figure.real)
    bar = "" if near is None else _bar(near)
    real = "none" if figure.real is None else number(figure.real, figure.percent)
    return (
        f"<tbody><tr><th scope='row'>{escape(figure.title)} {_better(figure)}</th>"
        f"<td>{number(figure.generated, figure.percent) if finite(figure.generated) else 'no value'}</td>"
        f"<td>{real if finite(figure.real) or figure.real is None else 'no value'}</td>"
        f"<td>{bar}{beside or '–'}</td></tr>"
        f"<tr><td colspan='4' class='meaning'>{escape(figure.meaning)}</td></tr></tbody>"
    )


def _better(figure: Figure) -> str:
    return f"<small>{'↑ higher' if figure.better == 'higher' else '↓ lower'} is better</small>"


def _bar(near: float) -> str:
    return (
        "<svg class='bar' viewBox='0 0 100 10' preserveAspectRatio='none' aria-hidden='true'>"
        f"<rect class='rail' width='100' height='10'/><rect class='fill' width='{100 * near:.1f}' height='10'/></svg>"
    )


def _classes(evaluation: Evaluation) -> str:
    figures = [figure for figure in evaluation.figures if figure.per_class]
    if not figures:
        return "<p>There are no figures by class.</p>"
    heads = "".join(f"<th scope='col'>{escape(f.title)} {_better(f)}</th>" for f in figures)
    found = {(cell.figure.key, cell.name): cell for figure in figures for cell in cells(figure)}
    marked = {(cell.figure.key, cell.name) for figure in figures for cell in worst(figure)}
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>"
        f"{''.join(_cell(found.get((f.key, name)), (f.key, name) in marked) for f in figures)}</tr>"
        for name in class_names(evaluation)
        if any(name in f.per_class for f in figures)
    )
    return (
        "<p>Generated images, and real ones after the stroke. ▼ marks the worst tenth of each column (one at least), "
        "of what is worse than real images.</p>"
        "<div class='scroll' tabindex='0' role='region' aria-label='Figures by class'><table class='by-class'>"
        f"<thead><tr><th scope='col'>class</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: Cell | None, marked: bool) -> str:
    if cell is None:
        return "<td>–</td>"
    percent = cell.figure.percent
    real = "" if cell.real is None else f" <small>/ {number(cell.real, percent)}</small>"
    mark = "<span aria-hidden='true'>▼ </span><span class='unseen'>worst: </span>" if marked else ""
    return f"<td{' class=worst' if marked else ''}>{mark}{number(cell.generated, percent)}{real}</td>"
