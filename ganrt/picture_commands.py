"""The commands that show what a generator has learned: interpolate, style-mix, explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganrt.console import DIGITS, PathOption, before_running, endable, parsed_size, short, shown
from ganrt.errors import UsageError
from ganrt.values import told

if TYPE_CHECKING:
    from ganrt.explanation import Explanation

Model = Annotated[str, typer.Argument(help="A name that `ganrt models` lists, or the path of an .onnx file.")]
Psi = Annotated[float | None, typer.Option(help="Truncation, 0 to 1 (1: none), where the generator has it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
InTurn = Annotated[
    list[str] | None,
    typer.Option(help="A class for all, or one a seed in turn, with commas or given again. [the first]"),
]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command()(endable()(interpolate))
    app.command("style-mix")(endable()(style_mix))
    app.command()(endable()(explain))


def interpolate(
    model: Model,
    out: Annotated[Path, PathOption(help="The file: .gif, .webp, .mp4 (extra video), or .png for rows of images.")],
    seeds: Annotated[str, typer.Option(help="The walk's stations, with commas: sample 0 of each seed.")] = "0,1,2,3",
    frames: Annotated[int | None, typer.Option(help="Steps from one station to the next. [30; 8 in a .png]")] = None,
    classes: InTurn = None,
    psi: Psi = None,
    latent_std: Annotated[float, typer.Option(help="Deviation of the latents; 1.0 is as trained.")] = 1.0,
    space: Annotated[str, typer.Option(help="z, or w where the generator has it (StyleGAN).")] = "z",
    loop: Annotated[
        bool | None, typer.Option("--loop/--no-loop", help="Go on to the first station. [animations do]")
    ] = None,
    square: Annotated[
        bool, typer.Option("--square", help="With .png: four seeds at the corners of a square of images.")
    ] = False,
    fps: Annotated[int | None, typer.Option(help="Frames a second of an animation, 1 to 50. [20]")] = None,
    size: Annotated[
        str | None, typer.Option(help="A frame's side or WIDTHxHEIGHT in pixels. [animations: 256 or more]")
    ] = None,
    device: Device = "auto",
) -> None:
    """Walk through latent space from sample to sample: an animation, or a picture."""
    from ganrt import walks

    before_running(device, quiet=False)
    images = walks.interpolate(
        model,
        out,
        seeds=_seeds("seeds", seeds),
        frames=frames,
        classes=classes,
        psi=psi,
        latent_std=latent_std,
        space=space,
        loop=loop,
        square=square,
        fps=fps,
        size=parsed_size(size),
        device=device,
    )
    print(shown(f"{out}: {len(images):,} images of {short(model)}"))


def style_mix(
    model: Model,
    out: Annotated[Path, PathOption(help="The grid's file, .png.")],
    rows: Annotated[str, typer.Option(help="Seeds of the sources at the left, with commas.")] = "0,1,2",
    cols: Annotated[str, typer.Option(help="Seeds of the sources above, with commas.")] = "3,4,5,6",
    layers: Annotated[
        str,
        typer.Option(help="Whose styles come from above: coarse, middle, fine, or numbers as in 0-3 or 0,2,5."),
    ] = "coarse",
    classes: InTurn = None,
    psi: Psi = None,
    device: Device = "auto",
) -> None:
    """Mix the styles of samples: some layers' from above, the rest from the left (generators with w)."""
    from ganrt import style_mixing

    before_running(device, quiet=False)
    mix = style_mixing.style_mix(
        model,
        out,
        rows=_seeds("rows", rows),
        cols=_seeds("cols", cols),
        layers=layers,
        classes=classes,
        psi=psi,
        device=device,
    )
    print(shown(f"{out}: {mix.grid.shape[1]}x{mix.grid.shape[0]} pixels; from above: layers {_listed(mix.layers)}"))


def explain(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="A generator's name or path, or a dataset's folder.")],
    index: Annotated[int, typer.Argument(help="Of the sample; 00000042.png of a dataset is 42.")],
    seed: Annotated[int | None, typer.Option(help="Of a generator's samples. [0]")] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="Of a generator's samples, as given to generate. [all]")
    ] = None,
    psi: Psi = None,
    latent_std: Annotated[float | None, typer.Option(help="Of a generator's samples. [1.0]")] = None,
    part: Annotated[str | None, typer.Option(help="Of a dataset that has several.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Of a dataset: the generator, where the ledger's name is not found.")
    ] = None,
    out: Annotated[Path | None, PathOption(help="A picture of what lies around it in latent space, .png.")] = None,
    device: Device = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
    ] = False,
) -> None:
    """Say what a sample was made of, and the command that makes it alone."""
    from ganrt import explanation

    before_running(device, quiet=as_json)
    told = explanation.explain(
        source,
        index,
        seed=seed,
        classes=classes,
        psi=psi,
        latent_std=latent_std,
        part=part,
        model=model,
        out=out,
        device=device,
    )
    if as_json:
        names = ("model", "index", "seed", "label", "class_name", "psi", "latent_std", "file", "command")
        values = {name: getattr(told, name) for name in names}
        print(json.dumps(values | {"z": [float(number) for number in told.z], "out": out and str(out)}))
        return
    print(_told(told))
    if out is not None:
        print(shown(f"around:  {out}"))


def _told(told: Explanation) -> str:
    norm = float(sum(float(number) ** 2 for number in told.z) ** 0.5)
    more = ", …" if len(told.z) > 6 else ""
    lines = [
        f"sample {told.index:,} of seed {told.seed}, generator {short(told.model)}",
        f"z:       {len(told.z):,} numbers, norm {norm:.3f}: {', '.join(f'{n:.3f}' for n in told.z[:6])}{more}",
    ]
    if told.class_name is not None:
        lines.append(f"label:   {told.label}, {short(told.class_name)}")
    if told.psi is not None:
        lines.append(f"psi:     {told.psi:g}")
    if told.latent_std != 1:
        lines.append(f"std:     {told.latent_std:g} of the latents")
    return "\n".join([*lines, f"file:    {told.file}", f"alone:   {told.command}"])


def _seeds(name: str, text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) <= DIGITS for word in words):
        raise UsageError(f"{name} {told(text)}", "Expected whole numbers with commas, as in 1,2,3.")
    return [int(word) for word in words]


def _listed(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers)) or "none"
