"""README.md keeps its word: its commands parse, its Python runs, its tables hold what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ganrt import cli, errors

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
LINES = [
    line.partition("  #")[0].strip()
    for language, block in BLOCKS
    if language in ("", "sh", "bash")
    for line in block.splitlines()
]


def options(command: str) -> set[str]:
    """The long options of a command."""
    return {name for param in COMMANDS[command].params for name in param.opts if name.startswith("--")}


def section(title: str) -> str:
    """What stands below a heading, up to the next."""
    return re.split(r"^#+ ", TEXT.split(f"# {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("ganrt ")])
def test_a_command_of_a_code_block_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    COMMANDS[name].make_context(name, arguments)


def test_commands_in_the_text_and_their_options_exist() -> None:
    found = re.findall(r"`ganrt ([a-z-]+)([^`]*)`", TEXT)
    assert {name for name, _ in found} >= set(COMMANDS)
    for name, rest in found:
        assert set(re.findall(r"--[a-z][a-z0-9-]*", rest)) <= options(name), f"ganrt {name}{rest}"


def test_the_first_commands_are_the_makefiles_demo_and_test() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line for line in LINES if line][:2] == ["make demo", "make test"]
    assert {"demo", "test"} <= set(targets)


@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python"])
def test_python_of_a_code_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANRT_MODELS", raising=False)
    exec(compile(code, "README.md", "exec"), {})


def test_the_table_of_options_lists_every_option_of_generate() -> None:
    listed = re.findall(r"^\| (.+?) \|", section("Options of `ganrt generate`"), re.MULTILINE)
    assert {name for cell in listed for name in re.findall(r"--[a-z][a-z0-9-]*", cell)} == options("generate") - {
        "--help"
    }


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", section("Exit codes"), re.MULTILINE)
    listed = {int(code) for row in rows for code in row.split(",")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GanrtError)]
    assert listed == {kind.exit_code for kind in kinds} | {0, 143}
    assert listed == {int(code) for code in re.findall(r"\d+", str(cli.app.info.epilog))}


def test_every_shipped_generator_is_in_the_table() -> None:
    shipped = {path.stem for path in ROOT.glob("exported/*.onnx")}
    listed = re.findall(r"^\| `?([\w.-]+)`? \|", section("Generators"), re.MULTILINE)
    assert shipped and shipped <= set(listed)


def test_what_is_linked_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXT):
        assert (ROOT / target).exists(), target
