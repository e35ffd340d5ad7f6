"""The proof that an exported generator makes the images its source makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ganrt.card import IMAGES, Card
from ganrt.errors import ParityError
from ganrt.providers import runtime

FLOAT_ATOL = 1e-4  # before the pixel step, for images in [-1, 1]
UINT8_ATOL = 1  # grey levels
HALF_UINT8_ATOL = 2  # of a file in half precision, where not counting the worst thousandth:
HALF_BEYOND = 0.001
OTHER_SIZE = (20, 36)  # height, width that a network for any size is tried at too

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
# (z float32 [N, z_dim], or x uint8 [N, H, W, C] where images are made of images; y int64 [N] or None; psi or None)
# → the source's own floats, and pixels uint8 [N, H, W, C]
Source = Callable[[NDArray[Any], "NDArray[np.int64] | None", "float | None"], tuple[Floats, Pixels]]


@dataclass(frozen=True)
class Styles:
    """The halves of a source that has w: (z, y, psi) → w float32 [N, num_ws, w_dim], and w → floats and pixels."""

    mapping: Callable[[NDArray[Any], NDArray[np.int64] | None, float | None], Floats]
    synthesis: Callable[[Floats], tuple[Floats, Pixels]]


def prove(
    source: Source,
    model: bytes,
    card: Card,
    *,
    raw: str,
    half_range: float = 1.0,
    fp16: bool = False,
    dynamic: bool = False,
    batch: int | None = None,
    latents: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares a source with its ONNX file in ONNX Runtime and returns the figures, for the card.

    Both make the same images of 256 ``latents`` (more, if there are more classes; of 48 images, where images are made
    of images), all labels among them, in batches of 1, 2, 3, ``batch`` (64; 16) and ``batch`` + 1, with psi 0.5 and 1
    where the card has psi, and at a second size if it is ``dynamic``. ``raw`` is the name of the float tensor that the
    pixel step starts from: it may differ by at most 1e-4 of ``half_range`` (half the width of its range), ``images`` by
    one grey level; in ``fp16`` 99.9 % of the pixels by two levels. Each row of a batch is held against the same row
    alone, with the same limits.

    Raises ParityError, naming the worst output, batch and index with both values, when they differ by
    more, when a number is not finite, and when ONNX Runtime does not run the file at all.
    """
    of_images = card.kind == IMAGES
    batch, latents = batch or (16 if of_images else 64), latents or (48 if of_images else 256)
    run = onnx_source(model, raw, "x" if of_images else "z")
    count = max(latents, batch + 1, len(card.class_names))
    random = np.random.default_rng(seed)
    shape = (card.height, card.width, card.channels)
    given = _pictures(random, count, card.in_shape) if of_images else latents_of(random, count, card)
    y = np.arange(count) % len(card.class_names) if card.class_names else None
    uint8_atol = HALF_UINT8_ATOL if fp16 else UINT8_ATOL
    float_atol = np.inf if fp16 else FLOAT_ATOL * half_range
    worst: dict[str, Difference] = {}
    unequal, compared, beyond = 0, 0, 0.0

    trials: list[tuple[NDArray[Any], tuple[int, int, int], int, float | None]] = []
    for psi in (0.5, 1.0) if card.psi else (None,):
        trials += [(given, shape, size, psi) for size in (1, 2, 3, batch, batch + 1)]
    if dynamic:
        height, width = OTHER_SIZE
        other = _pictures(random, 8, (height, width, card.in_shape[2]))
        larger = (height * card.scale, width * card.scale, card.channels)
        trials += [(other, larger, size, None) for size in (1, 3)]
    alone: tuple[Floats, Pixels] | None = None
    for inputs, wanted, size, psi in trials:  # each size's first batch is of 1
        where = f"batch {size}" + ("" if psi is None else f", psi {psi}")
        where += f", {inputs.shape[2]}x{inputs.shape[1]} pixels" if dynamic else ""
        from_source, from_onnx = (
            _in_batches(make, inputs, y, psi, size) for make in (_named(source, "source"), _named(run, "ONNX Runtime"))
        )
        if from_onnx[1].shape[1:] != wanted or from_source[1].shape[1:] != wanted:
            raise ParityError(
                f"{where}: images are {list(from_onnx[1].shape[1:])} in ONNX Runtime, "
                f"{list(from_source[1].shape[1:])} from the source, and {list(wanted)} on the card",
                "Height, width and channels must agree.",
            )
        if size == 1:
            alone = from_onnx
        assert alone is not None
        for figure, found, expected, limit, what, name in (
            ("float_max", from_onnx[0], from_source[0], float_atol, raw, "the source"),
            ("uint8_max", from_onnx[1], from_source[1], uint8_atol, "images", "the source"),
            ("alone_float_max", from_onnx[0], alone[0], float_atol, raw, "the row alone"),
            ("alone_uint8_max", from_onnx[1], alone[1], uint8_atol, "images", "the row alone"),
        ):
            difference = largest(found, expected, y, limit=limit, what=f"{what} at {where}", name=name)
            if figure not in worst or difference.apart > worst[figure].apart:
                worst[figure] = difference
        levels = np.abs(from_onnx[1].astype(np.int16) - from_source[1])
        unequal += int(np.count_nonzero(levels))
        beyond = max(beyond, float(np.mean(levels > uint8_atol)))
        compared += levels.size

    figures = judged(worst, beyond if fp16 else None)
    limits = {"uint8_beyond_share": _round(beyond)} if fp16 else {"float_atol": _round(float_atol)}
    return (
        figures
        | {"uint8_unequal_share": _round(unequal / compared)}
        | limits
        | {
            "uint8_atol": uint8_atol,
            "batches": [1, 2, 3, batch, batch + 1],
            "images" if of_images else "latents": count,
            "classes": len(card.class_names),
            "seed": seed,
            "provider": "CPUExecutionProvider",
            "onnxruntime": runtime().__version__,
        }
    )


def judged(worst: dict[str, Difference], beyond: float | None) -> dict[str, Any]:
    """The figures for the card. Raises ParityError when one is past its limit.

    In half precision ``beyond`` is the share of pixels that are, which may be a thousandth.
    """
    furthest = max(worst.values(), key=lambda difference: difference.apart / difference.limit)
    if furthest.apart > furthest.limit and (beyond is None or beyond > HALF_BEYOND):
        allowed = f"At most {furthest.limit:g} is allowed"
        if beyond is not None:
            allowed += f" on {1 - HALF_BEYOND:.1%} of the pixels; {beyond:.2%} are further apart"
        raise ParityError(furthest.message, f"{allowed}. Nothing was written.")
    return {
        name: int(difference.apart) if "uint8" in name else _round(difference.apart)
        for name, difference in worst.items()
    }


def latents_of(random: np.random.Generator, count: int, card: Card) -> Floats:
    """Latents as the card says: float32 [count, z_dim]."""
    z = random.standard_normal((count, card.z_dim), np.float32)
    return random.uniform(-1, 1, z.shape).astype(np.float32) if card.z_distribution == "uniform" else z


def _pictures(random: np.random.Generator, count: int, shape: tuple[int, int, int]) -> Pixels:
    """Half of them noise, half of them smooth."""
    noise = random.integers(0, 256, (count, *shape), np.uint8)
    height, width, channels = shape
    coarse = random.integers(0, 256, (count, -(-height // 8), -(-width // 8), channels), np.uint8)
    smooth = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    return np.where(np.arange(count)[:, None, None, None] % 2, noise, smooth)


def onnx_source(model: bytes, raw: str, name: str = "z") -> Source:
    """The file itself for pixels; a copy with ``raw`` as its output for floats. ``name`` is that of its first input."""
    floats, pixels = sessions(model, raw)

    def run(z: NDArray[Any], y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        feeds = (
            {name: z} | ({} if y is None else {"y": y}) | ({} if psi is None else {"psi": np.array(psi, np.float32)})
        )
        return floats.run([raw], feeds)[0], pixels.run(["images"], feeds)[0]

    return run


def sessions(model: bytes, raw: str) -> tuple[Any, Any]:
    """A session on a copy of a file with ``raw`` as its output, and one on the file itself. Raises ParityError."""
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
    return floats, pixels


def _named(make: Source, name: str) -> Source:
    """``make`` with its failures and its infinities told as ParityError."""

    def checked(z: NDArray[Any], y: NDArray[np.int64] | None, psi: float | None) -> tuple[Floats, Pixels]:
        try:
            floats, pixels = make(z, y, psi)
        except Exception as error:
            raise ParityError(f"{name} fails at batch {len(z)}: {error}", "A generator must take any batch.") from error
        if not np.isfinite(floats).all():
            row = int(np.argwhere(~np.isfinite(floats))[0][0])
            raise ParityError(
                f"{name} makes numbers that are not finite: at batch {len(z)}, row {row}, label {_label(y, row)}",
                "Its weights are broken, or overflow: take another snapshot.",
            )
        return floats, pixels

    return checked


def _in_batches(
    make: Source, z: NDArray[Any], y: NDArray[np.int64] | None, psi: float | None, size: int
) -> tuple[Floats, Pixels]:
    """All rows through batches of exactly ``size``; the last one is filled up from the front."""
    rows = np.resize(np.arange(len(z)), -(-len(z) // size) * size).reshape(-1, size)
    made = [make(z[chosen], None if y is None else y[chosen], psi) for chosen in rows]
    floats, pixels = (np.concatenate([pair[i] for pair in made])[: len(z)] for i in (0, 1))
    return floats, pixels


@dataclass(frozen=True)
class Difference:
    """How far apart two numbers are, how far they may be, and which they are."""

    apart: float
    limit: float
    message: str


def largest(
    found: NDArray[Any], other: NDArray[Any], y: NDArray[np.int64] | None, *, limit: float, what: str, name: str
) -> Difference:
    """The largest difference of two arrays [N, ...], ``found`` in ONNX Runtime. Raises ParityError for other shapes."""
    if found.shape != other.shape:
        raise ParityError(f"{what} has shape {list(found.shape)} in ONNX Runtime, {list(other.shape)} from {name}")
    apart = np.abs(found.astype(np.float64) - other)
    at = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
    message = (
        f"{what}, index {at[0]}, label {_label(y, at[0])}, position {list(at[1:])}: {float(found[at]):.6g} in ONNX "
        f"Runtime, {float(other[at]):.6g} from {name}, {float(apart[at]):.2g} apart"
    )
    return Difference(float(apart[at]), limit, message)


def _label(y: NDArray[np.int64] | None, index: int) -> str:
    return "none" if y is None else str(int(y[index]))


def _round(value: float) -> float:
    return float(f"{value:.2g}")
