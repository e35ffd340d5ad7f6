"""The text of exported/README.md: each generator as its card tells, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.zoo_table import short
from ganrt.card import COLOURS, LATENTS, Card
from ganrt.console import size_text
from ganrt_training.evaluation.result import Evaluation, Figure
from ganrt_training.evaluation.verdict import class_names, number, verdict, worst
from ganrt_training.pages import worth

_MAX_CLASSES = 30  # that are listed


@dataclass(frozen=True)
class Shipped:
    """A generator's name, card, bytes, parameters, multiply-accumulates an image, measured speed (None: not, of this
    file), and what was written of it by hand, in Markdown."""

    name: str
    card: Card
    size: int
    parameters: int
    macs: int
    speed: Mapping[str, Any] | None
    by_hand: str


def page(shipped: Sequence[Shipped], told: Mapping[str, Any], networks: Sequence[str] = ()) -> str:
    """The whole page; ``told`` is speed.json, ``networks`` are texts on feature networks, in Markdown."""
    parts = [
        "<!-- Made by python -m benchmarks.cards from the cards, speed.json and NAME.md: change those. -->\n",
        "# Shipped generators\n",
        _table(
            ["generator", "images", "classes", "data", "licence", "size", "MACs an image", "images/s"],
            [[f"[`{one.name}`](#{one.name})", *_row(one)] for one in shipped],
        ),
        "`ganrt inspect NAME` shows a whole card: measured quality with its protocol and class by class, the proof of "
        "export, versions.\n",
        _speed(told),
        *(_section(one) for one in shipped),
        "## Feature networks\n" if networks else "",
        *networks,
    ]
    return "\n".join(part for part in parts if part)


def _row(one: Shipped) -> list[str]:
    card = one.card
    return [
        f"{card.width}x{card.height} {COLOURS[card.channels]}",
        str(len(card.class_names)) if card.class_names else "none",
        _data(card),
        card.licence or "not said",
        size_text(one.size),
        short(one.macs),
        "not measured" if one.speed is None else f"{one.speed['images_per_second']:,.0f}",
    ]


def _speed(told: Mapping[str, Any]) -> str:
    if not told:
        return "Speed was not measured yet: `python -m benchmarks.cards --speed`.\n"
    machine = "; ".join(f"{name} {value}" for name, value in told["machine"].items())
    protocol = ", ".join(f"{name} {value}" for name, value in told["protocol"].items())
    return f"Speed is {told['what']}; all of them in turn, medians ({protocol}). Machine: {machine}.\n"


def _data(card: Card) -> str:
    return f"{card.data or 'not said'} ({card.data_licence or 'licence not said'})"


def _section(one: Shipped) -> str:
    card = one.card
    kimg = f", {card.kimg:,.10g} kimg" if card.kimg else ""
    rate = one.speed
    facts = {
        "images": f"{card.width}x{card.height} {COLOURS[card.channels]}",
        "classes": _listed(card.class_names),
        "data": card.data or "not said",
        "licence of the data": card.data_licence or "not said",
        "licence": card.licence or "not said",
        "recipe": f"`{card.recipe}`{kimg}" if card.recipe else "not said",
        "size": f"{size_text(one.size)}, {short(one.parameters)} parameters, {short(one.macs)} MACs an image",
        "speed": f"{rate['images_per_second']:,.0f} images/s, spread {rate['spread']:.1%}" if rate else "not measured",
    }
    if card.kind != LATENTS:
        facts = {"kind": card.kind} | facts
    parts = [
        f"## {one.name}\n",
        f"![Images of {one.name}{', a class a row' if card.class_names else ''}](../docs/images/{one.name}.png)\n",
        f"{_text(card.description)}\n" if card.description else "",
        _table(["", ""], [[name, value] for name, value in facts.items()]),
        f"### Quality of {one.name}\n",
        _quality(card.quality),
        f"### {one.name} from nothing\n\n{one.by_hand.strip()}\n" if one.by_hand.strip() else "",
    ]
    return "\n".join(part for part in parts if part)


def _quality(quality: Mapping[str, Any]) -> str:
    if "evaluation" in quality:
        spread = quality.get("spread") or {}
        more = {name: value for name, value in quality.items() if name in ("command", "snapshot_digest")}
        if by_seed := quality.get("by_seed"):
            more["seeds"] = list(by_seed)
        text = _evaluated(Evaluation.from_json(quality["evaluation"]), spread.get("evaluation", {}), more)
        if "filtered" in quality:
            text += _filtered(Evaluation.from_json(quality["filtered"]), spread.get("filtered", {}))
        return text
    return "Not measured.\n"


def _evaluated(found: Evaluation, spread: Mapping[str, float], more: Mapping[str, Any]) -> str:
    """What ``ganrt evaluate`` found; ``spread`` is how far each figure moves with the seed."""
    parts = [
        "\n".join(f"- {_text(sentence)}" for sentence in verdict(found)) + "\n",
        _figures(found, spread),
        _by_class(found),
        "\n".join(f"- Warning: {_text(text)}" for text in found.warnings) + "\n" if found.warnings else "",
        _protocol({**found.protocol, **{f.title: f.protocol for f in found.figures if f.protocol}, **more}),
    ]
    return "\n".join(part for part in parts if part)


def _filtered(found: Evaluation, spread: Mapping[str, float]) -> str:
    """The figures of images that were made to be trained on."""
    deviation, sure = found.protocol.get("latent_std"), found.protocol.get("confidence")
    said = f"As a source of training images, `--latent-std {deviation} --confidence {sure}`"
    if (kept := found.protocol.get("share_kept")) is not None:
        said += f" (of the images made, {kept:.0%} are taken)"
    return f"\n{said}:\n\n{_figures(found, spread)}"


def _figures(found: Evaluation, spread: Mapping[str, float]) -> str:
    heads = ["figure", "generated", "real images", *(["spread over seeds"] if spread else []), "", "what it says"]
    rows = []
    for one in found.figures:
        moved = [number(spread.get(one.key, math.nan), one.percent)] if spread else []
        values = [number(one.generated, one.percent), number(one.real, one.percent), *moved]
        rows.append([one.title, *values, f"{one.better} is better", one.meaning])
    return _table(heads, rows)


def _by_class(found: Evaluation) -> str:
    figures = [figure for figure in found.figures if figure.per_class]
    names = [name for name in class_names(found) if any(name in figure.per_class for figure in figures)]
    if not names:
        return ""
    if len(names) > _MAX_CLASSES:
        return f"Figures of the {len(names)} classes are in the card.\n"
    marked = {(cell.figure.key, cell.name) for figure in figures for cell in worst(figure)}
    rows = [[name, *(_pair(figure, name, (figure.key, name) in marked) for figure in figures)] for name in names]
    said = "Generated / real images by class, the worst of each figure in bold:\n\n"
    return said + _table(["class", *(figure.title for figure in figures)], rows)


def _pair(figure: Figure, name: str, marked: bool) -> str:
    generated, real = figure.per_class.get(name, (math.nan, None))
    text = number(generated, figure.percent) + ("" if real is None else f" / {number(real, figure.percent)}")
    return f"**{text}**" if marked else text


def _protocol(values: Mapping[str, Any]) -> str:
    rows = [[name, worth(value)] for name, value in values.items()]
    return f"<details><summary>Protocol</summary>\n\n{_table(['', ''], rows)}\n</details>\n"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_CLASSES
    return ", ".join(names[:_MAX_CLASSES]) + (f" and {more} more" if more > 0 else "") or "none"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(_text(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _text(text: str) -> str:
    """Text of a card on one line, no HTML in it."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
