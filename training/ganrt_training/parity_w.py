"""The proof that an exported generator's entry for w is its source's: mapping, synthesis, and both together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganrt.card import Card
from ganrt_training.parity import (
    FLOAT_ATOL,
    HALF_UINT8_ATOL,
    UINT8_ATOL,
    Difference,
    Floats,
    Pixels,
    Styles,
    judged,
    largest,
    latents_of,
    onnx_source,
    sessions,
)

COUNT = 64  # latents; one for each class, if there are more
SIZES = (1, 3, COUNT)  # of the batches


def prove_w(
    source: Styles, model: bytes, card: Card, *, raw: str, half_range: float = 1.0, fp16: bool = False, seed: int = 1
) -> dict[str, Any]:
    """Compares a source's w with that of its ONNX file in ONNX Runtime and returns the figures, for the card.

    Held together, in batches of 1, 3 and 64, with psi 0.5 and 1 where the card has psi: what both mappings make of
    64 latents (within 1e-4; in ``fp16`` no limit, the images tell); the images of w fed back and those of z, in ONNX
    Runtime; and the images of w whose layers come from two latents in turn, which a file that mixes up its layers
    would not make. Limits of images are those of :func:`ganrt_training.parity.prove`.

    Raises ParityError as it does.
    """
    count = max(COUNT, len(card.class_names))
    z = latents_of(np.random.default_rng(seed), count, card)
    y = np.arange(count) % len(card.class_names) if card.class_names else None
    styles, whole = onnx_styles(model, raw, card), onnx_source(model, raw)
    uint8_atol = HALF_UINT8_ATOL if fp16 else UINT8_ATOL
    float_atol = np.inf if fp16 else FLOAT_ATOL * half_range
    worst: dict[str, Difference] = {}
    beyond = 0.0
    for psi in (0.5, 1.0) if card.psi else (None,):
        expected = source.mapping(z, y, psi)
        swapped = np.arange(card.num_ws)[:, None] % 2 == 1
        mixed = np.where(swapped, np.roll(expected, 1, axis=0), expected).astype(np.float32)
        of_mixed = source.synthesis(mixed)
        for size in SIZES:
            where = f"batch {size}" + ("" if psi is None else f", psi {psi}")
            batches = [slice(first, first + size) for first in range(0, count, size)]
            w = np.concatenate([styles.mapping(z[rows], None if y is None else y[rows], psi) for rows in batches])
            from_z = _joined([whole(z[rows], None if y is None else y[rows], psi) for rows in batches])
            from_w = _joined([styles.synthesis(w[rows]) for rows in batches])
            made = _joined([styles.synthesis(mixed[rows]) for rows in batches])
            for figure, found, other, limit, what, name in (
                ("w_max", w, expected, np.inf if fp16 else FLOAT_ATOL, "w_mapped", "the source"),
                ("fed_back_uint8_max", from_w[1], from_z[1], uint8_atol, "images of w fed back", "z"),
                ("mixed_float_max", made[0], of_mixed[0], float_atol, f"{raw} of mixed w", "the source"),
                ("mixed_uint8_max", made[1], of_mixed[1], uint8_atol, "images of mixed w", "the source"),
            ):
                difference = largest(found, other, y, limit=limit, what=f"{what} at {where}", name=name)
                if figure not in worst or difference.apart > worst[figure].apart:
                    worst[figure] = difference
            for found, other in ((from_w[1], from_z[1]), (made[1], of_mixed[1])):
                beyond = max(beyond, float(np.mean(np.abs(found.astype(np.int16) - other) > uint8_atol)))
    return judged(worst, beyond if fp16 else None)


def onnx_styles(model: bytes, raw: str, card: Card) -> Styles:
    """The halves of a generator's file in ONNX Runtime. Raises ParityError when it does not load."""
    floats, pixels = sessions(model, raw)

    def mapping(z: NDArray[Any], y: NDArray[np.int64] | None, psi: float | None) -> Floats:
        feeds = {"z": z} | ({} if y is None else {"y": y})
        w: Floats = pixels.run(["w_mapped"], feeds | ({} if psi is None else {"psi": np.array(psi, np.float32)}))[0]
        return w

    def synthesis(w: Floats) -> tuple[Floats, Pixels]:
        feeds: dict[str, NDArray[Any]] = {"z": np.zeros((len(w), card.z_dim), np.float32), "w": w}
        feeds["w_given"] = np.array(True)
        if card.class_names:
            feeds["y"] = np.zeros(len(w), np.int64)
        return floats.run([raw], feeds)[0], pixels.run(["images"], feeds)[0]

    return Styles(mapping, synthesis)


def _joined(made: list[tuple[Floats, Pixels]]) -> tuple[Floats, Pixels]:
    return np.concatenate([floats for floats, _ in made]), np.concatenate([pixels for _, pixels in made])
