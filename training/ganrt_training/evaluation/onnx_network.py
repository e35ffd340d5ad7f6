"""A network in an ONNX file of anyone's: what it takes and gives is read and checked, then ONNX Runtime runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ganrt.errors import ContractError, InferenceError, UsageError
from ganrt.graphs import check_network, read_file
from ganrt.interface import Value
from ganrt.providers import cpu_count, create_session, load_error, out_of_memory
from ganrt.values import told
from ganrt_training.evaluation.classifier_file import KEY, Classifier
from ganrt_training.evaluation.features import RESIZED, FeatureNetwork, Floats, Pixels
from ganrt_training.evaluation.feed import TYPES, Feed, Options

_FLOATS = ("float32", "float16", "float64")
_AGAIN = "Export the network again, or upgrade onnxruntime."


@dataclass(frozen=True)
class NetworkFile:
    """A checked file: its bytes and SHA-256 (64 hex digits), its interface, and what it says if ganrt wrote it."""

    path: Path
    data: bytes = field(repr=False)
    digest: str
    input: Value
    outputs: tuple[Value, ...]
    classifier: Classifier | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the logits mean; empty where that is unknown."""
        return self.classifier.class_names if self.classifier else ()

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images that one of ganrt's classifiers takes."""
        return self.classifier.size if self.classifier else None

    @property
    def channels(self) -> int | None:
        """Of the images that one of ganrt's classifiers takes."""
        return self.classifier.channels if self.classifier else None


def read_network(path: Path) -> NetworkFile:
    """Reads a file once and checks it, before ONNX Runtime sees it.

    Raises UnknownModel when there is none, StorageError when it cannot be read, and ContractError when it is not run or
    takes no images.
    """
    data, where = read_file(path), str(path)
    graph, metadata = check_network(data, where)
    inputs, outputs = graph.inputs, graph.outputs
    value = inputs[0] if len(inputs) == 1 else None
    if value is None or value.dtype not in TYPES or len(value.shape or ()) != 4:
        raise ContractError(
            f"{where} takes {_listed(inputs)}",
            "Expected one input: images, float32, float16 or uint8 [N, C, H, W] or [N, H, W, C].",
        )
    classifier = Classifier.from_json(bytes(metadata[KEY]), where) if KEY in metadata else None
    return NetworkFile(path, data, hashlib.sha256(data).hexdigest(), value, tuple(outputs), classifier)


def open_file(path: Path, options: Options, device: str, threads: int | None) -> FeatureNetwork:
    """A network of an ONNX file, ready to look at images. Raises as :func:`open_network` says."""
    file = read_network(path)
    feed = Feed.of(str(path), file.input, options)
    features, logits = _outputs(file, options)
    wanted = [features] + ([logits] if logits and logits != features else [])
    try:
        session, used = create_session(file.data, device, threads or cpu_count())
    except InferenceError as error:
        raise InferenceError(f"{path}: {error.message.replace('generator', 'network')}", _AGAIN) from error

    def run(images: Pixels) -> tuple[Floats, Floats | None]:
        try:
            found = dict(zip(wanted, session.run(wanted, {file.input.name: feed.fed(images)}), strict=True))
        except Exception as error:  # ONNX Runtime raises a dozen types that share no base
            if out_of_memory(error):
                text = f"{len(images)} images at once do not fit into memory"
                raise InferenceError(f"{path}: {text}", "Free some, or resize images (:size=).") from error
            raise InferenceError(f"{path}: {load_error(error).message}", _AGAIN) from error
        return found[features], found.get(logits) if logits else None

    about: dict[str, Any] = {
        "sha256": file.digest,
        "size": list(feed.size) if feed.size else None,
        "channels": feed.channels,
        "input": feed.described(),
        "resize": f"{RESIZED} to {feed.size[1]}x{feed.size[0]}" if feed.size else "none: images as they are",
        "features": features,
        "logits": logits or None,
    }
    if file.classifier:
        about["classifier"] = file.classifier.told()
    if notes := _notes(file, options, features, logits):
        about["note"] = " ".join(notes)
    network = FeatureNetwork(
        path.stem,
        run,
        channels=feed.channels,
        size=feed.size,
        class_names=file.class_names,
        about=about,
        batch=feed.batch,
        whole=used.startswith("cuda"),
    )
    side = next(v.shape for v in file.outputs if v.name == features)
    dim = max((n for n in (side or ())[1:] if isinstance(n, int)), default=0)
    if feed.size:  # a first image: what fails now would fail after minutes
        seen = network.see(np.zeros((1, *feed.size, feed.channels), np.uint8))
        dim = seen.features.shape[1]
        if file.class_names and (seen.logits is None or seen.logits.shape[1] != len(file.class_names)):
            raise ContractError(f"{path} names {len(file.class_names)} classes and has no logits for them", _AGAIN)
    network.about["dim"] = dim or None
    return network


def _outputs(file: NetworkFile, options: Options) -> tuple[str, str]:
    """The names of the outputs for features and for logits; that one may be empty, or the same."""
    where, names = file.path, [value.name for value in file.outputs]
    for asked in filter(None, (options.features, options.logits)):
        if asked not in names:
            raise UsageError(f"{where} has no output {told(asked)}", f"It has: {_listed(file.outputs)}.")
    logits = options.logits or ("logits" if "logits" in names else "")
    features = options.features or ("features" if "features" in names else "")
    if not features:
        meant = [value.name for value in file.outputs if value.name != logits and _may_be_features(value)]
        meant = meant or [logits] * bool(logits)
        if len(meant) != 1:
            raise UsageError(
                f"{where} gives {_listed(file.outputs)}",
                "Say which output holds the features, [N, D]: :features=OUTPUT after its name.",
            )
        features = meant[0]
    for value in file.outputs:
        if value.name in (features, logits) and not _may_be_features(value):
            raise UsageError(
                f"{where}: its output is {value}",
                "Expected float [N, D], or [N, D, 1, 1]: name an output behind the pooling (:features=OUTPUT).",
            )
    return features, logits


def _may_be_features(value: Value) -> bool:
    if value.dtype not in _FLOATS:
        return False
    if value.shape is None:
        return True
    sides = [side for side in value.shape[1:] if side != 1]
    return len(value.shape) == 2 or (len(value.shape) > 2 and len(sides) <= 1)


def _notes(file: NetworkFile, options: Options, features: str, logits: str) -> list[str]:
    notes = []
    if file.input.dtype != "uint8" and not (options.range or options.mean or options.std):
        notes.append("It was not said what black and white become for this network (:range=); 0 and 1 were taken.")
    if features == logits:
        notes.append("The features are the logits: the file has no other output.")
    return notes


def _listed(values: Sequence[Value]) -> str:
    shown = [str(value) for value in values]
    return (", ".join(shown[:6]) or "nothing") + (f" and {len(shown) - 6:,} more" if len(shown) > 6 else "")
