"""What the guides say of the code is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ganrt import cli
from ganrt_training.gans import RECIPES, find_recipe

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUOTED = re.findall(
    r"\]\((\.\./training/[^)#]+)#L(\d+)\) `([^`]+)`", (DOCS / "nine-steps.md").read_text(encoding="utf-8")
)


def test_the_nine_steps_are_nine() -> None:
    steps = re.findall(r"^\| (\d)\. ", (DOCS / "nine-steps.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert steps == list("123456789")
    assert len(QUOTED) >= 9


@pytest.mark.parametrize(("path", "number", "code"), QUOTED, ids=[code[:40] for _, _, code in QUOTED])
def test_a_quoted_line_of_the_nine_steps_is_where_the_link_leads(path: str, number: str, code: str) -> None:
    lines = (DOCS / path).resolve().read_text(encoding="utf-8").splitlines()
    assert [str(at) for at, line in enumerate(lines, 1) if code in line] == [number]


def test_the_guide_names_every_recipe_and_every_common_setting() -> None:
    guide = (DOCS / "training.md").read_text(encoding="utf-8")
    for name in RECIPES:
        family = name.rsplit("_", 1)[0]
        assert name in guide or (f"`{family}" in guide and f"_{name.rsplit('_', 1)[1]}`" in guide), name
    common = set(find_recipe("dcgan_28").settings()) - {"name", "z_dim"}
    assert {setting for setting in common if not re.search(rf"\b{setting}\b", guide)} == set()


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_commands_of_the_guide_to_exploring_parse() -> None:
    commands: Any = typer.main.get_command(cli.app)
    guide = (DOCS / "exploring.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0].strip() for kind, text in blocks if not kind for line in text.splitlines()]
    assert len(lines) >= 7
    for line in lines:
        _, name, *arguments = shlex.split(line)
        commands.commands[name].make_context(name, arguments)


def test_every_guarantee_names_tests_that_there_are() -> None:
    page = (DOCS / "reliability.md").read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\| (.+) \|$", page, re.MULTILINE) if not row.startswith(("guarantee", "---"))]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"^def {name}\(", (DOCS.parent / path).read_text(encoding="utf-8"), re.MULTILINE), name
