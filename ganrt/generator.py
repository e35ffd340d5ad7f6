"""A generator: z, y, psi → images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganrt.arguments import check_has_w, latent_feeds, style_feeds
from ganrt.card import LATENTS
from ganrt.contract import CheckedModel
from ganrt.encode import Pixels, resize, to_mode
from ganrt.errors import GanrtError, InferenceError, UsageError
from ganrt.latents import labels, latents
from ganrt.network import Network, load_checked_network, load_network, reload_network
from ganrt.samples import Samples, check_psi, check_run, check_samples
from ganrt.shards import CHANNELS, DEFAULT_BATCH

DRAWN = 1 << 16  # numbers that are drawn at a time, unless a batch needs more


@dataclass(frozen=True)
class Batch:
    """Consecutive samples: images uint8 [N, H, W, C], labels int64 [N] (None without classes), indices int64 [N]."""

    images: Pixels
    labels: NDArray[np.int64] | None
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """One batch for the network: the samples from ``first`` on, z float32 [N, z_dim], y int64 [N] with classes."""

    first: int
    z: NDArray[np.float32]
    y: NDArray[np.int64] | None


def load(
    model: Any = "fashion",
    device: str = "auto",
    batch: int | None = None,
    threads: int | None = None,
    *,
    provider_options: Mapping[str, Any] | None = None,
) -> Generator:
    """Loads a generator.

    ``model`` is a name that :func:`ganrt.list_models` gives, the path of an ONNX file (it has a separator
    or ends in ``.onnx``), or a ready-made ``onnxruntime.InferenceSession`` on such a file. ``device`` is
    ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes CUDA where it works and logs what it took.
    ``batch`` is the number of samples a call of the network gets in ``sample`` and ``stream`` (64 unless
    given), ``threads`` how many threads one call uses on a CPU (all processors unless given).
    ``provider_options`` go to ONNX Runtime's CUDA provider; only those it knows are taken.

    Raises UnknownModel, ContractError, DeviceUnavailable, UsageError, InferenceError.
    """
    return load_network(Generator, model, device, batch, threads, provider_options)


def load_checked(
    model: CheckedModel,
    path: Path,
    device: str,
    batch: int | None,
    threads: int | None,
    provider_options: Mapping[str, Any] | None = None,
) -> Generator:
    """Loads a generator whose bytes passed the contract's check."""
    return load_checked_network(Generator, model, path, device, batch, threads, provider_options)


class Generator(Network):
    """A loaded generator; made by :func:`ganrt.load`.

    May be called from several threads. Pickles as a specification: the other process loads the same file
    anew, on the device asked for.
    """

    KIND = LATENTS
    BATCH = DEFAULT_BATCH

    def with_threads(self, threads: int) -> Generator:
        """The generator with so many threads a call: loaded anew, where it runs on a CPU and nobody chose its own.

        Itself where they are its own already, or were chosen, or its file is not there any more.
        """
        if self._device != "cpu" or not self._source or self._source.threads or self.threads == threads:
            return self
        try:
            return reload_network(Generator, replace(self._source, threads=threads))
        except GanrtError:
            return self

    def __call__(self, z: ArrayLike, y: ArrayLike | None = None, psi: float | None = None) -> Pixels:
        """Images of given latents.

        ``z`` float [N, z_dim]; ``y`` integers [N], or one for all, where the card has classes; ``psi``
        0 … 1 where the card says so (1.0, none, unless given). Returns uint8 [N, H, W, C].

        Raises UsageError for arguments of the wrong shape or range, InferenceError.
        """
        feeds, psi = latent_feeds(self._card, z, y), check_psi(self._card, psi)
        return self._all_images(feeds, {} if psi is None else {"psi": np.array(psi, np.float32)})

    def w(self, z: ArrayLike, y: ArrayLike | None = None, psi: float | None = None) -> NDArray[np.float32]:
        """What the mapping network makes of latents, after truncation: float32 [N, num_ws, w_dim], a w for each layer.

        Arguments as for a call. Raises UsageError, also where the card has no w; InferenceError.
        """
        check_has_w(self._card)
        feeds, psi = latent_feeds(self._card, z, y), check_psi(self._card, psi)
        made = np.empty((len(feeds["z"]), self._card.num_ws, self._card.w_dim), np.float32)
        if len(made):
            more = {} if psi is None else {"psi": np.array(psi, np.float32)}
            made[:] = self._run_for("w_mapped", feeds | more)
        return made

    def from_w(self, w: ArrayLike) -> Pixels:
        """Images of given w float [N, num_ws, w_dim], used as they are, without truncation: uint8 [N, H, W, C].

        ``generator.from_w(generator.w(z, y, psi))`` are the images of z, y and psi.
        Raises UsageError, also where the card has no w; InferenceError.
        """
        return self._all_images(style_feeds(self._card, w), {"w_given": np.array(True)})

    def sample(
        self,
        n: int,
        seed: int = 0,
        start: int = 0,
        classes: Sequence[str | int] | None = None,
        psi: float = 1.0,
        size: int | tuple[int, int] | None = None,
        *,
        latent_std: float = 1.0,
        resample: str | None = None,
        mode: str | None = None,
    ) -> Pixels:
        """The samples start … start+n-1: uint8 [n, H, W, C].

        A sample is fixed by (seed, index): it does not depend on n or start. ``classes`` are names or
        numbers that take turns (all classes unless given); ``size`` is the side or (width, height) in
        pixels to resize to, with ``resample`` nearest, bilinear or lanczos; ``mode`` is l or rgb.

        Raises UsageError, UnknownClass, InferenceError.
        """
        n, start = check_run(n, start)
        samples = check_samples(self._card, seed, classes, psi, size, latent_std, resample, mode)
        width, height = samples.size or (self._card.width, self._card.height)
        try:
            images = np.empty((n, height, width, CHANNELS[samples.mode]), np.uint8)
        except (MemoryError, ValueError):
            raise UsageError(
                f"n {n}: so many images do not fit into memory", "Take them a batch at a time: stream, or generate."
            ) from None
        for batch in self.batches(samples, start, start + n, self._batch):
            images[batch.indices - start] = batch.images
        return images

    def stream(
        self,
        n: int,
        seed: int = 0,
        start: int = 0,
        classes: Sequence[str | int] | None = None,
        psi: float = 1.0,
        size: int | tuple[int, int] | None = None,
        *,
        latent_std: float = 1.0,
        resample: str | None = None,
        mode: str | None = None,
    ) -> Iterator[Batch]:
        """The same samples as :meth:`sample`, a batch at a time, in bounded memory.

        Arguments are checked at once, not at the first batch.
        """
        n, start = check_run(n, start)
        samples = check_samples(self._card, seed, classes, psi, size, latent_std, resample, mode)
        return self.batches(samples, start, start + n, self._batch)

    def batches(self, samples: Samples, start: int, stop: int, batch: int) -> Iterator[Batch]:
        """The samples start … stop-1, a batch at a time."""
        return (self.make(samples, draw, start, stop) for draw in self.draws(samples, start, stop, batch))

    def draws(self, samples: Samples, start: int, stop: int, batch: int) -> Iterator[Draw]:
        """What the network is given for the samples start … stop-1.

        Batch k holds the indices k·batch … (k+1)·batch-1 whatever the run asked for; at its edges the network
        is given the whole batch and the result is cut, so that a sample's neighbours never change.
        """
        first, end = start - start % batch, stop + -stop % batch
        card, several = self._card, max(1, DRAWN // (self._card.z_dim * batch)) * batch
        for block in range(first, end, several):
            # Several batches at a time: numpy's calls, and the turns they take with other threads, are the cost.
            count = min(several, end - block)
            z = latents(
                samples.seed, block, count, card.z_dim, distribution=card.z_distribution, std=samples.latent_std
            )
            y = labels(samples.classes, block, count) if samples.classes else None
            for at in range(0, count, batch):
                yield Draw(block + at, z[at : at + batch], None if y is None else y[at : at + batch])

    def make(self, samples: Samples, draw: Draw, start: int, stop: int) -> Batch:
        """Those of the samples start … stop-1 that lie in one batch, at least one."""
        first, count = draw.first, len(draw.z)
        images = self.network(draw, samples.psi)
        self._check_varied(images, samples, first)
        kept = slice(max(start, first) - first, min(stop, first + count) - first)
        images = to_mode(images[kept], samples.mode)
        if samples.size:
            try:
                images = resize(images, samples.size, samples.resample)
            except MemoryError:
                size = "x".join(map(str, samples.size))
                raise InferenceError(
                    f"{len(images)} images of {size} do not fit into memory", self._too_large
                ) from None
        return Batch(
            np.ascontiguousarray(images),
            None if draw.y is None else draw.y[kept],
            np.arange(first + kept.start, first + kept.stop, dtype=np.int64),
        )

    def network(self, draw: Draw, psi: float | None) -> Pixels:
        """One call of the network and nothing else: uint8 [N, H, W, C] of its own size."""
        feeds: dict[str, NDArray[Any]] = {"z": draw.z} if draw.y is None else {"z": draw.z, "y": draw.y}
        if psi is not None:
            feeds["psi"] = np.array(psi, np.float32)
        return self._run(feeds, self._shape(len(draw.z)))

    def _all_images(self, rows_of: dict[str, NDArray[Any]], common: dict[str, NDArray[Any]]) -> Pixels:
        """Images of inputs that have a row an image and of what all share: on a CPU in one call."""
        count = len(rows_of["z"])
        if not self._device.startswith("cuda"):
            return self._run(rows_of | common, self._shape(count))
        images = np.empty(self._shape(count), np.uint8)
        for batch, rows in self._in_batches(rows_of):
            made = self._run(batch | common, self._shape(len(batch["z"])))
            images[rows] = made[: rows.stop - rows.start]
        return images

    def _shape(self, count: int) -> tuple[int, int, int, int]:
        return count, self._card.height, self._card.width, self._card.channels

    def _check_varied(self, images: Pixels, samples: Samples, first: int) -> None:
        """Raises InferenceError when all images of a class in a batch, three or more, are one.

        Finished pixels cannot show NaN otherwise.
        """
        if images[0].size < 16 or samples.latent_std < 0.1 or (samples.psi is not None and samples.psi < 0.1):
            return
        turns = max(1, len(samples.classes))
        for turn in range(min(turns, len(images) - 2 * turns)):
            same = images[turn::turns]
            if np.array_equal(same[0], same[1]) and (same == same[0]).all():
                y = samples.classes[(first + turn) % turns] if samples.classes else None
                of = "" if y is None else f" of class {self._card.class_names[y]!r}"
                raise InferenceError(
                    f"generator {self._card.name} made {len(same)} times the same image{of}",
                    "Its weights are broken (NaN, or a collapsed training); export another snapshot.",
                )
