"""How pixels become what a network's input is given: read from the input, and from options for what it does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganrt.errors import ContractError, UsageError
from ganrt.interface import Value
from ganrt.values import told
from ganrt_training.evaluation.features import Pixels

TYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
_MAX_SIDE, _MAX_BATCH = 4096, 4096
_MAX_PIXELS = 1 << 26  # of a batch: 1,024 images of 256x256
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
class Feed:
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
    def of(cls, where: str, value: Value, options: Options) -> Feed:
        """Read from the input, and the options for what it does not say. Raises UsageError, ContractError."""
        shape = value.shape or ()
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
        if isinstance(shape[0], int) and not 1 <= shape[0] <= _MAX_BATCH:
            raise ContractError(f"{where}: its input is {value}", f"Expected a dynamic N, or one of 1 to {_MAX_BATCH}.")
        feed = cls(
            value.dtype,
            nchw,
            channels,
            (size[0], size[1]) if size[0] and size[1] else None,
            shape[0] if isinstance(shape[0], int) else None,
        )
        if feed.size and feed.size[0] * feed.size[1] * (feed.batch or 1) > _MAX_PIXELS:
            raise ContractError(f"{where}: its input is {value}", f"Expected at most {_MAX_PIXELS:,} pixels at once.")
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
            given = ((floats - mean) / std).astype(TYPES[self.dtype])
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
