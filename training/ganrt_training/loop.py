"""The training loop: from a recipe and images to a run folder that can be resumed and exported."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganrt.errors import Cancelled, StorageError, TrainingError, UsageError
from ganrt.files import storage_error
from ganrt.shards import require
from ganrt_training import augment, crew, cuda_graphs, run_folder
from ganrt_training.checkpoint import (
    Trained,
    find_snapshot,
    load_checkpoint,
    load_generator,
    save_checkpoint,
    save_snapshot,
)
from ganrt_training.cuda_graphs import GraphedStep
from ganrt_training.data import ImageData, digest
from ganrt_training.energy import LEAST_SIDE, energy_of
from ganrt_training.feeding import Feed
from ganrt_training.players import make_players, restore, set_rates, state_of, take_over
from ganrt_training.recipe import Recipe
from ganrt_training.report import KEPT, write_report
from ganrt_training.showing import SEEN, Eye
from ganrt_training.step import Players, adversarial_step
from ganrt_training.watch import warning

if TYPE_CHECKING:
    from ganrt_training.evaluation.features import FeatureNetwork

logger = logging.getLogger("ganrt.training")

Stats = dict[str, Any]


def train(
    recipe: Recipe,
    data: ImageData,
    run_dir: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    features: str | FeatureNetwork | None = None,
    start: Path | None = None,
    minutes: float | None = None,
    progress: Callable[[Stats], None] | None = None,
    cancel: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Trains until ``recipe.total_kimg`` is reached, or for ``minutes``, and returns ``run_dir``.

    The folder gets ``recipe.json``, ``stats.jsonl`` (a line per tick), ``samples-<kimg>.png`` (fixed z, a class per
    row), ``snapshot-<kimg>.safetensors`` and ``best.safetensors`` (the averaged generator, the latter where the tick's
    quality was best), ``checkpoint.pt`` and ``report.html``. A folder that holds a checkpoint of the same run is
    resumed where it stood; in one process on a CPU the weights then come out as those of an uninterrupted run. Started
    by torchrun, all processes share each batch. The quality, by which the best snapshot is chosen, is the sliced
    Wasserstein distance to real images; with ``features``, a network or what :func:`open_network` takes, the Fréchet
    distance of what it sees in 2,000 images of each. ``start``, a snapshot or a run folder, is where the generator's
    weights begin, those of the recipe's own kind. ``progress`` gets each tick's statistics, ``cancel`` ends the run
    when it is set; ``clock`` is what ``minutes`` are measured by. PyTorch's global random state is left as it was.

    Raises UsageError and DeviceUnavailable for the device, what :func:`open_network` raises, TrainingError when the
    data or the start does not fit the recipe, when the folder holds another run or one is training in it, and when a
    loss stops being finite (the last checkpoint and snapshots stay); StorageError, StorageFull, Cancelled.
    """
    require("seed", seed, 0, (1 << 63) - 1)
    team = crew.join(device)
    check_fit(recipe, data, team.size)
    network = None if features is None else _network(features, recipe, device)
    begin = None if start is None else load_generator(find_snapshot(start))
    about = _about(recipe, data, seed, network, begin)
    try:
        with (
            run_folder.claimed(run_dir, about, write=team.rank == 0),
            torch.random.fork_rng(devices=[team.device] if team.device.type == "cuda" else []),
        ):
            _train(_Run(recipe, data, run_dir, seed, about, team, clock, network, begin), minutes, progress, cancel)
    except BrokenPipeError:  # whoever is told of the progress has gone
        raise
    except (OSError, StorageError) as error:
        raised = error if isinstance(error, StorageError) else storage_error(error, KEPT)
        raise raised from (error if raised is not error else None)
    return run_dir


def _train(
    run: _Run,
    minutes: float | None,
    progress: Callable[[Stats], None] | None,
    cancel: threading.Event | None,
) -> None:
    team = run.team
    while run.step < run.total_steps:
        if cancel is not None and cancel.is_set():
            raise Cancelled(
                f"stopped at {run.kimg(run.step):.1f} kimg",
                f"The same command goes on from its last checkpoint, at {run.kimg(run.tick_first):.1f} kimg.",
            )
        run.take_step()
        if run.step % run.tick_steps and run.step < run.total_steps:
            continue
        stats = run.tick()
        if progress and team.rank == 0:
            progress(stats)
        over = minutes is not None and run.clock() - run.started >= minutes * 60
        if float(team.mean(torch.tensor(float(over), device=team.device))) > 0:
            break
    if team.rank == 0:
        write_report(run.run_dir)  # a run that was killed after its last checkpoint has an older one


def _network(features: str | FeatureNetwork, recipe: Recipe, device: str) -> FeatureNetwork:
    if recipe.translation:
        raise UsageError(
            f"features do not apply to recipe {recipe.name}", "It has a distance of its own: leave them out."
        )
    if not isinstance(features, str):
        return features
    from ganrt_training.evaluation.networks import open_network

    return open_network(features, device=device)


def _about(
    recipe: Recipe, data: ImageData, seed: int, network: FeatureNetwork | None, begin: Trained | None
) -> dict[str, Any]:
    """What decides a run."""
    about = {
        "recipe": recipe.settings(),
        "kind": "image-to-image" if recipe.translation else "latent-to-image",
        "seed": seed,
        "channels": data.images.shape[3],
        "class_names": list(data.class_names if recipe.conditional else ()),
        "images": len(data),
        "data": digest(data),
    }
    if network is not None:  # without one as it was before there were any: older runs go on
        told = {key: value for key, value in network.about.items() if key != "classifier"}
        about["features"] = {"distance": "Fréchet", "images": min(SEEN, len(data)), **told}
    if begin is not None:
        about["start"] = {"snapshot_digest": begin.digest, "kimg": begin.kimg}
    return about


@dataclass
class _Standing:
    """Where a run stands, beside its networks: what a checkpoint must bring back."""

    step: int = 0
    seconds: float = 0.0
    augment_p: float = 0.0
    best: float = math.inf


class _Run:
    """A run as it goes on: networks, what they are fed, and what is known of them."""

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        run_dir: Path,
        seed: int,
        about: dict[str, Any],
        team: crew.Crew,
        clock: Callable[[], float],
        network: FeatureNetwork | None,
        begin: Trained | None,
    ) -> None:
        self.recipe, self.run_dir, self.about, self.team, self.clock = recipe, run_dir, about, team, clock
        names = data.class_names if recipe.conditional else ()
        torch.manual_seed(seed)
        self.players: Players = make_players(recipe, data.images.shape[3], len(names), team.device)
        if begin is not None:
            take_over(self.players, begin, recipe.z_dim)
        self.standing, self.ticks = _Standing(), list[Stats]()
        if (run_dir / run_folder.CHECKPOINT).is_file():
            checkpoint = run_dir / run_folder.CHECKPOINT
            self.standing = _Standing(**restore(load_checkpoint(checkpoint), self.players, checkpoint))
            logger.info("resuming %s at %.1f kimg", run_dir, self.kimg(self.standing.step))
        if team.rank == 0:  # without a checkpoint too: what was told by a run that ended before its first is dropped
            self.ticks = run_folder.read_stats(run_dir / run_folder.STATS, self.standing.step)
        team.wait()
        self.total_steps = math.ceil(recipe.total_kimg * 1000 / recipe.batch_size)
        self.tick_steps = max(1, round(recipe.tick_kimg * 1000 / recipe.batch_size))
        self.snapshot_ticks = max(1, round(recipe.snapshot_kimg / recipe.tick_kimg))
        self.varied = recipe.augment == "on" or (recipe.augment == "auto" and len(data) < augment.FEW)
        energy = energy_of(data, run_dir, recipe, seed, team) if recipe.energy else None
        self.feed = Feed(recipe, data, len(names), seed, team, energy)
        self.eye = Eye(recipe, data, len(names), seed, team.device, network) if team.rank == 0 else None
        self.means = _Means(team.device)
        self.graphed = GraphedStep(recipe, self.players) if cuda_graphs.fits(recipe, team) else None
        self.first_step, self.seconds_before = self.standing.step, self.standing.seconds
        self.tick_first = self.step
        self.started = self.tick_started = clock()

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.standing.step

    def kimg(self, step: int) -> float:
        """How many thousand real images were shown in so many steps."""
        return step * self.recipe.batch_size / 1000

    def take_step(self) -> None:
        """One step of the networks."""
        number = self.step
        set_rates(self.recipe, self.players, number / self.total_steps)
        turn = self.feed.turn(number, self.standing.augment_p)
        if self.graphed is not None:
            figures = self.graphed(turn)
        else:
            figures = (self.recipe.step or adversarial_step)(self.recipe, self.players, turn)
        self.means.add(figures, number)
        self.standing.step += 1

    def tick(self) -> Stats:
        """Sums up the steps since the last tick, looks at the averaged generator, and writes everything down."""
        means, now = self.means.take(self.team), self.clock()
        kimg, shown_kimg = self.kimg(self.step), self.kimg(self.step - self.tick_first)
        if (bad := means.pop(_Means.BAD)) < math.inf:
            raise self._diverged(f"a loss is no longer finite since step {int(bad)}", int(bad), str(means))
        self.standing.seconds = self.seconds_before + now - self.started
        stats: Stats = {
            "kimg": kimg,
            "seconds": self.standing.seconds,
            "images_per_second": shown_kimg * 1000 / max(1e-9, now - self.tick_started),
            **means,
        }
        if self.varied:
            stats["augment_p"] = self.standing.augment_p
            self.standing.augment_p = augment.next_probability(
                self.standing.augment_p, means.get("real_accuracy", 0.5), shown_kimg, self.recipe.augment_kimg
            )
        if self.eye is not None:
            self._write(self.eye, stats)
        self.tick_started, self.tick_first = self.clock(), self.step
        left = (self.tick_started - self.started) / (self.step - self.first_step) * (self.total_steps - self.step)
        return stats | {"total_kimg": self.recipe.total_kimg, "seconds_left": left}

    def _diverged(self, what: str, step: int, figures: str) -> TrainingError:
        return TrainingError(
            f"{what} ({self.kimg(step):.1f} kimg): {figures}",
            f"The checkpoint of step {self.tick_first} and all snapshots are kept. A lower learning rate is the "
            "usual cure, or r1=1; with precision=fp16 try bf16.",
        )

    def _write(self, eye: Eye, stats: Stats) -> None:
        """Snapshots, grid, statistics, checkpoint and report, in an order that a kill in between does no harm to."""
        seen = eye.look(self.players.averaged)
        if not math.isfinite(seen.distance):  # the weights of the last step, before a loss could show it
            raise self._diverged("the averaged generator makes numbers that are not finite", self.step, "quality")
        stats |= {"quality": seen.distance, "diversity": seen.diversity}
        about = {"run": json.dumps(self.about | {"kimg": stats["kimg"], "quality": seen.distance})}
        if seen.distance < self.standing.best:
            self.standing.best = seen.distance
            save_snapshot(self.run_dir / run_folder.BEST, seen.model.state_dict(), about)
        if math.ceil(self.step / self.tick_steps) % self.snapshot_ticks == 0 or self.step == self.total_steps:
            name = f"{round(stats['kimg']):06d}"
            save_snapshot(self.run_dir / f"snapshot-{name}.safetensors", seen.model.state_dict(), about)
            run_folder.save_grid(self.run_dir / f"samples-{name}.png", eye.grid(seen.model))
        self.ticks.append(stats)
        if text := warning(self.ticks):
            stats["warning"] = text
        run_folder.add_stats(self.run_dir / run_folder.STATS, self.step, stats)
        save_checkpoint(self.run_dir / run_folder.CHECKPOINT, state_of(self.players) | vars(self.standing))
        write_report(self.run_dir)


class _Means:
    """Means of figures since the last tick, and the first step with one that is not finite."""

    BAD = "first_bad"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._first_bad = torch.tensor(math.inf, device=self._device)

    def add(self, figures: dict[str, Tensor], step: int) -> None:
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        bad = ~torch.isfinite(torch.stack([value.detach().float() for value in figures.values()])).all()
        self._first_bad = torch.where(bad, self._first_bad.clamp(max=step), self._first_bad)

    def take(self, team: crew.Crew) -> dict[str, float]:
        """The means over all processes, and under BAD the first bad step of any, infinite if all is well."""
        names = list(self._sums)
        values = team.mean(torch.stack([self._sums[n] / self._counts[n] for n in names]))
        told = dict(zip(names, values.tolist(), strict=True))
        bad = team.least(self._first_bad)
        self._reset()
        return told | {self.BAD: bad}


def check_fit(recipe: Recipe, data: ImageData, processes: int) -> None:
    """Raises TrainingError when a recipe cannot be trained on these images by so many processes."""
    (height, width), size = data.images.shape[1:3], recipe.image_size
    if (height, width) != (size, size):
        raise TrainingError(f"images of {width}x{height} pixels", f"Recipe {recipe.name} wants {size}x{size}.")
    if len(data) < recipe.batch_size:
        raise TrainingError(
            f"{len(data)} images",
            f"Recipe {recipe.name} wants at least a batch of {recipe.batch_size}; a smaller batch_size can be set.",
        )
    if recipe.batch_size % (processes * recipe.accumulate):
        raise TrainingError(
            f"a batch of {recipe.batch_size} for {processes} processes in {recipe.accumulate} parts each",
            "Set a batch_size that they divide.",
        )
    own = type(recipe).adversarial != Recipe.adversarial  # a weight in the recipe's own step
    if recipe.step is not None and (recipe.energy or (recipe.adversarial != 1 and not own)):
        raise TrainingError(
            f"recipe {recipe.name}: adversarial={recipe.adversarial:g} energy={recipe.energy:g}",
            "It has losses of its own: leave these as they are.",
        )
    if recipe.energy and not (recipe.conditional and data.class_names and recipe.image_size >= LEAST_SIDE):
        kind = f"{len(data.class_names)} classes, {size}x{size}, conditional={str(recipe.conditional).lower()}"
        raise TrainingError(
            f"energy={recipe.energy:g} for images of {kind}",
            f"It is a distance within classes: images with classes, of {LEAST_SIDE}x{LEAST_SIDE} up, and a conditional "
            "recipe are needed. Leave energy at 0.",
        )
    if not (domains := recipe.translation.domains if recipe.translation else 0):
        return
    if len(data.class_names) != domains:
        raise TrainingError(
            f"{len(data.class_names)} classes of images", f"Recipe {recipe.name} wants a folder with {domains} of them."
        )
    part = recipe.batch_size // (processes * recipe.accumulate)
    if not (recipe.conditional and recipe.balanced) or part % domains:
        raise TrainingError(
            f"recipe {recipe.name}: conditional={recipe.conditional} balanced={recipe.balanced}, in parts of {part}",
            f"Each part of a batch must have as many of each of the {domains} classes: leave conditional and balanced "
            f"true, and set a batch_size of which each part is a multiple of {domains}.",
        )
