"""Looking at the averaged generator of a run: always at the same latents, or the same real images."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ganrt_training import ema
from ganrt_training.data import ImageData, balanced_order
from ganrt_training.metrics import frechet_distance
from ganrt_training.quality import IMAGES, Reference
from ganrt_training.recipe import Recipe
from ganrt_training.run_folder import to_float, to_pixels

if TYPE_CHECKING:
    from ganrt_training.evaluation.features import FeatureNetwork

COLUMNS, ROWS = 10, 20
SEEN = 2000  # images that a feature network looks at
_BATCH = 64


@dataclass(frozen=True)
class Seen:
    """What was seen of a generator: ``model`` is it in inference mode, ``distance`` less is better."""

    model: nn.Module
    distance: float
    diversity: float


class Eye:
    """Looks at generators of one run.

    The reference is a fixed random choice of the training images; latents get its labels, so that both sides have the
    same share of each class. With a feature network the distance is the Fréchet distance of what it sees, else sliced
    Wasserstein.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        classes: int,
        seed: int,
        device: torch.device,
        network: FeatureNetwork | None = None,
    ) -> None:
        self._recipe, self._classes, self._seed, self._device = recipe, classes, seed, device
        self._network, count = network, SEEN if network else IMAGES
        chosen = np.sort(np.random.Generator(np.random.Philox(key=seed)).permutation(len(data))[:count])
        self._features = network.see(data.images[chosen]).features if network else None
        self._reals = to_float(torch.from_numpy(data.images[chosen]))
        self._labels = torch.from_numpy(data.labels[chosen])
        # Of each class as many, where images are few; a folder's come one class after the other.
        self._mixed = torch.from_numpy(balanced_order(data.labels[chosen], 0, seed))
        self._reference = Reference(self._reals, self._labels if classes else torch.zeros_like(self._labels))

    @torch.no_grad()
    def look(self, averaged: nn.Module) -> Seen:
        """Measures the averaged generator of a run."""
        recipe = self._recipe
        if recipe.translation:
            return self._look_at_translation(averaged)
        if recipe.adversarial:
            model = ema.standing_statistics(averaged, recipe.z_dim, self._classes)
        else:  # batch norms keep what they began with
            model = copy.deepcopy(averaged).eval()
        z = self._latents(len(self._reals), self._seed + 2)
        y = self._labels if self._classes else None
        fakes = self._made(model, z, y)
        look = self._reference.look(fakes)
        distance = look.distance
        if self._network and math.isfinite(distance):  # pixels cannot show that numbers are not
            assert self._features is not None
            distance = frechet_distance(self._features, self._network.see(to_pixels(fakes)).features)
        return Seen(model, distance, look.diversity)

    @torch.no_grad()
    def grid(self, model: nn.Module) -> list[Tensor]:
        """Rows of images: a class a row, or what a translator was given and what it made."""
        if self._recipe.translation:
            shown = self._recipe.translation.show(self._recipe, model, *self._few(4 * COLUMNS))
            rows = []
            for first in range(0, min(2 * COLUMNS, len(shown.columns[0])) // COLUMNS * COLUMNS, COLUMNS):
                rows += [column[first : first + COLUMNS].cpu() for column in shown.columns]
            return rows
        rows_wanted = min(ROWS, self._classes) or COLUMNS
        z = self._latents(rows_wanted * COLUMNS, self._seed + 1)
        y = torch.arange(rows_wanted).repeat_interleave(COLUMNS) if self._classes else None
        return list(self._made(model, z, y).split(COLUMNS))

    def _look_at_translation(self, averaged: nn.Module) -> Seen:
        assert self._recipe.translation is not None
        model = ema.standing_statistics(averaged, self._recipe.z_dim, 0)
        shown = self._recipe.translation.show(self._recipe, model, *self._few(256))
        fakes, reals = shown.fakes.float().cpu(), shown.reals.cpu()
        look = Reference(reals, torch.zeros(len(reals), dtype=torch.int64)).look(fakes)
        return Seen(model, look.distance if shown.error is None else shown.error, look.diversity)

    def _few(self, count: int) -> tuple[Tensor, Tensor]:
        few = self._mixed[:count]
        return self._reals[few].to(self._device), self._labels[few].to(self._device)

    def _latents(self, count: int, seed: int) -> Tensor:
        return torch.randn(count, self._recipe.z_dim, generator=torch.Generator().manual_seed(seed))

    def _made(self, model: nn.Module, z: Tensor, y: Tensor | None) -> Tensor:
        made = []
        for first in range(0, len(z), _BATCH):
            part = None if y is None else y[first : first + _BATCH].to(self._device)
            made.append(model(z[first : first + _BATCH].to(self._device), part).float().cpu())
        return torch.cat(made).clamp(-1, 1)
