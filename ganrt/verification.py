"""Compares a dataset's files with its ledgers, and makes again what is broken."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ganrt.contract import CheckedModel, read_model
from ganrt.engine import Maker, made_with, make_shard
from ganrt.errors import DatasetLocked, DatasetMismatch, UnknownModel, UsageError
from ganrt.files import LINK, holds, storage_error, write_synced
from ganrt.generation import Sampler, samples_of
from ganrt.generator import Generator, load_checked
from ganrt.inputs import Inputs, read_inputs
from ganrt.layouts import Layout, layout_of
from ganrt.ledger import Ledger, try_lock
from ganrt.manifest import complete, expected_files
from ganrt.models import find_model
from ganrt.parts import (
    MANIFEST,
    README,
    Part,
    has_plan,
    ledgers,
    machine_of,
    open_parts,
    plan_from_manifest,
    torn_lines,
)
from ganrt.shards import Plan, Record, Shard
from ganrt.translation import load_translation
from ganrt.translation_plan import TranslationPlan
from ganrt.values import check_hooks, flag, path_of

_MAX_DEPTH = 50  # of folders that are not ours


@dataclass(frozen=True)
class Damage:
    """One thing that is not as the ledgers say: a file's name under the root, and what is wrong with it.

    ``part`` and ``shard`` tell where it belongs, if anywhere.
    """

    name: str
    what: str
    part: str | None = None
    shard: int | None = None


def verify(
    root: str | os.PathLike[str],
    *,
    repair: bool = False,
    model: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[Damage]:
    """Reads every file of a dataset and compares its digest with the ledger's; names what is missing, extra, changed.

    With ``repair`` exactly what is broken is made again, and what is still wrong afterwards comes back:
    extra files are named and left. ``model`` is needed where the generator is not found by the name in
    the manifest, and ``images``, the folder that it was made of, where the dataset is one of :func:`ganrt.translate`.
    ``progress`` gets images checked and images in all.

    Raises DatasetError when there is no dataset, and with ``repair`` what generating raises.
    """
    root = path_of("dataset", root)
    check_hooks(progress)
    flag("repair", repair)
    try:
        if repair:
            _bring_plans_back(root, images)
        if images is not None and not any(isinstance(p.plan, TranslationPlan) for p in open_parts(root).values()):
            raise UsageError(f"images do not apply: {root} was made of latents", "Leave them out.")
        damage = list(_damage(root, progress))
        if repair and any(d.part is not None for d in damage):
            _repair(root, damage, model, device, images)
            damage = list(_damage(root, progress))
    except OSError as error:
        raise storage_error(error) from error
    return damage


def _damage(root: Path, progress: Callable[[int, int], None] | None) -> Iterator[Damage]:
    parts = open_parts(root)
    total, checked = sum(part.n for part in parts.values()), 0
    known = {README, MANIFEST, *(path.name for part in parts.values() for path in part.ledgers)}
    for name, part in sorted(parts.items()):
        layout = layout_of(part.plan)
        for path in part.ledgers:
            for line in torn_lines(path):
                yield Damage(path.name, f"line {line} is torn or changed", name)
        for shard in part.plan.shards(part.n):
            names = layout.names(shard)
            known.update(names)
            known.update({name.rpartition("/")[0] + "/" for name in names})
        unfinished = list(part.missing())
        for shard in unfinished:
            yield Damage(f"samples {shard.start} to {shard.stop - 1}", "not finished", name, shard.number)
            known.update(file + ".part" for file in layout.names(shard))
        for shard, record in part.records():
            if len(record.sizes) == len(layout.names(shard)):
                for file, what in layout.damage(root, shard, record):
                    yield Damage(file, what, name, shard.number)
            else:
                yield Damage(f"samples {shard.start} to {shard.stop - 1}", "recorded wrongly", name, shard.number)
            checked += len(shard)
            if progress:
                progress(checked, total)
        common = layout.common(part.n)
        known.update(common)
        for file, (size, beginning) in common.items() if not unfinished else ():
            if (root / file).is_symlink():
                yield Damage(file, LINK, name)
            elif not (root / file).is_file():
                yield Damage(file, "missing", name)
            elif not holds(root / file, size, beginning):
                yield Damage(file, "changed: other bytes than were written", name)
    for file, wanted in expected_files(parts).items():
        path = root / file
        if path.is_symlink():
            yield Damage(file, LINK, "")
        elif not path.is_file():
            yield Damage(file, "missing", "")
        elif path.read_bytes() != wanted:
            yield Damage(file, "changed: other bytes than were written", "")
    for file in _walk(root):
        if file not in known:
            yield Damage(file, "extra: not of this dataset")


def _bring_plans_back(root: Path, images: str | os.PathLike[str] | None) -> None:
    """Mends ledgers that have lost their plan, as far as the manifest, and the images where it is of some, know it."""
    for path in ledgers(root):
        if has_plan(path):
            continue
        with open(path, "r+b") as file:
            if not try_lock(file):
                raise DatasetLocked(f"another run is writing {path}", "Wait for it, or stop it.")
            if os.name == "nt":  # an open file cannot be replaced there
                file.close()
            if not plan_from_manifest(path, {}) and images is not None:
                inputs = read_inputs(images)
                plan_from_manifest(path, {"names": list(inputs.names), "label_list": list(inputs.labels)})


def _repair(
    root: Path,
    damage: list[Damage],
    model: str | os.PathLike[str] | None,
    device: str,
    images: str | os.PathLike[str] | None,
) -> None:
    parts = open_parts(root)
    for name, part in sorted(parts.items()):
        layout = layout_of(part.plan)
        mine = [d for d in damage if d.part == name]
        for ledger in {d.name for d in mine if d.name.endswith(".ledger")}:
            _drop_torn(root / ledger)
        broken: dict[int, set[str]] = defaultdict(set)
        for d in mine:
            if d.shard is not None:
                broken[d.shard].add(d.name)
        forgetful = bool(part.finished) and not part.made_with  # of the software: to claim the ledger brings it back
        if not broken and not forgetful and not any(d.name in layout.common(part.n) for d in mine):
            continue
        maker = _maker(root, part, model, device, images) if broken else None
        with Ledger.claim(root, part.plan, machine_of(part.ledgers[0]), part.n, alone=True) as claimed:
            if maker:
                layout.prepare(root)
                claimed.note(made_with(maker))
                records = {shard.number: record for shard, record in part.records() if shard.number in broken}
                for number, names in sorted(broken.items()):
                    shard = part.plan.shard(number, part.n)
                    assert shard
                    remade = _remake(root, maker, layout, shard, records.get(number), names)
                    if remade != records.get(number):
                        claimed.append(remade)
            complete(root, name)
    complete(root)


def _remake(root: Path, maker: Maker, layout: Layout, shard: Shard, old: Record | None, names: set[str]) -> Record:
    """Makes a shard's broken files again. Its record keeps what it says of the files that were left alone."""
    files = layout.names(shard)
    if old is None or len(old.sizes) != len(files):
        return make_shard(maker, layout, root, shard)
    new = make_shard(maker, layout, root, shard, only=names)
    if len(files) == 1:
        return new
    digests = tuple(n if f in names else o for f, n, o in zip(files, new.digests, old.digests, strict=True))
    sizes = tuple(n if f in names else o for f, n, o in zip(files, new.sizes, old.sizes, strict=True))
    return Record(old.number, old.images, sizes, digests, old.pixels if digests == old.digests else new.pixels)


def _maker(
    root: Path,
    part: Part,
    model: str | os.PathLike[str] | None,
    device: str,
    images: str | os.PathLike[str] | None,
) -> Maker:
    """What made a part, loaded again."""
    plan = part.plan
    if isinstance(plan, TranslationPlan):
        inputs = _inputs(root, plan, images)
        checked, path = _model(part, model)
        return load_translation(checked, path, device, 1, plan, inputs)
    assert isinstance(plan, Plan)
    return Sampler(generator_of(part, model, device), samples_of(plan), plan.batch)


def generator_of(part: Part, model: str | os.PathLike[str] | None, device: str) -> Generator:
    """The generator that made a part of latents, loaded again. Raises UnknownModel, DatasetMismatch."""
    checked, path = _model(part, model)
    return load_checked(checked, path, device, part.plan.batch, 1)


def _inputs(root: Path, plan: TranslationPlan, images: str | os.PathLike[str] | None) -> Inputs:
    """The images that a part was made of."""
    if images is None:
        raise UsageError(
            f"{root} was made of images, and which they were is not known",
            "Name their folder with --images DIR, as it was given to ganrt translate.",
        )
    inputs = read_inputs(images)
    now = replace(
        plan, names=inputs.names, label_list=inputs.labels, class_names=inputs.class_names, inputs=inputs.digest
    )
    if now != plan:
        differing = "\n  ".join(now.differences(plan))
        raise DatasetMismatch(
            f"{os.fspath(images)} holds other images than {root} was made of:\n  {differing}",
            "Name the right folder with --images DIR.",
        )
    return inputs


def _model(part: Part, model: str | os.PathLike[str] | None) -> tuple[CheckedModel, Path]:
    plan = part.plan
    try:
        path = find_model(plan.model if model is None else model)
    except UnknownModel as error:
        raise UnknownModel(
            f"the generator {plan.model} of the dataset is not found: {error.message}",
            "Name its file with --model PATH.",
        ) from None
    checked = read_model(path)
    if checked.digest != plan.model_digest:
        raise DatasetMismatch(
            f"{path} is not the generator that made the dataset: its SHA-256 is {checked.digest[:12]}…, "
            f"the manifest says {plan.model_digest[:12]}…",
            "Name the right file with --model PATH.",
        )
    return checked, path


def _drop_torn(path: Path) -> None:
    torn = set(torn_lines(path))
    with open(path, "a+b") as file:
        if not try_lock(file):
            raise DatasetLocked(f"another run is writing {path}", "Wait for it, or stop it.")
        with open(path, "rb") as ledger:
            kept = [line for number, line in enumerate(ledger, 1) if number not in torn]
        if os.name == "nt":  # an open file cannot be replaced there
            file.close()
        write_synced(path, kept)


def _walk(root: Path, below: str = "") -> Iterator[str]:
    """The files below a root, and the folders, with a ``/`` at the end, that hold none."""
    with os.scandir(root / below) as found:
        entries = sorted(found, key=lambda e: e.name)
        if below and (not entries or below.count("/") > _MAX_DEPTH):
            yield below
            return
        for entry in entries:
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, name + "/")
            else:
                yield name
