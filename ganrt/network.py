"""A network and its session: what everything that runs one has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganrt.bound import bound_runs
from ganrt.card import Card, check_kind
from ganrt.contract import CheckedModel, card_of_session, read_model
from ganrt.encode import Pixels
from ganrt.errors import GanrtError, InferenceError, ModelError, UsageError
from ganrt.models import find_model
from ganrt.providers import (
    check_provider_options,
    cpu_count,
    create_session,
    device_of_session,
    load_error,
    out_of_memory,
    runtime,
)
from ganrt.shards import MAX_BATCH, require

MAX_THREADS = 1024

AnyNetwork = TypeVar("AnyNetwork", bound="Network")


@dataclass(frozen=True)
class Source:
    """From what a network can be loaded again in another process."""

    path: str
    digest: str
    device: str
    batch: int | None
    threads: int | None
    provider_options: dict[str, Any]


class Network:
    """A loaded network. Pickles as a specification: the other process loads the same file anew."""

    KIND: ClassVar[str]  # of its card
    BATCH: ClassVar[int]  # how many images a call makes unless it is said
    _too_large = "Use a smaller batch (--batch), or fewer --workers."
    _one_too_large = "Use fewer --workers, or a machine with more memory."
    _wrong_shape = "Its card is wrong; export it again."
    _failed: str | None = None  # what else to do where ONNX Runtime fails

    def __init__(
        self, card: Card, session: Any, device: str, batch: int, digest: str | None, source: Source | None
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
        """How many images a call of the network makes, where ganrt divides them into calls."""
        return self._batch

    @property
    def threads(self) -> int | None:
        """How many threads a call of the network has on a CPU; None for a session given."""
        return (self._source.threads or cpu_count()) if self._source else None

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
        return f"<ganrt.{type(self).__name__} {self._card.name} on {self._device}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._source is None:
            raise UsageError("a generator made from a session cannot be pickled", "Load it from its file instead.")
        return reload_network, (type(self), self._source)

    def _in_batches(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[tuple[dict[str, NDArray[Any]], slice]]:
        """The rows of some inputs, a batch at a time, and which rows those are.

        On a GPU each new shape costs new plans: there the last batch is filled up with its first row, again and again.
        """
        count = len(next(iter(feeds.values())))
        for first in range(0, count, self._batch):
            rows = slice(first, min(first + self._batch, count))
            batch = {name: value[rows] for name, value in feeds.items()}
            missing = first + self._batch - rows.stop if self._device.startswith("cuda") else 0
            if missing:
                batch = {name: np.concatenate([v, np.repeat(v[:1], missing, axis=0)]) for name, v in batch.items()}
            yield batch, rows

    def _run(self, feeds: Mapping[str, NDArray[Any]], wanted: tuple[int, int, int, int]) -> Pixels:
        """One call of the network, which must make images of the shape ``wanted``. Raises InferenceError."""
        if not wanted[0]:
            return np.empty(wanted, np.uint8)
        try:
            if self._device.startswith("cuda"):
                images: Pixels = self._bound.run(self._session, feeds, wanted)
            else:
                [images] = self._session.run(["images"], feeds)
        except GanrtError:  # of the copies, which says what to do
            raise
        except Exception as error:  # ONNX Runtime raises a dozen types that share no base
            raise self._run_error(error, wanted[0]) from error
        if images.shape != wanted or images.dtype != np.uint8:
            raise InferenceError(
                f"generator {self._card.name} made {images.dtype} {list(images.shape)}, not uint8 {list(wanted)}",
                self._wrong_shape,
            )
        return images

    def _run_for(self, output: str, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """One output that is no image, without the work that it does not need. Raises InferenceError."""
        options = runtime().RunOptions()
        options.only_execute_path_to_fetches = True
        options.add_run_config_entry("gpu_graph_id", "-1")  # a graph holds the buffers of the runs that make images
        try:
            [found] = self._session.run([output], feeds, options)
        except Exception as error:  # as above
            raise self._run_error(error, len(next(iter(feeds.values())))) from error
        values: NDArray[Any] = found
        return values

    def _run_error(self, error: Exception, count: int) -> InferenceError:
        if out_of_memory(error):
            hint = self._too_large if count > 1 else self._one_too_large
            return InferenceError(f"a batch of {count} does not fit into memory", hint)
        if "cudnn_status_not_supported" in str(error).lower() and count > 1:  # a tensor of 2^31 numbers, as a rule
            return InferenceError(f"cuDNN does not support a batch of {count}", self._too_large)
        failure = load_error(error)
        return InferenceError(failure.message, self._failed or failure.hint)


def load_network(
    kind: type[AnyNetwork],
    model: Any,
    device: str,
    batch: int | None,
    threads: int | None,
    provider_options: Mapping[str, Any] | None,
) -> AnyNetwork:
    """Loads a network by name, path or session. Raises as :func:`ganrt.load` does."""
    batch = require("batch", kind.BATCH if batch is None else batch, 1, MAX_BATCH)
    threads = None if threads is None else require("threads", threads, 1, MAX_THREADS)
    if not (hasattr(model, "get_modelmeta") and hasattr(model, "run")):
        path = find_model(model)
        return load_checked_network(kind, read_model(path), path, device, batch, threads, provider_options)
    if device != "auto" or threads is not None or provider_options:
        raise UsageError(
            "device, threads and provider options belong to the session given", "Set them where it is made."
        )
    card = card_of_session(model)
    check_kind(card, kind.KIND)
    return kind(card, model, device_of_session(model), batch, None, None)


def load_checked_network(
    kind: type[AnyNetwork],
    model: CheckedModel,
    path: Path,
    device: str,
    batch: int | None,
    threads: int | None,
    provider_options: Mapping[str, Any] | None,
) -> AnyNetwork:
    """Loads a network whose bytes passed the contract's check."""
    check_kind(model.card, kind.KIND)
    session, used = create_session(model.data, device, threads or cpu_count(), provider_options)
    card_of_session(session, str(path))  # ONNX Runtime read the same interface out of the bytes as the check did
    source = Source(str(path.resolve()), model.digest, device, batch, threads, dict(provider_options or {}))
    return kind(model.card, session, used, batch or kind.BATCH, model.digest, source)


def reload_network(kind: type[AnyNetwork], source: Source) -> AnyNetwork:
    """Loads a network again. Raises ModelError when the file is another one by now."""
    path = Path(source.path)
    model = read_model(path)
    if model.digest != source.digest:
        raise ModelError(f"{path} is not the file that the pickled generator was loaded from", "Load it again.")
    return load_checked_network(kind, model, path, source.device, source.batch, source.threads, source.provider_options)
