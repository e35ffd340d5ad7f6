"""One thread for PyTorch: tests are small, run beside others, and compare weights bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ganrt_training.loop import train
from tests.training.tiny import tiny_data, tiny_recipe

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that nobody interrupted. Not to be changed."""
    return train(tiny_recipe(), tiny_data(), tmp_path_factory.mktemp("finished") / "run")
