"""A translator: images → images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ganrt.card import COLOURS, IMAGES, Card
from ganrt.encode import Pixels
from ganrt.errors import UsageError
from ganrt.network import Network, Source, load_network


def load_translator(
    model: Any,
    device: str = "auto",
    batch: int | None = None,
    threads: int | None = None,
    *,
    provider_options: Mapping[str, Any] | None = None,
) -> Translator:
    """Loads an image-to-image generator.

    ``model``, ``device``, ``threads`` and ``provider_options`` are as for :func:`ganrt.load`. ``batch`` is the
    number of images a call of the network gets at most (16 unless given).

    Raises UnknownModel, ContractError, DeviceUnavailable, UsageError, InferenceError.
    """
    return load_network(Translator, model, device, batch, threads, provider_options)


class Translator(Network):
    """A loaded image-to-image generator; made by :func:`ganrt.load_translator`.

    May be called from several threads. Pickles as a specification: the other process loads the same file
    anew, on the device asked for.
    """

    KIND = IMAGES
    BATCH = 16
    _too_large = "Use a smaller batch (--batch), or smaller images."
    _one_too_large = "Use smaller images, or fewer --workers."

    def __init__(
        self, card: Card, session: Any, device: str, batch: int, digest: str | None, source: Source | None
    ) -> None:
        super().__init__(card, session, device, batch, digest, source)
        [x] = session.get_inputs()
        _, height, width, _ = x.shape
        self._size: tuple[int, int] | None = (width, height) if isinstance(height, int) else None
        if self.dynamic:  # networks that halve and double images fail on odd ones, each in its own way
            self._failed = self._wrong_shape = "The network may not take this size: try sides that are multiples of 32."

    @property
    def dynamic(self) -> bool:
        """Whether it takes images of any size."""
        return self._size is None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the images it takes; None where it takes any."""
        return self._size

    def __call__(self, images: ArrayLike) -> Pixels:
        """The images that it makes of the given ones.

        ``images`` uint8 [N, H, W, C], for grey ones [N, H, W] too; all of one size. Returns uint8
        [N, H * scale, W * scale, C] with the card's scale and channels.

        Raises UsageError for images of another type, size or number of channels, InferenceError.
        """
        x = self._checked(images)
        count, height, width, _ = x.shape
        shape = height * self._card.scale, width * self._card.scale, self._card.channels
        made = np.empty((count, *shape), np.uint8)
        for feeds, rows in self._in_batches({"x": x}):
            made[rows] = self._run(feeds, (len(feeds["x"]), *shape))[: rows.stop - rows.start]
        return made

    def _checked(self, images: ArrayLike) -> Pixels:
        """Images as the network takes them. Raises UsageError."""
        name, channels = self._card.name, self._card.in_shape[2]
        width, height = self._size or ("W", "H")
        expected = f"[N, {height}, {width}, {channels}]" + (f" or [N, {height}, {width}]" if channels == 1 else "")
        try:
            x = np.ascontiguousarray(images)
        except (TypeError, ValueError) as error:
            raise UsageError(f"images are no array of pixels: {error}", f"Expected uint8 {expected}.") from None
        if x.dtype != np.uint8:
            raise UsageError(f"images of {x.dtype}", f"Expected uint8 {expected}, 0 to 255: convert them.")
        if x.ndim == 3 and channels == 1:
            x = x[..., None]
        if x.ndim != 4:
            raise UsageError(f"images of shape {list(x.shape)}", f"Expected {expected}; one alone is images[None].")
        if x.shape[3] != channels:
            raise UsageError(
                f"images of {x.shape[3]} channels: generator {name} takes {COLOURS[channels]}",
                f"Convert them to {COLOURS[channels]}: {expected}.",
            )
        given = x.shape[2], x.shape[1]
        if given != (self._size or given):
            raise UsageError(
                f"images of {given[0]}x{given[1]}: generator {name} takes {width}x{height}", "Resize them."
            )
        if not all(given):
            raise UsageError(f"images of {given[0]}x{given[1]}", "Expected at least one pixel.")
        return x
