"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593): from one kind of images to another and back, without pairs.

The data's two classes are the two kinds. Two residual generators, two discriminators that judge patches, least-squares
loss, what comes back from the other side should be what went (cycle), and what is of the other side already should stay
(identity). The discriminators see older fakes too, from a pool (Shrivastava et al. 2016, arXiv 1612.07828).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrt.errors import UsageError
from ganrt_training import ema
from ganrt_training.layers import InstanceNorm2d
from ganrt_training.losses import find_loss, told_rightly
from ganrt_training.recipe import ImageToImage, Recipe, Shown
from ganrt_training.step import Players, Turn, add, autocast, backward, update


class Residual(nn.Module):
    """float [N, C, H, W] → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolved(channels, channels, 3), nn.ReLU(inplace=True), *_convolved(channels, channels, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Translator(nn.Module):
    """images float [N, channels, H, W] in [-1, 1] → the same; H and W are multiples of 4.

    With ``residual`` the layers make what is added to the images, at first nothing; sums may lie beyond [-1, 1].
    """

    def __init__(self, width: int, blocks: int, channels: int, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            *_convolved(channels, width, 7),
            nn.ReLU(inplace=True),
            *_convolved(width, 2 * width, 3, stride=2),
            nn.ReLU(inplace=True),
            *_convolved(2 * width, 4 * width, 3, stride=2),
            nn.ReLU(inplace=True),
            *(Residual(4 * width) for _ in range(blocks)),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False),
            InstanceNorm2d(),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
            InstanceNorm2d(),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, channels, 7),
            nn.Tanh(),
        )
        self.apply(_initialise)
        if residual:
            nn.init.zeros_(self.layers[-2].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.layers[-2].bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.layers(images)
        return images + 2 * x if self.residual else x  # 2: from any value to any other


class Generators(nn.Module):
    """Both directions: from the first kind to the second, and back."""

    def __init__(self, width: int, blocks: int, channels: int, residual: bool = False) -> None:
        super().__init__()
        self.forth = Translator(width, blocks, channels, residual)
        self.back = Translator(width, blocks, channels, residual)


class PatchDiscriminator(nn.Module):
    """images float [N, channels, size, size] → logits float [N, 1, H, W], one a patch."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
            InstanceNorm2d(),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1, bias=False),
            InstanceNorm2d(),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4 * width, 1, 4, padding=1),
        )
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class Pool(nn.Module):
    """The last fakes, from which half of the time an older one is shown in place of a new one. Part of a checkpoint."""

    images: Tensor
    count: Tensor

    def __init__(self, size: int, channels: int, side: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, channels, side, side))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def swapped(self, fakes: Tensor) -> Tensor:
        """``fakes`` [N, C, H, W] with some of them exchanged for older ones."""
        shown = []
        for fake in fakes.detach():
            count = int(self.count)
            if count < len(self.images):
                self.images[count] = fake
                self.count += 1
            elif torch.rand(()) < 0.5:
                at = int(torch.randint(count, ()))
                older = self.images[at].clone()
                self.images[at] = fake
                fake = older
            shown.append(fake)
        return torch.stack(shown)


class Discriminators(nn.Module):
    """Of the first kind of images, and of the second, each with its pool of fakes."""

    def __init__(self, width: int, channels: int, pool: int, side: int) -> None:
        super().__init__()
        self.first = PatchDiscriminator(width, channels)
        self.second = PatchDiscriminator(width, channels)
        self.first_pool = Pool(pool, channels, side)
        self.second_pool = Pool(pool, channels, side)


@dataclass(frozen=True, kw_only=True)
class CycleGANRecipe(Recipe):
    """A recipe with CycleGAN's own settings."""

    bounds = (("blocks", 0, 64), ("cycle", 0, 1e6), ("identity", 0, 1e6), ("pool", 0, 100_000))

    blocks: int = 6  # residual ones, of each generator
    cycle: float = 10.0  # weights
    identity: float = 5.0
    pool: int = 50  # fakes kept of each kind
    residual: bool = False  # not in the paper: the generators learn what to change, for kinds of images that look alike


def cycle_step(recipe: CycleGANRecipe, players: Players, turn: Turn) -> dict[str, Tensor]:
    """Updates both generators, then both discriminators, then the average."""
    loss = find_loss(recipe.loss, recipe.label_smoothing)
    generators, discriminators = players.generator, players.discriminator
    assert isinstance(generators, Generators) and isinstance(discriminators, Discriminators)
    figures: dict[str, Tensor] = {}

    discriminators.requires_grad_(False)
    players.generator_optimizer.zero_grad(set_to_none=True)
    fakes = []
    for images, y in turn.parts(recipe.accumulate):
        assert y is not None
        first, second = images[y == 0], images[y == 1]
        with autocast(recipe, images):
            second_fake, first_fake = generators.forth(first), generators.back(second)
            logits = [discriminators.second(turn.augment(second_fake)), discriminators.first(turn.augment(first_fake))]
            adversarial = torch.stack([loss.generator(fake.float(), fake.float()) for fake in logits]).sum()
            there_and_back = F.l1_loss(generators.back(second_fake), first) + F.l1_loss(
                generators.forth(first_fake), second
            )
            terms = {"generator_loss": adversarial, "cycle": there_and_back}
            total = adversarial + recipe.cycle * there_and_back
            if recipe.identity:  # a third of the work
                same = F.l1_loss(generators.back(first), first) + F.l1_loss(generators.forth(second), second)
                terms["identity"], total = same, total + recipe.identity * same
        backward(players, total, recipe.accumulate)
        add(figures, terms, recipe.accumulate)
        fakes.append((first_fake.detach().float(), second_fake.detach().float()))
    turn.share(generators)
    update(players, players.generator_optimizer)
    discriminators.requires_grad_(True)

    players.discriminator_optimizer.zero_grad(set_to_none=True)
    for (images, y), (first_fake, second_fake) in zip(turn.parts(recipe.accumulate), fakes, strict=True):
        for judge, reals, made, pool in (
            (discriminators.first, images[y == 0], first_fake, discriminators.first_pool),
            (discriminators.second, images[y == 1], second_fake, discriminators.second_pool),
        ):
            shown = pool.swapped(made) if len(pool.images) else made
            with autocast(recipe, images):
                real_logits = judge(turn.augment(reals)).float()
                fake_logits = judge(turn.augment(shown)).float()
            told = loss.discriminator(real_logits, fake_logits)
            backward(players, told, recipe.accumulate)
            real, fake = told_rightly(loss, real_logits, fake_logits)
            shares = {"discriminator_loss": told, "real_accuracy": real, "fake_accuracy": fake}
            add(figures, shares, 2 * recipe.accumulate)
    turn.share(discriminators)
    update(players, players.discriminator_optimizer)
    ema.update(players.averaged, players.generator, turn.ema_decay)
    return figures


def _show(recipe: Recipe, generator: nn.Module, images: Tensor, y: Tensor) -> Shown:
    first, second = images[y == 0], images[y == 1]
    count = min(len(first), len(second))
    first, second = first[:count], second[:count]
    second_fake, first_fake = generator.forth(first), generator.back(second)  # type: ignore[operator]
    return Shown(
        torch.cat([first_fake, second_fake]), torch.cat([first, second]), (first, second_fake, second, first_fake)
    )


def _translators(generator: nn.Module, class_names: Sequence[str]) -> Mapping[str, nn.Module]:
    first, second = class_names
    return {f"{first}-to-{second}": generator.forth, f"{second}-to-{first}": generator.back}  # type: ignore[dict-item]


def _convolved(before: int, after: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.ReflectionPad2d(kernel // 2),
        nn.Conv2d(before, after, kernel, stride=stride, bias=False),
        InstanceNorm2d(),
    ]


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.02)


def _build(recipe: CycleGANRecipe, channels: int, classes: int) -> tuple[nn.Module, nn.Module]:
    if recipe.image_size < 16 or recipe.image_size % 4:
        raise UsageError(f"recipe {recipe.name}: image_size is {recipe.image_size}", "Expected 16 or more, by fours.")
    return (
        Generators(recipe.width, recipe.blocks, channels, recipe.residual),
        Discriminators(recipe.width, channels, recipe.pool, recipe.image_size),
    )


def cyclegan_64() -> Recipe:
    """64x64 CycleGAN: from the first of two folders of images to the second and back, without pairs."""
    return CycleGANRecipe(
        name="cyclegan_64",
        build=_build,
        step=cycle_step,
        translation=ImageToImage(show=_show, translators=_translators, domains=2),
        image_size=64,
        batch_size=16,
        balanced=True,
        loss="least_squares",
        betas=(0.5, 0.999),
        lr_decay=0.5,
        ema_decay=0.995,
        augment="off",
        total_kimg=200.0,
        tick_kimg=2.0,
        snapshot_kimg=20.0,
    )
