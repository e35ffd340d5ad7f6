"""Folders and zips of image files: ``<class>/…/<image>``, or images alone."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ganrt.errors import TrainingError
from ganrt_training.readers.source import (
    ACCEPTED,
    EXTENSIONS,
    MAX_FILE,
    Encoded,
    NoSplit,
    Unusable,
    read_whole,
    shown,
    unreadable,
)
from ganrt_training.readers.zips import BROKEN, check_apart, check_member

_JUNK = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}
_SPLITS = {"train", "test", "val", "valid", "validation"}

_MAX_DEPTH = 100  # of folders
_MAX_WAYS = 100  # to a folder, by links

Parts = tuple[str, ...]  # a path below the root


@dataclass(frozen=True)
class _Tree:
    """What lies below ``where``, junk left out: files, folders (empty ones too), and how to read a file."""

    where: Path
    files: list[Parts]
    folders: list[Parts]
    load: Callable[[Parts], bytes]


def read_folder(root: Path, split: str) -> Encoded:
    """The images of a folder, to be decoded. Raises TrainingError."""
    base = os.fspath(root)

    def load(parts: Parts) -> bytes:
        return read_whole(os.path.join(base, *parts))

    files: list[Parts] = []
    folders: list[Parts] = []
    for parts, is_folder in _walk(root, (), (), Counter()):
        (folders if is_folder else files).append(parts)
    return _of_split(_Tree(root, files, folders, load), split)


def read_zip(archive: zipfile.ZipFile, path: Path, split: str) -> Encoded:
    """The images of a zip, to be decoded; nothing is extracted, and the archive must stay open.

    If all lies in one folder, that folder is the root. Raises TrainingError for encrypted archives, for images
    that unpack to more than MAX_FILE, and for names that lead out of the archive.
    """
    members: dict[Parts, zipfile.ZipInfo] = {}
    folders: list[Parts] = []
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # which some Windows tools write
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts or name.startswith("/"):
            raise TrainingError(
                f"{path}: holds {shown(info.filename)}, which leads out of it",
                "Whoever made it made a mistake or means harm: pack the folder itself.",
            )
        if not parts or any(map(_is_junk, parts)):
            continue
        if name.endswith("/"):
            folders.append(parts)
            continue
        if parts in members:
            raise TrainingError(f"{path}: holds {shown(info.filename)} twice", "Pack the folder again.")
        if _is_image(parts):
            check_member(info, path, MAX_FILE)
        members[parts] = info
    check_apart((info for parts, info in members.items() if _is_image(parts)), path)
    folders += {parts[:-1] for parts in members if len(parts) > 1}
    top = {parts[0] for parts in (*members, *folders)}
    prefix = tuple(top) if len(top) == 1 and all(len(parts) > 1 for parts in members) else ()
    depth = len(prefix)

    def load(parts: Parts) -> bytes:
        info = members[prefix + parts]
        try:
            with archive.open(info) as member:
                return member.read(info.file_size)  # without a size it unpacks all there is, whatever was promised
        except BROKEN as error:
            raise Unusable(shown(str(error))) from error
        except OSError as error:
            raise unreadable(f"{path}/{shown(info.filename)}", error) from error

    return _of_split(
        _Tree(
            path.joinpath(*prefix),
            [parts[depth:] for parts in members],
            [parts[depth:] for parts in folders if len(parts) > depth],
            load,
        ),
        split,
    )


def _walk(
    folder: Path, parts: Parts, above: tuple[tuple[int, int], ...], seen: Counter[tuple[int, int]]
) -> Iterator[tuple[Parts, bool]]:
    """Files and folders below a folder; links are followed, except to a folder that they lie in."""
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        seen[here] += 1
        if seen[here] > _MAX_WAYS:  # folders of links to each other have more ways than can ever be gone
            raise TrainingError(
                f"{shown(str(folder))}: links lead there in more than {_MAX_WAYS} ways", "Remove links to folders."
            )
        if len(parts) > _MAX_DEPTH:
            raise TrainingError(
                f"{shown(str(folder))}: more than {_MAX_DEPTH} folders deep", "Put images into a folder a class."
            )
        with os.scandir(folder) as entries:
            there = [entry for entry in entries if not _is_junk(entry.name)]
        for entry in there:
            inner = (*parts, entry.name)
            if entry.is_dir():
                yield inner, True
                yield from _walk(folder / entry.name, inner, (*above, here), seen)
            elif entry.is_file() or not os.path.exists(entry.path):  # a link into nowhere: reading it will say so
                yield inner, False
    except OSError as error:
        raise unreadable(folder, error) from error


def _of_split(tree: _Tree, split: str) -> Encoded:
    """The tree below ``train`` or ``test``, where such folders are all there is; else it is all of split train."""
    tops = {parts[0].lower(): parts[0] for parts in tree.folders}
    if tops and tops.keys() <= _SPLITS and not any(len(parts) == 1 and _is_image(parts) for parts in tree.files):
        # Not classes called "train" and "test".
        if split not in tops:
            raise NoSplit(f"{tree.where}: no folder {split}, but {', '.join(sorted(tops))}", "Add or choose one.")
        top = tops[split]
        return _classes(
            _Tree(
                tree.where / top,
                [parts[1:] for parts in tree.files if parts[0] == top],
                [parts[1:] for parts in tree.folders if parts[0] == top and len(parts) > 1],
                lambda parts: tree.load((top, *parts)),
            )
        )
    if split != "train":
        raise NoSplit(
            f"{tree.where}: no folder {split}", "It has no splits: leave the split out, or make folders train and test."
        )
    return _classes(tree)


def _classes(tree: _Tree) -> Encoded:
    where, images = tree.where, sorted(filter(_is_image, tree.files))
    if not images:
        raise TrainingError(f"{where}: no images", ACCEPTED)
    alone = [parts for parts in images if len(parts) == 1]
    if alone and len(alone) < len(images):
        inside = next(parts for parts in images if len(parts) > 1)
        raise TrainingError(
            f"{where}: images beside class folders: {shown(alone[0][0])} and {shown('/'.join(inside))}",
            "Put every image into the folder of its class, or all of them into one folder without others.",
        )
    names: tuple[str, ...] = ()
    labels = np.zeros(len(images), np.int64)
    if not alone:
        names = tuple(sorted({parts[0] for parts in images}))
        empty = sorted({parts[0] for parts in tree.folders} - set(names))
        if empty:
            more = f" and {len(empty) - 8} more" if len(empty) > 8 else ""
            raise TrainingError(
                f"{where}: no images in {', '.join(map(shown, empty[:8]))}{more}",
                f"Every folder is a class: fill or remove it. Images end in {', '.join(EXTENSIONS)}.",
            )
        numbers = {name: number for number, name in enumerate(names)}
        labels[:] = [numbers[parts[0]] for parts in images]
    return Encoded(
        labels, names, lambda index: tree.load(images[index]), lambda index: f"{where}/{'/'.join(images[index])}"
    )


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _is_image(parts: Parts) -> bool:
    _, dot, extension = parts[-1].rpartition(".")
    return bool(dot) and extension.lower() in EXTENSIONS
