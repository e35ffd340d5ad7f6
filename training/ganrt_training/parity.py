"""The proof that an exported generator makes the images its source makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ganrt.card import Card
from ganrt.errors import ParityError
from ganrt.providers import runtime

FLOAT_ATOL = 1e-4  # before the pixel step, for images in [-1, 1]
UINT8_ATOL = 1  # grey levels
HALF_FLOAT_ATOL = 2 / 127.5  # of a file in half precision: two grey levels
HALF_UINT8_ATOL = 2

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
# (z float32 [N, z_dim], y int64 [N] or None, psi or None) → the source's own floats, and pixels uint8 [N, H, W, C]
Source = Callable[[Floats, "NDArray[np.int64] | None", "float | None"], tuple[Floats, Pixels]]


def prove(
    source: Source,
    model: bytes,
    card: Card,
    *,
    raw: str,
    half_range: float = 1.0,
    fp16: bool = False,
    batch: int = 64,
    latents: int = 256,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares a source with its ONNX file in ONNX Runtime and returns the figures, for the card.

    Both make the same ``latents`` images (more, if there are more classes), all labels among them, in
    batches of 1, 2, 3, ``batch`` and ``batch`` + 1, with psi 0.5 and 1 where the card has psi. ``raw`` is
    the name of the float tensor that the pixel step starts from: it may differ by at most 1e-4 of
    ``half_range`` (half the width of its range), ``images`` by one grey level; in ``fp16`` both by two levels.
    Each row of a batch is held against the same row alone, with the same limits.

    Raises ParityError, naming the worst output, batch and index with both values, when they differ by
    more, when a number is not finite, and when ONNX Runtime does not run the file at all.
    """
    run = onnx_source(model, raw)
    count = max(latents, batch + 1, len(card.class_names))
    random = np.random.default_rng(seed)
    z = random.standard_normal((count, card.z_dim), np.float32)
    if card.z_distribution == "uniform":
        z = random.uniform(-1, 1, z.shape).astype(np.float32)
    y = np.arange(count) % len(card.class_names) if card.class_names else None
    shape = (card.height, card.width, card.channels)
    batches = (1, 2, 3, batch, batch + 1)
    float_atol = (HALF_FLOAT_ATOL if fp16 else FLOAT_ATOL) * half_range
    uint8_atol = HALF_UINT8_ATOL if fp16 else UINT8_ATOL
    worst: dict[str, _Difference] = {}
    unequal = compared = 0

    for psi in (0.5, 1.0) if card.psi else (None,):
        alone: tuple[Floats, Pixels] | None = None
        for size in batches:
            where = f"batch {size}" + ("" if psi is None else f", psi {psi}")
            from_source, from_onnx = (
                _in_batches(make, z, y, psi, size) for make in (_named(source, "source"), _named(run, "ONNX Runtime"))
            )
            if from_onnx[1].shape != (count, *shape) or from_source[1].shape != (count, *shape):
                raise ParityError(
                    f"{where}: images are {list(from_onnx[1].shape[1:])} in ONNX Runtime, "
                    f"{list(from_source[1].shape[1:])} from the source, and {list(shape)} on the card",
                    "Height, width and channels must agree.",
                )
            alone = alone or from_onnx
            for figure, found, other, limit, what, name in (
                ("float_max", from_onnx[0], from_source[0], float_atol, raw, "the source"),
                ("uint8_max", from_onnx[1], from_source[1], uint8_atol, "images", "the source"),
                ("alone_float_max", from_onnx[0], alone[0], float_atol, raw, "the row alone"),
                ("alone_uint8_max", from_onnx[1], alone[1], uint8_atol, "images", "the row alone"),
            ):
                difference = _largest(found, other, y, limit=limit, what=f"{what} at {where}", name=name)
                if figure not in worst or difference.apart > worst[figure].apart:
                    worst[figure] = difference
            unequal += int(np.count_nonzero(from_onnx[1] != from_source[1]))
            compared += from_onnx[1].size

    largest = max(worst.values(), key=lambda difference: difference.apart / difference.limit)
    if largest.apart > largest.limit:
        raise ParityError(largest.message, f"At most {largest.limit:g} is allowed. Nothing was written.")
    figures: dict[str, Any] = {
        name: int(difference.apart) if "uint8" in name else _round(difference.apart)
        for name, difference in worst.items()
    }
    return figures | {
        "uint8_unequal_share": _round(unequal / compared),
        "float_atol": _round(float_atol),
        "uint8_atol": uint8_atol,
        "batches": list(batches),
        "latents": count,
        "classes": len(card.class_names),
        "seed": seed,
        "provider": "CPUExecutionProvider",
        "onnxruntime": runtime().__version__,
    }


def onnx_source(model: bytes, raw: str) -> Source:
    """The file itself for the pixels; for the floats, a copy with ``raw`` as its output."""
    with_floats = onnx.load_model_from_string(model)
    del with_floats.graph.output[:]
    with_floats.graph.output.append(onnx.helper.make_tensor_value_info(raw, onnx.TensorProto.FLOAT, None))
    options = runtime().SessionOptions()
    options.log_severity_level = 3
    try:
        floats, pixels = (
            runtime().InferenceSession(data, options, providers=["CPUExecutionProvider"])
            for data in (with_floats.SerializeToString(), model)
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise ParityError(f"ONNX Runtime does not load the export: {error}") from error

    def run(z: Floats, y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        feeds = {"z": z} | ({} if y is None else {"y": y}) | ({} if psi is None else {"psi": np.array(psi, np.float32)})
        return floats.run([raw], feeds)[0], pixels.run(["images"], feeds)[0]

    return run


def _named(make: Source, name: str) -> Source:
    """``make`` with its failures and its infinities told as ParityError."""

    def checked(z: Floats, y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        try:
            floats, pixels = make(z, y, psi)
        except Exception as error:
            raise ParityError(
                f"{name} fails at batch {len(z)}: {error}", "A generator must take any number of latents."
            ) from error
        if not np.isfinite(floats).all():
            row = int(np.argwhere(~np.isfinite(floats))[0][0])
            raise ParityError(
                f"{name} makes numbers that are not finite: at batch {len(z)}, row {row}, label {_label(y, row)}",
                "Its weights are broken, or overflow: take another snapshot.",
            )
        return floats, pixels

    return checked


def _in_batches(
    make: Source, z: Floats, y: NDArray[np.int64] | None, psi: float | None, size: int
) -> tuple[Floats, Pixels]:
    """All rows through batches of exactly ``size``; the last one is filled up from the front."""
    rows = np.resize(np.arange(len(z)), -(-len(z) // size) * size).reshape(-1, size)
    made = [make(z[chosen], None if y is None else y[chosen], psi) for chosen in rows]
    floats, pixels = (np.concatenate([pair[i] for pair in made])[: len(z)] for i in (0, 1))
    return floats, pixels


@dataclass(frozen=True)
class _Difference:
    apart: float
    limit: float
    message: str


def _largest(
    found: NDArray[Any], other: NDArray[Any], y: NDArray[np.int64] | None, *, limit: float, what: str, name: str
) -> _Difference:
    if found.shape != other.shape:
        raise ParityError(f"{what} has shape {list(found.shape)} in ONNX Runtime, {list(other.shape)} from {name}")
    apart = np.abs(found.astype(np.float64) - other)
    at = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
    message = (
        f"{what}, index {at[0]}, label {_label(y, at[0])}, position {list(at[1:])}: {float(found[at]):.6g} in ONNX "
        f"Runtime, {float(other[at]):.6g} from {name}, {float(apart[at]):.2g} apart"
    )
    return _Difference(float(apart[at]), limit, message)


def _label(y: NDArray[np.int64] | None, index: int) -> str:
    return "none" if y is None else str(int(y[index]))


def _round(value: float) -> float:
    return float(f"{value:.2g}")
