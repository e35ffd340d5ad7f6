"""Commands that are hit at any of their steps, what was in the folder before, and what must come out in the end."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ganrt
from tests.datasets import contents, differences, files, is_ledger, model_file
from tests.faults.inject import ALL, KILL, KILL_IN_THE_MIDDLE, UNREADABLE, Fault
from tests.faults.nursery import GENERATING, Ended, nursery
from tests.pictures import translator_file, two_classes

forks = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has its libraries loaded: Linux")
# One worker, so that the steps are the same each time.
SMALL = "--workers 1 --threads 1 --device cpu --quiet --shard-size 4 --batch 2"
ENDS = {  # exit status, and what is said
    "SIGINT": (130, "the same command goes on"),
    "SIGTERM": (143, "the same command goes on"),
    "ENOSPC": (4, "no space or inodes left"),
    "EDQUOT": (4, "the disk quota is used up"),
    "EIO": (1, "give the same command again"),
    "reading": (1, "give the same command again"),
}


Words = Callable[[Path, Path], list[str]]  # of the dataset's folder, and of one that has models and images


@dataclass(frozen=True)
class Scenario:
    """A command for a dataset's folder, and how the folder gets to be what the command finds."""

    name: str
    layout: str
    before: tuple[Words, ...]  # commands, one after the other
    words: Words
    harm: Callable[[Path], None] = lambda root: None  # what is done to the folder then
    shows_unfinished: bool = False  # is the README there while files are not?


def generate(n: int, layout: str, *more: str) -> Words:
    """A command that writes so many images."""
    return lambda root, given: [
        *("generate", "--model", str(given / "tiny.onnx"), "--out", str(root), "--n", str(n)),
        *("--layout", layout, *SMALL.split(), *more),
    ]


def translate(layout: str) -> Words:
    """A command that writes what is made of seven images."""
    return lambda root, given: [
        *("translate", str(given / "translator.onnx"), str(given / "in"), str(root)),
        *("--layout", layout, *SMALL.split()),
    ]


def repair(root: Path, given: Path) -> list[str]:
    """A command that makes again what is broken."""
    return ["verify", str(root), "--repair", "--model", str(given / "tiny.onnx"), "--device", "cpu"]


def harm(root: Path) -> None:
    """A file of an early shard has other bytes, one of the last is gone, so is the README; a ledger's line is torn."""
    ledger = root / "ganrt.ledger"
    plan, *lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join((plan, b'{"shard":\n', *lines)))
    if (root / "images.npy").exists():
        with open(root / "images.npy", "r+b") as file:
            file.seek(200)
            file.write(b"other")
        (root / "labels.npy").unlink()
    else:
        images = sorted((path for path in contents(root) if path.endswith((".png", ".tar"))), key=lambda p: p[-11:])
        (root / images[0]).write_bytes(b"other" + (root / images[0]).read_bytes()[5:])
        (root / images[-1]).unlink()
    (root / "README.md").unlink()


def harm_record(root: Path) -> None:
    """Manifest and README are gone."""
    for name in ("README.md", "ganrt.json"):
        (root / name).unlink()


def foreign(root: Path) -> None:
    """There is a file that is not ganrt's."""
    (root / "notes.txt").write_text("mine")


SCENARIOS = [
    *(Scenario(f"generate, {layout}", layout, (), generate(7, layout)) for layout in ("folder", "webdataset", "npy")),
    *(
        Scenario(f"{layout} that grows", layout, (generate(6, layout),), generate(7, layout))
        for layout in ("folder", "webdataset", "npy")
    ),
    *(
        Scenario(
            f"last of two machines, {layout}",
            layout,
            (generate(7, layout, "--shard", "0/2"),),
            generate(7, layout, "--shard", "1/2"),
        )
        for layout in ("folder", "webdataset")
    ),
    *(
        Scenario(f"verify --repair, {layout}", layout, (generate(7, layout),), repair, harm, shows_unfinished=True)
        for layout in ("folder", "webdataset", "npy")
    ),
    Scenario(
        "merge",
        "folder",
        (generate(7, "folder", "--shard", "0/2"), generate(7, "folder", "--shard", "1/2")),
        lambda root, given: ["merge", str(root)],
        harm_record,
    ),
    *(
        Scenario(
            f"--overwrite, {layout}",
            layout,
            (generate(9, layout, "--seed", "1"),),
            generate(7, layout, "--overwrite"),
            foreign,
        )
        for layout in ("folder", "webdataset", "npy")
    ),
    *(Scenario(f"translate, {layout}", layout, (), translate(layout)) for layout in ("folder", "webdataset", "npy")),
]


def dataset_case(scenario: Scenario, folder: Path) -> Case:
    """A scenario in a folder of a test. It is run once without faults."""
    model_file(folder)
    translator_file(folder, "translator")
    two_classes(folder / "in", 7)
    before, whole = folder / "before", folder / "whole"
    for words in scenario.before:
        ended = nursery().run(words(before, folder), before)
        assert ended.status == 0, ended.err
    if scenario.before:
        scenario.harm(before)
        shutil.copytree(before, whole)
    ended = nursery().run(scenario.words(whole, folder), whole)
    assert ended.status == 0, ended.err
    known = [contents(before), contents(whole)]
    told = [damage.name for damage in ganrt.verify(whole)]

    def half(root: Path) -> str | None:
        found = contents(root) if root.is_dir() else {}
        for name, data in found.items():
            if name == "ganrt.json":
                json.loads(data)
            elif not name.endswith(".part") and not any(files.get(name) == data for files in known):
                return f"{name} is half made"
        if "README.md" in found and not scenario.shows_unfinished:
            all_there = [all(found.get(n) == data for n, data in files.items() if n != "ganrt.json") for files in known]
            return None if any(all_there) else "there is a README.md, and not all files"
        return None

    def unlike(root: Path) -> str | None:
        if other := differences(root, whole):
            return f"differs in {', '.join(other)}"
        wrong = ganrt.verify(root)
        if [damage.name for damage in wrong] != told:
            return f"verify says {wrong}"
        ledgers = [{path.name for path in files(one) if is_ledger(path)} for one in (root, whole)]
        return None if ledgers[0] == ledgers[1] else f"ledgers: {ledgers[0]}"

    return Case(
        scenario.name,
        folder,
        lambda root: scenario.words(root, folder),
        ended.steps,
        half,
        unlike,
        before=before if scenario.before else None,
        leaves_part=scenario.layout == "npy",
    )


@dataclass
class Case:
    """A command that is tried again and again, with a fault at one of its steps and then without."""

    name: str
    folder: Path
    words: Callable[[Path], list[str]]  # of the folder that it writes
    steps: list[str]  # of a run without faults
    half: Callable[[Path], str | None]  # what is half made under its final name, or speaks of files that are not there
    unlike: Callable[[Path], str | None]  # in what a folder is not as it should be in the end
    before: Path | None = None  # what the command finds
    leaves_part: bool = False  # is something under a name of its own kept for the next run?
    modules: tuple[str, ...] = GENERATING
    tries: int = 0
    reads: list[str] = field(default_factory=list)  # those at which a file is opened to be read, once asked for

    def unreadable(self) -> Iterator[Fault]:
        """Each time that a file is read, it cannot be."""
        self.reads = self.run(self.fresh(), Fault(ALL, UNREADABLE)).steps
        return (Fault(number, UNREADABLE) for number in range(len(self.reads)))

    def faults(self, *kinds: str, every: int = 1) -> Iterator[Fault]:
        """One of the kinds at every so-manieth step, in turn; with ``every`` 1 all of them at each step.

        What a killed process has written is there, synced or not: no kill comes after a sync where one came before.
        """
        for number in range(0, len(self.steps), every):
            for kind in kinds if every == 1 else [kinds[number // every % len(kinds)]]:
                writes = self.steps[number].startswith("write ")
                if kind == KILL_IN_THE_MIDDLE and not writes:
                    continue
                if kind == KILL and number and self.steps[number - 1].startswith("fsync ") and every == 1:
                    continue
                yield Fault(number, kind)

    def fresh(self) -> Path:
        """A folder as the command finds it."""
        self.tries += 1
        root = self.folder / f"try{self.tries}" / self.folder.name  # reports tell the folder's name
        root.parent.mkdir()
        if self.before:
            shutil.copytree(self.before, root)
        return root

    def run(self, root: Path, fault: Fault | None = None) -> Ended:
        """The command, with a fault or without."""
        return nursery(self.modules).run(self.words(root), root, fault)

    def tried(self, fault: Fault | None, cut: Callable[[Path], object] = lambda root: None) -> str | None:
        """What is wrong after the fault, or after the command was given again; None if nothing is.

        ``cut`` does to the folder what happens to it in between.
        """
        root = self.fresh()
        ended = self.run(root, fault)
        wrong = self._wrong(ended, fault, root) if fault else None
        if not wrong:
            cut(root)
            again = self.run(root)
            wrong = f"the command given again: {again.status} {again.err}" if again.status else self.unlike(root)
        if wrong:
            where = f"{fault.what} at step {fault.step}, {ended.steps}" if fault else "at the end"
            return f"{where}: {wrong} [{root}]"
        shutil.rmtree(root.parent)
        return None

    def _wrong(self, ended: Ended, fault: Fault, root: Path) -> str | None:
        """What is wrong right after the fault."""
        told = f"{ended.status} {ended.err}"
        step = (self.reads if fault.what == UNREADABLE else self.steps)[fault.step]
        if ended.steps != [step]:
            return f"{ended.steps} was hit: {told}"
        if fault.what in (KILL, KILL_IN_THE_MIDDLE):
            return self.half(root) if ended.status == -signal.SIGKILL else told
        if ended.status == 0:  # the fault was at a step that does not matter, or too late
            return self.unlike(root)
        if fault.what == UNREADABLE and ended.status == 5:  # verify found that itself
            return None if "cannot be read" in ended.out else told
        status, said = ENDS[fault.what.split()[-1]]
        if ended.status != status or said not in ended.err.lower() or "Traceback" in ended.err:
            return told
        at_once = " " in fault.what  # two signals
        left = [] if self.leaves_part or at_once or step.startswith("unlink ") else sorted(root.rglob("*.part"))
        return f"left: {left}" if left else self.half(root)
