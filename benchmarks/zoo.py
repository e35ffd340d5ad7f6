"""How do the GAN recipes compare on Fashion-MNIST, at equal time? docs/zoo.md has the table and says how to read it.

    python -m benchmarks.zoo judge               # trains the classifier that judges; it is in benchmarks/judges/
    python -m benchmarks.zoo row mlp_28          # trains a recipe for its minutes, exports it, measures it
    python -m benchmarks.zoo again mlp_28        # once more with another seed, for as many images: beside the first run
    python -m benchmarks.zoo speed               # measures again how fast all rows' generators are, side by side
    python -m benchmarks.zoo table               # writes the table in docs/zoo.md from the figures in docs/zoo/

A row's minutes are of processor time, on one thread. The same command goes on with a run that was interrupted, and only
measures one that has had its minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import ganrt
from benchmarks import rounds, zoo_table, zoo_training
from benchmarks.fashion_quality import DATA, epoch_told, tell
from ganrt.encode import resize
from ganrt.errors import GanrtError, TrainingError, UsageError
from ganrt_training import metrics
from ganrt_training.checkpoint import Trained, find_snapshot, load_generator, load_snapshot
from ganrt_training.data import ImageData, read_images, read_mnist_family
from ganrt_training.describe import macs_of, parameters_of
from ganrt_training.export import export_run
from ganrt_training.fold import fold_norms
from ganrt_training.gans import find_recipe
from ganrt_training.readers.pixels import fitted
from ganrt_training.recipe import Recipe

JUDGE = zoo_table.ROOT / "benchmarks" / "judges" / "fashion.safetensors"
RUNS = Path("runs/zoo")
MINUTES = 30.0
SIZE = 28  # pixels: what the classifier sees
JUDGED, TRAINED_ON = 10_000, 60_000
SECONDS, ROUNDS = 3.0, 5  # of a measurement of speed
# Small enough that training it anew for each row takes minutes on one thread.
PROTOCOL = metrics.Protocol(widths=(16, 32, 64), hidden=128, epochs=8, precision="fp32")
LEAST_ACCURACY = 0.9  # of the judge
_GRID = 10  # rows and columns


def main(arguments: list[str] | None = None) -> int:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, default=zoo_table.FIGURES, help="folder of the figures")
    shared.add_argument("--judge", type=Path, default=JUDGE, help="the classifier's file")
    shared.add_argument("--data", type=Path, default=DATA, help="folder with Fashion-MNIST's four files")
    shared.add_argument("--threads", type=int, default=1)
    shared.add_argument("--limit", type=int, help="at most this many images of each set, for one epoch: a trial only")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo", description="Compares the GAN recipes on Fashion-MNIST at equal time."
    )
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("judge", parents=[shared], help="trains the classifier that judges")
    run = argparse.ArgumentParser(add_help=False, parents=[shared])
    run.add_argument("--quick", action="store_true", help="without the accuracy score, which takes minutes")
    row = commands.add_parser("row", parents=[run], help="trains a recipe, exports it, measures it")
    row.add_argument("recipe", help="its name; key=value settings may follow anywhere")
    row.add_argument("--run-dir", type=Path, help=f"[{RUNS}/RECIPE]")
    row.add_argument("--minutes", type=float, default=MINUTES, help="of processor time")
    again = commands.add_parser("again", parents=[run], help="trains a row's recipe once more, with another seed")
    again.add_argument("recipe", help="its name; settings and length are those of its row")
    again.add_argument("--run-dir", type=Path, help=f"[{RUNS}/RECIPE-seedSEED]")
    again.add_argument("--seed", type=int, default=1, help="not 0, which is the row's")
    speed = commands.add_parser("speed", parents=[shared], help="measures all rows' generators side by side")
    speed.add_argument("--runs", type=Path, default=RUNS, help="folder of the run folders")
    speed.add_argument("--rounds", type=int, default=ROUNDS)
    speed.add_argument("--seconds", type=float, default=SECONDS, help="of each generator in each round")
    table = commands.add_parser("table", parents=[shared], help="writes the table in docs/zoo.md")
    table.add_argument("--page", type=Path, default=zoo_table.PAGE)
    options, settings = parser.parse_known_args(arguments)  # argparse takes no positional arguments after options
    if wrong := [word for word in settings if word.startswith("-") or options.what != "row"]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    torch.set_num_threads(options.threads)
    try:
        if options.what == "row":
            _row(options, settings)
        else:
            {"judge": _judge, "again": _again, "speed": _speed, "table": _table}[options.what](options)
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _judge(options: argparse.Namespace) -> None:
    real, test = _real(options, "train"), _real(options, "test")
    protocol, names = _protocol(options), real.class_names
    about = metrics.describe(_untrained(options, len(names)), protocol) | {
        "task": "Fashion-MNIST, 28x28 grey",
        "class_names": list(names),
        "trained_on": len(real),
        "data": f"sha256:{hashlib.sha256(real.images.tobytes() + real.labels.tobytes()).hexdigest()}",
        "threads": options.threads,
        "torch": str(torch.__version__),
    }
    try:
        judge, _ = _load_judge(options, about)
    except TrainingError:
        judge = metrics.train_classifier(real.images, real.labels, len(names), protocol, epoch_told("real"))
    accuracy = metrics.agreement(metrics.predict(judge, test.images), test.labels, names)
    tell(f"classifier of real images: {accuracy['share']} on the real test images")
    if not options.limit and accuracy["share"] < LEAST_ACCURACY:
        raise TrainingError(f"the classifier reaches {accuracy['share']}", f"Expected at least {LEAST_ACCURACY}.")
    options.judge.parent.mkdir(parents=True, exist_ok=True)
    metrics.save_classifier(options.judge, judge, about | {"accuracy": accuracy})

    some = real.images[: min(JUDGED, options.limit or JUDGED)]
    changed = metrics.agreement(metrics.predict(judge, _resampled(test.images, 32)), test.labels, names)
    figures = {
        "recipe": zoo_table.REAL,
        "command": "python -m benchmarks.zoo " + _words(options, "judge"),
        "judge": {"digest": _digest(options.judge)} | about,
        "label_fidelity": accuracy,
        "classification_accuracy_score": accuracy | {"trained_on": len(real)},
        "frechet": _frechet(judge, some, test.images, SIZE),
        "through_32": {
            "label_fidelity": changed["share"],
            "frechet": _frechet(judge, _resampled(some, 32), test.images, 32),
        },
        "machine": _machine(options),
    }
    _write(options.out / f"{zoo_table.REAL}.json", figures)


def _row(options: argparse.Namespace, settings: list[str]) -> None:
    recipe = find_recipe(options.recipe).with_overrides(settings)
    if recipe.translation:
        raise UsageError(f"recipe {recipe.name} makes images from images", "Name one that makes them from latents.")
    run_dir = options.run_dir or RUNS / recipe.name
    judge, digest = _load_judge(options)
    zoo_training.train_for(recipe, _images(recipe, options), run_dir, minutes=options.minutes)

    trained = load_generator(find_snapshot(run_dir))
    generator = _exported(recipe, run_dir, options)
    _, discriminator = recipe.build(recipe, trained.channels, len(trained.class_names))
    row = {
        "recipe": recipe.name,
        "command": "python -m benchmarks.zoo " + _words(options, "row", recipe.name, *settings),
        **zoo_training.course(run_dir, generator.card, options.threads),
        "generator": {
            "image_size": recipe.image_size,
            "parameters": parameters_of(trained.generator),
            "macs": _macs(trained.generator, torch.zeros(1, recipe.z_dim), trained),
        },
        "discriminator": {
            "parameters": parameters_of(discriminator),
            "macs": _macs(discriminator, torch.zeros(1, trained.channels, *[recipe.image_size] * 2), trained),
        },
        "generation": _speeds({recipe.name: generator}, options, 3, SECONDS)[recipe.name] | {"side_by_side": False},
        "judge": {"digest": digest},
    }
    row |= _measured(generator, judge, options)
    _write(options.out / f"{recipe.name}.json", row | {"machine": _machine(options)})
    _draw(options.out / f"{recipe.name}.png", generator)


def _again(options: argparse.Namespace) -> None:
    """A second run of a row, of as many images: its figures go beside the row's."""
    path = options.out / f"{options.recipe}.json"
    row = zoo_table.read_rows(options.out).get(options.recipe)
    if row is None or options.recipe == zoo_table.REAL:
        raise UsageError(f"{options.out} has no row {options.recipe!r}", "python -m benchmarks.zoo row makes it.")
    if options.seed == 0:
        raise UsageError("seed 0 is the row's own", "Name another.")
    judge, digest = _load_judge(options)
    if digest != row["judge"]["digest"]:
        raise TrainingError(f"{path}: another classifier judged the row", f"Measure row {options.recipe} anew.")
    recipe = find_recipe(options.recipe).with_overrides([word for word in row["command"].split() if "=" in word])
    run_dir = options.run_dir or RUNS / f"{recipe.name}-seed{options.seed}"
    images, kimg = _images(recipe, options), row["run"]["kimg"]
    zoo_training.train_for(recipe, images, run_dir, kimg=kimg, seed=options.seed)

    generator = _exported(recipe, run_dir, options)
    again = {"seed": options.seed, **zoo_training.course(run_dir, generator.card, options.threads)}
    again |= _measured(generator, judge, options)
    _write(path, row | {"again": again | {"machine": _machine(options)}})


def _exported(recipe: Recipe, run_dir: Path, options: argparse.Namespace) -> ganrt.Generator:
    """The best snapshot of a run."""
    path = run_dir / f"{recipe.name}.onnx"
    export_run(run_dir, path, overwrite=True)
    return ganrt.load(str(path), device="cpu", threads=options.threads)


def _measured(generator: ganrt.Generator, judge: nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """What the classifier says of a generator, and how good a teacher it is where it knows classes."""
    test, names = _real(options, "test"), generator.card.class_names
    size = (SIZE, SIZE)
    images, labels = _generated(generator, min(JUDGED, options.limit or JUDGED), 0, size)
    found = metrics.predict(judge, images)
    shares = np.bincount(found, minlength=len(test.class_names)) / len(found)
    measured: dict[str, Any] = {
        "frechet": _frechet(judge, images, test.images, generator.card.width) | {"seed": 0},
        "judged_as": dict(zip(test.class_names, (round(float(share), 4) for share in shares), strict=True)),
        "label_fidelity": None,
        "classification_accuracy_score": None,
    }
    tell(f"Fréchet distance: {measured['frechet']['distance']}")
    if not names:
        return measured
    measured["label_fidelity"] = metrics.agreement(found, labels, names) | {"seed": 0}
    tell(f"label fidelity: {measured['label_fidelity']['share']}")
    if options.quick:
        return measured
    images, labels = _generated(generator, min(TRAINED_ON, options.limit or TRAINED_ON), 1, size)
    student = metrics.train_classifier(images, labels, len(names), _protocol(options), epoch_told("generated"))
    score = metrics.agreement(metrics.predict(student, test.images), test.labels, names)
    tell(f"classification accuracy score: {score['share']}")
    return measured | {"classification_accuracy_score": score | {"seed": 1, "trained_on": len(images)}}


def _speed(options: argparse.Namespace) -> None:
    rows = {name: row for name, row in zoo_table.read_rows(options.out).items() if name != zoo_table.REAL}
    generators = {
        name: ganrt.load(str(options.runs / name / f"{name}.onnx"), device="cpu", threads=options.threads)
        for name in rows
    }
    for name, row in rows.items():
        if generators[name].card.snapshot_digest != row["snapshot"]["digest"]:
            raise TrainingError(f"{options.runs / name}: not the generator of the row", f"Measure row {name} anew.")
    for name, speed in _speeds(generators, options, options.rounds, options.seconds).items():
        _write(options.out / f"{name}.json", rows[name] | {"generation": speed | {"side_by_side": True}})
        tell(f"{name:20} {speed['images_per_second']:8,} images/s, spread {speed['spread']:.1%}")


def _speeds(
    generators: dict[str, ganrt.Generator], options: argparse.Namespace, rounds_wanted: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Images/s of ``stream``, in turn: latents, network and pixels, at the size that the network makes."""

    def consume(generator: ganrt.Generator, n: int, out: Path) -> None:
        for _ in generator.stream(n):
            pass

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        timed = [
            rounds.Timed(name, partial(consume, generator), Path(folder) / name)
            for name, generator in generators.items()
        ]
        rounds.in_turn(timed, rounds_wanted, 0.01 if options.limit else seconds)
    return {
        one.name: {
            "images_per_second": round(one.median),
            "spread": round(one.spread, 3),
            "rounds": rounds_wanted,
            "threads": options.threads,
            "batch": rounds.BATCH,
            "load_average": round(load, 1),
        }
        for one in timed
    }


def _table(options: argparse.Namespace) -> None:
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(zoo_table.filled(page, zoo_table.read_rows(options.out)), encoding="utf-8")


def _generated(
    generator: ganrt.Generator, count: int, seed: int, size: tuple[int, int] | None = None
) -> tuple[metrics.Images, metrics.Labels]:
    """Images 0 to ``count`` of a seed with balanced labels; without classes, all labels are 0."""
    batches = list(generator.stream(count, seed=seed, size=size))
    labels = [np.zeros(len(batch.images), np.int64) if batch.labels is None else batch.labels for batch in batches]
    return np.concatenate([batch.images for batch in batches]), np.concatenate(labels)


def _images(recipe: Recipe, options: argparse.Namespace) -> ImageData:
    """What a recipe is trained on."""
    data = read_images(options.data, recipe.image_size)
    return _first(data, options.limit or len(data))


def _first(data: ImageData, count: int) -> ImageData:
    """The first images of a set."""
    return ImageData(data.images[:count], data.labels[:count], data.class_names)


def _load_judge(options: argparse.Namespace, wanted: dict[str, Any] | None = None) -> tuple[nn.Module, str]:
    """The classifier and its file's digest. Raises TrainingError when it is another than is wanted."""
    _, metadata = load_snapshot(options.judge)
    about = json.loads(metadata.get("about", "{}"))
    judge = _untrained(options, len(about.get("class_names", ())))
    wanted = wanted or metrics.describe(judge, _protocol(options))
    known = metrics.load_classifier(options.judge, judge, about) if wanted.items() <= about.items() else None
    if known is None:
        raise TrainingError(
            f"{options.judge}: not a classifier of this protocol", "Train it: python -m benchmarks.zoo judge"
        )
    return known, _digest(options.judge)


def _untrained(options: argparse.Namespace, classes: int) -> nn.Module:
    return metrics.build_classifier((SIZE, SIZE), 1, classes, _protocol(options))


def _frechet(judge: nn.Module, images: metrics.Images, test: metrics.Images, size: int) -> dict[str, Any]:
    """How far images are from test images that went by way of ``size`` as well, and from those as they are."""
    seen = metrics.features(judge, images)
    distance = as_is = metrics.frechet_distance(seen, metrics.features(judge, test))
    if size != SIZE:
        distance = metrics.frechet_distance(seen, metrics.features(judge, _resampled(test, size)))
    return {"n": len(images), "distance": round(distance, 3), "to_images_as_they_are": round(as_is, 3)}


def _resampled(images: metrics.Images, size: int) -> metrics.Images:
    """28x28 images made as large as a recipe is trained on them, and reduced as what it generates is."""
    return resize(fitted(images, size, None, (255, 255, 255)), (SIZE, SIZE), "lanczos")


def _macs(network: nn.Module, given: torch.Tensor, trained: Trained) -> int:
    """Multiplications and additions of convolutions and matrix products for one image, in inference."""
    y = torch.zeros(1, dtype=torch.int64) if trained.class_names else None
    return macs_of(fold_norms(network), given, y)


def _draw(path: Path, generator: ganrt.Generator) -> None:
    """Ten rows of ten samples, a class a row where there are classes."""
    images, _ = _generated(generator, _GRID**2, 0, (SIZE, SIZE))
    cells = images.reshape(_GRID, _GRID, *images.shape[1:])
    if generator.card.class_names:
        cells = cells.swapaxes(0, 1)
    grid = cells.swapaxes(1, 2).reshape(_GRID * SIZE, _GRID * SIZE, -1)
    Image.fromarray(grid.squeeze(-1) if grid.shape[2] == 1 else grid).save(path, optimize=True)


def _real(options: argparse.Namespace, split: str) -> ImageData:
    data = read_mnist_family(options.data, split)
    return _first(data, options.limit or len(data))


def _protocol(options: argparse.Namespace) -> metrics.Protocol:
    return replace(PROTOCOL, epochs=1) if options.limit else PROTOCOL


def _words(options: argparse.Namespace, *words: str) -> str:
    given = {"minutes": MINUTES, "threads": 1, "limit": None}
    changed = [
        f"--{name} {getattr(options, name):g}"
        for name, usual in given.items()
        if getattr(options, name, usual) != usual
    ]
    return " ".join([*words, *changed, *["--quick"] * getattr(options, "quick", False)])


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    kept = {name: value for name, value in rounds.machine().items() if name != "system"}
    return kept | {"torch": str(torch.__version__), "threads": options.threads}


def _digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
