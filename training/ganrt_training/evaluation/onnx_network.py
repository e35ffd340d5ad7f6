"""A network in an ONNX file of anyone's: what it takes and gives is read and checked, then ONNX Runtime runs it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganrt.errors import ContractError, InferenceError, UsageError
from ganrt.graphs import check_network, read_file
from ganrt.interface import Value
from ganrt.providers import cpu_count, create_session, load_error, out_of_memory
from ganrt.values import told
from ganrt_training.evaluation.classifier_file import KEY, Classifier
from ganrt_training.evaluation.features import RESIZED, FeatureNetwork, Floats, Pixels

_TYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_FLOATS = ("float32", "float16", "float64")
_MAX_SIDE = 4096
_OPTION = re.compile(r":(?=[a-z]+=)")


@dataclass(frozen=True)
class Options:
    """How pixels are fed and which outputs are meant, where the file does not tell."""

    range: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, ...] = ()
    layout: str = ""
    features: str = ""
    logits: str = ""

    @classmethod
    def parse(cls, text: str) -> tuple[str, Options]:
        """``NAME:option=value:option=value`` as the name and its options. Raises UsageError."""
        name, *parts = _OPTION.split(text)
        values: dict[str, Any] = {}
        for part in parts:
            key, _, value = part.partition("=")
            if key not in (known := [f.name for f in fields(cls)]) or key in values:
                twice = "given twice" if key in values else "unknown"
                raise UsageError(f"option {told(key)} of {told(name)} is {twice}", f"There are: {', '.join(known)}.")
            values[key] = _option(key, value)
        return name, cls(**values)


def _option(key: str, value: str) -> Any:
    try:
        if key in ("features", "logits") and value:
            return value
        if key == "layout" and value in ("nchw", "nhwc"):
            return value
        if key == "size":
            sides = [int(side) for side in value.split("x")]
            if len(sides) <= 2 and all(1 <= side <= _MAX_SIDE for side in sides):
                return (sides[0], sides[-1])
        if key in ("range", "mean", "std"):
            numbers = tuple(float(number) for number in value.split(","))
            fits = len(numbers) == 2 and numbers[0] != numbers[1] if key == "range" else len(numbers) in (1, 3)
            if fits and all(map(math.isfinite, numbers)) and not (key == "std" and 0 in numbers):
                return numbers
    except ValueError:
        pass
    expected = {
        "range": "two numbers, what black and white become: range=-1,1",
        "mean": "a number, or one for each channel: mean=0.485,0.456,0.406",
        "std": "a number, or one for each channel, none of them 0: std=0.229,0.224,0.225",
        "size": f"a side or HEIGHTxWIDTH of 1 to {_MAX_SIDE} pixels: size=224",
        "layout": "nchw or nhwc",
    }
    raise UsageError(f"option {key}={told(value)}", f"Expected {expected.get(key, 'the name of an output')}.")


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
    if value is None or value.dtype not in _TYPES or len(value.shape or ()) != 4:
        raise ContractError(
            f"{where} takes {_listed(inputs)}",
            "Expected one input: images, float32, float16 or uint8 [N, C, H, W] or [N, H, W, C].",
        )
    classifier = Classifier.from_json(bytes(metadata[KEY]), where) if KEY in metadata else None
    return NetworkFile(path, data, hashlib.sha256(data).hexdigest(), value, tuple(outputs), classifier)


def open_file(path: Path, options: Options, device: str, threads: int | None) -> FeatureNetwork:
    """A network of an ONNX file, ready to look at images. Raises as :func:`open_network` says."""
    file = read_network(path)
    feed = _Feed.of(file, options)
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


_AGAIN = "Export the network again, or upgrade onnxruntime."


@dataclass(frozen=True)
class _Feed:
    """How pixels become what the input is given."""

    dtype: str
    nchw: bool
    channels: int
    size: tuple[int, int] | None
    batch: int | None
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, file: NetworkFile, options: Options) -> _Feed:
        """Read from the input, and the options for what it does not say. Raises UsageError, ContractError."""
        value, shape = file.input, file.input.shape or ()
        where = str(file.path)
        nchw = _is_nchw(shape, options.layout)
        if nchw is None:
            raise UsageError(
                f"{where}: its input is {value}, which may be channels first or last",
                "Say which: :layout=nchw or :layout=nhwc after its name."
                if not options.layout
                else "Its channels must be 1 or 3, by a number: export it with fixed channels.",
            )
        channels, height, width = shape[1:] if nchw else (shape[3], *shape[1:3])
        assert isinstance(channels, int)
        if any(isinstance(side, int) and not 1 <= side <= _MAX_SIDE for side in (height, width)):
            raise ContractError(f"{where}: its input is {value}", f"Expected sides of 1 to {_MAX_SIDE} pixels.")
        fixed = [side if isinstance(side, int) else None for side in (height, width)]
        size = options.size or (fixed[0], fixed[1])
        if any(own is not None and own != asked for own, asked in zip(fixed, size, strict=True)):
            raise UsageError(f"{where} takes images of {value.kind}, no others", "Leave the option size out.")
        if value.dtype == "uint8" and (options.range or options.mean or options.std):
            raise UsageError(
                f"{where} takes pixels as they are, uint8",
                "The options range, mean and std do not apply: leave them out.",
            )
        if any(len(given) not in (0, 1, channels) for given in (options.mean, options.std)):
            raise UsageError(f"{where} takes {channels} channel(s)", "Give one mean and std, or one for each channel.")
        if isinstance(shape[0], int) and not 1 <= shape[0] <= 4096:
            raise ContractError(f"{where}: its input is {value}", "Expected a dynamic N, or one of 1 to 4096.")
        feed = cls(
            value.dtype,
            nchw,
            channels,
            (size[0], size[1]) if size[0] and size[1] else None,
            shape[0] if isinstance(shape[0], int) else None,
        )
        if feed.size is None and any(fixed):
            raise UsageError(f"{where}: its input is {value}, of which one side is dynamic", "Say :size=HEIGHTxWIDTH.")
        return replace(
            feed,
            range=(options.range[0], options.range[1]) if options.range else feed.range,
            mean=options.mean or feed.mean,
            std=options.std or feed.std,
        )

    def fed(self, images: Pixels) -> NDArray[Any]:
        """uint8 [N, H, W, C] as the input takes it."""
        if self.dtype == "uint8":
            given: NDArray[Any] = images
        else:
            black, white = self.range
            mean, std = (np.array(numbers, np.float32) for numbers in (self.mean, self.std))
            floats = images.astype(np.float32) * np.float32((white - black) / 255) + np.float32(black)
            given = ((floats - mean) / std).astype(_TYPES[self.dtype])
        return np.ascontiguousarray(given.transpose(0, 3, 1, 2) if self.nchw else given)

    def described(self) -> str:
        """In words."""
        layout = "NCHW" if self.nchw else "NHWC"
        if self.dtype == "uint8":
            return f"uint8 {layout}, pixels as they are"
        text = f"{self.dtype} {layout}, black {self.range[0]:g}, white {self.range[1]:g}"
        if (self.mean, self.std) != ((0.0,), (1.0,)):
            mean, std = (" ".join(f"{n:g}" for n in numbers) for numbers in (self.mean, self.std))
            text += f", then minus {mean}, by {std}"
        return text


def _is_nchw(shape: Sequence[int | str | None], layout: str) -> bool | None:
    """Where the channels are, 1 or 3 of them; None where that cannot be told."""
    first, last = (shape[axis] in (1, 3) for axis in (1, 3))
    if layout:
        return layout == "nchw" if (first if layout == "nchw" else last) else None
    return first if first != last else None


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
