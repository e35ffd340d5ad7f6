"""Two processes that torchrun starts train on their halves of each batch what one trains on the whole."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from ganrt.errors import DeviceUnavailable, GanrtError, UsageError
from ganrt_training import crew
from ganrt_training.checkpoint import load_checkpoint, load_snapshot
from ganrt_training.loop import train
from ganrt_training.losses import LOSSES, Loss
from tests.training.tiny import QUICK_SNAPSHOT, quick_data, quick_recipe

REPOSITORY = Path(__file__).parents[2]
# No batch norm, whose statistics are of a process's own share.
PAIRED = ("r3gan_28", "blocks=1", "lr_generator=0.002", "lr_discriminator=0.002")


def ticks(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


# What each of the processes does -------------------------------------------------------------------------------------


def work(folder: Path) -> None:
    recipe, data, rank = quick_recipe(*PAIRED), quick_data(), int(os.environ["RANK"])
    train(recipe, data, folder / "whole")
    train(recipe, data, folder / "stopped", minutes=0)
    train(recipe, data, folder / "stopped")
    train(recipe, data, folder / "begun alone")

    clock: Callable[[], float] = count(0, 1000).__next__ if rank else time.monotonic
    train(recipe, data, folder / "late", minutes=10, clock=clock)

    refusals: dict[str, str] = {}

    def refused(name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except GanrtError as error:
            refusals[name] = str(error)

    refused("device", lambda: train(recipe, data, folder / "none", device="cuda:0"))
    refused("batch", lambda: train(quick_recipe(*PAIRED, "batch_size=9"), data, folder / "none"))
    refused("seed", lambda: train(recipe, data, folder / "whole", seed=1))
    paired = LOSSES["relativistic"]
    LOSSES["relativistic"] = Loss(lambda r, f: paired.discriminator(r, f) / (1 - rank), paired.generator, True, False)
    refused("infinite", lambda: train(recipe, data, folder / "infinite"))
    (folder / f"{rank}.json").write_text(json.dumps(refusals))


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]))
    os._exit(0)  # PyTorch's own threads abort one process in some eight when it ends, after all is done


# What came of it -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes worked, and one before them."""
    folder = tmp_path_factory.mktemp("crew")
    train(quick_recipe(*PAIRED), quick_data(), folder / "one")
    train(quick_recipe(*PAIRED), quick_data(), folder / "begun alone", minutes=0)
    python_path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "training")])
    command = "-m torch.distributed.run --standalone --nproc-per-node 2 -m tests.training.test_crew"
    done = subprocess.run(
        [sys.executable, *command.split(), str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def difference(run: Path, other: Path) -> float:
    """The largest of any two weights of the averaged generators."""
    mine, theirs = (load_snapshot(folder / QUICK_SNAPSHOT)[0] for folder in (run, other))
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def test_two_processes_end_with_the_weights_of_one(worked: Path) -> None:
    first = load_snapshot(worked / "one" / "best.safetensors")[0]
    assert first.keys() == load_snapshot(worked / "whole" / QUICK_SNAPSHOT)[0].keys()
    assert difference(worked / "whole", worked / "one") < 2e-5
    for mine, theirs in zip(ticks(worked / "whole"), ticks(worked / "one"), strict=True):
        for figure in ("discriminator_loss", "generator_loss", "r1", "r2", "fake_accuracy", "quality"):
            assert mine[figure] == pytest.approx(theirs[figure], rel=1e-3, abs=1e-4), figure


def test_the_files_are_those_of_one_process(worked: Path) -> None:
    for run in ("whole", "stopped", "begun alone"):
        assert {p.name for p in (worked / run).iterdir()} == {p.name for p in (worked / "one").iterdir()}
        assert [tick["step"] for tick in ticks(worked / run)] == [2, 4, 6, 8]
    assert (worked / "whole" / "recipe.json").read_bytes() == (worked / "one" / "recipe.json").read_bytes()


def test_two_processes_that_were_stopped_end_as_two_that_were_not(worked: Path) -> None:
    for name in (QUICK_SNAPSHOT, "best.safetensors"):
        assert (worked / "stopped" / name).read_bytes() == (worked / "whole" / name).read_bytes()


def test_two_processes_go_on_with_what_one_began_and_one_with_what_two_began(worked: Path) -> None:
    assert difference(worked / "begun alone", worked / "one") < 2e-5
    assert load_checkpoint(worked / "late" / "checkpoint.pt")["step"] == 2
    train(quick_recipe(*PAIRED), quick_data(), worked / "late")
    assert difference(worked / "late", worked / "one") < 2e-5


def test_all_processes_refuse_the_same(worked: Path) -> None:
    for rank in (0, 1):
        refusals = json.loads((worked / f"{rank}.json").read_text())
        assert refusals["device"] == (
            "device cuda:0 for several processes\nSay --device cuda: each process takes its own GPU."
        )
        assert refusals["batch"] == "a batch of 9 for 2 processes in 1 parts each\nSet a batch_size that they divide."
        assert "holds another run: it differs in seed" in refusals["seed"]
    assert not (worked / "none").exists()


def test_a_loss_that_is_not_finite_in_one_process_stops_all(worked: Path) -> None:
    for rank in (0, 1):
        assert "a loss is no longer finite" in json.loads((worked / f"{rank}.json").read_text())["infinite"]
    assert {path.name for path in (worked / "infinite").iterdir()} == {"recipe.json"}


# A process alone -----------------------------------------------------------------------------------------------------


def test_a_process_alone_is_the_whole_crew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = crew.join("cpu")
    assert (alone.rank, alone.size, alone.device) == (0, 1, torch.device("cpu"))
    values = torch.tensor([1.0, math.inf])
    assert torch.equal(alone.mean(values), values)
    layer = torch.nn.Linear(1, 1)
    layer.weight.grad = torch.ones(1, 1)
    alone.share_gradients(layer)
    assert layer.weight.grad.item() == 1
    alone.wait()


def test_a_gpu_of_ones_own_is_refused_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="^device cuda:0 for several processes\nSay --device cuda: each process takes"):
        crew.join("cuda:0")


def test_devices_that_are_not_there_are_told_and_auto_takes_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert crew.join("auto").device == torch.device("cpu")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(DeviceUnavailable, match=f"device {device}: PyTorch sees 0 GPUs\nUse --device cpu"):
            crew.join(device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert crew.join("auto").device == torch.device("cuda", 0)
    assert crew.join("cuda:1").device == torch.device("cuda", 1)
    with pytest.raises(DeviceUnavailable, match="device cuda:2: PyTorch sees 2 GPUs"):
        crew.join("cuda:2")
