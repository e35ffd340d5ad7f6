"""How good generated images are: figures with their protocol, each beside the same figure for real images.

``ganrt evaluate`` and :func:`evaluate` say what can be said honestly: every figure is computed a second time for real
images against other real images, which is the best that a generator could reach.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from ganrt import __version__
from ganrt.errors import Cancelled, UsageError
from ganrt.files import writable_folder
from ganrt.shards import require
from ganrt.values import check_hooks, choice, path_of, several, told
from ganrt_training import crew
from ganrt_training.evaluation.choosing import pictures_of
from ganrt_training.evaluation.classifiers import TRAINED, School
from ganrt_training.evaluation.comparison import Comparison, NotApplicable
from ganrt_training.evaluation.defects import plain_reason, warnings_of
from ganrt_training.evaluation.figures import METRICS
from ganrt_training.evaluation.judging import taken
from ganrt_training.evaluation.networks import digest_of, open_network
from ganrt_training.evaluation.planning import AUTO, planned
from ganrt_training.evaluation.result import Evaluation, Figure, Pictures
from ganrt_training.evaluation.sets import LEAST, read_real, share_of_classes
from ganrt_training.evaluation.sources import DatasetImages, ModelImages, Tell, open_source
from ganrt_training.metrics import Protocol
from ganrt_training.readers.pixels import colour

__all__ = ["METRICS", "Evaluation", "Figure", "Pictures", "evaluate"]

N = 10_000
_MOST = 10_000_000


def evaluate(
    source: str | os.PathLike[str],
    real: str | os.PathLike[str],
    *,
    metrics: Sequence[str] | None = None,
    features: str = AUTO,
    weights: str | os.PathLike[str] | None = None,
    n: int = N,
    cas_n: int | None = None,
    seed: int = 0,
    psi: float | None = None,
    latent_std: float | None = None,
    confidence: float | None = None,
    mode: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    protocol: Protocol | None = None,
    keep: str | os.PathLike[str] | None = None,
    background: str = "white",
    on_corrupt: str = "stop",
    progress: Tell | None = None,
    cancel: threading.Event | None = None,
) -> Evaluation:
    """Evaluates a generator, a run's folder or a dataset against real images.

    ``source`` is the name or path of a generator, a run's folder or snapshot, or a dataset: what ganrt wrote, or any
    folder, zip or .npz of images. ``real`` is what :func:`ganrt_training.data.read_images` takes, or a dataset of
    ganrt's; it is read at the size of the generated images. ``metrics`` are keys of METRICS, all that apply unless
    given. ``features`` is ``auto``, ``trained``, or what :func:`networks.open_network` takes, with ``weights``: auto is
    the shipped classifier of such data where there is one and a test split that it has not seen, else one trained on
    the real images. A network that is named is opened and checked whatever the metrics.

    Without a test split a fifth of the images is held out: from the classifiers trained here, not from the generator,
    which may well have seen them. ``background`` and ``on_corrupt`` are those of ``read_images``, for the real images.

    ``n`` generated images are judged, a dataset's all if there are fewer; sets are compared by as many as half of the
    real training images has. ``cas_n`` images are trained on for the classification accuracy score (``n`` unless
    given). ``psi``, ``latent_std`` and ``confidence`` (0 to 1; only images to which the classifier gives the label that
    was asked for with at least this probability) go with a generator only. ``mode`` is ``l`` or ``rgb``, for both.
    ``protocol`` is that of classifiers trained here, float32 unless given; ``keep`` is a folder in which those of real
    images are kept for the next time. ``progress(what, done, total)`` is called
    now and then. Two calls agree, on the same machine with as many ``threads``; global random states are left alone.

    Raises UsageError for what cannot be meant or does not apply, DeviceUnavailable, Cancelled, and what loading a
    generator and reading images raise.
    """
    wanted = _chosen(metrics)
    if cas_n is not None and "cas" not in wanted:
        raise UsageError("cas-n does not apply without the metric cas", "Leave it out, or name cas too.")
    n, cas_n = require("n", n, LEAST, _MOST), require("cas-n", n if cas_n is None else cas_n, LEAST, _MOST)
    seed = require("seed", seed, 0, (1 << 63) - 1)
    if threads is not None:
        require("threads", threads, 1, 1024)
    if confidence is not None and not (isinstance(confidence, (int, float)) and 0 <= confidence <= 1):
        raise UsageError(f"confidence {told(confidence)}", "Expected a probability, 0 to 1.")
    if weights is not None and features in (AUTO, TRAINED):
        raise UsageError("weights do not apply without a network of yours", "Say --features inception-v3 too.")
    colour(background)
    choice("on-corrupt", on_corrupt, ("stop", "skip"))
    check_hooks(progress, cancel)
    kept_in = None if keep is None else writable_folder(path_of("keep", keep))
    tell = _told(progress, cancel)
    on = crew.join(device).device
    with _limited(threads), ExitStack() as stack:
        named = None
        if features not in (AUTO, TRAINED):
            at = None if weights is None else path_of("weights", weights)
            named = open_network(features, weights=at, device=device, threads=threads)
        images = open_source(
            path_of("source", source) if not isinstance(source, str) else source,
            stack,
            seed=seed,
            psi=psi,
            latent_std=latent_std,
            mode=mode,
            device=device,
            threads=threads,
        )
        if confidence is not None and isinstance(images, DatasetImages):
            raise UsageError(
                "confidence does not apply to a dataset", "Its images are made already: evaluate the generator."
            )
        side, channels = images.shape
        count = min(n, len(images.data)) if isinstance(images, DatasetImages) else n
        if count < LEAST:
            raise UsageError(f"{count} generated images are too few", f"Expected at least {LEAST}.")
        tell("reading real images", 0, 1)
        reals = read_real(
            path_of("real", real),
            side,
            channels,
            count,
            mode=mode,
            seed=seed,
            background=background,
            on_corrupt=on_corrupt,
        )
        school = School(
            reals.known, replace(protocol or Protocol(precision="fp32"), seed=seed), on, tell, seed, kept_in
        )
        plan = planned(
            wanted,
            images,
            reals,
            school,
            asked=metrics is not None,
            features=features,
            named=named,
            confidence=confidence,
            device=device,
            threads=threads,
        )
        network = school.network() if plan.taught else plan.network
        whole = "neighbours" in plan.wanted and network is not None
        compared = Comparison(images, reals, network, school, seed, cas_n, confidence, whole, tell)
        compared.generated, kept = taken(compared, count)
        figures, reasons = _figures(plan.wanted, compared, asked=metrics is not None)
        pictures = pictures_of(compared, with_neighbours=whole)
    generated = compared.generated
    shares = {}
    if compared.labelled:
        of_generated, of_real = share_of_classes(generated), share_of_classes(reals.train)
        shares = {name: (of_generated[name], of_real[name]) for name in compared.class_names}
    about = _protocol(compared, kept, threads, on)
    reasons = [*plan.left_out, *reasons]
    warnings = (*warnings_of(figures, shares), *(plain_reason(*reason) for reason in reasons), *school.warnings)
    return Evaluation(images.name, about, tuple(figures), warnings, pictures)


def _chosen(metrics: Sequence[str] | None) -> list[str]:
    if metrics is None:
        return list(METRICS)
    named = [metrics] if isinstance(metrics, str) else several("metrics", metrics)
    for name in named:
        choice("metric", name, METRICS)
    if not named:
        raise UsageError("no metric is named", f"Name some of {', '.join(METRICS)}.")
    return [name for name in METRICS if name in named]


def _figures(wanted: list[str], compared: Comparison, *, asked: bool) -> tuple[list[Figure], list[tuple[str, str]]]:
    """The figures, and which metrics were left out, with the reason. Raises UsageError for one that was asked for."""
    figures: list[Figure] = []
    reasons: list[tuple[str, str]] = []
    for name in wanted:
        compared.tell(f"computing {name}", 0, 1)
        try:
            figures += METRICS[name](compared)
        except NotApplicable as error:
            if asked:
                raise UsageError(f"{name} does not apply: {error}", "Leave it out of --metrics.") from None
            reasons.append((name, str(error)))
    return figures, reasons


def _protocol(compared: Comparison, kept: float | None, threads: int | None, device: torch.device) -> dict[str, Any]:
    """All that decides the figures but the code."""
    source, real = compared.source, compared.real
    side, channels = source.shape
    network, judge = compared.network, compared.judge if "judge" in vars(compared) else None
    about: dict[str, Any] = {}
    if network is not None and (network is judge or any(name.startswith("seen") for name in vars(compared))):
        about["features"] = network.about
    about |= {
        "generated": {"name": source.name, "images": len(compared.generated), **source.about},
        "real": real.about,
        "compared": {"images": len(compared.compared), "half_a": len(real.half_a), "half_b": len(real.half_b)},
        "size": f"{side}x{side}",
        "channels": channels,
        "resize": "real images as training reads them: short side to this size (Lanczos), the middle of the long one",
        "seed": compared.seed,
    }
    if judge is not None:
        about["classifier"] = {"name": judge.name, "digest": digest_of(judge)} if judge is network else judge.about
    if isinstance(source, ModelImages):
        about |= {"psi": source.psi, "latent_std": source.latent_std, "confidence": compared.confidence}
        about |= {"ema": source.about.get("ema", "not said by the model")}
        if kept is not None:
            about["share_kept"] = kept
    packages = ("numpy", "torch", "scikit-learn", "torchmetrics")
    about["versions"] = {"ganrt": __version__} | {name: version(name) for name in packages}
    about["threads"], about["device"] = threads or torch.get_num_threads(), device.type
    return about


def _told(progress: Tell | None, cancel: threading.Event | None) -> Tell:
    def tell(what: str, done: int, total: int) -> None:
        if cancel is not None and cancel.is_set():
            raise Cancelled("stopped before the evaluation was finished")
        if progress is not None:
            progress(what, done, total)

    return tell


@contextmanager
def _limited(threads: int | None) -> Iterator[None]:
    """So many threads for PyTorch, and for numpy and scikit-learn, within."""
    if threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
