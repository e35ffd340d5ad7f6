"""Arrays as people give them, checked against a generator's card: what its network is fed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganrt.card import Card
from ganrt.errors import UsageError


def latent_feeds(card: Card, z: ArrayLike, y: ArrayLike | None) -> dict[str, NDArray[Any]]:
    """z float32 [N, z_dim] and, where the card has classes, y int64 [N]. Raises UsageError."""
    latents = _floats("z", z, (card.z_dim,))
    feeds: dict[str, NDArray[Any]] = {"z": latents}
    classes = len(card.class_names)
    if classes:
        if y is None:
            raise UsageError(f"generator {card.name} needs y", f"Expected labels of 0 to {classes - 1}.")
        labels = _array("y", y, "Expected integers [N] or one for all.")
        if labels.dtype.kind not in "iu" or labels.ndim > 1:
            raise UsageError(f"y is {labels.dtype} {list(labels.shape)}", "Expected integers [N] or one for all.")
        if labels.ndim and len(labels) != len(latents):
            raise UsageError(f"{len(labels)} labels for {len(latents)} latents", "Expected one each.")
        if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
            raise UsageError(f"y holds {labels.min()} to {labels.max()}", f"Expected labels of 0 to {classes - 1}.")
        feeds["y"] = np.ascontiguousarray(np.broadcast_to(labels.astype(np.int64), len(latents)))
    elif y is not None:
        raise UsageError(f"generator {card.name} has no classes", "Leave y out.")
    return feeds


def check_has_w(card: Card) -> None:
    """Raises UsageError for a generator that cannot be given w."""
    if not card.num_ws:
        raise UsageError(
            f"generator {card.name} has no w: only those exported from StyleGAN have",
            "Interpolating works without: ganrt interpolate. If it is an older StyleGAN2 export, export its run again.",
        )


def style_feeds(card: Card, w: ArrayLike) -> dict[str, NDArray[Any]]:
    """w float32 [N, num_ws, w_dim], with zeros for z and y, which then decide nothing. Raises UsageError."""
    check_has_w(card)
    styles = _floats("w", w, (card.num_ws, card.w_dim))
    feeds: dict[str, NDArray[Any]] = {"z": np.zeros((len(styles), card.z_dim), np.float32), "w": styles}
    if card.class_names:
        feeds["y"] = np.zeros(len(styles), np.int64)
    return feeds


def _floats(name: str, given: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    expected = f"[{', '.join(['N', *map(str, shape)])}]"
    array = _array(name, given, f"Expected float32 {expected}.")
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{name} is no array of numbers: it is {array.dtype}", f"Expected float32 {expected}.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused below
        array = np.ascontiguousarray(array, np.float32)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        raise UsageError(f"{name} of shape {list(array.shape)}", f"Expected {expected}.")
    if not np.isfinite(array).all():
        raise UsageError(f"{name} holds NaN or infinity", "Expected finite numbers.")
    return array


def _array(name: str, given: ArrayLike, hint: str) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is no array of numbers: {error}", hint) from None
