"""Classifiers trained for an evaluation, and what they say: label fidelity, classification accuracy score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ganrt.files import storage_error
from ganrt_training import metrics
from ganrt_training.data import ImageData, digest
from ganrt_training.evaluation.features import FeatureNetwork
from ganrt_training.evaluation.sets import draws, stratified, subset

TRAINED = "trained"
LEAST_SIDE = 8  # pixels, of what the classifier takes


def trained_network(model: nn.Module, data: ImageData, protocol: metrics.Protocol) -> FeatureNetwork:
    """A classifier trained here as a feature network: its penultimate layer's outputs are the features."""
    assert isinstance(model, nn.Sequential)
    last = model[-1]
    device = next(last.parameters()).device
    _, height, width, channels = data.images.shape

    @torch.no_grad()
    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features = metrics.features(model, images, len(images))
        logits: NDArray[np.float32] = last(torch.from_numpy(features).to(device)).cpu().numpy()
        return features, logits

    about = {
        "trained_on": len(data),
        "size": f"{width}x{height}",
        "channels": channels,
        "features": protocol.hidden,
        "digest": weights_digest(model),
    } | metrics.describe(model, protocol)
    return FeatureNetwork(
        TRAINED, run, channels=channels, size=(height, width), class_names=data.class_names, about=about
    )


@dataclass
class School:
    """Trains classifiers of one protocol, those of real images no more than once."""

    real: ImageData
    protocol: metrics.Protocol
    device: torch.device
    tell: Callable[[str, int, int], object]
    seed: int
    keep: Path | None = None  # a folder for those of real images, from one evaluation to the next
    warnings: list[str] = field(default_factory=list)
    _of_real: dict[int, nn.Module] = field(default_factory=dict)

    def of_real(self, count: int | None = None) -> nn.Module:
        """The classifier trained on so many of the real images, each class with its share; on all unless given."""
        count = len(self.real) if count is None else min(count, len(self.real))
        if count not in self._of_real:
            data = self.real
            if count < len(data):
                data = subset(data, np.sort(stratified(data.labels, count, draws(self.seed, 3))))
            self._of_real[count] = self._kept(data) if self.keep else self.of(data, "real")
        return self._of_real[count]

    def _kept(self, data: ImageData) -> nn.Module:
        """The classifier of real images from the folder, if it is there; else it is trained and put there."""
        assert self.keep is not None
        model = metrics.untrained_classifier(data.images, len(data.class_names), self.protocol)
        about = asdict(self.protocol) | {
            "data": digest(data),
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "torch": str(torch.__version__),
        }
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        path = self.keep / f"classifier-{name}.safetensors"
        known = metrics.load_classifier(path, model, about)
        if known is not None:
            self.tell(f"the classifier of {len(data):,} real images was trained before", 1, 1)
            return known.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = self.of(data, "real")
        try:
            self.keep.mkdir(parents=True, exist_ok=True)
            metrics.save_classifier(path, model, about)
        except OSError as error:
            self.warnings.append(f"the classifier of real images is not kept: {storage_error(error).message}")
        return model

    @property
    def unfit(self) -> str:
        """Why no classifier can be trained on the real images, if so."""
        height, width = self.real.images.shape[1:3]
        if not self.real.class_names:
            return "the real images have no classes: no classifier can be trained whose features images are compared by"
        if min(height, width) < LEAST_SIDE:
            return f"images of {width}x{height}: a classifier that is trained here takes {LEAST_SIDE}x{LEAST_SIDE} up"
        return ""

    def of(self, data: ImageData, what: str) -> nn.Module:
        """A classifier trained on these images, of the real ones' size and classes, which are not :attr:`unfit`."""

        def progress(epoch: int, loss: float) -> None:
            self.tell(f"training a classifier on {len(data):,} {what} images", epoch, self.protocol.epochs)

        self.tell(f"training a classifier on {len(data):,} {what} images", 0, self.protocol.epochs)
        images, labels = np.ascontiguousarray(data.images), data.labels
        return metrics.train_classifier(
            images, labels, len(self.real.class_names), self.protocol, progress, device=self.device
        )

    def network(self) -> FeatureNetwork:
        """The classifier of all real images as a feature network."""
        return trained_network(self.of_real(), self.real, self.protocol)

    def about(self) -> dict[str, Any]:
        """The protocol as words and numbers."""
        return asdict(self.protocol)


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax of logits [N, K], in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    share: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return share


def weights_digest(model: nn.Module) -> str:
    """``sha256:…`` over the weights."""
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name} {list(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"sha256:{state.hexdigest()}"
