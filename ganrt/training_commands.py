"""The commands that need the extra ``train``: recipes and train, and, in files of their own, evaluate and export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ganrt.console import PathOption, duration_text, quoted, size_text, stoppable
from ganrt.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from ganrt_training.describe import Described


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    from ganrt.evaluate_command import evaluate
    from ganrt.export_command import export

    for command in (recipes, train, evaluate, export):
        app.command()(command)


def recipes() -> None:
    """List the training recipes (needs the extra train)."""
    need_training()
    from ganrt_training.gans import RECIPES

    for name, recipe in RECIPES.items():
        print(f"{name:<20} {(recipe.__doc__ or '').strip().splitlines()[0]}")


def train(
    recipe: Annotated[str, typer.Argument(help="A name that `ganrt recipes` lists.")],
    data: Annotated[
        Path,
        PathOption(help="Images: a folder or zip of them, or of a folder a class; MNIST's or CIFAR's files; an .npz."),
    ],
    run_dir: Annotated[
        Path | None, PathOption(help="The run's folder; the same command resumes it. Not needed with --dry-run.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the recipe, as key=value.")] = None,
    seed: Annotated[int, typer.Option(help="Fixes weights, order and latents.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    features: Annotated[
        str | None,
        typer.Option(
            help="Measure the quality, by which the best snapshot is chosen, as the Fréchet distance of what this "
            "network sees: a name, as in fashion, or PATH.onnx. [sliced Wasserstein, without one]"
        ),
    ] = None,
    start: Annotated[
        Path | None,
        PathOption(help="Begin with the generator of this run folder or snapshot, of the same recipe and sizes."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; the same command goes on.")] = None,
    mode: Annotated[str | None, typer.Option(help="l (grey) or rgb; what the images are, unless given.")] = None,
    background: Annotated[str, typer.Option(help="The colour behind transparent images, a name or #rrggbb.")] = "white",
    on_corrupt: Annotated[str, typer.Option(help="stop, or skip images that cannot be read and name them.")] = "stop",
    split: Annotated[str, typer.Option(help="train or test, where the data has both.")] = "train",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained: settings, sizes, speed; write nothing.")
    ] = False,
) -> None:
    """Train a GAN by a recipe (needs the extra train)."""
    need_training()
    from ganrt_training.data import read_images
    from ganrt_training.describe import describe
    from ganrt_training.gans import find_recipe
    from ganrt_training.loop import train as run

    chosen = find_recipe(recipe).with_overrides(overrides or [])
    if run_dir is None and not dry_run:
        raise UsageError("--run-dir is missing", "Name the folder of the run: --run-dir runs/a")
    images = read_images(data, chosen.image_size, mode=mode, background=background, on_corrupt=on_corrupt, split=split)
    for name in images.skipped:
        print(f"skipped: {name}", file=sys.stderr)
    if dry_run:
        print(_described_text(describe(chosen, images, device=device)))
        return
    assert run_dir is not None
    told: list[str] = []

    def show(stats: dict[str, Any]) -> None:
        print(_tick_text(stats), file=sys.stderr, flush=True)
        if (text := stats.get("warning", "")) and text.split(":")[0] not in told:
            told.append(text.split(":")[0])
            print(f"warning: {text}", file=sys.stderr, flush=True)

    with stoppable() as cancel:
        run(
            chosen,
            images,
            run_dir,
            seed=seed,
            device=device,
            features=features,
            start=start,
            minutes=minutes,
            progress=show,
            cancel=cancel,
        )
    print(f"report: {run_dir / 'report.html'}")
    print(f"next: ganrt export {quoted(run_dir)}")


def _tick_text(stats: dict[str, Any]) -> str:
    from ganrt_training.watch import distance_text

    losses = [
        f"{letter} {stats[name]:.3f}"
        for letter, name in (
            ("D", "discriminator_loss"),
            ("G", "generator_loss"),
            ("energy", "energy"),
            ("content", "content"),
        )
        if name in stats
    ]
    told = ""
    if "real_accuracy" in stats:
        told = f"  D right on real {stats['real_accuracy']:.0%} fake {stats['fake_accuracy']:.0%}"
    return (
        f"{stats['kimg']:8.1f}/{stats['total_kimg']:g} kimg {stats['images_per_second']:6.0f} images/s  "
        f"loss {' '.join(losses)}{told}  quality {distance_text(stats['quality'])} diversity {stats['diversity']:.2f}  "
        f"{duration_text(stats['seconds_left'])} left"
    )


def _described_text(told: Described) -> str:
    settings = " ".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in told.settings.items()
        if name != "name"
    )
    million = 1e6
    hours = duration_text(told.settings["total_kimg"] * 1000 / told.images_per_second)
    return "\n".join(
        (
            f"recipe {told.settings['name']} on {told.images}",
            f"settings       {settings}",
            f"generator      {told.generator_parameters:,} parameters, "
            f"{told.generator_macs / million:,.1f} million MACs an image",
            f"discriminator  {told.discriminator_parameters:,} parameters, "
            f"{told.discriminator_macs / million:,.1f} million MACs an image",
            f"memory         {size_text(told.state_bytes)} of weights and optimizer state; "
            f"{size_text(told.peak_bytes)} {told.peak_of} at the peak of a step",
            f"speed          {told.images_per_second:,.0f} images/s on {told.device}: "
            f"{told.settings['total_kimg']:g} kimg in {hours}",
            "nothing was written",
        )
    )


def need_training() -> None:
    """Raises MissingExtra unless the packages of the extra ``train`` are installed."""
    try:
        import accelerate  # noqa: F401
        import onnx  # noqa: F401
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"training and export need the package {error.name or error}",
            "Install the extra: pip install 'ganrt[train]'",
        ) from None
