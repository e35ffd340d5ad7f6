"""The command line with every option and every argument given values that it can take and values that it cannot.

The command works, or ends with an exit code that has a meaning and a message that shows what was given. No traceback.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import random
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganrt import cli
from ganrt.console import shown
from tests.faults.conftest import Tally
from tests.faults.runs import furnish
from tests.test_cli import OPTIONS

QUICK = settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ROW = "command line: any value for any option or argument"
PARSER = typer.main.get_command(cli.app)  # built once: that takes longer than most commands
_numbers = itertools.count()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with generators, images, a dataset, and what is no path to any of them."""
    here = tmp_path_factory.mktemp("arguments")
    furnish(here)
    (here / "file").touch()
    (here / "nowhere").symlink_to(here / "not there")
    os.mkfifo(here / "fifo")
    before = Path.cwd()
    os.chdir(here)
    with patch.dict(os.environ, {"GANRT_MODELS": str(here / "models")}):
        yield here
    os.chdir(before)
    logging.getLogger("ganrt").handlers.clear()


def run(words: list[str]) -> tuple[int, str]:
    """A command in this process, at most a minute long: its exit code, and all that it printed."""
    said = io.StringIO()
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"{words} does not end"))
    signal.alarm(60)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        stack.enter_context(patch.object(sys, "argv", ["ganrt", *words]))
        stack.enter_context(patch.object(cli, "app", PARSER))
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
    signal.alarm(0)
    return int(code), said.getvalue()


# A command that works, in a blink: its options, and its arguments. Where nothing can be done so fast, one that fails.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "generate": ("--n 2 --model tiny --out {}", []),
    "models": ("", []),
    "inspect": ("", ["tiny"]),
    "preview": ("--cols 2 --out p.png", ["tiny"]),
    "translate": ("", ["pix", "photos", "{}"]),
    "upscale": ("", ["up", "photos", "{}"]),
    "verify": ("", ["data"]),
    "merge": ("", ["data"]),
    "bench": ("--seconds 0", ["tiny"]),
    "interpolate": ("--frames 2 --out w.png", ["tiny"]),
    "style-mix": ("--out m.png", ["tiny"]),
    "explain": ("", ["tiny", "1"]),
    "train": ("--data missing --run-dir r", ["dcgan_28"]),
    "export": ("--out e.onnx", ["missing.onnx"]),
}
FAILING = ("bench", "train", "export")
FLAGS = {"--no-mark", "--overwrite", "--quiet", "--json", "--repair", "--loop", "--square", "--dry-run", "--verify"}
WORDS = [
    *("", "-", "--", "-1", "0", "1", "2", "ten", "1e3", "1_000", "1.5", "nan", "inf", "-inf", "1e308", "1e-30"),
    *(str(2**k + d) for k in (31, 48, 63, 64) for d in (-1, 0)),
    *("9" * 5000, "a" * 5000, "a" * 300, "x/" * 3000, "é☃", "\udcff", "\x1b[31m", "a\nb", "b,b", ",", "a,A", "NaN"),
    *("file", "file/x", "nowhere", "fifo", "./fifo", "data", ".", "./file", "photos", "./photos", "/proc/self/mem"),
    *("0/1", "0/0", "5/4", "-1/4", "1/2", "a/b", "0x0", "1x1", "16385", "1x10000", "64x48x3", "cpu", "cuda:99", "gpu"),
    *("a=b", "=", "gpu_mem_limit=-1", "enable_cuda_graph=2", "png", "l", "rgb", "jpeg", "npy", "folder", "webdataset"),
]
PLACES = [
    (name, place)
    for name, (_, arguments) in COMMANDS.items()
    for place in (*(word for word in OPTIONS[name].split()), *range(len(arguments)))
]


def words_of(name: str, place: str | int, value: str) -> list[str]:
    """The command with a value in one place."""
    options, arguments = COMMANDS[name]
    given = options.split() + (["--device", "cpu"] if "--device" in OPTIONS[name].split() else [])
    if isinstance(place, int):
        arguments = [value if k == place else word for k, word in enumerate(arguments)]
    else:
        given.append(place if place in FLAGS else f"{place}={value}")
    fresh = f"out{next(_numbers)}"
    return [name, *(word.replace("{}", fresh) for word in given), "--", *(w.replace("{}", fresh) for w in arguments)]


def long(place: str | int, value: str) -> bool:
    """Whether a value can be meant and is work: then it is no fault, and not tried."""
    most = {"--n": 1000, "--frames": 1000, "--rows": 999, "--cols": 999, "--size": 600, "--batch": 5000}
    most |= {"--processes": 1, "--seconds": 0, "--threads": 64, "--workers": 64, "--multiple": 64}
    with contextlib.suppress(ValueError):
        if most.get(str(place), 2**64) < float(value.lower().partition("x")[0]) < 2**48:
            return True
    # A pipe may well be read, and what is written into it comes.
    return value.endswith("fifo") and place in ("--card", "--quality", "--data")


def tried(tally: Tally, name: str, place: str | int, value: str) -> None:
    """Runs a command with a value in one place, and looks at how it ends."""
    if long(place, value):
        return
    code, said = run(words_of(name, place, value))
    what = f"ganrt {name}, {place} {value[:40]!r}: exit code {code}, {said[-300:]!r}"
    if code not in range(6) or "Traceback" in said or "\x1b" in said:
        tally.lost(ROW, what)
    elif code and not re.search("^(ganrt|Error): ", said, re.MULTILINE):
        tally.lost(ROW, f"no message: {what}")
    elif code == 2 and not shows(said, value) and place not in FLAGS and name not in FAILING:
        tally.lost(ROW, f"the value is not shown: {what}")
    else:
        tally.survived(ROW)


def shows(said: str, value: str) -> bool:
    """Whether a message shows a value, or that part of it that is wrong, or says that it was not to be given at all."""
    forms = [value, *re.split("[,/x=]", value), value.replace("_", "")]
    number = "[-+]?([0-9]+[.]?[0-9]*(e[-+]?[0-9]+)?|inf|nan)"
    forms += [f"{float(form)}" for form in forms if re.fullmatch(number, form.lower())]
    seen = [part[:20] for form in forms if form.strip() for part in (form, shown(form), ascii(form)[1:-1])]
    return any(part in said for part in [*seen, "not apply", "no class is named"] + ["''"] * (not value.strip(" ,")))


@QUICK
@given(where=st.sampled_from(PLACES), value=st.sampled_from(WORDS))
def test_a_few_values_work_or_are_refused(place: Path, tally: Tally, where: tuple[str, str | int], value: str) -> None:
    """A hundred of all."""
    tried(tally, *where, value)


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_all_values_work_or_are_refused(place: Path, tally: Tally, name: str) -> None:
    """Every listed value in every place, and some texts and numbers that chance picks."""
    chance = random.Random(name)
    letters = [chr(code) for code in (*range(40, 92), *range(93, 127), 0xE9, 0x2603)]
    for _, where in (p for p in PLACES if p[0] == name):
        drawn = ["".join(chance.choices(letters, k=chance.randrange(1, 30))) for _ in range(4)]
        drawn += [str(chance.uniform(-2, 2)), str(chance.randrange(-(2**70), 2**70)), str(chance.randrange(5))]
        for value in WORDS[:1] if where in FLAGS else [*WORDS, *drawn]:
            tried(tally, name, where, value)
