"""The shipped classifier of Fashion-MNIST, by whose features ``ganrt evaluate`` compares images.

    python -m benchmarks.fashion_classifier --out exported/features/fashion.onnx

It is trained on the 60,000 real training images (12 epochs, four minutes on two cores), tested on the 10,000 test
images, and written as one ONNX file, proven equal to PyTorch's.
``--judge FILE`` keeps the weights, and takes them from there the next time.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.fashion_quality import DATA, epoch_told, tell
from ganrt.errors import GanrtError, TrainingError
from ganrt_training import metrics
from ganrt_training.data import ImageData, digest, read_mnist_family
from ganrt_training.evaluation.classifier_file import Classifier, export_classifier

THREADS = 2  # they decide the order of sums, and so the last digits
LEAST_ACCURACY = 0.925  # below it, its verdict means little


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fashion_classifier",
        description="Trains and exports a classifier of Fashion-MNIST.",
    )
    parser.add_argument("--out", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--real", type=Path, default=DATA, help="real images")
    parser.add_argument("--judge", type=Path, help="file that keeps the trained weights for the next time")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--overwrite", action="store_true", help="replace the file, if it is there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        about = make(options.real, options.out, options.judge, options.threads, options.overwrite)
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(about.told(), indent=1))
    return 0


def make(real: Path, out: Path, judge: Path | None, threads: int, overwrite: bool) -> Classifier:
    """Trains, tests, exports. Raises TrainingError for a classifier that is not good enough to judge by."""
    train, test = (read_mnist_family(real, split) for split in ("train", "test"))
    protocol = metrics.Protocol()
    model = real_classifier(train, protocol, judge, threads)
    accuracy = metrics.agreement(metrics.predict(model, test.images), test.labels, test.class_names)
    tell(f"classifier of real images: {accuracy['share']} on the real test images")
    if accuracy["share"] < LEAST_ACCURACY:
        raise TrainingError(f"it reaches {accuracy['share']}", f"Expected at least {LEAST_ACCURACY}.")
    about = Classifier(
        class_names=train.class_names,
        size=(train.images.shape[1], train.images.shape[2]),
        channels=train.images.shape[3],
        accuracy={"meaning": "on real test images", "trained_on": len(train)} | accuracy,
        protocol=metrics.describe(model, protocol) | {"threads": threads, "torch": str(torch.__version__)},
        data="Fashion-MNIST, the 60,000 training images (Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747)",
        data_licence="MIT, Copyright (c) 2017 Zalando SE",
        licence="Apache-2.0",
    )
    return export_classifier(model, about, out, overwrite=overwrite)


def real_classifier(train: ImageData, protocol: metrics.Protocol, path: Path | None, threads: int) -> torch.nn.Module:
    """The classifier of real images, from the file when it has been trained before; else it is kept there."""
    classes = len(train.class_names)
    judge = metrics.untrained_classifier(train.images, classes, protocol)
    about = metrics.describe(judge, protocol) | {
        "data": digest(train),
        "threads": threads,
        "torch": str(torch.__version__),
    }
    if path is not None and (known := metrics.load_classifier(path, judge, about)) is not None:
        tell(f"classifier of real images: taken from {path}")
        return known
    judge = metrics.train_classifier(train.images, train.labels, classes, protocol, epoch_told("real"))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics.save_classifier(path, judge, about)
    return judge


if __name__ == "__main__":
    sys.exit(main())
