"""How good is a Fashion-MNIST generator? Label fidelity and classification accuracy score, as its card states them.

    python -m benchmarks.fashion_quality --model exported/fashion.onnx --json quality.json

Three steps: a small classifier is trained on the 60,000 real training images; it judges 10,000 generated
images; the same classifier is trained anew on 60,000 generated images and tested on the 10,000 real test
images. ``ganrt export RUN --quality quality.json`` puts the figures into the card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ganrt
from ganrt.errors import GanrtError, TrainingError
from ganrt_training import metrics
from ganrt_training.data import ImageData, read_mnist_family

JUDGED, TRAINED_ON = 10_000, 60_000
THREADS = 2  # they decide the order of sums, and so the last digits
LEAST_ACCURACY = 0.925  # of the judge: below it, its verdict means little


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fashion_quality", description="Measures a Fashion-MNIST generator with a classifier."
    )
    parser.add_argument("--model", default="fashion", help="name or path of the generator")
    parser.add_argument("--real", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="real images")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--out", type=Path, help="folder that keeps the classifier of real images for the next time")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="at most this many images of each set, for one epoch: a trial only")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        figures = measure(
            options.model,
            options.real,
            seed=options.seed,
            threads=options.threads,
            limit=options.limit,
            keep=options.out,
        )
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    text = json.dumps(figures, indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def measure(
    model: str, real: Path, *, seed: int = 0, threads: int = 2, limit: int | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """The figures with their protocol, as they go into a card.

    Raises TrainingError when the generator's classes are not the data's, and when the classifier of real
    images is not good enough to judge by (not checked with ``limit``).
    """
    train, test = (read_mnist_family(real, split) for split in ("train", "test"))
    protocol = metrics.Protocol(seed=seed)
    if limit:
        train, test = first(train, limit), first(test, limit)
        protocol = replace(protocol, epochs=1)
    generator = ganrt.load(model, threads=threads)
    card = generator.card
    if (card.class_names, card.height, card.width, card.channels) != (train.class_names, *train.images.shape[1:]):
        raise TrainingError(
            f"{card.name} makes {card.width}x{card.height} images of {', '.join(card.class_names)}",
            f"Expected those of {real}.",
        )

    judge = real_classifier(train, protocol, keep and keep / "real-classifier.safetensors", threads)
    real_accuracy = metrics.agreement(metrics.predict(judge, test.images), test.labels, test.class_names)
    tell(f"classifier of real images: {real_accuracy['share']} on the real test images")
    if not limit and real_accuracy["share"] < LEAST_ACCURACY:
        raise TrainingError(
            f"the classifier of real images reaches {real_accuracy['share']}", f"Expected at least {LEAST_ACCURACY}."
        )

    images, labels = generated(generator, min(JUDGED, limit or JUDGED), seed)
    fidelity = metrics.agreement(metrics.predict(judge, images), labels, card.class_names)
    tell(f"label fidelity: {fidelity['share']}")

    images, labels = generated(generator, min(TRAINED_ON, limit or TRAINED_ON), seed + 1)
    student = metrics.train_classifier(images, labels, len(card.class_names), protocol, epoch_told("generated"))
    score = metrics.agreement(metrics.predict(student, test.images), test.labels, test.class_names)
    tell(f"classification accuracy score: {score['share']}")

    return {
        "command": f"python -m benchmarks.fashion_quality --model exported/{card.name}.onnx --seed {seed}"
        + (f" --threads {threads}" if threads != THREADS else "")
        + (f" --limit {limit}" if limit else ""),
        "snapshot_digest": card.snapshot_digest,
        "psi": None,
        "latent_std": 1.0,
        "classifier": metrics.describe(judge, protocol) | {"threads": threads, "torch": str(torch.__version__)},
        "real_accuracy": {"meaning": "classifier of real training images, on real test images"}
        | {"trained_on": len(train)}
        | real_accuracy,
        "label_fidelity": {"meaning": "generated images that this classifier gives the label asked for", "seed": seed}
        | fidelity,
        "classification_accuracy_score": {
            "meaning": "the same classifier trained on generated images only, on real test images",
            "seed": seed + 1,
            "trained_on": len(images),
        }
        | score,
    }


def real_classifier(train: ImageData, protocol: metrics.Protocol, path: Path | None, threads: int) -> torch.nn.Module:
    """The classifier of real images, from the file when it has been trained before; else it is kept there."""
    size, channels, classes = train.images.shape[1:3], train.images.shape[3], len(train.class_names)
    judge = metrics.build_classifier(size, channels, classes, protocol)
    digest = hashlib.sha256(train.images.tobytes() + train.labels.tobytes()).hexdigest()
    about = metrics.describe(judge, protocol) | {"data": digest, "threads": threads, "torch": str(torch.__version__)}
    if path is not None and (known := metrics.load_classifier(path, judge, about)) is not None:
        tell(f"classifier of real images: taken from {path}")
        return known
    judge = metrics.train_classifier(train.images, train.labels, classes, protocol, epoch_told("real"))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics.save_classifier(path, judge, about)
    return judge


def generated(
    generator: ganrt.Generator, count: int, seed: int, size: tuple[int, int] | None = None
) -> tuple[metrics.Images, metrics.Labels]:
    """Images 0 to ``count`` of a seed with balanced labels; without classes, all labels are 0."""
    batches = list(generator.stream(count, seed=seed, size=size))
    labels = [np.zeros(len(batch.images), np.int64) if batch.labels is None else batch.labels for batch in batches]
    return np.concatenate([batch.images for batch in batches]), np.concatenate(labels)


def first(data: ImageData, count: int) -> ImageData:
    """The first images of a set."""
    return ImageData(data.images[:count], data.labels[:count], data.class_names)


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
