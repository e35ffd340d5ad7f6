"""The commands that need the extra ``train``: recipes, train, export."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ganrt.console import duration_text, plain, size_text, stoppable
from ganrt.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from ganrt.card import Card
    from ganrt_training.assemble import CardTexts
    from ganrt_training.describe import Described


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    for command in (recipes, train, export):
        app.command()(command)


def recipes() -> None:
    """List the training recipes (needs the extra train)."""
    _need_training()
    from ganrt_training.gans import RECIPES

    for name, recipe in RECIPES.items():
        print(f"{name:<20} {(recipe.__doc__ or '').strip().splitlines()[0]}")


def train(
    recipe: Annotated[str, typer.Argument(help="A name that `ganrt recipes` lists.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Images: a folder or zip of them, or of a folder a class; MNIST's or CIFAR's files; an .npz."
        ),
    ],
    run_dir: Annotated[
        Path | None, typer.Option(help="The run's folder; the same command resumes it. Not needed with --dry-run.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the recipe, as key=value.")] = None,
    seed: Annotated[int, typer.Option(help="Fixes weights, order and latents.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
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
    _need_training()
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
        run(chosen, images, run_dir, seed=seed, device=device, minutes=minutes, progress=show, cancel=cancel)
    print(f"report: {run_dir / 'report.html'}")
    print(f"next: ganrt export {shlex.quote(str(run_dir))}")


def _tick_text(stats: dict[str, Any]) -> str:
    losses = [
        f"{letter} {stats[name]:.3f}"
        for letter, name in (("D", "discriminator_loss"), ("G", "generator_loss"), ("content", "content"))
        if name in stats
    ]
    told = ""
    if "real_accuracy" in stats:
        told = f"  D right on real {stats['real_accuracy']:.0%} fake {stats['fake_accuracy']:.0%}"
    return (
        f"{stats['kimg']:8.1f}/{stats['total_kimg']:g} kimg {stats['images_per_second']:6.0f} images/s  "
        f"loss {' '.join(losses)}{told}  quality {stats['quality']:.1f} diversity {stats['diversity']:.2f}  "
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


def export(
    source: Annotated[
        Path, typer.Argument(help="A run folder, a snapshot of it, a float .onnx, or a generator to export again.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write, .onnx. [of a run: RUN_DIR/NAME.onnx, by the folder's name]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The generator's name. [that of the file]")] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="JSON with description, data, data_licence and licence for the card."),
    ] = None,
    quality: Annotated[Path | None, typer.Option(help="JSON with measured figures for the card.")] = None,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range", metavar="LOW,HIGH", help="With .onnx: the values of black and white, as in --range=-1,1."
        ),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="With .onnx: class names, with commas.")] = None,
    layout: Annotated[str | None, typer.Option(help="With .onnx, where the shape does not tell: nchw or nhwc.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or fp16 for GPUs, a file of its own.")] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Export a trained generator to ONNX, proven equal to its source (needs the extra train)."""
    _need_training()
    from ganrt_training.assemble import CardTexts

    if precision not in ("fp32", "fp16"):
        raise UsageError(f"precision {precision!r}", "Expected fp32 or fp16.")
    fp16 = precision == "fp16"
    texts = CardTexts.read(card, quality)
    if source.suffix.lower() == ".onnx":
        if out is None:
            raise UsageError("--out is missing", "Name the file to write: --out generator.onnx")
        given = {"--classes": classes, "--layout": layout, "--card": card, "--quality": quality}
        made = {out: _export_onnx(source, out, name, value_range, given, texts, fp16, overwrite)}
    else:
        from ganrt_training.export import export_run

        for option, value in (("--range", value_range), ("--classes", classes), ("--layout", layout)):
            if value is not None:
                raise UsageError(f"{option} does not apply to a run", "The run knows it: leave it out.")
        folder = source if source.is_dir() else source.parent
        ending = ".fp16.onnx" if fp16 else ".onnx"
        target = out or folder / f"{folder.resolve().name or 'generator'}{ending}"
        called = name or (folder.resolve().name if out is None else None)
        made = export_run(source, target, name=called, texts=texts, fp16=fp16, overwrite=overwrite)
    for file, written in made.items():
        print(f"{file}: {written.name}, equal to its source: {plain(dict(written.parity))}")
    _say_next(*next(iter(made.items())))


def _export_onnx(
    source: Path,
    out: Path,
    name: str | None,
    value_range: str | None,
    given: dict[str, Any],
    texts: CardTexts,
    fp16: bool,
    overwrite: bool,
) -> Card:
    from ganrt_training.again import export_again, is_generator
    from ganrt_training.wrap import export_onnx

    if is_generator(source):
        for option, value in ({"--range": value_range} | given).items():
            if value is not None:
                raise UsageError(f"{option} does not apply: {source} has a card already", "Leave it out.")
        return export_again(source, out, name=name, fp16=fp16, overwrite=overwrite)
    if value_range is None:
        raise UsageError(f"the range of {source} is not known", "Say which values are black and white: --range=-1,1")
    return export_onnx(
        source,
        out,
        value_range=_range(value_range),
        class_names=[part.strip() for part in given["--classes"].split(",")] if given["--classes"] else [],
        layout=given["--layout"],
        name=name,
        texts=texts,
        fp16=fp16,
        overwrite=overwrite,
    )


def _say_next(file: Path, card: Card) -> None:
    from ganrt.card import IMAGES

    model = shlex.quote(str(file) if file.parent != Path() else f"./{file}")
    if card.kind == IMAGES:
        print(f"next: ganrt {'upscale' if card.scale > 1 else 'translate'} {model} IMAGES DIR")
    else:
        print(f"next: ganrt generate --n 1000 --out DIR --model {model}")


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise UsageError(f"range {text!r}", "Expected two numbers, as in --range=-1,1 or --range=0,255.") from None
    return low, high


def _need_training() -> None:
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
