"""What each step is given: images in an order, latents, augmentation. All of it is decided by the step's number."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganrt_training import augment
from ganrt_training.crew import Crew
from ganrt_training.data import ImageData, balanced_order, epoch_order
from ganrt_training.energy import Energy
from ganrt_training.recipe import Recipe
from ganrt_training.run_folder import to_float
from ganrt_training.step import Turn


class Feed:
    """Gives each step of a run its turn. ``classes`` is 0 where labels are not used."""

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        classes: int,
        seed: int,
        team: Crew,
        energy: Energy | None = None,
    ) -> None:
        self._recipe, self._data, self._seed, self._team, self._energy = recipe, data, seed, team, energy
        self._images, self._labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
        self._classes = classes
        self._epoch, self._order = 0, self._order_of(0)

    def turn(self, step: int, augment_p: float) -> Turn:
        """What the step of a number is given. Also sets PyTorch's global random state, for dropout and noise."""
        recipe, team = self._recipe, self._team
        draws = torch.Generator().manual_seed(_seed_of(self._seed, step, -1))  # alike in all processes
        chosen = self._choice(step)
        images = to_float(self._images[chosen])
        if recipe.flip:
            images = torch.where(torch.rand(len(images), 1, 1, 1, generator=draws) < 0.5, images.flip(3), images)

        def draw_z(count: int) -> Tensor:
            z = torch.randn(count * team.size, recipe.z_dim, generator=draws)
            return z[team.rank :: team.size].to(team.device)

        torch.manual_seed(_seed_of(self._seed, step, team.rank))
        return Turn(
            number=step,
            images=images.to(team.device),
            y=self._labels[chosen].to(team.device) if self._classes else None,
            draw_z=draw_z,
            # Shorter at first, so that the average does not drag the initial weights along.
            ema_decay=min(recipe.ema_decay, (1 + step) / (10 + step)),
            augment_p=augment_p,
            augment=lambda x: augment.augment(x, augment_p),
            share=team.share_gradients,
            energy=self._energy,
        )

    def _choice(self, step: int) -> Tensor:
        """This process's share of the step's batch, as indices."""
        batch = self._recipe.batch_size
        per_epoch = len(self._order) // batch
        if step // per_epoch != self._epoch:
            self._epoch = step // per_epoch
            self._order = self._order_of(self._epoch)
        at = step % per_epoch * batch
        shown = self._order[at : at + batch]
        # By label, for discriminators that compare neighbours of one class.
        shown = shown[np.argsort(self._data.labels[shown], kind="stable")]
        return torch.from_numpy(shown[self._team.rank :: self._team.size])

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if self._recipe.balanced:
            return balanced_order(self._data.labels, epoch, self._seed)
        return epoch_order(len(self._data), epoch, self._seed)


def _seed_of(*numbers: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1
