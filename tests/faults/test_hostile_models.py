"""Every hostile model through the real command line: a typed error, soon, in bounded memory, and nothing written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from ganrt.ledger import Ledger
from ganrt.manifest import withdraw
from ganrt.parts import read_parts
from tests.datasets import contents, differences, environment, files, is_ledger, make, model_file
from tests.faults.conftest import Tally
from tests.faults.forked import Ended, Forks, forks
from tests.faults.hostile import BOMBS, CRASHES, RESULTS, Hostile, changed, constant, hook, node, op
from tests.faults.hostile_models import hostile_models
from tests.pictures import picture, write_picture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and forks are those of Linux")

CORPUS = hostile_models()
CPU = 6.0  # seconds that one may take; on a quiet machine it is below 2
TOLD = ("generate", "--n", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def forked() -> Iterator[Forks]:
    """What runs the command line."""
    with forks() as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of a good generator, and with images."""
    folder = tmp_path_factory.mktemp("hostile")
    make(model_file(folder), folder / "there", 5)
    for number in range(4):
        write_picture(folder / "images" / f"{number}.png", picture(number, 8, 8))
    return folder


def all_bytes(root: Path) -> dict[str, bytes]:
    """A dataset with its ledgers."""
    return contents(root) | {path.name: path.read_bytes() for path in files(root) if is_ledger(path)}


def wrong(ended: Ended, hostile: Hostile) -> str:
    """What is not as it should be about the end of a command that was given a hostile model; empty if nothing is."""
    said = f"{hostile.name}: exit code {ended.code}, {ended.error or 'no error'}: {ended.err[:500]!r}"
    if ended.code not in (1, 2) or ended.error != hostile.error or hostile.words not in ended.err:
        return f"{said}; expected {hostile.error}: {hostile.words!r}"
    lines = ended.err.splitlines()
    if not lines[0].startswith("ganrt: ") or any(not line.isprintable() for line in lines) or "Traceback" in ended.err:
        return f"{said}; expected a message and a hint"
    if not any(line.startswith("  ") for line in lines):
        return f"{said}; expected a hint"
    if ended.out:
        return f"{said}; printed {ended.out[:200]!r}"
    return "" if ended.cpu < CPU else f"{said}; took {ended.cpu:.1f} s of processor time"


def try_them(chosen: list[Hostile], forked: Forks, place: Path, folder: Path, tally: Tally) -> None:
    """Generates or translates with each: half of them to a new folder, half beside the parts of a dataset."""
    there = all_bytes(place / "there")
    good = forked.ganrt(*TOLD, "--model", str(place / "tiny.onnx"), "--out", str(folder / "good"))
    assert good.code == 0, "the limits are too tight for a good model"
    for number, hostile in enumerate(chosen):
        work = folder / f"{number}"
        work.mkdir()
        path, out, beside = hostile.write(work), work / "out", number % 2 and not hostile.translates
        before = set(os.listdir(work))
        if hostile.translates:
            ended = forked.ganrt("translate", str(path), str(place / "images"), str(out), "--device", "cpu", cwd=work)
        elif beside:
            words = ["--out", str(place / "there"), "--part", "hostile"]
            ended = forked.ganrt(*TOLD, "--model", str(path), *words, cwd=work)
        else:
            ended = forked.ganrt(*TOLD, "--model", str(path), "--out", str(out), cwd=work)
        why = wrong(ended, hostile)
        if not why and set(os.listdir(work)) != before:
            why = f"{hostile.name}: wrote {sorted(set(os.listdir(work)) - before)}"
        if not why and all_bytes(place / "there") != there:
            why = f"{hostile.name}: changed the dataset that was there"
        tally.lost(hostile.row, why) if why else tally.survived(hostile.row)
        shutil.rmtree(work)


def test_some_of_every_kind_end_in_their_error(forked: Forks, place: Path, tmp_path: Path, tally: Tally) -> None:
    rows = {hostile.row for hostile in CORPUS}
    few = [h for row in sorted(rows) for h in [h for h in CORPUS if h.row == row and "million" not in h.name][1::12]]
    assert {hostile.row for hostile in few} == rows and len(few) > 30
    try_them(few, forked, place, tmp_path, tally)


@pytest.mark.faults
def test_all_end_in_their_error(forked: Forks, place: Path, tmp_path: Path, tally: Tally) -> None:
    assert len(CORPUS) >= 80
    try_them(CORPUS, forked, place, tmp_path, tally)


@pytest.mark.parametrize("layout", ["webdataset", "npy"])
def test_a_network_that_fails_leaves_nothing_in_other_layouts_either(
    layout: str, forked: Forks, tmp_path: Path, tally: Tally
) -> None:
    for hostile in [h for h in CORPUS if h.row in (RESULTS, BOMBS) and not h.translates][::12]:
        path = hostile.write(tmp_path)
        ended = forked.ganrt(*TOLD, "--model", str(path), "--out", str(tmp_path / "out"), "--layout", layout)
        why = wrong(ended, hostile)
        if (tmp_path / "out").exists():
            why = f"{hostile.name}: left {[path.name for path in files(tmp_path / 'out')]}"
        tally.lost(hostile.row, why) if why else tally.survived(hostile.row)


def test_a_folder_that_was_there_is_still_there_and_empty(forked: Forks, tmp_path: Path) -> None:
    path = next(h for h in CORPUS if h.name == "cycle").write(tmp_path)
    (tmp_path / "out").mkdir()
    assert forked.ganrt(*TOLD, "--model", str(path), "--out", str(tmp_path / "out")).error == "InferenceError"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.faults
def test_several_processes_leave_nothing_either(place: Path, tmp_path: Path) -> None:
    path = next(h for h in CORPUS if h.name == "result-constant").write(tmp_path)
    ended = real(*TOLD, "--model", str(path), "--out", "out", "--processes", "2", cwd=tmp_path)
    assert (ended.returncode, "times the same image" in ended.stderr) == (1, True)
    assert not (tmp_path / "out").exists()


def test_only_what_came_to_nothing_is_taken_back(place: Path, tmp_path: Path) -> None:
    """A machine whose network fails leaves alone what another machine of the run has written."""
    out = tmp_path / "out"
    make(place / "tiny.onnx", out, 300, shard="0/2")
    before, plan = all_bytes(out), read_parts(out)[""].plan
    Ledger.claim(out, plan, (1, 2), 300).close()
    assert all_bytes(out) != before
    withdraw(out, plan, [(0, 2), (1, 2)], made=True)
    assert all_bytes(out) == before
    make(place / "tiny.onnx", out, 300, shard="1/2")
    assert (out / "README.md").exists()


def test_listing_a_folder_of_them_says_what_is_wrong_with_each(forked: Forks, tmp_path: Path, tally: Tally) -> None:
    refused = [hostile for hostile in CORPUS if hostile.error == "ContractError" and "million" not in hostile.name]
    for hostile in refused[::10]:
        hostile.write(tmp_path)
    ended = forked.ganrt("models", str(tmp_path))
    lines = ended.out.splitlines()
    assert ended.code == 0 and all(line.isprintable() for line in lines)
    listed = dict(line.split(maxsplit=1) for line in lines)
    for hostile in refused[::10]:
        good = f"{hostile.name}.onnx" in listed.get(hostile.name, "") or "classes" in listed.get(hostile.name, "")
        tally.survived(hostile.row) if good else tally.lost(hostile.row, f"{hostile.name} is not listed")


# Real processes ------------------------------------------------------------------------------------------------------


def real(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process that was not forked, without limits."""
    command = [sys.executable, "-m", "ganrt", *words]
    return subprocess.run(command, env=environment(), cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["cycle", "bomb-expand-terabytes"])
def test_a_process_of_its_own_ends_as_the_forked_ones_do(name: str, tmp_path: Path, tally: Tally) -> None:
    hostile = next(hostile for hostile in CORPUS if hostile.name == name)
    path = hostile.write(tmp_path)
    before = set(os.listdir(tmp_path))
    ended = real(*TOLD, "--model", path.name, "--out", "out", cwd=tmp_path)
    said = ended.stderr.startswith("ganrt: ") and hostile.words in ended.stderr and "Traceback" not in ended.stderr
    well = ended.returncode == 1 and said and set(os.listdir(tmp_path)) == before
    tally.survived(hostile.row) if well else tally.lost(hostile.row, f"{name}: {ended}")


def test_memory_that_is_not_there_is_refused_before_it_is_filled(tmp_path: Path, tally: Tally) -> None:
    """The system promises more than it has, and ends some process when that is used: ganrt does not take so much."""
    hostile = next(h for h in CORPUS if h.name == "bomb-constant-of-shape-gigabytes")  # 4 GiB
    path = hostile.write(tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 800000 kB\nMemAvailable: 500000 kB\nSwapFree: 100000 kB\n")
    code = (
        "import pathlib, sys; from ganrt import cli, providers\n"
        "providers.MEMORY = pathlib.Path('meminfo')\n"
        f"sys.argv = ['ganrt', *{TOLD!r}, '--model', {path.name!r}, '--out', 'out']\n"
        "try: cli.main()\n"
        # not ru_maxrss, which begins with what the process that started this one had
        "finally: print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    well = ended.returncode == 1 and hostile.words in ended.stderr and int(ended.stdout) < 1 << 20  # kB
    tally.survived(BOMBS) if well else tally.lost(BOMBS, f"{hostile.name}: {ended}")


def test_what_crashes_onnx_runtime_all_the_same_loses_nothing(place: Path, tmp_path: Path, tally: Tally) -> None:
    """The least of all numbers divided by -1: no check of the file can see all such numbers beforehand."""
    least = constant("least", [np.iinfo(np.int64).min])
    late = [op("Mul", "y zero", "zeros"), op("Sub", "zeros one", "minus")]
    nodes = [*late, op("Div", "least minus", "much"), op("Cast", "much", "end", to=1)]
    data = hook(nodes, "end", [least, constant("zero", [0]), constant("one", [1])])
    (tmp_path / "crash.onnx").write_bytes(data)
    shutil.copytree(place / "there", tmp_path / "there")
    before = contents(tmp_path / "there")
    words = ["--model", "crash.onnx", "--out", "there", "--part", "crash"]
    ended = real(*TOLD, *words, cwd=tmp_path)
    if ended.returncode >= 0:  # a newer ONNX Runtime, or another processor
        assert ended.returncode == 1, ended.stderr
    after = contents(tmp_path / "there")
    lost = [name for name in before if name.endswith(".png") and after.get(name) != before[name]]
    half = [name for name in after.keys() - before.keys() if name.endswith((".png", ".part"))]
    tally.lost(CRASHES, f"lost {lost}, left {half}") if lost or half else tally.survived(CRASHES)
    assert real("verify", "there", "--quiet", cwd=tmp_path).returncode in (0, 5)
    (tmp_path / "there" / "ganrt.crash.ledger").unlink(missing_ok=True)
    assert real("merge", "there", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "there") == before


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--model", "MODEL", "--n", "4", "--out", "out", "--size", "16000", "--device", "cpu"],
        ["generate", "--model", "MODEL", "--n", "4", "--out", "out", "--size", "16000", "--layout", "npy"],
        ["generate", "--model", "MODEL", "--n", "4", "--out", "out", "--size", "16000", "--dry-run"],
        ["interpolate", "MODEL", "--out", "walk.gif", "--size", "16000", "--device", "cpu"],
    ],
)
def test_what_does_not_fit_into_memory_is_an_error(
    words: list[str], forked: Forks, place: Path, tmp_path: Path, tally: Tally
) -> None:
    model = str(place / "tiny.onnx")
    ended = forked.ganrt(*[model if word == "MODEL" else word for word in words], cwd=tmp_path)
    well = (
        ended.code == 1 and ended.err.startswith("ganrt: ") and "memory" in ended.err and "Traceback" not in ended.err
    )
    tally.survived("memory that runs out") if well else tally.lost("memory that runs out", f"{words}: {ended}")
    assert not [path for path in files(tmp_path) if path.suffix in (".png", ".npy", ".gif")]


def test_a_network_that_mixes_the_images_of_a_batch_is_still_reproducible(tmp_path: Path, tally: Tally) -> None:
    """The contract forbids it, and nobody can tell it from a file; batches are the plan's, so nothing varies."""

    def mix(model: onnx.ModelProto) -> None:
        node(model, "Add").input[0] = "mixed"
        model.graph.node.insert(0, op("Add", "z mean", "mixed"))
        model.graph.node.insert(0, op("ReduceMean", "z first", "mean"))
        model.graph.initializer.append(constant("first", [0]))

    path = tmp_path / "mixing.onnx"
    path.write_bytes(changed(mix))
    make(path, tmp_path / "at once", 300, workers=1)
    for n in (70, 300):
        make(path, tmp_path / "grown", n, workers=3)
    varied = differences(tmp_path / "at once", tmp_path / "grown")
    row = "a network that mixes the images of a batch"
    tally.lost(row, f"other files: {varied}") if varied else tally.survived(row)
