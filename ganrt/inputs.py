"""The images that a dataset is made of: a folder of files, or a dataset of ganrt's."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import UnidentifiedImageError

from ganrt.decoding import flat, size_of, upright
from ganrt.encode import Pixels
from ganrt.errors import Cancelled, DatasetDamaged, DatasetError, GanrtError, UsageError
from ganrt.files import storage_error
from ganrt.layouts import layout_of
from ganrt.parts import Part, called, read_parts
from ganrt.providers import cpu_count
from ganrt.values import path_of
from ganrt.workers import in_threads

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_BYTES = 1 << 30  # of an encoded image
_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
_DIGEST = 16  # bytes
_MANY = 1000  # images, so that it is told that they are looked at

logger = logging.getLogger("ganrt")

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """Images in the order of their indices.

    ``names`` are relative, with ``/``; ``labels`` has one each, and is empty without classes. ``digest`` is of
    names and contents, 32 hex digits; ``sizes`` are (width, height). ``read`` gives the image of an index, uint8
    [H, W, 1|3], and raises DatasetError for one that cannot be read or has changed since it was looked at.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    digest: str
    sizes: Sequence[tuple[int, int]]
    read: Callable[[int], Pixels]


def read_inputs(images: str | os.PathLike[str], cancel: threading.Event | None = None, decode: bool = False) -> Inputs:
    """Looks at all images of a folder, or of a dataset: names, sizes, digests. Reads each file once.

    With ``decode`` the files of a folder are decoded too, so that none turns out to be broken later.

    A dataset of ganrt's is known by its ledgers. Otherwise the images lie directly in the folder, or in a folder
    a class; they are sorted by class name and file name. Files that do not end as images do, and hidden ones,
    are passed over; links are followed within the folder.

    Raises UsageError for a folder that is none or holds none, DatasetError for images that cannot be read and
    for an unfinished dataset, DatasetDamaged, StorageError, Cancelled.
    """
    root = path_of("images", images)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder", "Name a folder of images, or of a dataset.")
    try:
        parts = read_parts(root)
        return _of_dataset(root, parts, cancel) if parts else _of_folder(root, cancel, decode)
    except OSError as error:
        raise storage_error(error) from error


# Folders of files ---------------------------------------------------------------------------------------------------


def _of_folder(root: Path, cancel: threading.Event | None, decode: bool) -> Inputs:
    loose, classes = _listed(root, root.resolve())
    if loose and classes:
        some = next(iter(classes.values()))[0]
        raise UsageError(
            f"{root} holds images beside class folders: {loose[0]} and {some}",
            "Put every image into the folder of its class, or all of them into one folder.",
        )
    if not loose and not classes:
        raise UsageError(f"{root} holds no images", f"Images end in {', '.join(ENDINGS)}.")
    class_names = tuple(sorted(classes))
    names = tuple(loose) if loose else tuple(name for c in class_names for name in classes[c])
    labels = tuple(y for y, c in enumerate(class_names) for _ in classes[c])
    digests, sizes = [b""] * len(names), [(0, 0)] * len(names)

    def look(index: int) -> None:
        data = _file(root, names[index])
        digests[index] = hashlib.blake2b(data, digest_size=_DIGEST).digest()
        sizes[index] = _sound(root, names[index], lambda: size_of(data))
        if decode:
            _sound(root, names[index], lambda: flat(upright(data)))

    if len(names) >= _MANY:
        logger.info("looking at %s images", f"{len(names):,}")
    _heed(cancel)
    in_threads(look, range(len(names)), min(cpu_count(), len(names)), threading.Event(), cancel)
    state = hashlib.blake2b(digest_size=_DIGEST)
    for name, found in zip(names, digests, strict=True):
        state.update(_entry(name) + found)

    def read(index: int) -> Pixels:
        name = names[index]
        data = _file(root, name)
        if hashlib.blake2b(data, digest_size=_DIGEST).digest() != digests[index]:
            raise DatasetError(
                f"{root / name} has changed since the run began", "Let nothing write there, and give the command again."
            )
        pixels = _sound(root, name, lambda: np.asarray(flat(upright(data))))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    return Inputs(names, labels, class_names, state.hexdigest(), sizes, read)


def _listed(root: Path, real: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The images directly in a folder, and those of each class folder, by name."""
    loose: list[str] = []
    classes: dict[str, list[str]] = {}
    for name, is_folder in _entries(root, "", real):
        if not is_folder:
            loose.append(name)
            continue
        for inner, deeper in _entries(root, f"{name}/", real):
            if not deeper:
                classes.setdefault(name, []).append(inner)
            elif (found := next((n for n, f in _entries(root, f"{inner}/", real)), None)) is not None:
                raise UsageError(
                    f"{root} is nested deeper than a folder a class: {found}",
                    "Expected images, or folders of images that are the classes.",
                )
    return loose, classes


def _entries(root: Path, below: str, real: Path) -> Iterator[tuple[str, bool]]:
    """The images and folders in a folder, sorted by name, and whether each is a folder."""
    with os.scandir(root / below) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in _JUNK:
            continue
        name, is_folder = below + entry.name, entry.is_dir()
        # A link into nowhere counts, and reading it will say so; a pipe, or a link to one, would be waited for.
        if not is_folder and not (
            entry.name.lower().endswith(ENDINGS) and (entry.is_file() or not os.path.exists(entry.path))
        ):
            continue
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(real):
            raise UsageError(
                f"{root / name} is a link that leads out of the folder",
                "What it leads to would be read, and shown to whoever gets the dataset: copy it there if it is meant.",
            )
        yield name, is_folder


def _file(root: Path, name: str) -> bytes:
    with open(root / name, "rb") as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)  # so much is allocated
    if len(data) > MAX_BYTES:
        raise _unreadable(root, name, f"more than {MAX_BYTES >> 30} GiB")
    return data


def _sound(root: Path, name: str, look: Callable[[], T]) -> T:
    """What is seen of an image's bytes. Raises DatasetError that names the file, whatever its decoder raises."""
    try:
        return look()
    except (MemoryError, GanrtError):
        raise
    except UnidentifiedImageError:
        raise _unreadable(root, name, "no image of a kind that is read") from None
    except Exception as error:  # decoders raise errors of all types on damaged files
        raise _unreadable(root, name, str(error).partition("\n")[0] or type(error).__name__) from error


def _unreadable(root: Path, name: str, why: str) -> DatasetError:
    return DatasetError(f"{root / name} cannot be read: {why}", "Mend it, or move it away.")


# Datasets -----------------------------------------------------------------------------------------------------------


def _of_dataset(root: Path, parts: dict[str, Part], cancel: threading.Event | None) -> Inputs:
    ordered = [part for _, part in sorted(parts.items())]
    for part in ordered:
        missing = sum(map(len, part.missing()))
        if missing or not part.n:
            lacks = f"lacks {missing:,} of {part.n:,} images" if missing else "holds no images"
            raise DatasetError(
                f"{called(part.plan.part)} of {root} {lacks}",
                f"Finish it first: give the ganrt {part.plan.command} command that made it again.",
            )
    if len({part.plan.labelled for part in ordered}) > 1:
        raise UsageError(f"{root} has parts with classes and parts without", "Translate one that has either.")
    class_names = tuple(dict.fromkeys(name for part in ordered for name in part.plan.class_names))
    numbers = {name: y for y, name in enumerate(class_names)}
    state, names, labels = hashlib.blake2b(digest_size=_DIGEST), list[str](), list[int]()
    sizes: list[tuple[int, int]] = []
    readers: list[tuple[int, Callable[[int], Pixels]]] = []  # first index of a part, and how it is read
    for part in ordered:
        plan, layout = part.plan, layout_of(part.plan)
        readers.append((len(names), _reader(root, part)))
        records = {shard.number: record for shard, record in part.records()}
        for shard in plan.shards(part.n):
            _heed(cancel)
            record, files = records[shard.number], layout.names(shard)
            if len(files) != len(record.sizes):
                raise _damaged(root, f"samples {shard.start} to {shard.stop - 1} are recorded wrongly")
            for name, what in layout.damage(root, shard, record):
                raise _damaged(root, f"{name} is not as it was written: {what}")
            indices = range(shard.start, shard.stop)
            stem = f"{plan.part}-" if plan.part else ""
            mine = files if plan.layout == "folder" else [f"{files[0]}/{stem}{index:08d}" for index in indices]
            names += mine
            if plan.labelled:
                labels += [numbers[plan.class_names[y]] for y in plan.labels(shard.start, shard.stop)]
            if plan.pixels:
                sizes += [(plan.pixels[1], plan.pixels[0])] * len(shard)
            for name in mine:
                state.update(_entry(name))
            # Pixels, so that it is the same wherever they were made; and what they have become, where that is lossy.
            lossy = record.digests if plan.format in ("jpeg", "webp") else ()
            state.update("".join((record.pixels, *lossy)).encode())

    def read(index: int) -> Pixels:
        first, reader = next((f, r) for f, r in reversed(readers) if f <= index)
        return _sound(root, names[index], lambda: reader(index - first))

    if len(sizes) < len(names):  # images of several sizes: only decoding tells
        sizes = [(image.shape[1], image.shape[0]) for image in map(read, range(len(names)))]
    return Inputs(tuple(names), tuple(labels), class_names, state.hexdigest(), sizes, read)


def _damaged(root: Path, what: str) -> DatasetDamaged:
    return DatasetDamaged(f"{root}: {what}", f"Mend the dataset first: ganrt verify {root} --repair")


def _reader(root: Path, part: Part) -> Callable[[int], Pixels]:
    plan, layout = part.plan, layout_of(part.plan)

    def read(number: int) -> Pixels:
        index = plan.start + number
        shard = plan.shard(index // plan.shard_size, part.n)
        assert shard
        return layout.read(root, shard, index)

    return read


# Both ---------------------------------------------------------------------------------------------------------------


def _entry(name: str) -> bytes:
    data = os.fsencode(name)
    return len(data).to_bytes(4, "big") + data


def _heed(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("stopped before anything was written")
