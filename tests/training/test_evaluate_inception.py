"""Inception-v3 from a state dict: which of the two networks it is, what fits, and what it is fed."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from ganrt.errors import GanrtError, TrainingError, UsageError
from ganrt_training.evaluation.inception import Inception, load_inception, to_input
from ganrt_training.evaluation.networks import open_network
from tests.training.seeing import pictures

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of torchvision's network, with random numbers and statistics."""
    torch.manual_seed(0)
    network = Inception(1000, fid=False)
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            value.normal_(0, 0.1)
    auxiliary = {"AuxLogits.conv0.conv.weight": torch.zeros(128, 768, 1, 1), "AuxLogits.fc.bias": torch.zeros(1000)}
    return state | auxiliary


@pytest.fixture(scope="module")
def torchvisions(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception_v3_google-0cc3c7bd.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def pytorch_fids(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same but for the last layer, without the auxiliary classifier and counters of batches, as safetensors."""
    last = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.arange(1008.0)}
    kept = {k: v for k, v in weights.items() if not k.startswith("AuxLogits") and "num_batches" not in k}
    path = tmp_path_factory.mktemp("weights") / "pt_inception-2015-12-05-6726825d.safetensors"
    safetensors.torch.save_file(kept | last, path)
    return path


def test_the_network_has_the_layers_of_the_public_state_dicts(weights: Weights) -> None:
    """torchvision tells of 27,161,264 parameters, of which the auxiliary classifier has 3,326,696."""
    parameters = {name: value for name, value in weights.items() if "running" not in name and "num_b" not in name}
    own = {name: value for name, value in parameters.items() if not name.startswith("AuxLogits")}
    assert sum(value.numel() for value in own.values()) == 27_161_264 - 3_326_696
    assert len(own) == 3 * 94 + 2  # convolutions and their batch norms, the last layer
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": [32, 3, 3, 3],
        "Conv2d_4a_3x3.bn.running_mean": [192],
        "Mixed_5b.branch_pool.conv.weight": [32, 192, 1, 1],
        "Mixed_5d.branch5x5_2.conv.weight": [64, 48, 5, 5],
        "Mixed_6a.branch3x3dbl_3.bn.weight": [96],
        "Mixed_6b.branch7x7_2.conv.weight": [128, 128, 1, 7],
        "Mixed_6e.branch7x7dbl_4.conv.weight": [192, 192, 7, 1],
        "Mixed_7a.branch7x7x3_4.conv.weight": [192, 192, 3, 3],
        "Mixed_7c.branch3x3dbl_3a.conv.weight": [384, 384, 1, 3],
        "Mixed_7c.branch3x3_2b.conv.weight": [384, 384, 3, 1],
        "Mixed_7c.branch_pool.conv.weight": [192, 2048, 1, 1],
        "fc.weight": [1000, 2048],
    }.items():
        assert list(weights[name].shape) == shape, name


def test_both_kinds_of_weights_are_told_apart_and_pool_differently(torchvisions: Path, pytorch_fids: Path) -> None:
    images = pictures(3, 40, 30)
    seen, about = {}, {}
    for path in (torchvisions, pytorch_fids):
        network = open_network("inception-v3", weights=path, device="cpu", threads=1)
        seen[path], about[path] = network.see(images), network.about
        assert (network.name, network.class_names, about[path]["dim"]) == ("inception-v3", (), 2048)
        assert len(about[path]["sha256"]) == 64
    first, second = seen.values()
    assert first.features.shape == second.features.shape == (3, 2048)
    assert first.logits is not None and second.logits is not None
    assert (first.logits.shape, second.logits.shape) == ((3, 1000), (3, 1008))
    assert np.array_equal(second.logits, np.tile(np.arange(1008, dtype=np.float32), (3, 1)))
    assert not np.allclose(first.features, second.features, rtol=0.01)
    assert about[torchvisions]["weights"].startswith("torchvision") and "FID" in about[pytorch_fids]["weights"]
    assert "not antialiased" in about[pytorch_fids]["resize"]
    assert ", antialiased" in about[torchvisions]["resize"]


def test_pooling_of_the_published_fid_leaves_out_the_padding() -> None:
    """And takes the maximum in the last block, where the other networks take the mean."""
    theirs, fids = Inception(1, fid=False), Inception(1, fid=True)
    blocks = ("Mixed_5b", "Mixed_6e", "Mixed_7b", "Mixed_7c")
    for network, corner in ((theirs, 4 / 9), (fids, 1)):
        for block in blocks:
            pooled = getattr(network, block).pool(torch.ones(1, 1, 4, 4))
            assert pooled[0, 0, 0, 0].item() == pytest.approx(corner), block
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert (fids.Mixed_7b.pool(ramp)[0, 0, 1, 1].item(), fids.Mixed_7c.pool(ramp)[0, 0, 1, 1].item()) == (5, 10)


def test_images_are_fed_as_pytorch_fid_does() -> None:
    images = torch.from_numpy(pictures(2, 20, 30))
    floats = images.permute(0, 3, 1, 2) / 255
    wanted = 2 * F.interpolate(floats, (299, 299), mode="bilinear", align_corners=False) - 1
    assert torch.equal(to_input(images, antialias=False), wanted)
    large = torch.from_numpy(pictures(1, 600, 600))
    assert not torch.allclose(to_input(large, antialias=True), to_input(large, antialias=False), atol=0.1)
    black = to_input(torch.zeros(1, 299, 299, 3, dtype=torch.uint8), antialias=True)
    assert (black.min().item(), black.max().item()) == (-1, -1)


def test_grey_images_are_seen_as_grey_pictures(torchvisions: Path) -> None:
    network = open_network("inception-v3", weights=torchvisions, device="cpu", threads=1)
    grey = pictures(1, channels=1)
    before = torch.get_num_threads()
    assert np.array_equal(network.see(grey).features, network.see(np.repeat(grey, 3, axis=3)).features)
    assert torch.get_num_threads() == before


def hollow(weights: Weights) -> Weights:
    """The same shapes, of one number each, so that files are small."""
    return {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in weights.items()}


def changed(**changes: Any) -> Any:
    return lambda weights: hollow({name: value for name, value in (weights | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(**{"fc.weight": torch.zeros(10, 2048)}), "fc.weight, has 10 rows, neither 1000 nor 1008"),
        (changed(**{"fc.weight": None}), "the last layer, fc.weight, is not there"),
        (
            changed(**{"Mixed_6c.branch1x1.bn.bias": None}),
            "do not fit Inception-v3: missing: Mixed_6c.branch1x1.bn.bias",
        ),
        (changed(**{"extra.weight": torch.zeros(2)}), "unexpected: extra.weight"),
        (
            changed(**{"Mixed_5b.branch1x1.conv.weight": torch.zeros(64, 192, 3, 3)}),
            r"of another shape: Mixed_5b.branch1x1.conv.weight \[64, 192, 3, 3\], not \[64, 192, 1, 1\]",
        ),
        (changed(**{"Conv2d_1a_3x3.conv.weight": None}), "holds no weights of Inception-v3"),
    ],
)
def test_weights_that_are_not_inceptions_are_refused(
    change: Any, message: str, weights: Weights, tmp_path: Path
) -> None:
    torch.save(change(weights), tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=message):
        load_inception(tmp_path / "w.pth")


def test_what_a_wrapper_or_a_checkpoint_puts_around_the_weights_is_taken_off(weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{k}": v for k, v in hollow(weights).items()}, "epoch": 3}, tmp_path / "w.pth")
    assert load_inception(tmp_path / "w.pth").fc.out_features == 1000


def test_nothing_in_a_file_of_weights_is_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return shutil.rmtree, (str(tmp_path),)

    torch.save({"Conv2d_1a_3x3.conv.weight": Hostile()}, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match="holds Python objects besides weights"):
        open_network("inception-v3", weights=tmp_path / "w.pth", device="cpu")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(TrainingError):
        open_network("inception-v3", weights=tmp_path / "old.pth", device="cpu")
    assert (tmp_path / "w.pth").exists()


def test_weights_must_be_named_and_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"needs its weights\nName their file \(--weights FILE\): torchvision's"
    ) as error:
        open_network("inception-v3")
    with pytest.raises(UsageError, match="options do not apply to inception-v3"):
        open_network("inception-v3:range=0,1", weights=tmp_path)
    assert error.value.exit_code == 2
    with pytest.raises(GanrtError, match=r"gone.pth: cannot be read: No such file"):
        open_network("inception-v3", weights=tmp_path / "gone.pth", device="cpu")
    with pytest.raises(TrainingError, match="is no file"):
        open_network("inception-v3", weights=tmp_path, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(torchvisions: Path) -> None:
    with pytest.raises(GanrtError, match="device cuda:0: PyTorch .* sees 0 GPUs"):
        open_network("inception-v3", weights=torchvisions, device="cuda")
