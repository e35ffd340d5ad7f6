"""What was finished: the ledgers that resume trusts.

A ledger is a file ``ganrt[.PART][.K-of-M].ledger`` at the dataset's root, JSON a line: first the plan,
then a line for each run's number of images, its software, and each finished shard. It is only appended
to; a later line of a shard wins; a line that a crash tore is as if it were not there. Its lock is the
operating system's, so a run that died holds none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import IO, Any

from ganrt.errors import DatasetDamaged, DatasetError, DatasetLocked, DatasetMismatch, UsageError
from ganrt.files import sync_folder
from ganrt.latents import MAX_INDEX
from ganrt.layouts import LAYOUTS, layout_of
from ganrt.shards import DatasetPlan, Plan, Record, Shard, class_folders
from ganrt.translation_plan import KIND, TranslationPlan

logger = logging.getLogger("ganrt")

MANIFEST = "ganrt.json"
README = "README.md"
VERSION = 1
Machine = tuple[int, int]  # K of M, K from 0
_DIGEST = re.compile("[0-9a-f]{32}").fullmatch


@dataclass
class Part:
    """The state of one plan under a root, from all its ledgers."""

    plan: DatasetPlan
    n: int = 0
    ledgers: list[Path] = field(default_factory=list)
    finished: dict[int, tuple[int, str]] = field(default_factory=dict)  # shard → images, pixel digest
    made_with: list[dict[str, str]] = field(default_factory=list)

    def missing(self) -> Iterator[Shard]:
        """The shards that no ledger says are finished."""
        return (shard for shard in self.plan.shards(self.n) if not self.has(shard))

    def has(self, shard: Shard) -> bool:
        """Whether a ledger says that a shard is finished, at its full length."""
        return self.finished.get(shard.number, (0, ""))[0] == len(shard)

    def records(self) -> Iterator[tuple[Shard, Record]]:
        """Each finished shard within n with its last record, the one recorded last at the end."""
        last: dict[int, tuple[Path, int]] = {}
        for path in self.ledgers:
            for offset, entry in _entries(path):
                record = _record(entry)
                shard = self.plan.shard(record.number, self.n) if record else None
                if record and shard and record.images == len(shard):
                    last.pop(record.number, None)  # the order is that of the last lines
                    last[record.number] = (path, offset)
        for number, (path, offset) in last.items():
            with open(path, "rb") as file:
                file.seek(offset)
                record = _record(json.loads(file.readline()))
            shard = self.plan.shard(number, self.n)
            assert record and shard
            yield shard, record


def ledger_name(part: str, machine: Machine) -> str:
    """The file name of a ledger."""
    k, m = machine
    return ".".join(["ganrt", *([part] if part else []), *([f"{k}-of-{m}"] if m > 1 else []), "ledger"])


def machine_of(path: Path) -> Machine:
    """Whose ledger a file is."""
    match = re.search(r"\.(\d+)-of-(\d+)\.ledger$", path.name)
    return (int(match[1]), int(match[2])) if match else (0, 1)


def read_parts(root: Path) -> dict[str, Part]:
    """The parts under a root, by name. Raises DatasetDamaged for a ledger that cannot be one."""
    parts: dict[str, Part] = {}
    for path in sorted(root.glob("ganrt*.ledger")):
        head: DatasetPlan | None = None
        for _, entry in _entries(path):
            if head is None:
                head = _plan(path, entry)
                part = parts.setdefault(head.part, Part(head, head.count))
                if part.plan != head:
                    raise DatasetDamaged(
                        f"{path.name} and {part.ledgers[0].name} hold different plans of one part",
                        "Keep one of them and move the other away.",
                    )
                part.ledgers.append(path)
            elif record := _record(entry):
                if record.images >= part.finished.get(record.number, (0, ""))[0]:
                    part.finished[record.number] = (record.images, record.pixels)
                # So many at least were asked for, should the line that says so be torn.
                stop = max(record.number * head.shard_size, head.start) + record.images
                part.n = max(part.n, min(stop, MAX_INDEX) - head.start)
            elif (n := _images(entry)) is not None:
                part.n = max(part.n, n)
            elif (made_with := _made_with(entry)) and made_with not in part.made_with:
                part.made_with.append(made_with)
    return parts


def open_parts(root: Path) -> dict[str, Part]:
    """The parts of a dataset. Raises DatasetError when there is none."""
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder", "Name the folder of a dataset.")
    parts = read_parts(root)
    if not parts:
        raise DatasetError(
            f"{root} holds no ganrt dataset", "Name the folder that was given to generate as --out, or to translate."
        )
    return parts


class Ledger:
    """One machine's ledger of one part, open for writing and locked. Close it, or use it in ``with``."""

    def __init__(self, path: Path, file: FileIO, part: Part) -> None:
        self.path = path
        self._others = contextlib.ExitStack()  # other ledgers of the part, locked as long as this one
        self.part = part  # as it was when the ledger was claimed
        self._file = file
        self._guard = threading.Lock()

    @classmethod
    def claim(
        cls, root: Path, plan: DatasetPlan, machine: Machine, n: int, overwrite: bool = False, alone: bool = False
    ) -> Ledger:
        """Opens and locks the ledger for ``n`` images of ``plan``, after making sure that the root may be written.

        No other ledger of the part may be in use that has shards in common with this one; ``alone``: none at all.

        Raises DatasetMismatch when the root holds something else, DatasetLocked when another run writes this
        part's share, DatasetDamaged, OSError.
        """
        if not root.exists():
            root.mkdir(parents=True, exist_ok=True)
        check_root(root, plan, n, overwrite)
        if overwrite:
            remove_part(root, plan.part)
        path = root / ledger_name(plan.part, machine)
        # Unbuffered: nothing of a line that did not fit may be written later.
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        ledger = cls(path, file, Part(plan))
        try:
            # Whoever removed or replaced the file since it was opened has the lock of the new one.
            if not try_lock(file) or not _is_at(file, path):
                raise _locked(root, plan)
            _drop_torn_end(file)
            if file.seek(0, os.SEEK_END) == 0:
                ledger._write({"ganrt": VERSION, "fingerprint": plan.fingerprint(), "plan": plan.to_dict()})
                sync_folder(root)
            # Again, under the lock: what was there before it may have changed.
            part = check_root(root, plan, n)
            assert part
            k, m = machine
            for other in part.ledgers:
                k_other, m_other = machine_of(other)
                if other == path or not (alone or (k - k_other) % math.gcd(m, m_other) == 0):
                    continue
                held = ledger._others.enter_context(open(other, "r+b"))  # noqa: SIM115 - likewise
                if not try_lock(held, shared=True):
                    raise _locked(root, plan)
            if part.n != n or not _says(path, n):
                ledger._write({"n": n})
            part.n = n
            ledger.part = part
        except BaseException:
            ledger.close()
            raise
        return ledger

    def note(self, made_with: dict[str, str]) -> None:
        """Records the software that a run makes images with."""
        if made_with not in self.part.made_with:
            self._write({"made_with": made_with})
            self.part.made_with.append(made_with)

    def append(self, record: Record) -> None:
        """Adds a finished shard; it is on the disk when this returns."""
        self._write(
            {
                "shard": record.number,
                "images": record.images,
                "pixels": record.pixels,
                "sizes": record.sizes,
                "digests": record.digests,
            }
        )

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._guard:
            end, left = self._file.seek(0, os.SEEK_END), memoryview(line)
            try:
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError:
                # A half line must not stand in the way of the next one.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), end)
                raise

    def close(self) -> None:
        """Gives the locks back."""
        self._others.close()
        self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_part(root: Path, name: str) -> None:
    """Removes the files of a part and its ledgers, and nothing else. Raises DatasetLocked while a run writes it."""
    part = read_parts(root).get(name) if root.is_dir() else None
    if not part:
        return
    with contextlib.ExitStack() as stack:
        for path in part.ledgers:
            file = stack.enter_context(open(path, "a+b"))
            if not try_lock(file):
                raise _locked(root, part.plan)
        layout = layout_of(part.plan)
        common = layout.common(part.n)
        folders: set[Path] = set()
        for names in (common, *(layout.names(shard) for shard in part.plan.shards(part.n))):
            for file_name in names:
                for end in ("", ".part"):
                    (root / (file_name + end)).unlink(missing_ok=True)
            folders |= {root / above for name in names if (above := name.rpartition("/")[0])}
        for folder in folders:
            with contextlib.suppress(OSError):  # it holds somebody else's files
                folder.rmdir()
        for file_name in (README, MANIFEST):
            (root / file_name).unlink(missing_ok=True)
        if os.name == "nt":  # an open file cannot be removed there
            stack.close()
        for path in part.ledgers:
            path.unlink()


def try_lock(file: FileIO | IO[bytes], shared: bool = False) -> bool:
    """Takes the operating system's lock on an open file; False when another process has it.

    Several may have a ``shared`` one at a time, while nobody has the other kind.
    """
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 40)  # a byte beyond the data, so that others may read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            if shared:  # there is no such lock there: it is known only that nobody has the file now
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        logger.warning("this file system has no locks (%s): take care that no two runs write one part", error.strerror)
    return True


def check_root(root: Path, plan: DatasetPlan, n: int, overwrite: bool = False) -> Part | None:
    """The part's state. Raises DatasetMismatch unless this plan may be written here, or in its part's place."""
    if not root.is_dir():
        raise UsageError(f"{root} is a file", "Name a folder for the dataset.")
    parts = read_parts(root)
    mine = parts.get(plan.part)
    if not parts:
        foreign = sorted(p.name for p in root.iterdir() if not _is_ours(p.name))
        if foreign:
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            raise DatasetMismatch(
                f"{root} is not empty and holds no ganrt dataset: {', '.join(foreign[:3])}{more}", "Name a new folder."
            )
    if mine and not overwrite and mine.plan != plan:
        differing = "\n  ".join(plan.differences(mine.plan))
        raise DatasetMismatch(
            f"{root} holds another dataset:\n  {differing}",
            "Name another --out, add this one beside it with --part NAME, or replace it with --overwrite."
            if plan.shared
            else "Name another folder, or replace it with --overwrite.",
        )
    if mine and not overwrite and mine.n > n:
        raise DatasetMismatch(
            f"{root} is a dataset of {mine.n:,} images; {n:,} were asked for",
            "A dataset can grow and not shrink: name another --out, or replace it with --overwrite.",
        )
    for name, other in parts.items():
        if name != plan.part and not (plan.shared and other.plan.shared):
            raise DatasetMismatch(
                f"{root} has {called(name)}, which ganrt {other.plan.command} made; this one is of "
                f"ganrt {plan.command}",
                "A dataset made of images shares no folder: name another.",
            )
        if name != plan.part and name.casefold() == plan.part.casefold():
            raise UsageError(
                f"part {plan.part!r}: there is a part {name!r}",
                "Some systems cannot tell their files apart: name another.",
            )
        if name != plan.part and other.plan.layout != plan.layout:
            raise DatasetMismatch(
                f"{root} has {called(name)} in layout {other.plan.layout}; {plan.layout} was asked for",
                "The parts of a dataset share one layout: name another --out.",
            )
        if name != plan.part and plan.layout == "folder":
            _check_folders(plan, other.plan, called(name))
    return mine


def _check_folders(plan: DatasetPlan, other: DatasetPlan, theirs: str) -> None:
    """Raises DatasetMismatch when a reader of class folders would mix up the classes of two parts."""
    if plan.labelled != other.labelled:
        which = f"{theirs} has classes and this plan has none" if other.labelled else f"{theirs} has no classes"
        raise DatasetMismatch(
            f"{which}: folders of images and loose ones do not mix", "Name another --out, or use --layout webdataset."
        )
    folders = {f.casefold(): n for f, n in zip(class_folders(other.class_names), other.class_names, strict=True)}
    for folder, name in zip(class_folders(plan.class_names), plan.class_names, strict=True):
        if folders.get(folder.casefold(), name) != name:
            raise DatasetMismatch(
                f"class {name!r} would share the folder {folder!r} with {folders[folder.casefold()]!r} of {theirs}",
                "Name another --out, or use --layout webdataset.",
            )


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _locked(root: Path, plan: DatasetPlan) -> DatasetLocked:
    share = "; or give this one a share of its own with --shard K/M or --part NAME" if plan.shared else ""
    return DatasetLocked(f"another run is writing {called(plan.part)} of {root}", f"Wait for it, or stop it{share}.")


def _says(path: Path, n: int) -> bool:
    return any(_images(entry) == n for _, entry in _entries(path))


def _is_ours(name: str) -> bool:
    """A ledger whose first line never came. Nothing else is written before that line."""
    return name.startswith("ganrt") and name.endswith(".ledger")


def called(part: str) -> str:
    """A part's name for messages."""
    return f"part {part}" if part else "the dataset"


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines of a ledger with their offsets; torn and foreign ones are passed over."""
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            entry = _parsed(line)
            if entry is not None:
                yield offset, entry
            elif offset == 0 and line.endswith(b"\n"):
                raise _no_ledger(path)
            offset += len(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A whole line's object; None for one that is torn or foreign."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def torn_lines(path: Path) -> list[int]:
    """The numbers, from 1, of lines that are no ledger entries."""
    torn = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            entry = _parsed(line)
            if entry is None or not (number == 1 or _record(entry) or _made_with(entry) or _images(entry) is not None):
                torn.append(number)
    return torn


def _plan(path: Path, entry: dict[str, Any]) -> DatasetPlan:
    version = entry.get("ganrt")
    if isinstance(version, int) and version > VERSION:
        raise DatasetMismatch(
            f"{path.name} was written by a newer ganrt (format {version})", "Upgrade: pip install --upgrade ganrt"
        )
    try:
        values = entry["plan"]
        plan: DatasetPlan = (TranslationPlan if values.get("kind") == KIND else Plan).from_dict(values)
        if version != VERSION or plan.layout not in LAYOUTS or plan.fingerprint() != entry["fingerprint"]:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _no_ledger(path) from None
    return plan


def _no_ledger(path: Path) -> DatasetDamaged:
    return DatasetDamaged(
        f"{path.name}: its first line is no plan", "The file was changed; move it away and generate the dataset again."
    )


def _images(entry: dict[str, Any]) -> int | None:
    n = entry.get("n")
    return n if isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_INDEX else None


def _made_with(entry: dict[str, Any]) -> dict[str, str]:
    found = entry.get("made_with")
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _record(entry: dict[str, Any]) -> Record | None:
    try:
        number, images, sizes, digests = entry["shard"], entry["images"], entry["sizes"], entry["digests"]
        whole = all(isinstance(v, int) and v >= 0 for v in (number, images, *sizes))
        if whole and len(sizes) == len(digests) and all(_DIGEST(d) for d in (entry["pixels"], *digests)):
            return Record(number, images, tuple(sizes), tuple(digests), entry["pixels"])
    except (KeyError, TypeError):
        pass
    return None


def _drop_torn_end(file: FileIO) -> None:
    """Cuts a last line that a crash left without its end."""
    size = file.seek(0, os.SEEK_END)
    position, tail = size, b""
    while position and b"\n" not in tail:
        step = min(position, 1 << 16)
        position -= step
        file.seek(position)
        tail = file.read(step)
    kept = position + tail.rfind(b"\n") + 1
    if kept != size:
        os.ftruncate(file.fileno(), kept)
