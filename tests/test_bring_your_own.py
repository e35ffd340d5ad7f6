"""The examples of docs/bring-your-own.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import ganrt

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
EXAMPLES = {
    title: section
    for title, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if "```sh\n" in section
}


def test_there_is_an_example_of_each_source() -> None:
    assert list(EXAMPLES) == ["From PyTorch", "From Keras", "From ONNX"]


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs_as_it_stands(title: str, tmp_path: Path) -> None:
    for name, code in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", EXAMPLES[title], re.DOTALL):
        (tmp_path / name).write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "training")))}
    datasets = []
    for block in re.findall(r"```sh\n(.*?)```", EXAMPLES[title], re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line)
            command = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
            ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
            assert ended.returncode == 0, ended.stderr
            if words[:2] == ["ganrt", "generate"]:
                datasets.append(tmp_path / words[words.index("--out") + 1])
                generator = ganrt.load(str(tmp_path / words[words.index("--model") + 1]))
                files = sorted(datasets[-1].glob("*.png"))
                assert len(files) == 200
                with Image.open(files[7]) as image:
                    assert image.size == (generator.card.width, generator.card.height)
                    assert image.tobytes() == generator.sample(1, start=7)[0].tobytes()
    assert datasets
