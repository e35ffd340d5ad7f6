"""Measuring a generator with a classifier.

Label fidelity: the share of generated images that a classifier trained on real images gives the label
that was asked for. Classification accuracy score (Ravuri & Vinyals 2019, arXiv 1905.10887): the accuracy
on real test images of the same classifier trained on generated images only. Fréchet distance (Heusel et al.
2017, arXiv 1706.08500, with this classifier in place of Inception): how far apart the features of two sets lie.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ganrt.errors import TrainingError, UsageError
from ganrt.files import write_synced
from ganrt_training.checkpoint import load_snapshot
from ganrt_training.run_folder import to_float

Images = NDArray[np.uint8]  # [N, H, W, C]
Labels = NDArray[np.int64]  # [N]
PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that decides a classifier but its images: the same for real and for generated ones."""

    widths: tuple[int, int, int] = (32, 64, 128)  # channels of the three convolutions
    hidden: int = 256
    dropout: float = 0.3
    epochs: int = 12
    batch_size: int = 128
    max_lr: float = 3e-3  # AdamW, one cycle
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    shift: int = 2  # pixels, at most, in either direction
    flip: bool = True  # left to right, half of the time
    seed: int = 0
    precision: str = "bf16"  # of training: bf16 (autocast) or fp32, for processors that only emulate bfloat16

    def __post_init__(self) -> None:
        """Raises UsageError for a precision that there is not."""
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision {self.precision!r}", f"Expected {' or '.join(PRECISIONS)}.")


def build_classifier(size: tuple[int, int], channels: int, classes: int, protocol: Protocol) -> nn.Module:
    """Three convolutions of 3x3 with batch norm, ReLU and 2x2 max pooling, and two dense layers.

    It maps images float [N, channels, H, W] in [-1, 1] to logits float [N, classes]; H and W are at least 8.
    """
    layers: list[nn.Module] = []
    before = channels
    for width in protocol.widths:
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        before = width
    flat = before * (size[0] // 8) * (size[1] // 8)
    layers += [nn.Flatten(), nn.Linear(flat, protocol.hidden), nn.ReLU(inplace=True), nn.Dropout(protocol.dropout)]
    return nn.Sequential(*layers, nn.Linear(protocol.hidden, classes))


def untrained_classifier(images: Images, classes: int, protocol: Protocol) -> nn.Module:
    """One for weights to be loaded into, for images uint8 [N, H, W, C]. The global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):  # weights are drawn, though others take their place
        return build_classifier(images.shape[1:3], images.shape[3], classes, protocol)


def train_classifier(
    images: Images,
    labels: Labels,
    classes: int,
    protocol: Protocol,
    progress: Callable[[int, float], None] | None = None,
    *,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """A classifier trained on labelled images, in inference mode on ``device``, ``cpu``, ``cuda`` or ``cuda:N``.

    On a CPU, with the same number of threads, the same arguments give the same classifier. ``progress``
    gets each finished epoch's number and mean loss. The global random state is left as it was.
    """
    device = torch.device(device)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(deterministic=True, allow_tf32=False),
    ):
        torch.manual_seed(protocol.seed)
        model = build_classifier(images.shape[1:3], images.shape[3], classes, protocol)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        pixels, targets = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), protocol.max_lr, weight_decay=protocol.weight_decay)
        per_epoch = max(1, len(images) // protocol.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, protocol.max_lr, total_steps=protocol.epochs * per_epoch, pct_start=0.2
        )
        for epoch in range(protocol.epochs):
            total = torch.zeros((), device=device)
            order = torch.randperm(len(images)).to(device)
            for step in range(per_epoch):
                chosen = order[step * protocol.batch_size : (step + 1) * protocol.batch_size]
                batch = to_float(_augmented(pixels[chosen], protocol))
                with torch.autocast(device.type, torch.bfloat16, enabled=protocol.precision == "bf16"):
                    logits = model(batch)
                loss = F.cross_entropy(logits.float(), targets[chosen], label_smoothing=protocol.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach()
            if progress:
                progress(epoch + 1, float(total) / per_epoch)
    return model.eval()


@torch.no_grad()
def predict(model: nn.Module, images: Images, batch_size: int = 500) -> Labels:
    """The most probable label of each image, computed in float32 where the model is."""
    predicted: Labels = _of_batches(lambda batch: model(batch).argmax(1), model, images, batch_size).numpy()
    return predicted


@torch.no_grad()
def features(model: nn.Module, images: Images, batch_size: int = 500) -> NDArray[np.float32]:
    """What the last layer of a classifier in inference mode is given: float [N, hidden], computed in float32.

    The model runs where it is, as in :func:`predict`.
    """
    assert isinstance(model, nn.Sequential)
    found: NDArray[np.float32] = _of_batches(model[:-1], model, images, batch_size).numpy()
    return found


def _of_batches(see: Callable[[Tensor], Tensor], model: nn.Module, images: Images, batch_size: int) -> Tensor:
    device = next(model.parameters()).device
    batches = torch.split(torch.from_numpy(images), batch_size)
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        return torch.cat([see(to_float(batch.to(device))).cpu() for batch in batches])


def frechet_distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The squared Fréchet distance between normal distributions fitted to features [N, D] and [M, D], in float64.

    |m - n|² + tr(A + B - 2 (A B)^½), with the trace of the root taken as that of (A^½ B A^½)^½: both roots are then of
    symmetric matrices, and covariances may be singular (features that are always 0, fewer images than features).
    torchmetrics takes the eigenvalues of A B, which is not symmetric: where covariances are singular its distance of a
    set from itself comes out as -3e-5 instead of 0; and it sums squares before it takes means off, which costs digits
    where means are large. So this is the one that is used everywhere here.
    """
    (mean, spread), (other_mean, other_spread) = (_normal(first), _normal(second))
    root = _root(spread)
    eigenvalues = np.linalg.eigvalsh(root @ other_spread @ root)
    shared = np.sqrt(eigenvalues.clip(min=0)).sum()
    apart = np.square(mean - other_mean).sum()
    return max(0.0, float(apart + np.trace(spread) + np.trace(other_spread) - 2 * shared))


@dataclass(frozen=True)
class Agreement:
    """The share of images that a classifier gives their label, of all and by class name."""

    share: float
    per_class: dict[str, float]


def agreed(predicted: Labels, labels: Labels, class_names: Sequence[str]) -> Agreement:
    """How many of the predicted labels are those of the images. Classes without images are not told."""
    equal = predicted == labels
    per_class = {
        name: float(equal[mine].mean()) for label, name in enumerate(class_names) if (mine := labels == label).any()
    }
    return Agreement(float(equal.mean()), per_class)


def agreement(predicted: Labels, labels: Labels, class_names: Sequence[str]) -> dict[str, Any]:
    """The same for a card or a report: rounded to four digits, with the number of images."""
    found = agreed(predicted, labels, class_names)
    per_class = {name: round(share, 4) for name, share in found.per_class.items()}
    return {"share": round(found.share, 4), "n": len(labels), "per_class": per_class}


def describe(model: nn.Module, protocol: Protocol) -> dict[str, Any]:
    """The classifier in words and numbers, for a card or a report."""
    return {
        "architecture": "three 3x3 convolutions with batch norm, 2x2 max pooling and ReLU, two dense layers",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "optimizer": f"AdamW, one cycle, {'bf16 autocast' if protocol.precision == 'bf16' else protocol.precision}",
    } | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(protocol).items()
        if name != "precision"
    }


def save_classifier(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Weights as safetensors; ``about`` says all that decided them, so that they are not taken for others."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_synced(path, safetensors.torch.save(tensors, metadata={"about": json.dumps(about, sort_keys=True)}))


def load_classifier(path: Path, model: nn.Module, about: dict[str, Any]) -> nn.Module | None:
    """``model`` with the weights of the file, or None when there is none that ``about`` describes."""
    if not path.is_file():
        return None
    weights, metadata = load_snapshot(path)
    if metadata.get("about") != json.dumps(about, sort_keys=True):
        return None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(f"{path}: not the weights it says it holds: {error}", "Remove it.") from None
    return model.eval()


def _normal(features: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean [D] and covariance [D, D]."""
    values = np.asarray(features, np.float64)
    return values.mean(0), np.cov(values, rowvar=False).reshape(values.shape[1], values.shape[1])


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a symmetric matrix whose eigenvalues are 0 or more, but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def _augmented(images: Tensor, protocol: Protocol) -> Tensor:
    """Each image shifted and flipped at random; what comes in from outside is black. uint8 [N, H, W, C]."""
    count, height, width, _ = images.shape
    reach = protocol.shift
    padded = F.pad(images, (0, 0, reach, reach, reach, reach))
    windows = padded.unfold(1, height, 1).unfold(2, width, 1)  # [N, dy, dx, C, H, W]
    dy, dx = torch.randint(2 * reach + 1, (2, count)).to(images.device)  # drawn on the CPU: the same on every device
    moved = windows[torch.arange(count, device=images.device), dy, dx].permute(0, 2, 3, 1)
    if not protocol.flip:
        return moved
    turned = torch.rand(count).to(images.device) < 0.5
    return torch.where(turned[:, None, None, None], moved.flip(2), moved)
