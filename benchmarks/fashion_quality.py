"""How good is a Fashion-MNIST generator? All figures of ``ganrt evaluate``, as its card states them.

    python -m benchmarks.fashion_quality --model fashion --json quality.json

It is evaluated twice a seed: as it is, and as a source of training images, with wider latents and only such images
of whose class a classifier is at least half sure (GaFi, arXiv 2305.10118). The first seed's figures are the card's, and
how far the other seeds' lie from them is their spread. What the file holds already of the same generator and
settings is not measured again.
``ganrt export … --quality quality.json`` puts it all into the card.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import ganrt
from ganrt.errors import GanrtError, TrainingError
from ganrt.files import write_synced
from ganrt_training.data import digest, read_mnist_family
from ganrt_training.evaluation import Evaluation, evaluate
from ganrt_training.metrics import Protocol

DATA = Path("/usr/share/datasets/fashion-mnist")
JUDGED, TRAINED_ON = 10_000, 60_000
LATENT_STD, CONFIDENCE = 1.1, 0.5  # of what is to be trained on
THREADS = 1  # they decide the order of sums, and so the last digits
PLAIN, FILTERED = KINDS = "evaluation", "filtered"
_OF_FILTERED = ("frechet", "manifold", "cas")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fashion_quality", description="Measures a Fashion-MNIST generator for its card."
    )
    parser.add_argument("--model", default="fashion", help="name or path of the generator")
    parser.add_argument("--real", type=Path, default=DATA, help="real images")
    parser.add_argument("--json", type=Path, help="file for the figures; what it holds of this generator is kept")
    parser.add_argument("--keep", type=Path, help="folder that keeps classifiers of real images for the next time")
    parser.add_argument("--seeds", default="0,1", help="with commas; the first one's figures are the card's")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, help="at most this many images of each set, for one epoch: a trial only")
    options = parser.parse_args(arguments)
    try:
        figures = measure(options)
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(figures, indent=1))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The figures with their protocol, as they go into a card; after each seed they are in the file too."""
    card = ganrt.load(options.model, "cpu").card
    test = read_mnist_family(options.real, "test")
    if (card.class_names, card.height, card.width, card.channels) != (test.class_names, *test.images.shape[1:]):
        raise TrainingError(
            f"{card.name} makes {card.width}x{card.height} images of {', '.join(card.class_names)}",
            f"Expected those of {options.real}.",
        )
    seeds = [int(seed) for seed in options.seeds.split(",")]
    settings = {
        "real": digest(test),
        "threads": options.threads,
        "device": options.device,
        "limit": options.limit,
        "filter": [LATENT_STD, CONFIDENCE],
    }
    told: dict[str, Any] = {"snapshot_digest": card.snapshot_digest, "settings": settings, "by_seed": {}}
    if options.json and options.json.is_file():
        before = json.loads(options.json.read_text(encoding="utf-8"))
        if all(before.get(key) == told[key] for key in ("snapshot_digest", "settings")):
            told = before
    for seed in seeds:
        for kind in KINDS:
            found = told["by_seed"].setdefault(str(seed), {})
            mine = kind in told and told[kind]["protocol"]["seed"] == seed
            if kind not in found or (seed == seeds[0] and not mine):
                evaluation = _evaluated(options, seed, kind == FILTERED)
                found[kind] = _values(evaluation)
                if seed == seeds[0]:
                    told[kind] = _of_card(evaluation)
            told |= {"command": _command(card.name, options), "spread": _spread(told["by_seed"])}
            if options.json:
                write_synced(options.json, (json.dumps(told, indent=1) + "\n").encode())
    return told


def _evaluated(options: argparse.Namespace, seed: int, wide: bool) -> Evaluation:
    tell(f"seed {seed}, {'as a source of training images' if wide else 'as it is'}")
    return evaluate(
        options.model,
        options.real,
        metrics=_OF_FILTERED if wide else None,
        n=min(JUDGED, options.limit or JUDGED),
        cas_n=min(TRAINED_ON, options.limit or TRAINED_ON),
        seed=seed,
        latent_std=LATENT_STD if wide else None,
        confidence=CONFIDENCE if wide else None,
        device=options.device,
        threads=options.threads,
        protocol=Protocol(precision="fp32", epochs=1) if options.limit else None,
        keep=options.keep,
        progress=Told(),
    )


def _of_card(found: Evaluation) -> dict[str, Any]:
    """As JSON, without the digest of a file that the figures are yet to go into: the snapshot's tells which it is."""
    told = found.to_json()
    told["protocol"]["generated"].pop("digest", None)
    return told


def _values(found: Evaluation) -> dict[str, Any]:
    return {figure.key: [_rounded(figure.generated), _rounded(figure.real)] for figure in found.figures}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _spread(by_seed: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The largest difference between two seeds of each figure of generated images."""
    spread = {}
    for kind in KINDS:
        found = [one[kind] for one in by_seed.values() if kind in one]
        if len(found) > 1:
            spread[kind] = {key: _rounded(float(np.ptp([one[key][0] for one in found]))) or 0.0 for key in found[0]}
    return spread


def _command(name: str, options: argparse.Namespace) -> str:
    words = ["python -m benchmarks.fashion_quality", f"--model {name}", f"--seeds {options.seeds}"]
    words += [f"--threads {options.threads}"] * (options.threads != THREADS)
    words += [f"--device {options.device}"] * (options.device != "cpu")
    return " ".join(words + [f"--limit {options.limit}"] * bool(options.limit))


class Told:
    """Tells of what is being done, when it begins and every minute."""

    def __init__(self) -> None:
        self._last, self._next, self._began = "", 0.0, time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._last or now >= self._next:
            tell(f"{now - self._began:5.0f} s  {what} {done}/{total}")
            self._last, self._next = what, now + 60


def epoch_told(what: str) -> Any:
    """Tells of each epoch of a classifier."""
    started = time.monotonic()
    return lambda epoch, loss: tell(
        f"classifier of {what} images: epoch {epoch}, loss {loss:.4f}, {time.monotonic() - started:.0f} s"
    )


def tell(text: str) -> None:
    """Says how far a measurement is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
