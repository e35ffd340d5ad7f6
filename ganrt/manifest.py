"""The record of one dataset, made from its ledgers: manifest and README, written by whoever finishes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ganrt.errors import DatasetDamaged, DatasetError
from ganrt.files import PART, storage_error, write_synced
from ganrt.layouts import layout_of
from ganrt.ledger import try_lock
from ganrt.parts import (
    MANIFEST,
    README,
    VERSION,
    Machine,
    Part,
    called,
    has_shards,
    ledger_name,
    machine_of,
    open_parts,
    read_parts,
)
from ganrt.readme import readme
from ganrt.shards import DatasetPlan, class_folders
from ganrt.values import path_of


def complete(root: Path, own: str | None = None, remaking: Collection[int] = ()) -> bool:
    """Brings the manifest up to date; writes the README too, and says True, when every part is complete.

    Both are functions of the ledgers alone, so it does not matter who calls it last. ``own`` is the part
    that the caller has locked; its shards ``remaking`` count as missing.
    """

    def state() -> tuple[dict[str, Part], dict[str, bytes]]:
        parts = read_parts(root)
        for number in remaking if own is not None else ():
            parts[own or ""].finished.pop(number, None)
        return parts, expected_files(parts)

    with _root_lock(root):
        parts, files = state()
        while True:
            for name, part in parts.items():
                layout = layout_of(part.plan)
                if next(part.missing(), None) is None and (name == own or layout.divisible or _at_rest(part)):
                    layout.finish(root, part.n)
            if README not in files:
                (root / README).unlink(missing_ok=True)  # it speaks of fewer images
            for name, data in files.items():
                if not (root / name).is_file() or (root / name).read_bytes() != data:
                    write_synced(root / name, data)
            # Where there is no lock (Windows, some network file systems) another machine may have finished
            # meanwhile: every ledger line is on the disk before its writer comes here, so whoever looks last
            # sees them all.
            written = files
            parts, files = state()
            if files == written:
                return README in files


def _at_rest(part: Part) -> bool:
    """Whether no run writes a part."""
    with contextlib.ExitStack() as stack:
        return all(try_lock(stack.enter_context(open(path, "r+b"))) for path in part.ledgers)


def expected_files(parts: dict[str, Part]) -> dict[str, bytes]:
    """README, when every part is complete, and manifest, as the ledgers make them."""
    done = bool(parts) and all(next(part.missing(), None) is None for part in parts.values())
    manifest = {MANIFEST: _manifest(parts, done)}
    return {README: readme([(p.plan, p.n) for _, p in sorted(parts.items())]), **manifest} if done else manifest


def withdraw(root: Path, plan: DatasetPlan, machines: Iterable[Machine], made: bool) -> None:
    """Takes back what runs of some machines wrote that came to nothing: ledgers that have no shard.

    Then the folder is as it was before they began; ``made`` says that there was none.
    """
    for machine in machines:
        path = root / ledger_name(plan.part, machine)
        with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
            if try_lock(file) and not has_shards(path):
                path.unlink()
    parts = read_parts(root)
    for name in () if plan.part in parts else layout_of(plan).common(0):
        (root / (name + PART)).unlink(missing_ok=True)
    if parts:
        complete(root)
        return
    (root / MANIFEST).unlink(missing_ok=True)
    folders = class_folders(plan.class_names) if plan.labelled and plan.layout == "folder" else []
    for folder in (*(root / name for name in folders), *([root] if made else [])):
        with contextlib.suppress(OSError):  # it holds somebody else's files
            folder.rmdir()


def merge(root: str | os.PathLike[str]) -> int:
    """Writes README and manifest of a dataset that several machines made; the last of them does so by itself.

    Returns the number of images. Raises DatasetError when there is none, or when a share is missing,
    saying which; DatasetDamaged, StorageError.
    """
    try:
        return _merge(path_of("dataset", root))
    except OSError as error:
        raise storage_error(error) from error


def _merge(root: Path) -> int:
    parts = open_parts(root)
    for name, part in sorted(parts.items()):
        missing = list(part.missing())
        if missing:
            machines = max(machine_of(path)[1] for path in part.ledgers)
            shares = sorted({shard.number % machines for shard in missing})
            again = ", ".join(f"--shard {k}/{machines}" for k in shares[:8]) + (" …" if len(shares) > 8 else "")
            raise DatasetError(
                f"{called(name)} of {root} lacks {sum(map(len, missing)):,} of {part.n:,} images "
                f"(shards {', '.join(str(s.number) for s in missing[:8])}{' …' if len(missing) > 8 else ''})",
                f"Give the command{'s' if len(shares) > 1 else ''} with {again}, then merge again."
                if machines > 1
                else "Give the command that made it again.",
            )
        layout = layout_of(part.plan)
        gone = [shard.number for shard, record in part.records() if not layout.is_there(root, shard, record)]
        if gone:
            raise DatasetDamaged(
                f"files of {len(gone)} finished shards are missing or cut in {root}",
                f"See which, and make them again: ganrt verify {root} --repair",
            )
    complete(root)
    return sum(part.n for part in parts.values())


def _manifest(parts: dict[str, Part], done: bool) -> bytes:
    about = []
    for name, part in sorted(parts.items()):
        whole = next(part.missing(), None) is None
        plan = part.plan
        entry = {
            "part": name,
            "complete": whole,
            "images": part.n,
            "per_class": plan.per_class(part.n),
            "fingerprint": plan.fingerprint(),
            "plan": plan.summary(),
        }
        if whole:
            state = hashlib.blake2b(digest_size=16)
            for shard in plan.shards(part.n):
                state.update(bytes.fromhex(part.finished[shard.number][1]))
            entry |= {
                "pixels": state.hexdigest(),
                "made_with": sorted(part.made_with, key=lambda m: json.dumps(m, sort_keys=True)),
            }
        about.append(entry)
    manifest = {"ganrt": VERSION, "complete": done, "images": sum(p.n for p in parts.values()), "parts": about}
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


@contextlib.contextmanager
def _root_lock(root: Path) -> Iterator[None]:
    """One process at a time writes manifest and README."""
    if os.name == "nt":
        yield  # no such locks there: complete() looks again after writing
        return
    import fcntl

    descriptor = os.open(root, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
