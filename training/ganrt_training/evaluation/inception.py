"""Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567) with weights that the user has: its 2048 features, its logits.

Two kinds of weights are told apart by the rows of their last layer:

- 1000: torchvision's ``inception_v3_google-*.pth``, trained on ImageNet. Average pooling counts the padding's zeros.
- 1008: pytorch-fid's ``pt_inception-2015-12-05-*.pth``, the network of TensorFlow of 2015 that published Fréchet
  distances (FID) are measured with: average pooling does not count the padding, and the last block pools by maximum.

Layers bear the names of both files' state dicts. What only training needs (the auxiliary classifier, dropout) is not
there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrt.errors import DeviceUnavailable, TrainingError
from ganrt.providers import cpu_count, parse_device
from ganrt_training.evaluation.features import FeatureNetwork, Floats, Pixels
from ganrt_training.torch_weights import fit_weights, read_state_dicts

NAME = "inception-v3"
SIDE = 299
_FIRST, _LAST = "Conv2d_1a_3x3.conv.weight", "fc.weight"
TORCHVISION, PYTORCH_FID = 1000, 1008  # rows of the last layer
_AUXILIARY = "AuxLogits."  # a second classifier, for training
_KNOWN = (
    "Known are torchvision's inception_v3_google-*.pth and pytorch-fid's pt_inception-2015-12-05-*.pth, or the same "
    "weights as .safetensors."
)


Size = int | tuple[int, int]
Chain = list[str | tuple[str, str]]  # of layers


class _Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: Size, stride: int = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _across(before: int, after: int, length: int) -> _Conv:
    """1 x length, of the same size."""
    return _Conv(before, after, (1, length), padding=(0, length // 2))


def _down(before: int, after: int, length: int) -> _Conv:
    """length x 1, of the same size."""
    return _Conv(before, after, (length, 1), padding=(length // 2, 0))


class _Mean(nn.Module):
    """3x3 average pooling of the same size."""

    def __init__(self, padding_counts: bool) -> None:
        super().__init__()
        self.padding_counts = padding_counts

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=self.padding_counts)


class _Block(nn.Module):
    """Branches side by side: the output of each chain of layers, concatenated.

    A chain is a list of names of layers; where its last entry is a pair of names, both continue it. ``pool`` is what an
    entry ``"pool"`` means.
    """

    def __init__(self, layers: dict[str, _Conv], branches: list[Chain], pool: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.branches = branches
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        made: list[Tensor] = []
        for branch in self.branches:
            y = x
            for step in branch:
                if isinstance(step, tuple):
                    y = torch.cat([getattr(self, name)(y) for name in step], 1)
                else:
                    y = getattr(self, step)(y)
            made.append(y)
        return torch.cat(made, 1)


def _block_a(before: int, pooled: int, pool: nn.Module) -> _Block:
    """Figure 5 of the paper."""
    layers = {
        "branch1x1": _Conv(before, 64, 1),
        "branch5x5_1": _Conv(before, 48, 1),
        "branch5x5_2": _Conv(48, 64, 5, padding=2),
        "branch3x3dbl_1": _Conv(before, 64, 1),
        "branch3x3dbl_2": _Conv(64, 96, 3, padding=1),
        "branch3x3dbl_3": _Conv(96, 96, 3, padding=1),
        "branch_pool": _Conv(before, pooled, 1),
    }
    return _Block(layers, _chains("branch1x1", "branch5x5_1 _2", "branch3x3dbl_1 _2 _3", "pool branch_pool"), pool)


def _block_b(before: int) -> _Block:
    """Figure 10, to half the size."""
    layers = {
        "branch3x3": _Conv(before, 384, 3, stride=2),
        "branch3x3dbl_1": _Conv(before, 64, 1),
        "branch3x3dbl_2": _Conv(64, 96, 3, padding=1),
        "branch3x3dbl_3": _Conv(96, 96, 3, stride=2),
    }
    return _Block(layers, _chains("branch3x3", "branch3x3dbl_1 _2 _3", "pool"), nn.MaxPool2d(3, 2))


def _block_c(before: int, inner: int, pool: nn.Module) -> _Block:
    """Figure 6, with n = 7."""
    layers = {
        "branch1x1": _Conv(before, 192, 1),
        "branch7x7_1": _Conv(before, inner, 1),
        "branch7x7_2": _across(inner, inner, 7),
        "branch7x7_3": _down(inner, 192, 7),
        "branch7x7dbl_1": _Conv(before, inner, 1),
        "branch7x7dbl_2": _down(inner, inner, 7),
        "branch7x7dbl_3": _across(inner, inner, 7),
        "branch7x7dbl_4": _down(inner, inner, 7),
        "branch7x7dbl_5": _across(inner, 192, 7),
        "branch_pool": _Conv(before, 192, 1),
    }
    chains = _chains("branch1x1", "branch7x7_1 _2 _3", "branch7x7dbl_1 _2 _3 _4 _5", "pool branch_pool")
    return _Block(layers, chains, pool)


def _block_d(before: int) -> _Block:
    """To half the size, by 3x3 and by 7x7 in two steps."""
    layers = {
        "branch3x3_1": _Conv(before, 192, 1),
        "branch3x3_2": _Conv(192, 320, 3, stride=2),
        "branch7x7x3_1": _Conv(before, 192, 1),
        "branch7x7x3_2": _across(192, 192, 7),
        "branch7x7x3_3": _down(192, 192, 7),
        "branch7x7x3_4": _Conv(192, 192, 3, stride=2),
    }
    return _Block(layers, _chains("branch3x3_1 _2", "branch7x7x3_1 _2 _3 _4", "pool"), nn.MaxPool2d(3, 2))


def _block_e(before: int, pool: nn.Module) -> _Block:
    """Figure 7, the widest."""
    layers = {
        "branch1x1": _Conv(before, 320, 1),
        "branch3x3_1": _Conv(before, 384, 1),
        "branch3x3_2a": _across(384, 384, 3),
        "branch3x3_2b": _down(384, 384, 3),
        "branch3x3dbl_1": _Conv(before, 448, 1),
        "branch3x3dbl_2": _Conv(448, 384, 3, padding=1),
        "branch3x3dbl_3a": _across(384, 384, 3),
        "branch3x3dbl_3b": _down(384, 384, 3),
        "branch_pool": _Conv(before, 192, 1),
    }
    both: Chain = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
    double: Chain = [
        *("branch3x3dbl_1", "branch3x3dbl_2"),
        ("branch3x3dbl_3a", "branch3x3dbl_3b"),
    ]
    return _Block(layers, [["branch1x1"], both, double, ["pool", "branch_pool"]], pool)


def _chains(*texts: str) -> list[Chain]:
    """``"branch5x5_1 _2"`` is the chain of branch5x5_1 and branch5x5_2."""
    chains: list[Chain] = []
    for text in texts:
        first, *others = text.split()
        stem = first.rpartition("_")[0]
        chains.append([first, *(f"{stem}{name}" if name.startswith("_") else name for name in others)])
    return chains


class Inception(nn.Module):
    """float [N, 3, H, W] in [-1, 1], H and W at least 75, as a rule 299 → features [N, 2048], logits [N, ``classes``].

    ``fid`` is the variant of pytorch-fid: see above. Logits have their bias (the Inception score of torch-fidelity
    leaves it out).
    """

    def __init__(self, classes: int, *, fid: bool) -> None:
        super().__init__()
        mean = _Mean(padding_counts=not fid)
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _block_a(192, 32, mean)
        self.Mixed_5c = _block_a(256, 64, mean)
        self.Mixed_5d = _block_a(288, 64, mean)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128, mean)
        self.Mixed_6c = _block_c(768, 160, mean)
        self.Mixed_6d = _block_c(768, 160, mean)
        self.Mixed_6e = _block_c(768, 192, mean)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, mean)
        self.Mixed_7c = _block_e(2048, nn.MaxPool2d(3, 1, 1) if fid else mean)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, 2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = x.mean((2, 3))
        return features, self.fc(features)


def load_inception(path: Path) -> Inception:
    """The network of a file of weights, in inference mode, on the CPU. Nothing in the file is executed.

    Raises TrainingError for a file that is none of weights, or not of one of the two networks, with what differs.
    """
    found = [weights for weights in read_state_dicts(path).values() if _FIRST in weights]
    if not found:
        raise TrainingError(f"{path}: holds no weights of Inception-v3 (no {_FIRST})", _KNOWN)
    weights = {name: value for name, value in found[0].items() if not name.startswith(_AUXILIARY)}
    rows = weights[_LAST].shape[0] if _LAST in weights and weights[_LAST].dim() == 2 else None
    if rows not in (TORCHVISION, PYTORCH_FID):
        has = f"has {rows:,} rows, neither 1000 nor 1008" if rows is not None else "is not there"
        raise TrainingError(
            f"{path}: the last layer, {_LAST}, {has}",
            f"{_KNOWN} Another Inception can be given as an ONNX file: :range=-1,1:size=299 after its name.",
        )
    with torch.device("meta"):
        network = Inception(rows, fid=rows == PYTORCH_FID)
    network.to_empty(device="cpu")
    if misfit := fit_weights(network, weights):
        raise TrainingError(f"{path}: the weights do not fit Inception-v3: {misfit}", _KNOWN)
    return network.float().eval()


def open_inception(path: Path, device: str, threads: int | None) -> FeatureNetwork:
    """The network of a file of weights, for images of any size. Raises TrainingError, DeviceUnavailable."""
    place = _place(device)
    network = load_inception(path)
    fid = network.fc.out_features == PYTORCH_FID
    network.to(place)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()

    @torch.no_grad()
    def run(images: Pixels) -> tuple[Floats, Floats | None]:
        with _settings(threads):
            features, logits = network(to_input(torch.from_numpy(images).to(place), antialias=not fid))
        return features.cpu().numpy(), logits.cpu().numpy()

    about = {
        "sha256": digest,
        "weights": "pytorch-fid, TensorFlow 2015-12-05 (FID)" if fid else "torchvision, ImageNet",
        "size": [SIDE, SIDE],
        "channels": 3,
        "input": "float32 NCHW, black -1, white 1",
        "resize": f"bilinear, {'not ' if fid else ''}antialiased, align_corners=False, in floats (PyTorch) to 299x299",
        "features": "the last average pooling",
        "logits": f"{network.fc.out_features} with bias",
        "dim": network.fc.in_features,
    }
    return FeatureNetwork(NAME, run, channels=3, about=about, most=32)


def to_input(images: Tensor, *, antialias: bool) -> Tensor:
    """uint8 [N, H, W, 3] → float [N, 3, 299, 299] in [-1, 1], as pytorch-fid does without ``antialias``.

    torchvision normalises by ImageNet's mean and deviation and, in the network (``transform_input``), takes that back:
    its network too is given what lies in [-1, 1].
    """
    x = images.permute(0, 3, 1, 2).float() / 255
    if x.shape[2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=antialias)
    return 2 * x - 1


def _place(device: str) -> torch.device:
    """The device as PyTorch names it. Raises DeviceUnavailable."""
    kind, number = parse_device(device)
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if number >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"device cuda:{number}: PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs",
            "Use --device cpu, or install a PyTorch for CUDA.",
        )
    return torch.device("cuda", number)


@contextlib.contextmanager
def _settings(threads: int | None) -> Iterator[None]:
    """So many threads and whole float32 meanwhile: the process has its own settings before and after."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or cpu_count())
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
