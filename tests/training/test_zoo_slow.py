"""Every recipe, the whole way: trained, killed, resumed, exported, put to use. ``make test-slow`` runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ganrt
from ganrt_training.gans import RECIPES
from tests.training.zoo import smallest

ROOT = Path(__file__).parents[2]
TICKS = ("total_kimg=0.064", "tick_kimg=0.016", "snapshot_kimg=0.064")  # eight steps, four ticks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of two classes by the side of their images."""
    random = np.random.default_rng(0)
    folders = {}
    for side, channels in ((28, 1), (32, 1), (64, 3)):
        folders[side] = tmp_path_factory.mktemp(f"images{side}")
        for label, name in enumerate(("dark", "light")):
            (folders[side] / name).mkdir()
            for i in range(16):
                pixels = random.integers(100 * label, 100 * label + 100, (side, side, channels), np.uint8)
                Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(folders[side] / name / f"{i}.png")
    return folders


def ganrt_command(*arguments: str | Path, kill: bool = False) -> None:
    """Runs a command to its end, or until it has told of its first tick."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "training")])
    code = "import torch; torch.set_num_threads(1); from ganrt.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        if kill:
            told = child.stderr.readline()
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert (child.returncode, "0.0/" in told) == (-signal.SIGKILL, True), told
            return
        _, said = child.communicate()
    assert child.returncode == 0, said


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_all_the_way(name: str, images: dict[int, Path], tmp_path: Path) -> None:
    recipe = smallest(name)
    settings = recipe.settings()
    default = RECIPES[name]().settings()
    changed = [f"{k}={v}" for k, v in settings.items() if v != default[k]]
    data = images[recipe.image_size]
    train: tuple[str | Path, ...] = ("train", name, *changed, *TICKS, "--data", data, "--device", "cpu", "--run-dir")
    ganrt_command(*train, tmp_path / "whole")
    ganrt_command(*train, tmp_path / "killed", kill=True)
    ganrt_command(*train, tmp_path / "killed")
    for file in ("snapshot-000000.safetensors", "best.safetensors"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file

    ganrt_command("export", tmp_path / "killed", "--out", tmp_path / "x.onnx")
    made = sorted(tmp_path.glob("*.onnx"))
    if recipe.translation is None:
        ganrt_command("generate", "--n", "6", "--model", tmp_path / "x.onnx", "--out", tmp_path / "set")
        assert len(list((tmp_path / "set").rglob("*.png"))) == 6
        return
    assert [path.name for path in made] == (
        ["x.dark-to-light.onnx", "x.light-to-dark.onnx"] if recipe.translation.domains else ["x.onnx"]
    )
    for path in made:
        translator = ganrt.load_translator(path, device="cpu")
        side = recipe.image_size // translator.card.scale
        assert translator(np.zeros((2, side, side, 3), np.uint8)).shape == (2, recipe.image_size, recipe.image_size, 3)
