"""Feature networks (stub until the real one is merged)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Seen:
    features: NDArray[np.float32]
    logits: NDArray[np.float32] | None


class FeatureNetwork(Protocol):
    name: str
    class_names: tuple[str, ...]
    about: dict[str, Any]

    def see(self, images: NDArray[np.uint8], progress: Callable[[int, int], object] | None = None) -> Seen: ...


def open_network(
    name_or_path: str, *, weights: Path | None = None, device: str = "auto", threads: int | None = None
) -> FeatureNetwork:
    raise NotImplementedError


def shipped_for(class_names: Sequence[str], size: tuple[int, int], channels: int) -> str | None:
    return None
