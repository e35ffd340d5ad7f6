"""One sample explained: what it was made of, the command that makes it alone, and what lies around it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganrt.contract import read_model
from ganrt.encode import Pixels, resize, to_mode
from ganrt.errors import UsageError
from ganrt.generation import samples_of
from ganrt.generator import Generator, load_checked
from ganrt.grid import arrange, check_png, names_a_model, write_picture
from ganrt.latents import DIRECTION_STREAM, MAX_INDEX, latents
from ganrt.layouts import layout_kind
from ganrt.layouts.folder import Folder
from ganrt.models import find_model
from ganrt.parts import open_parts
from ganrt.planning import make_plan
from ganrt.samples import Samples
from ganrt.shards import DEFAULT_BATCH, Plan, Shard, require
from ganrt.values import path_of
from ganrt.verification import generator_of
from ganrt.walks import images_at

DIRECTIONS = 4
ANGLES = (-60, -45, -30, -15, 0, 15, 30, 45, 60)  # degrees from z; 0 is the image itself


@dataclass(frozen=True)
class Explanation:
    """A sample and what decides it.

    z float32 [z_dim]; ``label`` and ``class_name`` are None without classes, ``psi`` where the generator takes none;
    ``image`` uint8 [H, W, C], resized if the dataset is. ``file`` is its name in layout ``folder``, under the folder
    that ``command``, a shell command, writes it alone to: DIR.
    """

    model: str
    index: int
    seed: int
    z: NDArray[np.float32]
    label: int | None
    class_name: str | None
    psi: float | None
    latent_std: float
    image: Pixels
    file: str
    command: str


def explain(
    source: str | os.PathLike[str],
    index: int,
    *,
    seed: int | None = None,
    classes: Sequence[str | int] | None = None,
    psi: float | None = None,
    latent_std: float | None = None,
    part: str | None = None,
    model: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str = "auto",
) -> Explanation:
    """Explains the sample ``index`` of a generator, given by name or path, or of a dataset, given by its folder.

    Of a generator's samples ``seed`` (0), ``classes`` (all), ``psi`` and ``latent_std`` (1.0) are as in ``generate``.
    Of a dataset its ledger says them; ``part`` names one of several, and ``model`` the generator's file where its name
    leads nowhere.

    ``out``, .png, gets a picture of what lies around it in latent space: four rows, each a direction at right angles to
    z and to the others, drawn the same each time; in the middle the image itself, at both sides z turned by 15, 30, 45
    and 60 degrees, its norm kept. (Numbers of uniform latents stay within their range, at the cost of the norm.)

    Raises UsageError, UnknownClass, DatasetError, StorageError, and what :func:`ganrt.load` raises.
    """
    path = None if out is None else check_png(out)
    index = require("index", index, 0, MAX_INDEX)
    if os.path.isdir(path_of("source", source)) and not names_a_model(source):
        given = {"seed": seed, "classes": classes, "psi": psi, "latent std": latent_std}
        for name, value in given.items():
            if value is not None:
                raise UsageError(f"{name} does not apply to a dataset, whose ledger says it", "Leave it out.")
        plan, generator, named = _of_dataset(Path(source), index, part, model, device)
    else:
        for name, text in (("part", part), ("model", model)):
            if text is not None:
                raise UsageError(f"{name} does not apply to a generator", "It goes with a dataset's folder.")
        plan, generator, named = _of_generator(source, 0 if seed is None else seed, classes, psi, latent_std, device)
    samples = samples_of(plan)
    [batch] = generator.batches(samples, index, index + 1, plan.batch)
    card = generator.card
    z = latents(plan.seed, index, 1, card.z_dim, distribution=card.z_distribution, std=plan.latent_std)
    label = plan.label(index)
    if path is not None:
        write_picture(path, _neighbourhood(generator, samples, z[0], label, batch.images[0]))
    loose = _loose(plan)
    return Explanation(
        model=card.name,
        index=index,
        seed=plan.seed,
        z=z[0],
        label=label,
        class_name=None if label is None else plan.class_names[label],
        psi=plan.psi,
        latent_std=plan.latent_std,
        image=batch.images[0],
        file=Folder(loose).names(Shard(0, index, index + 1))[0],
        command=shlex.join(_command(loose, index, named)),
    )


def _of_generator(
    source: str | os.PathLike[str],
    seed: int,
    classes: Sequence[str | int] | None,
    psi: float | None,
    latent_std: float | None,
    device: str,
) -> tuple[Plan, Generator, str]:
    path = find_model(source)
    checked = read_model(path)
    std = 1.0 if latent_std is None else latent_std
    plan = make_plan(checked.card, checked.digest, seed=seed, classes=classes, psi=psi, latent_std=std)
    return plan, load_checked(checked, path, device, None, None), os.fspath(source)


def _of_dataset(
    root: Path, index: int, name: str | None, model: str | os.PathLike[str] | None, device: str
) -> tuple[Plan, Generator, str]:
    parts = open_parts(root)
    listed = ", ".join(repr(part) for part in sorted(parts))
    if name is None and len(parts) > 1:
        raise UsageError(f"{root} has {len(parts)} parts", f"Say which: --part, one of {listed}.")
    if name is not None and name not in parts:
        raise UsageError(f"{root} has no part {name!r}", f"It has: {listed}.")
    part = next(iter(parts.values())) if name is None else parts[name]
    plan = part.plan
    if not isinstance(plan, Plan):
        raise UsageError(
            f"{root} was made of images, not of latents", "There is no z to explain: its inputs decide its images."
        )
    if not plan.start <= index < plan.start + part.n:
        last = plan.start + part.n - 1
        raise UsageError(f"index {index} is not in {root}", f"It has the samples {plan.start} to {last}.")
    return plan, generator_of(part, model, device), os.fspath(plan.model if model is None else model)


def _loose(plan: Plan) -> Plan:
    """The plan with the sample as a file of its own: arrays have neither format nor mark."""
    return replace(plan, layout="folder", format=plan.format or "png", mark=plan.mark or plan.format is None)


def _command(plan: Plan, index: int, model: str) -> list[str]:
    """The words that make one sample of a plan in layout ``folder``; what is as usual is left out."""
    words = ["ganrt", "generate", "--n", "1", "--start", str(index), "--seed", str(plan.seed), "--out", "DIR"]
    words += ["--model", model]
    if plan.classes != tuple(range(len(plan.class_names))):
        # With "=": a name may begin with "-". A name with commas is taken whole, since it is a class.
        words += [f"--classes={plan.class_names[y]}" for y in plan.classes]
    if plan.psi not in (None, 1.0):
        words += ["--psi", str(plan.psi)]
    if plan.latent_std != 1.0:
        words += ["--latent-std", str(plan.latent_std)]
    if plan.size:
        words += ["--size", "x".join(map(str, plan.size)), "--resample", str(plan.resample)]
    if plan.mode != ("l" if plan.channels == 1 else "rgb"):
        words += ["--mode", plan.mode]
    if plan.format != layout_kind("folder").format:
        words += ["--format", str(plan.format)]
    if plan.quality is not None:
        words += ["--quality", str(plan.quality)]
    if not plan.mark:
        words.append("--no-mark")
    if plan.batch != DEFAULT_BATCH:
        words += ["--batch", str(plan.batch)]
    if plan.part:
        words += ["--part", plan.part]
    return words


def _neighbourhood(
    generator: Generator, samples: Samples, z: NDArray[np.float32], label: int | None, image: Pixels
) -> Pixels:
    directions = _directions(z)
    angles = np.deg2rad([angle for angle in ANGLES if angle])[:, None]
    rows = []
    for direction in directions:
        turned = np.cos(angles) * z.astype(np.float64) + np.sin(angles) * direction
        if generator.card.z_distribution == "uniform":
            turned = np.clip(turned, -samples.latent_std, samples.latent_std)
        images = to_mode(images_at(generator, turned.astype(np.float32), label, samples.psi), samples.mode)
        if samples.size:
            images = resize(images, samples.size, samples.resample)
        middle = len(images) // 2
        rows.append([*images[:middle], image, *images[middle:]])
    return arrange(rows)


def _directions(z: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """Vectors of z's norm at right angles to it and to each other (Gram and Schmidt), always from the same draws."""
    if len(z) < 2:
        raise UsageError("a z of one number has no directions around it", "Leave the picture (--out) away.")
    norm = np.linalg.norm(z.astype(np.float64))
    taken = [z.astype(np.float64) / norm]
    drawn = latents(0, 0, DIRECTIONS, len(z), stream=DIRECTION_STREAM).astype(np.float64)
    for vector in drawn[: len(z) - 1]:
        for _ in range(2):  # twice is enough (Kahan), where vectors are nearly parallel
            for other in taken:
                vector = vector - (vector @ other) * other
        taken.append(vector / np.linalg.norm(vector))
    return [norm * direction for direction in taken[1:]]
