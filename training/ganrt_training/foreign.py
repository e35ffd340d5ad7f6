"""What a generator from elsewhere is to the exporter, wherever it comes from: how it is called, and its graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Input:
    """An input: its name in the graph, its numpy dtype (``float32``, ``int64``, ``int32``), its shape after N."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it takes for an image."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(['N', *map(str, self.shape)])}]"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Somebody else's generator.

    ``where`` is what errors call it; ``digest`` names its weights, ``sha256:`` and 64 hex digits. ``run`` calls the
    source itself, with an array [N, *shape] for each input, in the order and of the dtypes of ``inputs``, and returns
    images as it makes them, float32. ``batch`` is the one N it takes, None for any.
    ``graph`` makes an ONNX graph that does the same, once it is known that the source is usable: with those inputs and
    one float32 output, N dynamic.
    """

    where: str
    digest: str
    inputs: tuple[Input, ...]
    run: Callable[..., Floats]
    graph: Callable[[], onnx.ModelProto]
    batch: int | None = None
    made_with: tuple[tuple[str, str], ...] = ()  # packages and versions, for the card

    def images(self, *given: NDArray[Any]) -> Floats:
        """What the source makes of any number of rows; where its batch is fixed, in batches that are filled up."""
        count, batch = len(given[0]), self.batch
        if batch is None:
            return self.run(*given)
        made = []
        for first in range(0, count, batch):
            rows = np.arange(first, first + batch) % count
            made.append(self.run(*(value[rows] for value in given)))
        return np.concatenate(made)[:count]
