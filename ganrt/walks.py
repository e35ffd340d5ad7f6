"""Walks through a generator's latent space: from sample to sample, as frames or as a picture.

Between normal latents the way is spherical (Shoemake 1985, "Animating rotation with quaternion curves"; White 2016,
arXiv 1609.04468): on the straight line between two of them lie shorter ones, which a generator has hardly ever seen.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganrt.animation import MAX_FPS, check_writer, enlarged, shown_size, write_animation
from ganrt.arguments import check_has_w
from ganrt.card import LATENTS, check_kind
from ganrt.encode import Pixels
from ganrt.errors import UsageError
from ganrt.generator import Generator, load
from ganrt.grid import arrange, write_picture
from ganrt.latents import latents
from ganrt.samples import check_samples, check_size
from ganrt.shards import require
from ganrt.values import choice, flag, path_of, several, told

STEPS, STEPS_OF_PNG = 30, 8
FPS = 20
_MAX_STEPS = 10_000
_PARALLEL = 1e-6  # sine of an angle too small for a direction


@dataclass(frozen=True)
class Keyframe:
    """Sample 0 of a seed: z float32 [1, z_dim], label and psi (None where there are none), image uint8 [1, H, W, C]."""

    z: NDArray[np.float32]
    y: int | None
    psi: float | None
    image: Pixels


def interpolate(
    model: Any = "fashion",
    out: str | os.PathLike[str] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3),
    frames: int | None = None,
    classes: Sequence[str | int] | None = None,
    psi: float | None = None,
    latent_std: float = 1.0,
    space: str = "z",
    loop: bool | None = None,
    square: bool = False,
    fps: int | None = None,
    size: int | tuple[int, int] | None = None,
    device: str = "auto",
) -> Pixels:
    """A walk from seed to seed: uint8 [frames, H, W, C], at the generator's own size; written to ``out`` if given.

    ``model`` is what :func:`ganrt.load` takes, or a generator. A keyframe is sample 0 of a seed, byte for byte the
    image ``generator.sample(1, seed=seed)``. From one to the next there are ``frames`` steps (30 in an animation, 8
    else), so K seeds give (K - 1) · frames + 1 images; with ``loop`` the walk goes on to the first, which does not come
    twice: K · frames. It loops unless told in .gif, .webp and .mp4. ``classes`` is one for all (the first of the card
    unless given), or one a keyframe in turn. Between two classes each frame is a blend of both classes' images, in
    whole grey levels, since y is a whole number and cannot be mixed.

    ``space`` is ``z`` (spherical for normal latents, straight for uniform ones) or ``w``, straight, where the generator
    has w; there classes mix too. With ``square`` four seeds are the corners of (frames + 1) x (frames + 1) images,
    given row by row.

    ``out`` ends in .gif, .webp, .mp4 (extra ``video``), or .png: a row a step from keyframe to keyframe, both its ends
    shown. ``size``, the side or (width, height) of a frame in the file, is else the generator's own times a whole
    number, so that an animation's sides are 256 at least. ``fps`` (20) is 1 to 50.

    Raises UsageError, UnknownClass, MissingExtra, StorageError, and what :func:`ganrt.load` raises.
    """
    path = None if out is None else path_of("out", out)
    if path is not None:
        check_writer(path)
    moving = path is not None and path.suffix.lower() != ".png"
    _check_options(path, moving, space, square, loop, fps, size)
    seeds = several("seeds", seeds)
    if len(seeds) < 2 or (square and len(seeds) != 4):
        wanted = "Give four, for the corners of the square." if square else "Give two at least."
        raise UsageError(f"{len(seeds)} seeds: {told(seeds)[1:-1]}", wanted)
    if frames is None:
        frames = STEPS if moving else STEPS_OF_PNG
    steps = require("frames", frames, 1, _MAX_STEPS)
    require("fps", FPS if fps is None else fps, 1, MAX_FPS)
    shown = check_size(size)
    generator = model if isinstance(model, Generator) else load(model, device)
    card = generator.card
    check_kind(card, LATENTS)
    if space == "w":
        check_has_w(card)
    if moving:
        assert path is not None
        shown = shown_size(path, card.width, card.height, shown)
    keys = keyframes(generator, seeds, classes, psi, latent_std)
    if square and space == "z" and len({key.y for key in keys}) > 1:
        raise UsageError("a square in z has one class", "Give one class, or --space w where the generator has w.")
    goes_round = moving if loop is None else loop
    if square:
        images = _square(generator, keys, steps, space)
    else:
        ends = [*keys, keys[0]] if goes_round else keys
        legs = [_leg(generator, a, b, steps, space) for a, b in itertools.pairwise(ends)]
        images = np.concatenate([*legs, *([] if goes_round else [keys[-1].image])])
    if path is not None and moving:
        frames_shown = (enlarged(image[None], shown or (card.width, card.height))[0] for image in images)
        write_animation(path, frames_shown, FPS if fps is None else fps, goes_round)
    elif path is not None:
        write_picture(path, _strips(images, steps, square, shown, goes_round))
    return images


def keyframes(
    generator: Generator,
    seeds: Sequence[int],
    classes: Sequence[str | int] | None = None,
    psi: float | None = None,
    latent_std: float = 1.0,
) -> list[Keyframe]:
    """Sample 0 of each seed, its class that whose turn it is. Raises UsageError and UnknownClass."""
    first = check_samples(generator.card, 0, classes, psi, None, latent_std)
    labels = first.classes if classes is not None else first.classes[:1]
    if len(labels) > len(seeds):
        raise UsageError(
            f"{len(labels)} classes for {len(seeds)} seeds", "Give one class, or as many as there are seeds."
        )
    found = []
    card = generator.card
    for turn, seed in enumerate(seeds):
        y = labels[turn % len(labels)] if labels else None
        chosen = None if y is None else [y]
        samples = check_samples(card, seed, chosen, psi, None, latent_std)
        z = latents(samples.seed, 0, 1, card.z_dim, distribution=card.z_distribution, std=samples.latent_std)
        [batch] = generator.batches(samples, 0, 1, generator.batch)
        found.append(Keyframe(z, y, samples.psi, batch.images))
    return found


def styles_of(generator: Generator, key: Keyframe) -> NDArray[np.float32]:
    """w of a keyframe, float32 [1, num_ws, w_dim], made in a whole batch as its image is, so that it is the same w."""
    return generator.w(np.repeat(key.z, generator.batch, axis=0), key.y, key.psi)[:1]


def images_at(
    generator: Generator, points: NDArray[np.float32], y: int | None = None, psi: float | None = None
) -> Pixels:
    """Images uint8 [N, H, W, C] of z [N, z_dim], or of w [N, num_ws, w_dim], in whole batches as samples are made."""
    card, batch = generator.card, generator.batch
    images = np.empty((len(points), card.height, card.width, card.channels), np.uint8)
    for first in range(0, len(points), batch):
        part = points[first : first + batch]
        whole = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        made = generator(whole, y, psi) if whole.ndim == 2 else generator.from_w(whole)
        images[first : first + batch] = made[: len(part)]
    return images


def slerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> NDArray[np.float32]:
    """From a to b, float [D], on the sphere: float32 [len(t), D] at the shares ``t`` of 0 to 1 of the angle.

    The direction turns evenly in the plane of both, the norm goes evenly from that of a to that of b, and so is never
    outside of the two. Vectors of one direction are joined by a straight line. For opposite ones no plane is given:
    then it is that of a and the axis furthest from it.
    """
    share = np.atleast_1d(np.asarray(t, np.float64))[:, None]
    start, end = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = float(np.linalg.norm(start)), float(np.linalg.norm(end))
    straight: NDArray[np.float64] = (1 - share) * start + share * end
    if not min(norms) or len(start) < 2:
        return straight.astype(np.float32)
    unit, other = start / norms[0], end / norms[1]
    # Kahan's angle, exact for small ones and for those near a half turn, where an arc cosine is not.
    angle = 2 * np.arctan2(np.linalg.norm(other - unit), np.linalg.norm(other + unit))
    across = other - (unit @ other) * unit
    if np.linalg.norm(across) < _PARALLEL:
        if angle < 1:
            return straight.astype(np.float32)
        axis = np.zeros_like(unit)
        axis[np.argmin(np.abs(unit))] = 1
        across = axis - (unit @ axis) * unit
    across /= np.linalg.norm(across)
    turned = np.cos(share * angle) * unit + np.sin(share * angle) * across
    path: NDArray[np.float64] = ((1 - share) * norms[0] + share * norms[1]) * turned
    path[share[:, 0] == 0], path[share[:, 0] == 1] = start, end
    return path.astype(np.float32)


def lerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> NDArray[np.float32]:
    """From a to b, of one shape, in a straight line: float32 [len(t), ...]."""
    share = np.atleast_1d(np.asarray(t, np.float64)).reshape(-1, *(1,) * np.ndim(a))
    path: NDArray[np.float64] = (1 - share) * np.asarray(a) + share * np.asarray(b)
    return path.astype(np.float32)


def _between(generator: Generator, a: NDArray[Any], b: NDArray[Any], t: NDArray[Any]) -> NDArray[np.float32]:
    """The way from a to b that suits z [z_dim], or w [num_ws, w_dim]."""
    normal = a.ndim == 1 and generator.card.z_distribution == "normal"
    return slerp(a, b, t) if normal else lerp(a, b, t)


def _leg(generator: Generator, a: Keyframe, b: Keyframe, steps: int, space: str) -> Pixels:
    """The images of one leg, uint8 [steps, H, W, C], a's first and b's left out."""
    shares = np.arange(1, steps) / steps
    psi = a.psi
    if space == "w":
        points = _between(generator, styles_of(generator, a)[0], styles_of(generator, b)[0], shares)
        return np.concatenate([a.image, images_at(generator, points)])
    points = _between(generator, a.z[0], b.z[0], shares)
    images = images_at(generator, points, a.y, psi)
    if a.y != b.y:
        images = _faded(images, images_at(generator, points, b.y, psi), steps)
    return np.concatenate([a.image, images])


def _faded(ours: Pixels, theirs: Pixels, steps: int) -> Pixels:
    """Frames 1 … steps-1 of a fade: ((steps - k) · a + k · b) / steps, rounded to the next level, halves up."""
    k = np.arange(1, steps, dtype=np.int64)[:, None, None, None]
    return ((2 * ((steps - k) * ours + k * theirs) + steps) // (2 * steps)).astype(np.uint8)


def _square(generator: Generator, keys: list[Keyframe], steps: int, space: str) -> Pixels:
    """uint8 [(steps + 1)^2, H, W, C]: down the edges first, then along each row. The corners are the keyframes."""
    corners = [styles_of(generator, key)[0] if space == "w" else key.z[0] for key in keys]
    shares = np.arange(steps + 1) / steps
    left, right = (_between(generator, corners[i], corners[i + 2], shares) for i in (0, 1))
    rows = [
        images_at(generator, _between(generator, a, b, shares), keys[0].y, keys[0].psi)
        for a, b in zip(left, right, strict=True)
    ]
    images = np.concatenate(rows)
    for place, key in zip((0, steps, -steps - 1, -1), keys, strict=True):
        images[place] = key.image[0]
    return images


def _strips(images: Pixels, steps: int, square: bool, size: tuple[int, int] | None, goes_round: bool) -> Pixels:
    """The picture: a row a leg with both its ends, or the square's rows."""
    cells = enlarged(images, size) if size else images
    if square:
        return arrange([list(row) for row in cells.reshape(steps + 1, steps + 1, *cells.shape[1:])])
    if goes_round:
        cells = np.concatenate([cells, cells[:1]])
    return arrange(list(_rows(cells, steps)))


def _rows(cells: Pixels, steps: int) -> Iterator[list[Pixels]]:
    for first in range(0, len(cells) - 1, steps):
        yield list(cells[first : first + steps + 1])


def _check_options(
    path: Path | None,
    moving: bool,
    space: str,
    square: bool,
    loop: bool | None,
    fps: int | None,
    size: int | tuple[int, int] | None,
) -> None:
    choice("space", space, ("z", "w"), "z or w")
    flag("square", square)
    if loop is not None:
        flag("loop", loop)
    if fps is not None and not moving:
        raise UsageError("fps does not apply without an animation", "Write a .gif, .webp or .mp4, or leave it out.")
    if size is not None and path is None:
        raise UsageError("size does not apply without a file", "It is that of a frame in the file: give out too.")
    if square and moving:
        raise UsageError("a square is a picture", "Write it as .png, or leave --square out.")
    if square and loop:
        raise UsageError("a square has no loop", "Leave one of the two out.")
