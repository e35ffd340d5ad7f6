"""What a stranger's card says, wherever it is shown: on terminals, in Markdown, JSON and file names."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datasets import contents, files
from tests.faults.conftest import Tally
from tests.faults.forked import Forks, forks
from tests.models import tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the forks are those of Linux")

ROW = "card text that is code elsewhere"
TEXTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "https://evil.example/?x=1 www.evil.example me@evil.example",
    "`$(touch owned)`; touch owned; ' \" && touch owned",
    "| a | b |",
    "```",
    "**bold** _it_ ~~no~~ $x$ &lt; #1 \\",
    "{{ x }} {% raw %} ${x} %s %n",
    "--- # yaml: [1",
)
FEW = [text if k == 4 else pytest.param(text, marks=pytest.mark.faults) for k, text in enumerate(TEXTS)]
CLASSES = ("..", "../up", "/etc/passwd", "CON", "-rf", ".hidden", "README.md", "a|b", "<b>", "`x`", "x" * 200)


@pytest.fixture(scope="module")
def forked() -> Iterator[Forks]:
    """What runs the command line."""
    with forks() as running:
        yield running


def model(folder: Path, text: str, class_names: tuple[str, ...] = ()) -> Path:
    """A generator that says a text wherever it can."""
    said = dict.fromkeys(("description", "data", "data_licence", "licence", "recipe"), text)
    path = folder / "stranger.onnx"
    names = class_names or (text, "b", "c")
    path.write_bytes(tiny_model(name=text, class_names=names, card_changes={**said, "quality": {"fid": text}}))
    return path


@pytest.mark.parametrize("text", FEW)
def test_text_of_a_card_is_text_wherever_it_is_shown(text: str, forked: Forks, tmp_path: Path, tally: Tally) -> None:
    path, out = model(tmp_path, text), tmp_path / "out"
    made = forked.ganrt(
        "generate", "--model", str(path), "--n", "4", "--out", str(out), "--device", "cpu", cwd=tmp_path
    )
    assert made.code == 0, made.err
    for words in (["inspect", str(path)], ["models", str(tmp_path)], ["explain", str(path), "0", "--device", "cpu"]):
        shown = forked.ganrt(*words, cwd=tmp_path)
        assert shown.code == 0 and all(line.isprintable() for line in shown.out.splitlines())
        told = forked.ganrt(*words, "--json", cwd=tmp_path)
        assert text in json.dumps(json.loads(told.out), ensure_ascii=False).replace('\\"', '"').replace("\\\\", "\\")
    unknown = ["--classes", "none", "--out", "other"]
    refused = forked.ganrt("generate", "--model", str(path), "--n", "4", *unknown, "--device", "cpu", cwd=tmp_path)
    assert refused.code == 2 and all(line.isprintable() for line in refused.err.splitlines())
    manifest = json.loads((out / "ganrt.json").read_text())
    assert text in manifest["parts"][0]["per_class"]
    readme = (out / "README.md").read_text()
    [command] = re.findall(r"^ganrt generate .*$", readme, re.MULTILINE)
    assert shlex.split(command)[shlex.split(command).index("--model") + 1] == text.replace("`", "'")
    prose = re.sub(r"^---\n.*?^---$|^```.*?^```$", "", readme, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)(<|!\[|]\(|\$|://|@|www\.)", prose), prose
    assert len({line.replace("\\|", "").count("|") for line in prose.splitlines() if line.startswith("|")}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"out", "stranger.onnx"}
    tally.survived(ROW)


@pytest.mark.parametrize("text", TEXTS)
def test_a_renderer_of_markdown_finds_nothing_but_text(text: str, tally: Tally) -> None:
    renderer = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    from ganrt.card import Card
    from ganrt.contract import check_model
    from ganrt.planning import make_plan
    from ganrt.readme import readme

    card: Card = check_model(tiny_model(name=text, class_names=(text, "b")), "x")
    page = readme([(make_plan(card, "0" * 64), 4)]).decode()
    page = page[page.index("\n---\n") + 5 :]  # without its head
    html = renderer.render(page)
    plain = renderer.render(
        readme([(make_plan(check_model(tiny_model(class_names=("a", "b")), "x"), "0" * 64), 4)]).decode()
    )
    tags = [set(re.findall(r"<(\w+)", found)) for found in (html, plain)]
    assert tags[0] <= tags[1], tags[0] - tags[1]
    tally.survived(ROW)


@pytest.mark.parametrize("layout", ["folder", "webdataset"])
def test_class_names_lead_nowhere_else(layout: str, forked: Forks, tmp_path: Path, tally: Tally) -> None:
    path, out = model(tmp_path, "tiny", CLASSES), tmp_path / "deep" / "out"
    out.parent.mkdir()
    words = ["--n", "22", "--out", str(out), "--layout", layout, "--device", "cpu"]
    made = forked.ganrt("generate", "--model", str(path), *words, cwd=tmp_path)
    assert made.code == 0, made.err
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "stranger.onnx"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert len([name for name in contents(out) if name.endswith(".png")]) == (22 if layout == "folder" else 0)
    assert forked.ganrt("verify", str(out), "--quiet", cwd=tmp_path).code == 0
    assert all(not path.name.startswith((".", "-rf.")) for path in files(out))
    tally.survived(ROW, len(CLASSES))


def test_names_of_files_and_of_nodes_reach_no_terminal_as_they_are(forked: Forks, tmp_path: Path, tally: Tally) -> None:
    """Also what ONNX Runtime quotes of a graph, and names that are no UTF-8."""
    import onnx

    from tests.models import tiny_proto

    evil = "\x1b[2J\x1b]0;owned\x07\u202e"
    good = tmp_path / f"{evil}.onnx"
    good.write_bytes(tiny_model())
    bad = tmp_path / "bad.onnx"
    graph: onnx.ModelProto = tiny_proto(table_rows=1)
    for node in graph.graph.node:
        node.name = evil + node.op_type
    bad.write_bytes(graph.SerializeToString())
    latin = Path(f"{tmp_path}/caf\udce9.onnx")
    latin.write_bytes(tiny_model())
    for words in (
        ["inspect", str(good)],
        ["inspect", str(latin)],
        ["models", str(tmp_path)],
        ["generate", "--model", str(bad), "--n", "4", "--out", "out", "--device", "cpu"],
        ["generate", "--model", str(good) + "x", "--n", "4", "--out", "out", "--device", "cpu"],
    ):
        ended = forked.ganrt(*words, cwd=tmp_path)
        lines = (ended.out + ended.err).splitlines()
        assert lines and ended.code in (0, 1, 2), ended
        odd = [line for line in lines if not line.isprintable()]
        tally.lost(ROW, f"{words[0]}: {odd}") if odd else tally.survived(ROW)
