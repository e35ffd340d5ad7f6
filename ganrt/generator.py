"""A generator: z, y, psi → images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganrt.bound import bound_runs
from ganrt.card import Card
from ganrt.contract import CheckedModel, card_of_session, read_model
from ganrt.encode import DEFAULT_RESAMPLE, RESAMPLE, Pixels, resize, to_mode
from ganrt.errors import GanrtError, InferenceError, ModelError, UsageError
from ganrt.latents import MAX_INDEX, MAX_SEED, labels, latents
from ganrt.models import find_model
from ganrt.providers import check_provider_options, cpu_count, create_session, device_of_session, load_error
from ganrt.shards import CHANNELS, DEFAULT_BATCH, MAX_BATCH, MAX_SIZE, require

MAX_THREADS = 1024
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


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What is drawn for each index, and what is done to the pixels."""

    seed: int
    classes: tuple[int, ...]
    psi: float | None
    latent_std: float
    size: tuple[int, int] | None
    resample: str
    mode: str


@dataclass(frozen=True)
class _Source:
    """From what a generator can be made again in another process."""

    path: str
    digest: str
    device: str
    batch: int | None
    threads: int | None
    provider_options: dict[str, Any]


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
    batch = require("batch", DEFAULT_BATCH if batch is None else batch, 1, MAX_BATCH)
    threads = None if threads is None else require("threads", threads, 1, MAX_THREADS)
    session: Any = model if hasattr(model, "get_modelmeta") and hasattr(model, "run") else None
    if session:
        if device != "auto" or threads is not None or provider_options:
            raise UsageError(
                "device, threads and provider options belong to the session given", "Set them where it is made."
            )
        return Generator(card_of_session(session), session, device_of_session(session), batch, None, None)
    path = find_model(model)
    return load_checked(read_model(path), path, device, batch, threads, provider_options)


def load_checked(
    model: CheckedModel,
    path: Path,
    device: str,
    batch: int | None,
    threads: int | None,
    provider_options: Mapping[str, Any] | None = None,
) -> Generator:
    """Loads a generator whose bytes passed the contract's check."""
    session, used = create_session(model.data, device, threads or cpu_count(), provider_options)
    card_of_session(session, str(path))  # ONNX Runtime read the same interface out of the bytes as the check did
    source = _Source(str(path.resolve()), model.digest, device, batch, threads, dict(provider_options or {}))
    return Generator(model.card, session, used, batch or DEFAULT_BATCH, model.digest, source)


def _reload(source: _Source) -> Generator:
    path = Path(source.path)
    model = read_model(path)
    if model.digest != source.digest:
        raise ModelError(f"{path} is not the file that the pickled generator was loaded from", "Load it again.")
    return load_checked(model, path, source.device, source.batch, source.threads, source.provider_options)


class Generator:
    """A loaded generator; made by :func:`ganrt.load`.

    May be called from several threads. Pickles as a specification: the other process loads the same file
    anew, on the device asked for.
    """

    def __init__(
        self, card: Card, session: Any, device: str, batch: int, digest: str | None, source: _Source | None
    ) -> None:
        self._card = card
        self._session = session
        self._device = device
        self._batch = batch
        self._digest = digest
        self._source = source
        self._bound = bound_runs(device, session)

    @property
    def card(self) -> Card:
        """What the generator says of itself."""
        return self._card

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:N``, or another provider's name for a session given."""
        return self._device

    @property
    def batch(self) -> int:
        """How many samples a call of the network gets in :meth:`sample` and :meth:`stream`."""
        return self._batch

    @property
    def threads(self) -> int | None:
        """How many threads a call of the network has on a CPU; None for a session given."""
        return (self._source.threads or cpu_count()) if self._source else None

    def with_threads(self, threads: int) -> Generator:
        """The generator with so many threads a call: loaded anew, where it runs on a CPU and nobody chose its own.

        Itself where they are its own already, or were chosen, or its file is not there any more.
        """
        if self._device != "cpu" or not self._source or self._source.threads or self.threads == threads:
            return self
        try:
            return _reload(replace(self._source, threads=threads))
        except GanrtError:
            return self

    @property
    def provider_options(self) -> dict[str, str]:
        """The options of ONNX Runtime's CUDA provider that were asked for; none on a CPU."""
        asked = self._source.provider_options if self._source and self._device != "cpu" else None
        return check_provider_options(asked, self._device)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the ONNX file, 64 hex digits; None for a session given."""
        return self._digest

    def __repr__(self) -> str:
        return f"<ganrt.Generator {self._card.name} on {self._device}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._source is None:
            raise UsageError("a generator made from a session cannot be pickled", "Load it from its file instead.")
        return _reload, (self._source,)

    def __call__(self, z: ArrayLike, y: ArrayLike | None = None, psi: float | None = None) -> Pixels:
        """Images of given latents.

        ``z`` float [N, z_dim]; ``y`` integers [N], or one for all, where the card has classes; ``psi``
        0 … 1 where the card says so (1.0, none, unless given). Returns uint8 [N, H, W, C].

        Raises UsageError for arguments of the wrong shape or range, InferenceError.
        """
        try:
            z = np.ascontiguousarray(z, np.float32)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"z is no array of numbers: {error}", f"Expected float32 [N, {self._card.z_dim}]."
            ) from None
        if z.ndim != 2 or z.shape[1] != self._card.z_dim:
            raise UsageError(f"z of shape {list(z.shape)}", f"Expected [N, {self._card.z_dim}].")
        if not np.isfinite(z).all():
            raise UsageError("z holds NaN or infinity", "Expected finite numbers.")
        feeds = {"z": z}
        classes = len(self._card.class_names)
        if classes:
            if y is None:
                raise UsageError(f"generator {self._card.name} needs y", f"Expected labels of 0 to {classes - 1}.")
            labels = np.asarray(y)
            if labels.dtype.kind not in "iu" or labels.ndim > 1:
                raise UsageError(f"y is {labels.dtype} {list(labels.shape)}", "Expected integers [N] or one for all.")
            if labels.ndim and len(labels) != len(z):
                raise UsageError(f"{len(labels)} labels for {len(z)} latents", "Expected one each.")
            if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
                raise UsageError(f"y holds {labels.min()} to {labels.max()}", f"Expected labels of 0 to {classes - 1}.")
            feeds["y"] = np.ascontiguousarray(np.broadcast_to(labels.astype(np.int64), len(z)))
        elif y is not None:
            raise UsageError(f"generator {self._card.name} has no classes", "Leave y out.")
        psi = check_psi(self._card, psi)
        if not self._device.startswith("cuda"):
            return self._run(feeds, psi)
        # On a GPU each new shape costs new plans: calls are cut into batches of one shape.
        chunks = []
        for first in range(0, len(z), self._batch):
            cut = {name: value[first : first + self._batch] for name, value in feeds.items()}
            missing = self._batch - len(cut["z"])
            padded = {name: np.concatenate([v, np.repeat(v[:1], missing, axis=0)]) for name, v in cut.items()}
            chunks.append(self._run(padded, psi)[: self._batch - missing])
        return np.concatenate(chunks) if chunks else self._run(feeds, psi)

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
        images = np.empty((n, height, width, CHANNELS[samples.mode]), np.uint8)
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
            images = resize(images, samples.size, samples.resample)
        return Batch(
            np.ascontiguousarray(images),
            None if draw.y is None else draw.y[kept],
            np.arange(first + kept.start, first + kept.stop, dtype=np.int64),
        )

    def network(self, draw: Draw, psi: float | None) -> Pixels:
        """One call of the network and nothing else: uint8 [N, H, W, C] of its own size."""
        return self._run({"z": draw.z} if draw.y is None else {"z": draw.z, "y": draw.y}, psi)

    def _run(self, feeds: dict[str, NDArray[Any]], psi: float | None) -> Pixels:
        count = len(feeds["z"])
        wanted = (count, self._card.height, self._card.width, self._card.channels)
        if not count:
            return np.empty(wanted, np.uint8)
        if psi is not None:
            feeds = {**feeds, "psi": np.array(psi, np.float32)}
        try:
            if self._device.startswith("cuda"):
                images: Pixels = self._bound.run(self._session, feeds, wanted)
            else:
                [images] = self._session.run(["images"], feeds)
        except GanrtError:  # of the copies, which says what to do
            raise
        except Exception as error:  # ONNX Runtime raises a dozen types that share no base
            raise run_error(error, count) from error
        if images.shape != wanted or images.dtype != np.uint8:
            raise InferenceError(
                f"generator {self._card.name} made {images.dtype} {list(images.shape)}, not uint8 {list(wanted)}",
                "Its card is wrong; export it again.",
            )
        return images

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


def check_run(n: int, start: int) -> tuple[int, int]:
    """A run of indices, start … start+n-1, as (n, start). Raises UsageError."""
    n, start = require("n", n, 0, MAX_INDEX), require("start", start, 0, MAX_INDEX)
    require("start + n", start + n, 0, MAX_INDEX)
    return n, start


def check_samples(
    card: Card,
    seed: int = 0,
    classes: Sequence[str | int] | None = None,
    psi: float | None = None,
    size: int | tuple[int, int] | None = None,
    latent_std: float = 1.0,
    resample: str | None = None,
    mode: str | None = None,
) -> Samples:
    """Settings for :meth:`Generator.batches`, checked against a card. Raises UsageError and UnknownClass."""
    seed = require("seed", seed, 0, MAX_SEED)
    if not _is_number(latent_std) or not 0 < latent_std <= 100:
        raise UsageError(f"latent std {latent_std!r}", "Expected a number above 0, up to 100; 1.0 is as trained.")
    if resample is not None and size is None:
        raise UsageError("resample does not apply without a size", "Give a size too, or leave it out.")
    if resample is not None and resample not in RESAMPLE:
        raise UsageError(f"resample {resample!r}", f"Expected {', '.join(RESAMPLE)}.")
    if mode is not None and mode not in CHANNELS:
        raise UsageError(f"mode {mode!r}", "Expected l (grey) or rgb.")
    return Samples(
        seed=seed,
        classes=choose_classes(card, classes),
        psi=check_psi(card, psi),
        latent_std=float(latent_std),
        size=check_size(size),
        resample=resample or DEFAULT_RESAMPLE,
        mode=mode or ("l" if card.channels == 1 else "rgb"),
    )


def check_psi(card: Card, psi: float | None) -> float | None:
    """The psi to run with: None where the generator takes none. Raises UsageError."""
    if psi is not None and (not _is_number(psi) or not 0 <= psi <= 1):
        raise UsageError(f"psi {psi!r}", "Expected a number of 0 (the mean image) to 1 (no truncation).")
    if card.psi:
        return 1.0 if psi is None else float(psi)
    if psi is not None and psi != 1:
        raise UsageError(f"psi {psi}: generator {card.name} takes no truncation", "Leave psi out.")
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """A side or (width, height) in pixels as (width, height). Raises UsageError."""
    if size is None:
        return None
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, SupportsIndex) for side in sides):
        raise UsageError(f"size {size!r}", "Expected a side in pixels, or (width, height).")
    return require("width", sides[0], 1, MAX_SIZE), require("height", sides[1], 1, MAX_SIZE)


def choose_classes(card: Card, classes: Sequence[str | int] | None) -> tuple[int, ...]:
    """The cycle of labels: the classes named, all unless any is named.

    A text that is no class itself may name several, with commas. Raises UnknownClass and UsageError.
    """
    if classes is None:
        return tuple(range(len(card.class_names)))
    wanted: list[str | int] = []
    for name in [classes] if isinstance(classes, (str, int)) else classes:
        listed = isinstance(name, str) and "," in name and name not in card.class_names
        wanted += [part.strip() for part in str(name).split(",") if part.strip()] if listed else [name]
    chosen = tuple(card.label(name) for name in wanted)
    if len(set(chosen)) < len(chosen):
        twice = next(y for y, times in Counter(chosen).items() if times > 1)
        raise UsageError(f"class {card.class_names[twice]!r} is named twice", "Name each class once.")
    if not chosen:
        raise UsageError("no class is named", "Name at least one, or leave the classes out to have them all.")
    return chosen


def run_error(error: Exception, count: int) -> InferenceError:
    """The typed error of a failed run on ``count`` samples."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or "failed to allocate" in text or "bad_alloc" in text or "out of memory" in text:
        return InferenceError(
            f"a batch of {count} does not fit into memory", "Use a smaller batch (--batch), or fewer --workers."
        )
    return load_error(error)
