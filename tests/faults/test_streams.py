"""The command in surroundings that programs seldom meet: closed streams, no home, other encodings, bytes as names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ganrt
from tests.datasets import environment, model_file
from tests.faults.conftest import Tally

pytestmark = pytest.mark.skipif(os.name == "nt", reason="descriptors and byte names of POSIX")
ROW = "odd surroundings: streams, locales, terminals, names"


def ganrt_in(folder: Path, words: str, variables: dict[str, str] | None = None) -> tuple[int, bytes]:
    """A shell command in which ``ganrt`` is this checkout's, in a folder with a generator: exit code and output."""
    if not (folder / "tiny.onnx").exists():
        model_file(folder)
    given = {**environment(), **(variables or {}), "PY": sys.executable}
    shell = f'ganrt() {{ "$PY" -m ganrt "$@"; }}; {words}'
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=folder,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    return done.returncode, done.stdout


GENERATE = "ganrt generate --n 4 --model ./tiny.onnx --device cpu --out"
PLAIN = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_with_every_stream_closed_a_dataset_is_made_and_holds_nothing_else(tmp_path: Path, tally: Tally) -> None:
    """Else a file would be opened under the number of stdout, and get what is printed."""
    code, _ = ganrt_in(tmp_path, f"{GENERATE} made <&- >&- 2>&-")
    assert code == 0
    assert ganrt.verify(tmp_path / "made") == []
    code, shown = ganrt_in(tmp_path, "(ganrt models . >&-); ganrt models . 2>&-; ganrt verify made <&-")
    assert code == 0 and b"Traceback" not in shown and b"every file is as it was written" in shown
    tally.survived(ROW, 4)


def test_a_reader_that_goes_and_a_path_that_is_empty(tmp_path: Path, tally: Tally) -> None:
    """A broken pipe is an exit code and no message; an unset variable is no folder."""
    for words, code, wanted in (
        ("ganrt models . | head -0; exit ${PIPESTATUS[0]}", 1, b""),
        (f"{GENERATE} ''", 2, b"'--out': '' is no path"),
    ):
        ended, shown = ganrt_in(tmp_path, words)
        assert (ended, wanted in shown, b"Traceback" in shown) == (code, True, False), shown
    tally.survived(ROW, 2)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("words", "code", "wanted"),
    [
        (f"{GENERATE} a | head -0; ganrt verify a", 0, b"every file is as it was written"),
        ("ganrt models . > /dev/full", 4, b"no space"),
        (f"{GENERATE} tiny.onnx", 2, b"tiny.onnx is a file"),
        (f"{GENERATE} tiny.onnx/a", 1, b"Not a directory (tiny.onnx/a)"),
        (f"{GENERATE} " + "a" * 300, 1, b"File name too long"),
        (f"ln -s nowhere l; {GENERATE} l", 1, b"(l)"),
        (f"{GENERATE} - && ganrt verify -", 0, b"every file"),
        (f"{GENERATE}=-x | tail -1 | sed 's/.*or //' | bash -c 'read w; echo $w'", 0, b"ganrt verify ./-x"),
        ("mkfifo f; ganrt inspect ./f", 2, b"model f: is no regular file"),
        ("ganrt inspect .", 2, b"no model named '.'"),
        ("ganrt inspect ./", 2, b"model .: is a folder"),
        ("ganrt inspect ''", 2, b"no model named ''"),
        ("ganrt generate --n ten --out a", 2, b"Invalid value for '--n': 'ten'"),
        ("ganrt generate --n 1e3 --out a", 2, b"'1e3'"),
    ],
)
def test_pipes_and_paths(tmp_path: Path, tally: Tally, words: str, code: int, wanted: bytes) -> None:
    """Whoever reads may go, and a path may be anything."""
    ended, shown = ganrt_in(tmp_path, words)
    assert (ended, wanted in shown, b"Traceback" in shown) == (code, True, False), shown
    tally.survived(ROW)


@pytest.mark.faults
def test_names_that_are_no_text_and_terminals_that_cannot_show_them(tmp_path: Path, tally: Tally) -> None:
    """Bytes that are no UTF-8, and letters that an ASCII terminal lacks, are shown as Python escapes them."""
    for number, variables in enumerate(({}, PLAIN, {"LANG": "C.UTF-8"}, {"PYTHONIOENCODING": "ascii"})):
        code, shown = ganrt_in(tmp_path, f"{GENERATE} $'\\xff{number}' && ganrt verify $'\\xff{number}'", variables)
        assert code == 0 and b"\\udcff" in shown and b"Traceback" not in shown, shown
        code, shown = ganrt_in(tmp_path, f"{GENERATE} ü{number} && ganrt explain ./tiny.onnx 0", variables)
        assert code == 0 and b"Traceback" not in shown, shown
        code, shown = ganrt_in(tmp_path, "ganrt inspect $'./\\xff.onnx'", variables)
        assert code == 2 and b"\\udcff" in shown and b"Traceback" not in shown, shown
    tally.survived(ROW, 12)


@pytest.mark.faults
def test_without_home_without_width_without_colour(tmp_path: Path, tally: Tally) -> None:
    """None of them is needed, and nothing is coloured."""
    bare = 'env -i PYTHONPATH="$PYTHONPATH" "$PY" -m ganrt'
    narrow = {"COLUMNS": "1", "NO_COLOR": "1", "TERM": "dumb"}
    for words, variables in (
        (f"{bare} models . && {bare} generate --n 2 --out bare --model ./tiny.onnx", {}),
        ("ganrt generate --help && ganrt models . && ganrt inspect ./tiny.onnx", narrow),
        ("ganrt nonsense; ganrt --help", {"COLUMNS": "0"}),
    ):
        code, shown = ganrt_in(tmp_path, words, variables)
        assert code == 0 and b"Traceback" not in shown and b"\x1b" not in shown, shown
    tally.survived(ROW, 6)
