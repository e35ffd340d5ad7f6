"""The pictures of an evaluation's page: one picture for each group of images, within a page's size."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from ganrt.grid import arrange, within
from ganrt_training.evaluation.result import Evaluation, Neighbours, Picture
from ganrt_training.evaluation.verdict import MAX_CLASSES, number, worst_first
from ganrt_training.pages import data_uri

MAX_BYTES = 4_000_000  # of all pictures of a page
_LADDER = ((192, 8), (96, 8), (64, 8), (48, 6), (32, 4), (24, 2))  # pixels a side and images a group, until they fit
_MAX_NEIGHBOURS = 16  # generated images, of each list
_COLS = 4
_SHOWN = 64  # CSS pixels a side that small images are enlarged to
_LARGEST = 96  # and that large ones are shown in
_GREY = 128  # between images: seen on light and on dark


@dataclass(frozen=True)
class Shown:
    """The pictures as HTML, empty where there are none, and what to say about what is not shown."""

    classes: str
    closest: str
    neighbours: str
    notes: list[str]


def show(evaluation: Evaluation) -> Shown:
    """The pictures of an evaluation as large and as many as fit."""
    for side, count in _LADDER:
        if found := _fitting(evaluation, side, count):
            return found
    return Shown("", "", "", ["The pictures are left out: they are too many for a page."])


def _fitting(evaluation: Evaluation, side: int, count: int) -> Shown | None:
    """The pictures at most so large, or None where they are too many bytes; no more are made than tell that."""
    pictures = evaluation.pictures
    names = [name for name, *_ in pictures.by_class]
    if len(names) > MAX_CLASSES:
        names = [name for name in worst_first(evaluation) if name in set(names)][:MAX_CLASSES]
    chosen = set(names)
    parts: dict[str, list[str]] = {"classes": [], "closest": [], "neighbours": []}
    room = MAX_BYTES

    def pieces() -> Iterator[tuple[str, str]]:
        for entry in pictures.by_class:
            if entry[0] in chosen:
                yield "classes", _class(entry[0], entry[1:], side, count)
        for key, entries in (("closest", pictures.closest), ("neighbours", pictures.neighbours)):
            for neighbours in entries[:_MAX_NEIGHBOURS]:
                yield key, _neighbours(neighbours, side)

    for key, text in pieces():
        room -= len(text)
        if room < 0:
            return None
        parts[key].append(text)
    classes, closest, neighbours = ("".join(texts) for texts in parts.values())
    return Shown(classes, closest, neighbours, _notes(evaluation, side, count))


def _notes(evaluation: Evaluation, side: int, count: int) -> list[str]:
    pictures = evaluation.pictures
    groups = [group for _, *groups in pictures.by_class for group in groups]
    alone = [image for one, near, _ in [*pictures.closest, *pictures.neighbours] for image in (one, *near)]
    notes = []
    if (more := len(pictures.by_class) - MAX_CLASSES) > 0:
        notes.append(
            f"Pictures of the {MAX_CLASSES} classes that are furthest from real images in a figure; "
            f"{more} more classes are left out."
        )
    if any(len(group) > count for group in groups):
        notes.append(f"At most {count} images of a kind are shown.")
    if max(map(len, (pictures.closest, pictures.neighbours))) > _MAX_NEIGHBOURS:
        notes.append(f"At most {_MAX_NEIGHBOURS} images with their neighbours are shown of each list.")
    if any(max(image.shape[:2]) > side for image in [*alone, *(image for group in groups for image in group)]):
        notes.append(f"Pictures are reduced to {side} pixels a side.")
    return notes


def _class(name: str, groups: Sequence[list[Picture]], side: int, count: int) -> str:
    """Real and generated images of a class beside each other, and the best and the worst."""
    kinds = (
        ("real", "Real"),
        ("generated", "Generated"),
        ("best generated", "Best generated"),
        ("worst generated", "Worst generated"),
    )
    figures = [
        f"<figure><figcaption>{title}</figcaption>"
        f"{_sprite(group[:count], f'{len(group[:count])} {kind} images of {name}', side)}</figure>"
        for (kind, title), group in zip(kinds, groups, strict=True)
        if group
    ]
    return f"<article class='class'><h3>{escape(name)}</h3><div class='pairs'>{''.join(figures)}</div></article>"


def _neighbours(entry: Neighbours, side: int) -> str:
    generated, near, distances = entry
    told = " ".join(number(distance) for distance in distances)
    count = f"{len(near)} training images nearest to it, at distances {told}"
    return (
        "<figure class='near'><div><figure><figcaption>Generated</figcaption>"
        f"{_sprite([generated], 'A generated image', side)}</figure>"
        f"<figure><figcaption>Nearest in training</figcaption>{_sprite(near, count, side)}</figure></div>"
        f"<figcaption>Distances {escape(told)}</figcaption></figure>"
    )


def _sprite(images: Sequence[Picture], alt: str, side: int) -> str:
    """Images beside each other, at most four a row, as one picture in the page."""
    if not images:
        return "<p>none</p>"
    reduced = [within(image, side) for image in images]
    cell = max(max(image.shape[:2]) for image in reduced)
    cols = min(_COLS, len(reduced))
    grid = arrange([reduced[first : first + cols] for first in range(0, len(reduced), cols)], 1, _GREY)
    buffer = io.BytesIO()
    Image.fromarray(grid[:, :, 0] if grid.shape[2] == 1 else grid).save(buffer, "PNG", optimize=True)
    height, width = grid.shape[:2]
    ratio = _SHOWN // cell if cell <= _SHOWN else min(1.0, _LARGEST / cell)
    return (
        f"<img{' class=pixels' if cell <= _SHOWN else ''} alt='{escape(alt)}' width='{width}' height='{height}' "
        f"style='width:{round(width * ratio)}px' src='{data_uri('png', buffer.getvalue())}'>"
    )
