"""The distance between generated and real images of a class, in what small classifiers see of them.

An adversarial loss says which way an image should change to look real; that a generator's images lie closer together
than real ones is hardly felt by it. The energy distance (Székely & Rizzo 2013, doi 10.1016/j.jspi.2013.03.018) is zero
only where two distributions are the same: its gradient draws images to real ones and drives them apart from each other.
It is taken from mini-batches, as moments are by generative moment matching (Li et al. 2015, arXiv 1502.02761) and by
the Cramér GAN (Bellemare et al. 2017, arXiv 1705.10743); the classifiers are trained before, on the real images alone.

What is far away decides it most. So the ratio of kernel densities is lowered as well, which the nearest images decide:
its gradient is that of the Kullback-Leibler divergence, with both densities estimated from samples (as entropy's is by
Li & Turner 2018, arXiv 1705.07107).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganrt.errors import TrainingError
from ganrt_training import metrics
from ganrt_training.crew import Crew
from ganrt_training.data import ImageData, digest
from ganrt_training.recipe import Recipe
from ganrt_training.run_folder import to_float

logger = logging.getLogger("ganrt.training")

# Small: they are trained in minutes and looked through in every step. Several, since what looks right to one alone need
# not look right to another.
PROTOCOLS = (
    metrics.Protocol(widths=(16, 32, 64), hidden=128, epochs=8, precision="fp32"),
    metrics.Protocol(widths=(24, 48, 96), hidden=192, epochs=10, seed=12),
    metrics.Protocol(seed=1, precision="fp32"),
    metrics.Protocol(seed=2, epochs=8),
)
CLASSIFIER = "classifier-{}.safetensors"  # in the run's folder
LEAST_SIDE = 8  # pixels, for the classifiers
TOGETHER = 64  # generated images of a class, where they are made for this alone
REFERENCES = 1000  # real images of a class that the generated ones of a step are held against
MOST = 60_000  # real images that these are drawn from
_MAPS, _PIXELS = 3, 14  # the last convolution's maps, and images, are averaged down to these sides, at most
_FLOOR = 0.1  # of the mean variance of as many directions as count: those in which images hardly differ stay small
_COUNT = 30
_NEAR = 0.1  # of a class's deviation: the width of the kernel exp(-distance / width) of the densities
_BATCH = 1000


class Energy:
    """Distances to the images of a data set, class by class.

    ``classifiers`` are of :func:`metrics.build_classifier`, in inference mode on ``device``. What the last convolution
    and the layer before the last of each say of an image, and the image itself, made small, are compared twice: as they
    are, in units of the class's deviation, where the largest differences decide, and whitened, where all
    directions in which images of the class differ count.

    ``spread`` is how strongly images are driven from the generated ones near them, where real ones draw them with 1.
    ``telling`` is the weight, beside the distances, of the classifiers' loss in telling which class an image was made
    for (the auxiliary classifier's of Odena et al. 2016, arXiv 1610.09585).
    """

    def __init__(
        self,
        classifiers: Sequence[nn.Module],
        data: ImageData,
        device: torch.device,
        seed: int = 0,
        *,
        spread: float = 1.0,
        telling: float = 0.0,
    ) -> None:
        self._spread, self._telling = spread, telling
        self._parts = [_parts(classifier.requires_grad_(False)) for classifier in classifiers]
        chosen = torch.arange(len(data))
        if len(data) > MOST:
            chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:MOST].sort().values
        images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)[chosen]
        with torch.no_grad():
            looks = [self._look(to_float(images[part]).to(device)) for part in chosen.split(_BATCH)]
        seen = [torch.cat(look) for look in zip(*looks, strict=True)]
        self._classes = [
            [_Kind(look[labels == label]) for look in seen] if (labels == label).any() else []
            for label in range(len(data.class_names))
        ]
        self._present = labels.unique().to(device)

    def __call__(self, fakes: Tensor, y: Tensor) -> Tensor:
        """The mean over the classes in ``y`` int64 [N] for images float [N, C, H, W]: a scalar with a gradient.

        Energy distances are without bias, up to a constant that is the real images' own. Classes with one image are
        left out. The real images are drawn from PyTorch's global random state.
        """
        looks, terms = self._look(fakes), []
        for label, kinds in enumerate(self._classes):
            mine = torch.nonzero(y == label)[:, 0]
            if len(mine) > 1:
                terms += [kind.distance(look[mine], self._spread) for look, kind in zip(looks, kinds, strict=False)]
        total = torch.stack(terms).mean() if terms else fakes.sum() * 0
        if self._telling and terms:
            told = [F.cross_entropy(last(look), y) for (_, _, last), look in zip(self._parts, looks[2::2], strict=True)]
            total = total + self._telling * torch.stack(told).mean()
        return total

    def labels(self, count: int) -> Tensor:
        """Labels int64 [``count``] for images that are made only to be compared: few classes, with many images each."""
        wanted = max(1, min(len(self._present), count // TOGETHER))
        chosen = self._present[torch.randperm(len(self._present), device=self._present.device)[:wanted]]
        return chosen.repeat_interleave(-(-count // wanted))[:count]

    def _look(self, images: Tensor) -> list[Tensor]:
        looks = [_small(images, _PIXELS)]
        for convolutions, dense, _ in self._parts:
            maps = convolutions(images)
            looks += [_small(maps, _MAPS), dense(maps)]
        return looks


def _parts(classifier: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A classifier's convolutions, what follows up to the layer before the last, and the last."""
    assert isinstance(classifier, nn.Sequential)
    flatten = next(at for at, layer in enumerate(classifier) if isinstance(layer, nn.Flatten))
    return classifier[:flatten], classifier[flatten:-1], classifier[-1]


def _small(maps: Tensor, most: int) -> Tensor:
    """Maps float [N, C, H, W] averaged down to sides of ``most`` → float [N, D]."""
    side = (min(most, maps.shape[2]), min(most, maps.shape[3]))
    return (maps if maps.shape[2:] == side else F.adaptive_avg_pool2d(maps, side)).flatten(1)


class _Kind:
    """What is seen of the real images of one class by one layer: float [N, D], as it is and whitened."""

    def __init__(self, seen: Tensor) -> None:
        self._mean = seen.mean(dim=0)
        centred = (seen - self._mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(seen) - 1))
        values = values.clamp(min=0)
        kept = values > 1e-4 * values.max()
        values, vectors = values[kept], vectors[:, kept]
        # A class whose images are one, as far as this layer sees, has no deviation to measure in.
        total = values.sum().clamp(min=1e-4 * float(seen.double().square().sum(dim=1).mean()) + 1e-12)
        floor = _FLOOR * total / max(1, min(len(values), _COUNT))
        self._scale = 1 / total.sqrt().float()
        self._whiten = (vectors * (values + floor).rsqrt() / max(1, len(values)) ** 0.5).float()
        # In half precision, for memory's sake: some thousand numbers an image.
        self._plain, self._white = (seen * self._scale).half(), (centred.float() @ self._whiten).half()

    def distance(self, looks: Tensor, spread: float) -> Tensor:
        """The distances of generated images [M, D] to some of the real ones, as they are and whitened, summed."""
        count = len(self._plain)
        drawn = torch.randint(count, (min(REFERENCES, count),), device=looks.device)
        plain = _distance(looks * self._scale, self._plain[drawn].float(), spread)
        return plain + _distance((looks - self._mean) @ self._whiten, self._white[drawn].float(), spread)


def energy_of(data: ImageData, run_dir: Path, recipe: Recipe, seed: int, team: Crew) -> Energy:
    """The distance to a run's images that its recipe asks for.

    Its classifiers are trained by the first process, and kept in the folder.

    Raises TrainingError when the folder holds the classifiers of other images.
    """
    found, classes, source = [], len(data.class_names), digest(data)
    for number, protocol in enumerate(PROTOCOLS):
        path = run_dir / CLASSIFIER.format(number)
        about = asdict(protocol) | {"data": source}
        if team.rank == 0 and not path.exists():
            logger.info("training a classifier that images are seen through")
            model = metrics.train_classifier(data.images, data.labels, classes, protocol, device=team.device)
            metrics.save_classifier(path, model, about)
        team.wait()
        known = metrics.load_classifier(path, metrics.untrained_classifier(data.images, classes, protocol), about)
        if known is None:
            raise TrainingError(f"{path}: not the classifier of these images", "Remove it: it is trained anew.")
        found.append(known.to(team.device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    return Energy(found, data, team.device, seed, spread=recipe.energy_spread, telling=recipe.energy_labels)


def untrained(data: ImageData, device: torch.device) -> Energy:
    """One that costs a step as much, without the classifiers' training."""
    some = torch.linspace(0, len(data) - 1, min(len(data), 2 * _BATCH)).long().numpy()
    few = ImageData(data.images[some], data.labels[some], data.class_names)
    models = [metrics.untrained_classifier(few.images, len(few.class_names), protocol) for protocol in PROTOCOLS]
    return Energy([model.eval().to(device) for model in models], few, device)


def _distance(fakes: Tensor, reals: Tensor, spread: float) -> Tensor:
    """The energy distance of fakes [N, K] to reals [M, K], and the logarithm of the ratio of their densities there."""
    to_reals, apart = _distances(fakes, reals), _distances(fakes, fakes)
    others = ~torch.eye(len(fakes), dtype=torch.bool, device=fakes.device)
    energy = 2 * to_reals.mean() - apart[others].mean()
    # An image is moved to where the ratio is smaller; the others, of which the density is, stand still meanwhile.
    still = _distances(fakes, fakes.detach()).masked_fill(~others, torch.inf)
    own, wanted = (torch.logsumexp(-distances / _NEAR, dim=1) for distances in (still, to_reals))
    return energy + _NEAR * (spread * own - wanted).mean()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Not torch.cdist: its gradient is slow, and infinite at zero.
    squared = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    return squared.clamp(min=1e-6).sqrt()
