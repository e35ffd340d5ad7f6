"""A grid of images, of a generator or of a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ganrt.card import Card
from ganrt.encode import Pixels, encode_image, resize
from ganrt.errors import DatasetDamaged, DatasetError, UnknownModel, UsageError
from ganrt.files import storage_error, write_synced
from ganrt.generator import Generator, load
from ganrt.layouts import layout_of
from ganrt.models import find_model, is_path
from ganrt.parts import Part, open_parts, read_parts
from ganrt.samples import choose_classes
from ganrt.shards import MAX_SIZE, require
from ganrt.values import path_of

_GAP = 2  # pixels
_BACKGROUND = 255
_COLS = 10
_MAX_ROWS = 20
_CELL = 512  # pixels a side that an image made of another, of any size, is shown in


def preview(
    source: str | os.PathLike[str] | Generator,
    out: str | os.PathLike[str] | None = None,
    *,
    rows: int | None = None,
    cols: int | None = None,
    classes: Sequence[str | int] | None = None,
    seed: int | None = None,
    device: str = "auto",
) -> Pixels:
    """A grid uint8 [height, width, C] of a generator or of a dataset's folder; written to ``out`` as PNG if given.

    With classes each row is one class, in the order of ``classes`` (all unless given; 20 rows at most
    unless ``rows`` says more). A generator shows the first samples that ``generate`` would make with that
    seed and those classes. ``seed`` does not apply to a dataset.

    Raises UsageError, UnknownClass, DatasetError, and what :func:`ganrt.load` raises.
    """
    path = None if out is None else check_png(out)
    for name, value in (("rows", rows), ("cols", cols)):
        require(name, 1 if value is None else value, 1, 1000)
    try:
        if not isinstance(source, Generator) and path_of("source", source).is_dir() and not names_a_model(source):
            if seed is not None:
                raise UsageError("seed does not apply to a dataset", "Leave it out.")
            images = _of_dataset(Path(source), rows, cols or _COLS, classes)
        else:
            generator = source if isinstance(source, Generator) else load(find_model(source), device)
            images = _of_generator(generator, rows, cols or _COLS, classes, 0 if seed is None else seed)
        grid = arrange(images)
        if path is not None:
            write_picture(path, grid)
    except OSError as error:
        raise storage_error(error) from error
    return grid


def names_a_model(source: str | os.PathLike[str]) -> bool:
    """Whether a bare name that is a folder here too means a generator: unless the folder holds a dataset, it may."""
    if is_path(source) or read_parts(Path(source)):
        return False
    try:
        find_model(source)
    except UnknownModel:
        return False
    return True


def _of_generator(
    generator: Generator, rows: int | None, cols: int, classes: Sequence[str | int] | None, seed: int
) -> list[list[Pixels]]:
    cycle = choose_classes(generator.card, classes)
    if not cycle:
        images = generator.sample((rows or _COLS) * cols, seed)
        return [list(images[first : first + cols]) for first in range(0, len(images), cols)]
    shown = cycle[: rows or _MAX_ROWS]
    grid: list[list[Pixels]] = [[] for _ in shown]
    for batch in generator.stream(len(cycle) * cols, seed, classes=cycle):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            if index % len(cycle) < len(shown):
                grid[index % len(cycle)].append(image)
    return grid


def _of_dataset(root: Path, rows: int | None, cols: int, classes: Sequence[str | int] | None) -> list[list[Pixels]]:
    parts = open_parts(root)
    found: dict[str, list[tuple[str, int]]] = {}  # class name → part and index of its first images
    wanted = cols if any(part.plan.labelled for part in parts.values()) else cols * (rows or _COLS)
    for name, part in sorted(parts.items()):
        plan = part.plan
        mine = [found.setdefault(called, []) for called in plan.per_class(part.n)] or [found.setdefault("", [])]
        for shard in plan.shards(part.n):
            if not part.has(shard):
                continue
            for index in range(shard.start, shard.stop):
                y = plan.label(index)
                row = found["" if y is None else plan.class_names[y]]
                if len(row) < wanted:
                    row.append((name, index))
            if all(len(row) >= wanted for row in mine):
                break
    found = {name: row for name, row in found.items() if row}
    if not found:
        raise DatasetError(f"{root} holds no finished images", "Let the command that makes it go on first.")
    if classes is not None:
        found = {name: found[name] for name in _chosen(root, parts, found, classes)}
    if "" not in found:
        found = dict(list(found.items())[: rows or _MAX_ROWS])
    grid = []
    for row in found.values():
        images = []
        for name, index in row:
            part = parts[name]
            holder = part.plan.shard(index // part.plan.shard_size, part.n)
            assert holder
            try:
                image = layout_of(part.plan).read(root, holder, index)
            except (OSError, ValueError, KeyError) as error:
                raise DatasetDamaged(
                    f"image {index} of {root} cannot be read: {error}", f"See what is wrong: ganrt verify {root}"
                ) from error
            images.append(image if part.plan.shared else within(image, _CELL))
        grid += [images[first : first + cols] for first in range(0, len(images), cols)]
    return grid


def _chosen(
    root: Path, parts: dict[str, Part], found: dict[str, list[tuple[str, int]]], classes: Sequence[str | int]
) -> list[str]:
    """The classes named, as a generator's are named. Raises UnknownClass, DatasetError for one without images."""
    names = tuple(dict.fromkeys(name for part in parts.values() for name in part.plan.class_names))
    models = " and ".join(dict.fromkeys(part.plan.model for part in parts.values()))
    card = Card(name=models, z_dim=1, width=1, height=1, channels=1, class_names=names)
    chosen = [names[y] for y in choose_classes(card, classes)]
    for name in chosen:
        if name not in found:
            raise DatasetError(f"{root} has no image of class {name!r}", f"It has: {', '.join(found)}.")
    return chosen


def within(image: Pixels, most: int) -> Pixels:
    """An image with sides of at most so many pixels."""
    height, width, _ = image.shape
    if max(height, width) <= most:
        return image
    ratio = most / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    fitting: Pixels = resize(image[None], size, "lanczos")[0]
    return fitting


def check_png(out: str | os.PathLike[str]) -> Path:
    """The path of a picture to write. Raises UsageError unless it is a .png in a folder that is there."""
    path = path_of("out", out)
    if path.suffix.lower() != ".png":
        raise UsageError(f"{os.fspath(out)} does not end in .png", "The grid is written as PNG.")
    if not os.path.isdir(path.parent):
        raise UsageError(f"{path.parent} is no folder", "Make it first, or write the grid somewhere else.")
    return path


def write_picture(path: Path, picture: Pixels) -> None:
    """Writes uint8 [H, W, C] as PNG, whole or not at all. Raises StorageError."""
    try:
        write_synced(path, encode_image(picture))
    except OSError as error:
        raise storage_error(error) from error


def arrange(rows: Sequence[Sequence[Pixels]], gap: int = _GAP, background: int = _BACKGROUND) -> Pixels:
    """Rows of images uint8 [H, W, C] as one picture, ``gap`` pixels apart. Raises UsageError for too many."""
    height = max(image.shape[0] for row in rows for image in row)
    width = max(image.shape[1] for row in rows for image in row)
    channels = max(image.shape[2] for row in rows for image in row)
    cols = max(map(len, rows))
    tall, wide = len(rows) * (height + gap) + gap, cols * (width + gap) + gap
    if max(tall, wide) > MAX_SIZE * 2:
        raise UsageError(f"a grid of {wide}x{tall} pixels", "Show fewer --rows or --cols.")
    grid = np.full((tall, wide, channels), background, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = gap + r * (height + gap), gap + c * (width + gap)
            grid[top : top + image.shape[0], left : left + image.shape[1]] = image
    return grid
