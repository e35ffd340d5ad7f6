"""What a foreign generator does not say of itself, found by calling it: labels, layout, range."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ganrt.card import COLOURS, MAX_CLASSES, MAX_Z_DIM
from ganrt.errors import TrainingError, UsageError
from ganrt_training.foreign import Floats, Foreign, Input

PROBED = 256  # samples
_ROWS = 32  # a call
LABEL_NAME = re.compile(r"(^|[^a-z])(labels?|class(es)?|cond(ition)?|one_?hot|y|c)($|[^a-z])", re.IGNORECASE)
# What the last operator says of the range; what comes after it may only move numbers.
_RANGES = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0)}
_MOVING = {"Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What its owner says of a generator; None where it is to be found.

    ``value_range`` are the values of black and white; ``class_names`` go with the labels, in order; ``labels`` is
    ``int`` or ``onehot``; ``layout`` is ``nchw`` or ``nhwc``; ``z_distribution`` what it was trained with, ``normal``
    or ``uniform`` (-1 to 1), which no probe can tell.
    """

    value_range: tuple[float, float] | None = None
    class_names: Sequence[str] = ()
    labels: str | None = None
    layout: str | None = None
    z_distribution: str = "normal"

    def __post_init__(self) -> None:
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(
                    f"range {low:g},{high:g}", "Expected the values of black and white, such as --range=-1,1."
                )
        for name, value, allowed in (
            ("labels", self.labels, ("int", "onehot")),
            ("layout", self.layout, ("nchw", "nhwc")),
            ("z distribution", self.z_distribution, ("normal", "uniform")),
        ):
            if value is not None and value not in allowed:
                raise UsageError(f"{name} {value!r}", f"Expected {' or '.join(allowed)}.")


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a generator is called: which input takes latents, which labels, and in which form."""

    latent: Input
    label: Input | None
    one_hot: bool
    latent_first: bool
    class_names: tuple[str, ...]

    def given(self, z: Floats, y: NDArray[np.int64] | None) -> tuple[NDArray[Any], ...]:
        """Latents [N, z_dim] and labels [N] as the generator takes them, in its order."""
        latents = z.reshape(len(z), *self.latent.shape)
        if self.label is None or y is None:
            return (latents,)
        if self.one_hot:
            labels = np.eye(len(self.class_names), dtype=self.label.dtype)[y].reshape(len(y), *self.label.shape)
        else:
            labels = y.astype(self.label.dtype).reshape(len(y), *self.label.shape)
        return (latents, labels) if self.latent_first else (labels, latents)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """How a generator is called and what it makes: the shape of an image as it makes it, and its range."""

    call: Call
    nchw: bool
    shape: tuple[int, ...]
    value_range: tuple[float, float]

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = (self.shape[i] for i in ((1, 2, 0) if self.nchw else (0, 1, 2)))
        return height, width, channels


def find_facts(foreign: Foreign, graph: onnx.ModelProto, said: Said, tell: Callable[[str], None]) -> Facts:
    """Calls a generator and says what it found to ``tell``, a sentence each, with the option that fixes it.

    Raises UsageError where more than one answer fits and nobody said which, and where what was said does not fit;
    TrainingError for what cannot be a generator of images.
    """
    latent, label = _inputs(foreign, said)
    one_hot = label is not None and _is_one_hot(foreign, label, said)
    call = Call(
        latent=latent,
        label=label,
        one_hot=one_hot,
        latent_first=foreign.inputs[0] is latent,
        class_names=_class_names(foreign, latent, label, one_hot, said, tell),
    )
    samples = _probed(foreign, call, said)
    nchw = _is_nchw(foreign.where, samples.shape, said.layout)
    if said.value_range is not None:
        _check_range(foreign.where, samples, said.value_range)
    facts = Facts(
        call=call,
        nchw=nchw,
        shape=samples.shape[1:],
        value_range=said.value_range or _guessed_range(foreign.where, graph, samples, tell),
    )
    labels = f", labels {label} ({'one-hot' if one_hot else 'numbers'})" if label else ""
    height, width, channels = facts.size
    tell(
        f"takes latents {latent}{labels}; makes images [{', '.join(['N', *map(str, facts.shape)])}], "
        f"{width}x{height} {COLOURS[channels]} with channels {'first' if nchw else 'last'}"
    )
    return facts


def drawn(z_dim: int, count: int, distribution: str) -> Floats:
    """Latents to probe with: float32 [count, z_dim]."""
    random = np.random.default_rng(0)
    if distribution == "uniform":
        return random.uniform(-1, 1, (count, z_dim)).astype(np.float32)
    return random.standard_normal((count, z_dim), np.float32)


def _inputs(foreign: Foreign, said: Said) -> tuple[Input, Input | None]:
    """Which input takes latents, and which takes labels."""
    where, inputs = foreign.where, foreign.inputs
    shown = ", ".join(map(str, inputs)) or "nothing"
    expected = "Expected latents float32 [N, z_dim] or [N, z_dim, 1, 1], and at most labels beside them."
    wants_labels = bool(said.class_names or said.labels)
    if len(inputs) == 1:
        if inputs[0].dtype != "float32":
            raise TrainingError(f"{where}: takes {shown}", expected)
        if wants_labels:
            raise UsageError(f"{where}: takes no labels, yet classes are named", "Leave the classes out.")
        latent, label = inputs[0], None
    elif len(inputs) == 2:
        latent, label = _told_apart(foreign, said)
    else:
        raise TrainingError(f"{where}: takes {shown}", expected)
    if not 1 <= latent.size <= MAX_Z_DIM:
        raise TrainingError(f"{where}: takes {shown}", expected)
    return latent, label


def _told_apart(foreign: Foreign, said: Said) -> tuple[Input, Input]:
    """Of two inputs the latents and the labels."""
    where, (a, b) = foreign.where, foreign.inputs
    floats = [value for value in (a, b) if value.dtype == "float32"]
    shown = f"{a}, {b}"
    if not floats:
        raise TrainingError(
            f"{where}: takes {shown}", "Expected latents float32 [N, z_dim] or [N, z_dim, 1, 1], and labels."
        )
    if len(floats) == 1:
        return floats[0], b if floats[0] is a else a
    # Two of floats: a label is a single number (Keras), as wide as there are classes, or says so by its name.
    for fits in (
        lambda value: value.size == 1,
        lambda value: bool(said.class_names) and value.size == len(said.class_names),
        lambda value: bool(LABEL_NAME.search(value.name)),
    ):
        labels = [value for value in (a, b) if fits(value)]
        if len(labels) == 1:
            return b if labels[0] is a else a, labels[0]
    raise UsageError(
        f"{where}: takes {shown}; which of them are labels is not known",
        "Name its classes, in order, as many as the labels are wide: --classes a,b,c",
    )


def _is_one_hot(foreign: Foreign, label: Input, said: Said) -> bool:
    wide = label.size > 1 and max(label.shape) == label.size
    if not wide and label.size != 1:
        raise TrainingError(
            f"{foreign.where}: takes labels {label}", "Expected labels [N], [N, 1], or one-hot [N, classes]."
        )
    if said.labels is not None and (said.labels == "onehot") != wide:
        fits = "onehot" if wide else "int"
        raise UsageError(f"labels {said.labels!r}: {foreign.where} takes {label}", f"--labels {fits} would fit.")
    return wide


def _class_names(
    foreign: Foreign, latent: Input, label: Input | None, one_hot: bool, said: Said, tell: Callable[[str], None]
) -> tuple[str, ...]:
    if label is None:
        return ()
    names = tuple(said.class_names)
    if len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise UsageError(f"classes {', '.join(names)}", "Give each class a name of its own.")
    count = label.size if one_hot else _counted_classes(foreign, latent, label)
    if count is None:
        if not names:
            raise UsageError(
                f"{foreign.where}: takes labels ({label}), any number of them",
                "Name its classes, in order: --classes a,b,c.",
            )
        return names
    if names and len(names) != count:
        raise UsageError(
            f"{foreign.where}: takes labels of {count} classes ({label}); {len(names)} are named: {', '.join(names)}",
            "Name them all, in order: --classes a,b,c.",
        )
    if not names:
        tell(f"classes: {count}, named 0 to {count - 1}; --classes a,b,c names them")
    return names or tuple(map(str, range(count)))


def _counted_classes(foreign: Foreign, latent: Input, label: Input) -> int | None:
    """How many labels a generator takes, found by giving it ever larger ones; None when it takes any."""
    z = np.zeros((1, *latent.shape), np.float32)
    first = foreign.inputs[0] is latent

    def takes(y: int) -> bool:
        labels = np.full((1, *label.shape), y, label.dtype)
        try:
            foreign.images(*((z, labels) if first else (labels, z)))
        except Exception:  # of PyTorch, Keras or ONNX Runtime: an index out of the table's bounds
            return False
        return True

    if not takes(0) or takes(MAX_CLASSES):
        return None  # what is wrong in the first case, the probe with latents will say
    low, high = 0, 1
    while takes(high):
        low, high = high, min(high * 2, MAX_CLASSES)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) else (low, middle)
    return low + 1


def _probed(foreign: Foreign, call: Call, said: Said) -> Floats:
    """The images of PROBED latents, all classes in turn. Raises TrainingError for what makes none."""
    where, rows = foreign.where, foreign.batch or _ROWS
    z = drawn(call.latent.size, PROBED, said.z_distribution)
    y = np.arange(PROBED, dtype=np.int64) % len(call.class_names) if call.class_names else None
    parts = []
    try:
        for first in (*range(0, PROBED, rows), 0):  # the first ones again
            part = slice(first, first + rows)
            parts.append(foreign.images(*call.given(z[part], None if y is None else y[part])))
    except Exception as error:  # of PyTorch, Keras or ONNX Runtime, whose exceptions have no common base
        raise TrainingError(
            f"{where}: makes no images of {min(rows, PROBED)} latents: {_first_line(error)}",
            "It must take a batch of latents, and the labels of all its classes.",
        ) from error
    again = parts.pop()
    made = parts[0].shape
    if len(made) != 4:
        raise TrainingError(
            f"{where}: makes images of shape {['N', *made[1:]]}".replace("'", ""),
            "Expected [N, C, H, W] or [N, H, W, C]: end the network with a reshape, such as .view(-1, 1, 28, 28).",
        )
    if made[0] != min(rows, PROBED):
        raise TrainingError(
            f"{where}: makes {made[0]} images of {min(rows, PROBED)} latents", "Expected one of each latent."
        )
    samples = np.concatenate(parts)
    if not np.isfinite(samples).all():
        raise TrainingError(
            f"{where}: makes numbers that are not finite", "Its weights are broken, or overflow: take others."
        )
    if np.abs(again - parts[0]).max() > 1e-3 * max(1.0, float(np.ptp(parts[0]))):
        raise TrainingError(
            f"{where}: makes other images of the same latents when it is called again",
            "It draws random numbers as it runs: make them constants of the network, or a part of z.",
        )
    return samples


def _is_nchw(where: str, made: tuple[int, ...], layout: str | None) -> bool:
    """Whether images have their channels first. Raises when neither sizes nor ``layout`` say so."""
    shape = str(["N", *made[1:]]).replace("'", "")
    fitting = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if made[axis] in (1, 3)]
    if not fitting:
        raise TrainingError(f"{where}: makes images of shape {shape}", "Expected 1 (grey) or 3 (RGB) channels.")
    if layout is None and len(fitting) == 2:
        raise UsageError(f"{where}: images of shape {shape}, in two layouts", "Say --layout nchw or --layout nhwc.")
    if layout is not None and layout not in fitting:
        raise UsageError(f"layout {layout!r}: images have shape {shape}", f"Expected {' or '.join(fitting)}.")
    return (layout or fitting[0]) == "nchw"


def _guessed_range(
    where: str, graph: onnx.ModelProto, samples: Floats, tell: Callable[[str], None]
) -> tuple[float, float]:
    least, most = float(samples.min()), float(samples.max())
    runs = f"values of {len(samples)} samples run from {least:.4g} to {most:.4g}"
    operator, by_operator = _last_operator(graph)
    found = by_operator
    if found is None or not found[0] <= least <= most <= found[1]:
        found = _range_of(samples)
    if found is None:
        raise UsageError(
            f"{where}: the range of its images is not clear: {runs}",
            "Say which values are black and white: --range=-1,1, --range=0,1 or --range=0,255.",
        )
    low, high = found
    because = f"its last operator is {operator}, and " if found == by_operator else ""
    tell(f"range: [{low:g}, {high:g}], guessed: {because}{runs}; --range={low:g},{high:g} fixes it")
    return found


def _range_of(samples: Floats) -> tuple[float, float] | None:
    """The one usual range that most values lie in and a good part of which they cover."""
    low, high = (float(v) for v in np.quantile(samples, (0.01, 0.99)))
    if -1.1 <= low < -0.3 and high <= 1.1 and high - low >= 0.8:
        return -1.0, 1.0
    if -0.02 <= low < 0.4 and 0.5 <= high <= 1.02 and high - low >= 0.4:
        return 0.0, 1.0
    if -5 <= low < 100 and 128 <= high <= 260:
        return 0.0, 255.0
    return None


def _last_operator(model: onnx.ModelProto) -> tuple[str, tuple[float, float] | None]:
    """The last operator that computes something, and the range it keeps to if that is known."""
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in _MOVING:
        node = makers.get(node.input[0])
    if node is None:
        return "", None
    if node.op_type == "Clip" and len(node.input) == 3:
        bounds = [_number(name, constants, makers) for name in node.input[1:]]
        if bounds in ([-1.0, 1.0], [0.0, 1.0], [0.0, 255.0]):
            return "Clip", (bounds[0], bounds[1])  # type: ignore[return-value]
    return node.op_type, _RANGES.get(node.op_type)


def _number(name: str, constants: dict[str, onnx.TensorProto], makers: dict[str, onnx.NodeProto]) -> float | None:
    tensor = constants.get(name)
    if tensor is None and (node := makers.get(name)) is not None and node.op_type == "Constant":
        value = helper.get_attribute_value(node.attribute[0])
        tensor = value if isinstance(value, onnx.TensorProto) else None
    value = None if tensor is None else numpy_helper.to_array(tensor)
    return float(value.reshape(())) if value is not None and value.size == 1 else None


def _check_range(where: str, samples: Floats, value_range: tuple[float, float]) -> None:
    low, high = value_range
    outside = float(np.mean((samples < low - 0.05 * (high - low)) | (samples > high + 0.05 * (high - low))))
    if outside > 0.5:
        raise UsageError(
            f"{where}: {outside:.0%} of its values are outside of {low:g},{high:g}; they run from "
            f"{samples.min():.4g} to {samples.max():.4g}",
            "Pass the --range that its training images had.",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
