"""Writing down what was finished: ledgers that resume trusts, and their locks.

What a ledger holds is in :mod:`ganrt.parts`. Its lock is the operating system's, so a run that died holds none.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from io import FileIO
from pathlib import Path
from typing import IO, Any

from ganrt.errors import DatasetLocked, DatasetMismatch, StorageError, UsageError
from ganrt.files import no_link, sync_folder
from ganrt.layouts import layout_of
from ganrt.parts import (
    MANIFEST,
    README,
    VERSION,
    Machine,
    Part,
    called,
    ledger_name,
    lost_software,
    machine_of,
    read_parts,
    says,
    sealed,
)
from ganrt.shards import DatasetPlan, Record, class_folders

logger = logging.getLogger("ganrt")


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
        path = root / ledger_name(plan.part, machine)
        if overwrite:
            remove_part(root, plan.part, path)
        # Unbuffered: nothing of a line that did not fit may be written later.
        file = open(no_link(path), "a+b", buffering=0)  # noqa: SIM115 - closed by close()
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
            if part.n != n or not says(path, n):
                ledger._write({"n": n})
            part.n = n
            ledger.part = part
            for software in lost_software(root, part):
                ledger.note(software)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def note(self, made_with: dict[str, str]) -> None:
        """Records the software that a run makes images with."""
        if made_with not in self.part.made_with:
            self._write({"made_with": made_with})
            self.part.made_with.append(made_with)

    def check(self) -> None:
        """Raises StorageError when the folder has been removed or replaced, or the ledger in it.

        What is written by its name would go into a folder of somebody else.
        """
        if not _is_at(self._file, self.path):
            raise StorageError(
                f"{self.path.parent} is not the folder any more that this run began to write: it, or {self.path.name} "
                "in it, was moved, removed or replaced",
                "Leave it alone while a run writes it. If it was moved, move it back or name it where it is now, and "
                "give the same command again: what was finished is kept.",
            )

    def append(self, record: Record) -> None:
        """Adds a finished shard; it is on the disk when this returns. Raises as :meth:`check` does, and OSError."""
        self.check()
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
        line = sealed(entry)
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


def remove_part(root: Path, name: str, place: Path) -> None:
    """Removes the files of a part and its ledgers, and nothing else. Raises DatasetLocked while a run writes it.

    The ledger ``place`` is left, empty: should all end here, the folder is ganrt's still, whatever else it holds.
    """
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
        for file_name in (README, MANIFEST):  # first: they say what is there
            (root / file_name).unlink(missing_ok=True)
        folders: set[Path] = set()
        for names in (common, *(layout.names(shard) for shard in part.plan.shards(part.n))):
            for file_name in names:
                for end in ("", ".part"):
                    (root / (file_name + end)).unlink(missing_ok=True)
            folders |= {root / above for name in names if (above := name.rpartition("/")[0])}
        for folder in sorted(folders):
            with contextlib.suppress(OSError):  # it holds somebody else's files
                folder.rmdir()
        if os.name == "nt":  # an open file cannot be removed there
            stack.close()
        with open(place, "ab") as left:
            left.truncate(0)
        for path in part.ledgers:
            if path != place:
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
        foreign = sorted(p.name for p in root.iterdir())
        # A ledger whose first line never came: nothing is written before it, and the folder was looked at before it.
        if foreign and not any(name.startswith("ganrt") and name.endswith(".ledger") for name in foreign):
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
    except (FileNotFoundError, NotADirectoryError):
        return False


def _locked(root: Path, plan: DatasetPlan) -> DatasetLocked:
    share = "; or give this one a share of its own with --shard K/M or --part NAME" if plan.shared else ""
    return DatasetLocked(f"another run is writing {called(plan.part)} of {root}", f"Wait for it, or stop it{share}.")


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
