"""A classifier of :mod:`ganrt_training.metrics` as an ONNX file: pixels in, features and logits out.

    in   ``x``         uint8 [N, H, W, C], pixels as they are
    out  ``features``  float32 [N, hidden], what the last layer is given
    out  ``logits``    float32 [N, classes]

What it is stands in the file's metadata, JSON under the key ``ganrt.classifier``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from ganrt.card import MAX_CLASSES
from ganrt.errors import ContractError, ParityError, StorageError, TrainingError
from ganrt.files import write_synced
from ganrt.graphs import check_network
from ganrt.providers import runtime
from ganrt_training.assemble import check_target, clean
from ganrt_training.export import traced
from ganrt_training.run_folder import to_float

KEY = "ganrt.classifier"
FORMAT = 1
ATOL = 1e-4  # of features and logits, times the largest of them where that is above 1
_MAX_BYTES, _MAX_TEXT = 1 << 20, 1000
_IMAGES, _BATCH = 256, 64  # of the proof
_AGAIN = "Export it again, or ask whoever made the file."


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """What a classifier's file says of itself.

    ``size`` is (height, width); ``accuracy`` is on real test images, with their number, as
    :func:`ganrt_training.metrics.agreement` tells it; ``protocol`` is how it was trained.
    """

    class_names: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    data_licence: str = ""
    licence: str = ""
    parity: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """All of it, as JSON takes it, but the classes' names."""
        values = asdict(self) | {"size": list(self.size)}
        return {key: value for key, value in values.items() if key != "class_names" and value}

    def to_json(self) -> str:
        """The text of the metadata."""
        about = {"format": FORMAT, "class_names": list(self.class_names), **self.told()}
        return json.dumps(about, ensure_ascii=False, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Classifier:
        """Reads the metadata of a file, which may be anyone's. Raises ContractError."""

        def wrong(what: str) -> ContractError:
            return ContractError(f"{where}: its metadata {KEY} {what}", _AGAIN)

        if len(text) > _MAX_BYTES:
            raise wrong(f"has {len(text):,} bytes; at most {_MAX_BYTES:,} are read")
        try:
            values = json.loads(text)
            json.dumps(values, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise wrong(f"is not JSON ({type(error).__name__})") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise wrong(f"is not of format {FORMAT}: is this ganrt too old for it?")
        names, size, channels = (values.get(key) for key in ("class_names", "size", "channels"))
        if not (isinstance(names, list) and 1 < len(names) <= MAX_CLASSES and all(map(_is_text, names))):
            raise wrong("names no classes")
        if len(set(names)) != len(names):
            raise wrong("names a class twice")
        if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
            raise wrong(f"has the size {size!r:.60}; height and width are expected")
        if type(channels) is not int or channels not in (1, 3):
            raise wrong(f"has {channels!r:.60} channels; 1 or 3 are expected")
        texts = {key: values.get(key, "") for key in ("data", "data_licence", "licence")}
        if not all(text == "" or _is_text(text) for text in texts.values()):
            raise wrong(f"holds no plain texts for {', '.join(texts)}")
        objects = {key: values.get(key, {}) for key in ("accuracy", "protocol", "parity")}
        if not all(isinstance(value, dict) for value in objects.values()):
            raise wrong(f"holds no objects for {', '.join(objects)}")
        return cls(class_names=tuple(names), size=(size[0], size[1]), channels=channels, **texts, **objects)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()


class _Seeing(nn.Module):
    """The classifier from pixels on, with what its last layer is given."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.below, self.last = model[:-1], model[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.below(to_float(x))
        return features, self.last(features)


def export_classifier(model: nn.Module, about: Classifier, path: Path, *, overwrite: bool = False) -> Classifier:
    """Writes a classifier of :func:`ganrt_training.metrics.build_classifier`, in inference mode, as an ONNX file.

    Returns ``about`` with the figures of the proof: 256 images, noise and smooth ones, in batches of 1, 2, 3, 64 and
    65 in PyTorch and in ONNX Runtime, apart by at most 1e-4, in units of the largest number where that is above 1.

    Raises ParityError when they differ by more, and nothing is written then; TrainingError when the network is not what
    ``about`` says; UsageError when the file is there and ``overwrite`` is not said; StorageError.
    """
    check_target(path, overwrite)
    if not isinstance(model, nn.Sequential) or model.training:
        raise TrainingError("this is no classifier in inference mode", "Give what train_classifier or eval() returns.")
    seeing = _Seeing(model).eval()
    example = torch.zeros(2, *about.size, about.channels, dtype=torch.uint8)
    dims = {"x": {0: torch.export.Dim("N")}}
    graph = traced(seeing, {"x": example}, dims, ["features", "logits"])
    clean(graph)
    graph.graph.name = "classifier"
    for value in graph.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    parity = _prove(seeing, graph.SerializeToString(), about)
    about = replace(about, parity=parity)
    helper.set_model_props(graph, {KEY: about.to_json()})
    data = graph.SerializeToString(deterministic=True)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    check_network(data, str(path))
    try:
        write_synced(path, data)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}", "Name a folder that is there.") from error
    return about


@torch.no_grad()
def _prove(seeing: nn.Module, data: bytes, about: Classifier) -> dict[str, Any]:
    """How far apart PyTorch and ONNX Runtime are. Raises ParityError."""
    random = np.random.default_rng(0)
    shape = (_IMAGES, *about.size, about.channels)
    noise, coarse = random.integers(0, 256, shape, np.uint8), random.integers(0, 256, (_IMAGES, 1, 1, 1), np.uint8)
    ramp = np.linspace(0, 1, about.size[1], dtype=np.float32)[:, None] * coarse
    images = np.where(np.arange(_IMAGES)[:, None, None, None] % 2, noise, ramp.astype(np.uint8))
    expected = [value.numpy() for value in seeing(torch.from_numpy(images))]
    if expected[1].shape != (_IMAGES, len(about.class_names)):
        raise TrainingError(
            f"the classifier makes {expected[1].shape[1]} logits for {len(about.class_names)} classes",
            "Name as many classes.",
        )
    options = runtime().SessionOptions()
    options.log_severity_level = 3
    session = runtime().InferenceSession(data, options, providers=["CPUExecutionProvider"])
    worst = {"features": 0.0, "logits": 0.0}
    for size in (batches := [1, 2, 3, _BATCH, _BATCH + 1]):
        made: list[list[NDArray[np.float32]]] = [
            session.run(["features", "logits"], {"x": images[first : first + size]})
            for first in range(0, _IMAGES, size)
        ]
        for at, name in enumerate(worst):
            found = np.concatenate([both[at] for both in made])
            if found.shape != expected[at].shape or not np.isfinite(found).all():
                raise ParityError(f"{name} at batch {size}: {list(found.shape)} in ONNX Runtime, or not finite")
            apart = float(np.abs(found - expected[at]).max()) / max(1.0, float(np.abs(expected[at]).max()))
            worst[name] = max(worst[name], apart)
            if apart > ATOL:
                raise ParityError(
                    f"{name} at batch {size} are {apart:.2g} apart in PyTorch and in ONNX Runtime",
                    f"At most {ATOL:g} is allowed. Nothing was written.",
                )
    return {
        **{f"{name}_max": float(f"{value:.2g}") for name, value in worst.items()},
        "atol": ATOL,
        "batches": batches,
        "images": _IMAGES,
        "onnxruntime": runtime().__version__,
    }
