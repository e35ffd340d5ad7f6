"""Figures as people read them: numbers, how near each comes to real images, what is worst, and a table as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from ganrt.console import shown
from ganrt_training.evaluation.result import Evaluation, Figure

MAX_CLASSES = 20  # classes whose pictures are shown, and that the text lists
_WIDTH = 79
_CELL = 17  # of a class in the text: 0.00123/0.00456*
_NAME = 18


@dataclass(frozen=True)
class Cell:
    """A figure of one class."""

    figure: Figure
    name: str
    generated: float
    real: float | None

    @property
    def reached(self) -> float | None:
        return reached(self.figure.better, self.generated, self.real)


def finite(value: float | None) -> bool:
    """Whether there is a value."""
    return value is not None and math.isfinite(value)


def number(value: float | None, percent: bool = False) -> str:
    """A figure to three digits, or as a percentage; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if percent:
        share = 100 * value
        return f"{share:.2g} %" if abs(share) < 1 else f"{share:,.1f} %"
    size = abs(value)
    if size and (size < 1e-4 or size >= 1e7):
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(size)))}f}" if size else "0"


def reached(better: str, generated: float, real: float | None) -> float | None:
    """How near to real images, in [0, 1]: 1 where generated images are as good or better, None where it has no meaning.

    Generated over real where higher is better, real over generated where lower is. An estimate of a distance without
    bias may be below zero for real images, when a ratio says nothing.
    """
    if real is None or not (math.isfinite(generated) and math.isfinite(real)):
        return None
    if generated == real or (generated > real) == (better == "higher"):
        return 1.0
    if better == "lower" and real < 0:
        return None
    part, whole = (generated, real) if better == "higher" else (real, generated)
    return max(0.0, part / whole) if whole > 0 else 0.0


def against_real(better: str, generated: float, real: float | None) -> str:
    """The same in words: ``as good as real``, ``42 % of real``, ``6.1 times real``."""
    near = reached(better, generated, real)
    if near is None or real is None:
        return "no ratio: real is below 0" if math.isfinite(generated) and -math.inf < (real or 0) < 0 else ""
    if near == 1:
        return "as good as real"
    if better == "higher":
        return f"{min(99.9, 100 * near):.1f} % of real" if real > 0 else "below real"
    return f"{max(1.01, generated / real):,.3g} times real" if real > 0 else "above real"


def cells(figure: Figure) -> list[Cell]:
    """The figure class by class."""
    return [Cell(figure, name, generated, real) for name, (generated, real) in figure.per_class.items()]


def worst(figure: Figure) -> list[Cell]:
    """The worst tenth of the classes, one at least, worst first: of those that are worse than real images.

    Where real images have no such figure, of those that are worse than the best class.
    """
    all_cells = [cell for cell in cells(figure) if math.isfinite(cell.generated)]
    if len(all_cells) < 2:
        return []
    sign = 1 if figure.better == "higher" else -1
    best = max(sign * cell.generated for cell in all_cells)

    def order(cell: Cell) -> tuple[float, float]:
        return (1.0 if cell.reached is None else cell.reached, sign * cell.generated)

    def short(cell: Cell) -> bool:
        return sign * cell.generated < best if cell.reached is None else cell.reached < 1

    return sorted(filter(short, all_cells), key=order)[: max(1, round(len(all_cells) / 10))]


def class_names(evaluation: Evaluation) -> list[str]:
    """Every class that a figure or a picture is of, in the data's order."""
    named = [name for figure in evaluation.figures for name in figure.per_class]
    return list(dict.fromkeys([*named, *(name for name, *_ in evaluation.pictures.by_class)]))


def worst_first(evaluation: Evaluation) -> list[str]:
    """The classes by the figure in which each is furthest from real images."""
    lowest = dict.fromkeys(class_names(evaluation), 1.0)
    for figure in evaluation.figures:
        for cell in cells(figure):
            lowest[cell.name] = min(lowest[cell.name], 1.0 if cell.reached is None else cell.reached)
    return sorted(lowest, key=lambda name: lowest[name])


def verdict(evaluation: Evaluation) -> list[str]:
    """What the figures say, as sentences. No threshold is laid but real images' own figures."""
    figures = {figure.key: figure for figure in evaluation.figures}
    sentences = []
    if (score := figures.get("accuracy_score")) and finite(score.generated):
        text = f"A classifier that learned from these images alone is right on {_said(score)} of the real test images"
        many = f"{score.protocol['real_n']:,}" if "real_n" in score.protocol else "as many"
        beside = f"; one that learned from {many} real images, on {_said(score, real=True)}"
        sentences.append(f"{text}{beside if finite(score.real) else ''}.")
    else:
        sentences.append("How well a classifier learns from these images was not measured.")
    compared = [(near, figure) for figure in evaluation.figures if (near := _near(figure)) is not None]
    if good := [figure.title for near, figure in compared if near == 1]:
        sentences.append(f"As good as real images, or better: {', '.join(good)}.")
    short = sorted(((near, figure) for near, figure in compared if near < 1), key=lambda pair: -pair[0])
    worse = [f"{f.title} ({against_real(f.better, f.generated, f.real)})" for _, f in short]
    worse += [
        f"{f.title} ({_said(f)}, real {_said(f, real=True)})"
        for f in evaluation.figures
        if _near(f) is None and finite(f.generated) and finite(f.real)
    ]
    if worse:
        sentences.append(f"Worse than real images, the nearest first: {', '.join(worse)}.")
    if last := [cell for figure in evaluation.figures for cell in worst(figure)[:1]]:
        sentences.append(f"The worst class of each figure: {'; '.join(map(_worst, last))}.")
    if (near_copies := figures.get("memorised")) and finite(near_copies.generated):
        sentences.append(
            f"Nearer to a training image than all but 1 % of real images that were held out: {_said(near_copies)}."
        )
    if (copies := figures.get("exact_copies")) and finite(copies.generated):
        sentences.append(f"Exact copies of training images: {_said(copies) if copies.generated else 'none'}.")
    if nothing := [figure.title for figure in evaluation.figures if not math.isfinite(figure.generated)]:
        sentences.append(f"Without a value: {', '.join(nothing)}.")
    return sentences


def _near(figure: Figure) -> float | None:
    return reached(figure.better, figure.generated, figure.real)


def _worst(cell: Cell) -> str:
    percent = cell.figure.percent
    real = f", real {number(cell.real, percent)}" if finite(cell.real) else ""
    return f"{cell.figure.title}: {cell.name} ({number(cell.generated, percent)}{real})"


def _said(figure: Figure, real: bool = False) -> str:
    return number(figure.real if real else figure.generated, figure.percent)


def table(evaluation: Evaluation) -> str:
    """The figures as lines of text under 80 columns, and the classes' where there are any; no escape sequences."""
    rows = [("figure", "generated", "real", "better")]
    rows += [(f.title, _said(f), _said(f, real=True), f.better) for f in evaluation.figures]
    lines = [f"{_fit(a, 34)}{b:>14}{c:>14}  {d}" for a, b, c, d in rows]
    named = [figure for figure in evaluation.figures if figure.per_class]
    order = class_names(evaluation)
    listed = [*order] if len(order) <= MAX_CLASSES else worst_first(evaluation)[:MAX_CLASSES]
    per_line = (_WIDTH - _NAME) // _CELL
    marked = {(cell.figure.key, cell.name) for figure in named for cell in worst(figure)}
    for first in range(0, len(named), per_line):
        block = named[first : first + per_line]
        lines += ["", *_heads(block)]
        lines += [(_fit(name, _NAME) + "".join(_cell(f, name, marked) for f in block)).rstrip() for name in listed]
    if named:
        lines += ["", "By class: generated/real. * marks the worst tenth of a column, one at least."]
        if more := len(order) - len(listed):
            lines.append(f"These {len(listed)} are the furthest from real images; {more} more are in --json.")
    return "\n".join(lines) + "\n"


def _heads(figures: Sequence[Figure]) -> list[str]:
    """Titles over their columns, in as many lines as the longest takes."""
    split = [_wrapped(figure.title, _CELL - 2) for figure in figures]
    tall = max(map(len, split))
    split = [[""] * (tall - len(lines)) + lines for lines in split]
    first = ["" for _ in range(tall - 1)] + ["class"]
    return [
        (_fit(first[k], _NAME) + "".join(_fit(lines[k], _CELL - 1, right=True) + " " for lines in split)).rstrip()
        for k in range(tall)
    ]


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in shown(text).split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _cell(figure: Figure, name: str, marked: set[tuple[str, str]]) -> str:
    generated, real = figure.per_class.get(name, (math.nan, None))
    text = "/".join(_brief(value, figure.percent) for value in ([generated] if real is None else [generated, real]))
    return f"{text:>{_CELL - 1}}" + ("*" if (figure.key, name) in marked else " ")


def _brief(value: float | None, percent: bool) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if percent:
        return f"{100 * value:.1f}%"
    size = abs(value)
    if 1000 <= size < 1e7:
        return f"{value:.0f}"
    return f"{value:.3g}" if not size or 1e-3 <= size < 1000 else f"{value:.0e}"


def _fit(text: str, width: int, right: bool = False) -> str:
    """The text in so many columns of a terminal, cut with an ellipsis, and a blank behind it."""
    text = " ".join(shown(text).split())
    if _columns(text) > width - 1:
        while _columns(text) > width - 2:
            text = text[:-1]
        text += "…"
    blank = " " * (width - _columns(text))
    return blank + text if right else text + blank


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)
