"""A run whose quality is the Fréchet distance of what a network sees: figures, choice, resume, report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ganrt.errors import TrainingError, UnknownModel, UsageError
from ganrt_training.checkpoint import load_generator
from ganrt_training.evaluation.features import FeatureNetwork
from ganrt_training.loop import train
from ganrt_training.metrics import frechet_distance
from ganrt_training.run_folder import to_pixels
from tests.datasets import ROOT, environment
from tests.training.tiny import QUICK_SNAPSHOT, quick_data, quick_recipe


def network(name: str = "rows", of: int = 1) -> FeatureNetwork:
    """Sees how bright each row or column is."""

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        return images.mean(axis=(1 + of, 3), dtype=np.float32), None

    return FeatureNetwork(name, run, channels=1, about={"digest": f"of {name}"})


def ticks(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        quick_recipe("cgan_projection_28"), quick_data(), tmp_path_factory.mktemp("run") / "run", features=network()
    )


def test_the_quality_is_the_frechet_distance_and_the_best_snapshot_goes_by_it(run: Path) -> None:
    data, told = quick_data(), ticks(run)
    trained = load_generator(run / QUICK_SNAPSHOT)
    z = torch.randn(len(data), trained.recipe.z_dim, generator=torch.Generator().manual_seed(2))
    order = np.sort(np.random.Generator(np.random.Philox(key=0)).permutation(len(data)))
    with torch.no_grad():
        fakes = trained.generator(z, torch.from_numpy(data.labels[order])).clamp(-1, 1)
    rows = [images.mean(axis=(2, 3)) for images in (data.images[order], to_pixels(fakes))]
    assert told[-1]["quality"] == pytest.approx(frechet_distance(*rows), rel=1e-3)
    best = min(told, key=lambda tick: float(tick["quality"]))
    assert load_generator(run / "best.safetensors").kimg == pytest.approx(best["kimg"])
    about = json.loads((run / "recipe.json").read_text())["features"]
    assert (about["name"], about["distance"], about["images"], about["digest"]) == ("rows", "Fréchet", 40, "of rows")


def test_a_run_stopped_at_every_tick_ends_as_an_uninterrupted_one(run: Path, tmp_path: Path) -> None:
    recipe = quick_recipe("cgan_projection_28")
    for _ in range(4):
        train(recipe, quick_data(), tmp_path / "run", features=network(), minutes=0)
    for name in ("best.safetensors", QUICK_SNAPSHOT, "recipe.json"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes(), name
    timed = ("seconds", "images_per_second")
    mine, theirs = ([{k: v for k, v in t.items() if k not in timed} for t in ticks(d)] for d in (tmp_path / "run", run))
    assert mine == theirs


@pytest.mark.parametrize("other", [None, network("columns", 2)])
def test_a_run_goes_on_with_the_same_network_only(run: Path, other: FeatureNetwork | None) -> None:
    with pytest.raises(TrainingError, match="holds another run: it differs in features"):
        train(quick_recipe("cgan_projection_28"), quick_data(), run, features=other)


def test_the_report_says_which_distance_it_is(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Fréchet distance between what the averaged generator makes and real images" in page
    assert "the network rows" in page
    assert "sliced Wasserstein" not in page


def test_a_network_that_is_none_and_a_recipe_without_such_a_distance_are_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no feature network named 'nothing'"):
        train(quick_recipe("cgan_projection_28"), quick_data(), tmp_path / "a", features="nothing")
    with pytest.raises(UsageError, match="features do not apply to recipe cyclegan"):
        train(quick_recipe("cyclegan_64"), quick_data(), tmp_path / "b", features=network())
    assert not list(tmp_path.iterdir())


def test_it_takes_nothing_of_the_extra_evaluate() -> None:
    code = (
        "import sys; sys.modules |= {'sklearn': None, 'torchmetrics': None}; import ganrt_training.evaluation.networks"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "training")])
    child = subprocess.run([sys.executable, "-c", code], env=environment() | {"PYTHONPATH": path}, capture_output=True)
    assert child.returncode == 0, child.stderr
