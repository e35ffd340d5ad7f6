"""What a network sees in images: features, by which sets of images are compared, and logits where it has classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganrt.encode import resize, to_mode
from ganrt.errors import InferenceError, UsageError

Pixels = NDArray[np.uint8]  # [N, H, W, C]
Floats = NDArray[np.float32]

RESAMPLE = "bilinear"
RESIZED = "bilinear, antialiased, rounded to whole grey levels (Pillow)"
_PIXELS, _MOST = 32 * 299 * 299, 256  # of a batch: those of 32 images of Inception's size, and at most so many images


@dataclass(frozen=True)
class Seen:
    """``features`` [N, D], and ``logits`` [N, K] or None where the network has none; both float32 and finite."""

    features: Floats
    logits: Floats | None


class FeatureNetwork:
    """A network that looks at images.

    ``run`` maps a batch of uint8 [n, H, W, ``channels``] to features and logits of n rows each (or None). H and W are
    ``size`` where that is given: images of other sizes are resized; grey ones are repeated, coloured ones made grey by
    ITU-R 601 luma, where the network wants that. ``batch`` is for a network that takes so many images and no other
    number, ``most`` for one that makes them larger itself; ``whole`` fills up the last batch, as on a GPU, where each
    new shape costs time.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Pixels], tuple[Floats, Floats | None]],
        *,
        channels: int,
        size: tuple[int, int] | None = None,
        class_names: Sequence[str] = (),
        about: dict[str, Any] | None = None,
        batch: int | None = None,
        most: int = _MOST,
        whole: bool = False,
    ) -> None:
        self.name = name
        self.class_names = tuple(class_names)
        self.about = {"name": name, **(about or {})}
        self.channels = channels
        self.size = size
        self._run = run
        self._batch = batch
        self._most = most
        self._whole = whole or batch is not None

    def __repr__(self) -> str:
        return f"<FeatureNetwork {self.name}>"

    def see(self, images: Pixels, progress: Callable[[int, int], object] | None = None) -> Seen:
        """What the network sees in images uint8 [N, H, W, C] of any size, C 1 or 3, in their order.

        Works in batches, so that memory beyond the result is bounded. ``progress`` gets how many images are done, and
        how many there are. Raises UsageError for what are no images, InferenceError when the network fails or what it
        makes are no finite features.
        """
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3) or not all(images.shape):
            raise UsageError(
                f"images {images.dtype} {list(images.shape)}",
                "Expected uint8 [N, H, W, C] of at least one image, with 1 or 3 channels.",
            )
        height, width = self.size or images.shape[1:3]
        step = self._batch or max(1, min(self._most, _PIXELS // (height * width)))
        found: list[Floats | None] = [None, None]
        for first in range(0, len(images), step):
            part = images[first : first + step]
            count = len(part)
            part = resize(to_mode(part, "l" if self.channels == 1 else "rgb"), (width, height), RESAMPLE)
            if self._whole and count < step:
                part = np.concatenate([part, np.repeat(part[:1], step - count, axis=0)])
            for at, (what, rows) in enumerate(zip(("features", "logits"), self._run(part), strict=True)):
                if rows is None:
                    continue
                rows = self._checked(what, rows, len(part))
                into = found[at]
                if into is None:
                    into = found[at] = np.empty((len(images), rows.shape[1]), np.float32)
                if rows.shape[1] != into.shape[1]:
                    raise InferenceError(f"network {self.name} made {what} of different lengths", "Use another.")
                into[first : first + count] = rows[:count]
            if progress:
                progress(first + count, len(images))
        features, logits = found
        assert features is not None
        return Seen(features, logits)

    def _checked(self, what: str, rows: NDArray[Any], count: int) -> Floats:
        """Rows as float32 [count, D]. Axes of length 1, which pooling leaves behind, are dropped."""
        shape = rows.shape
        if len(shape) < 2 or shape[0] != count or sum(side > 1 for side in shape[1:]) > 1 or 0 in shape:
            raise InferenceError(
                f"network {self.name} made {what} of shape {list(shape)} from {count} images",
                "Expected [N, D], or [N, D, 1, 1]: name an output behind the pooling (:features=OUTPUT).",
            )
        flat: Floats = rows.reshape(count, -1).astype(np.float32, copy=False)
        if not np.isfinite(flat).all():
            raise InferenceError(
                f"network {self.name} made {what} that are not finite (NaN or infinity)",
                "Are its pixels fed as it expects (:range=, :mean=, :std=)? In float16 numbers overflow early.",
            )
        return flat
