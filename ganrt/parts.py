"""What the ledgers under a root say: which plans, how many images of each, which shards are finished.

A ledger is a file ``ganrt[.PART][.K-of-M].ledger`` at the dataset's root, JSON a line: first the plan,
then a line for each run's number of images, its software, and each finished shard, which ends with a sum of
what is before it. It is only appended to; a later line of a shard wins; a line that a crash tore, or of which a bit
has changed since, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganrt.errors import DatasetDamaged, DatasetError, DatasetMismatch
from ganrt.files import write_synced
from ganrt.latents import MAX_INDEX
from ganrt.layouts import LAYOUTS
from ganrt.shards import DatasetPlan, Plan, Record, Shard
from ganrt.translation_plan import KIND, TranslationPlan

MANIFEST = "ganrt.json"
README = "README.md"
VERSION = 1
Machine = tuple[int, int]  # K of M, K from 0
_DIGEST = re.compile("[0-9a-f]{32}").fullmatch
_SEAL = b',"sum":'
_UNSEALED = ({"n"}, {"made_with"}, {"shard", "images", "pixels", "sizes", "digests"})


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


def ledgers(root: Path) -> list[Path]:
    """The ledgers under a root. Names are looked at one by one: images without classes lie there too."""
    try:
        with os.scandir(root) as found:
            names = [entry.name for entry in found if entry.name.startswith("ganrt") and entry.name.endswith(".ledger")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [root / name for name in sorted(names)]


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
    for path in ledgers(root):
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


def plan_from_manifest(path: Path, more: dict[str, Any]) -> bool:
    """Gives a ledger that has lost its first line the one that the manifest tells of; whether that could be done.

    ``more`` is what a manifest leaves out of a plan. Nothing is believed that the fingerprint does not prove.
    """
    try:
        told = json.loads((path.parent / MANIFEST).read_bytes())["parts"]
        heads = [{"ganrt": VERSION, "fingerprint": p["fingerprint"], "plan": {**p["plan"], **more}} for p in told]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return False
    for head in heads:
        head["plan"].pop("images", None)  # how many, in a manifest
        with contextlib.suppress(DatasetDamaged, DatasetMismatch):
            if ledger_name(_plan(path, head).part, machine_of(path)) == path.name:
                with open(path, "rb") as file:
                    kept = [line for line in file if (entry := _parsed(line)) and "ganrt" not in entry]
                write_synced(path, [sealed(head), *kept])
                return True
    return False


def lost_software(root: Path, part: Part) -> list[dict[str, str]]:
    """What a part was made with as the manifest has it, where the line of the ledger that said so is lost."""
    if part.made_with or not part.finished:
        return []
    try:
        told = json.loads((root / MANIFEST).read_bytes())["parts"]
        found = [_made_with({"made_with": s}) for p in told if p["part"] == part.plan.part for s in p["made_with"]]
        return [software for software in found if software]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return []


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


def called(part: str) -> str:
    """A part's name for messages."""
    return f"part {part}" if part else "the dataset"


def has_plan(path: Path) -> bool:
    """Whether the first line of a ledger is one. A later ganrt's counts as one, and a line not yet whole."""
    try:
        first = next(_entries(path), None)
        return first is None or bool(_plan(path, first[1]))
    except DatasetMismatch:
        return True
    except DatasetDamaged:
        return False


def says(path: Path, n: int) -> bool:
    """Whether a ledger has a line that so many images were asked for."""
    return any(_images(entry) == n for _, entry in _entries(path))


def has_shards(path: Path) -> bool:
    """Whether a ledger has the line of any finished shard."""
    return any(_record(entry) for _, entry in _entries(path))


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


def sealed(entry: dict[str, Any]) -> bytes:
    """A line of a ledger, with the sum by which it is known later that it is as it was written.

    The first line has its fingerprint instead.
    """
    text = json.dumps(entry, separators=(",", ":")).encode()
    if "ganrt" in entry:
        return text + b"\n"
    return text[:-1] + _SEAL + b'"%08x"}\n' % zlib.crc32(text)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A whole line's object; None for one that is torn, changed or foreign."""
    text, seal, told = line.rpartition(_SEAL)
    if seal:
        if told != b'"%08x"}\n' % zlib.crc32(text + b"}"):
            return None
        line = text + b"}\n"
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    # There are ledgers of before there were sums; a line that has lost the word for it has another key in its place.
    if not isinstance(entry, dict) or not (seal or "ganrt" in entry or any(entry.keys() == keys for keys in _UNSEALED)):
        return None
    return entry


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
        f"{path.name}: its first line is no plan",
        "The file was changed. Mend it with ganrt verify DIR --repair, which looks for the plan in ganrt.json; where "
        "that is lost too, generate the dataset again in a new folder.",
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
