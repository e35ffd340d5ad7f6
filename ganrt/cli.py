"""The command line: each command parses, makes one call, and prints."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ganrt import __version__
from ganrt.console import (
    Group,
    PathArgument,
    PathOption,
    before_running,
    crew,
    endable,
    open_streams,
    parsed_size,
    plain,
    quoted,
    report_text,
    short,
    shown,
    with_progress,
)
from ganrt.errors import GanrtError, ModelError, UsageError

if TYPE_CHECKING:
    from ganrt.card import Card
    from ganrt.dry_run import Forecast

app = typer.Typer(
    name="ganrt",
    help="Images out of trained GANs: batched, labelled, balanced, resumable, reproducible, on CPU or CUDA.",
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 the folder holds another dataset, 4 storage full, "
    "5 verify found damage, 130 and 143 interrupted.",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Classes = Annotated[
    list[str] | None,
    typer.Option(help="Class names or numbers, with commas or given again; all classes unless given."),
]


def main() -> NoReturn:
    """The entry point ``ganrt``: errors become a message, what to do, and an exit code."""
    open_streams()
    try:
        try:
            app()
        except BrokenPipeError:
            raise
        except (GanrtError, OSError, MemoryError) as caught:
            from ganrt.files import typed

            error = caught if isinstance(caught, GanrtError) else typed(caught)
            print(f"ganrt: {shown(error.message)}", file=sys.stderr)
            for line in (error.hint, *getattr(error, "__notes__", ())):
                if line:
                    print(f"  {shown(line)}", file=sys.stderr)
            sys.exit(error.exit_code)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone. Python will flush once more: nowhere, so that it is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ganrt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def generate(
    n: Annotated[int, typer.Option("--n", help="How many images.")],
    out: Annotated[Path, PathOption(help="The dataset's folder; the same command goes on where it stopped.")],
    model: Annotated[
        str, typer.Option(help="A name that `ganrt models` lists, or the path of an .onnx file.")
    ] = "fashion",
    seed: Annotated[int, typer.Option(help="0 to 2^64-1; with an index it fixes a sample.")] = 0,
    start: Annotated[int, typer.Option(help="Index of the first sample.")] = 0,
    classes: Classes = None,
    psi: Annotated[float | None, typer.Option(help="Truncation, 0 to 1 (1: none), where the generator has it.")] = None,
    latent_std: Annotated[float, typer.Option(help="Deviation of the latents; 1.0 is as trained.")] = 1.0,
    size: Annotated[str | None, typer.Option(help="Resize to a side or WIDTHxHEIGHT in pixels.")] = None,
    resample: Annotated[str | None, typer.Option(help="With --size: nearest, bilinear or lanczos. [lanczos]")] = None,
    mode: Annotated[str | None, typer.Option(help="l (grey) or rgb; the generator's own unless given.")] = None,
    layout: Annotated[str, typer.Option(help="folder, webdataset or npy.")] = "folder",
    format: Annotated[str | None, typer.Option(help="png, jpeg or webp; not with npy. [png]")] = None,
    quality: Annotated[int | None, typer.Option(help="With jpeg and webp: 1 to 100. [90]")] = None,
    no_mark: Annotated[
        bool, typer.Option("--no-mark", help="Leave the synthetic-media mark out of the images.")
    ] = False,
    shard_size: Annotated[
        int | None,
        typer.Option(help="Images a shard, a multiple of --batch. [512; 1024 for webdataset]"),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a call of the network. [64]")] = None,
    processes: Annotated[
        int, typer.Option(help="Processes that share the work; with --device cuda, each has the next GPU.")
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(help="Threads that make batches, a process. [one a processor, fewer for small networks]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads within a call of the network on a CPU. [1; more for few batches]")
    ] = None,
    device: Device = "auto",
    provider_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For ONNX Runtime's CUDA provider, as in enable_cuda_graph=1; again."),
    ] = None,
    shard: Annotated[str | None, typer.Option(metavar="K/M", help="Be machine K, from 0, of M on one folder.")] = None,
    part: Annotated[str, typer.Option(help="A name, where several plans share one folder.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="First remove what ganrt wrote there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, from a probe; write nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
    as_json: Json = False,
) -> None:
    """Write a labelled, class-balanced dataset of generated images."""
    from ganrt.dry_run import forecast
    from ganrt.generation import generate as run
    from ganrt.planning import PlanOptions

    options: PlanOptions = {
        "seed": seed,
        "start": start,
        "classes": classes,
        "psi": psi,
        "latent_std": latent_std,
        "size": parsed_size(size),
        "resample": resample,
        "mode": mode,
        "layout": layout,
        "format": format,
        "quality": quality,
        "mark": False if no_mark else None,
        "shard_size": shard_size,
        "batch": batch,
        "part": part,
    }
    machine = (0, 1) if shard is None else shard
    provider_options = _options_of(provider_option)
    before_running(device, quiet)
    if dry_run:
        with endable():
            told = forecast(
                model,
                n=n,
                out=out,
                processes=processes,
                workers=workers,
                threads=threads,
                device=device,
                provider_options=provider_options,
                shard=machine,
                overwrite=overwrite,
                **options,
            )
        print(json.dumps(told.to_dict()) if as_json else _forecast_text(told))
        return
    report = with_progress(
        lambda progress, cancel: run(
            model,
            n=n,
            out=out,
            processes=processes,
            workers=workers,
            threads=threads,
            device=device,
            provider_options=provider_options,
            shard=machine,
            overwrite=overwrite,
            progress=progress,
            cancel=cancel,
            **options,
        ),
        quiet,
    )
    if as_json:
        print(json.dumps(report.to_dict()))
    elif not quiet:
        print(report_text(report))


def _options_of(texts: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or ()]
    for name, equals, _ in pairs:
        if not equals:
            raise UsageError(f"provider option {name!r}", "Expected NAME=VALUE, as in enable_cuda_graph=1.")
    return {name: value for name, _, value in pairs}


def _forecast_text(told: Forecast) -> str:
    from ganrt.console import size_text

    inodes = "" if told.inodes_free is None else f", {told.inodes_free:,} free"
    lines = "\n".join(
        (
            f"would make {told.images:,} images ({told.already:,} are there) in {told.out}",
            f"files:  {told.files:,} (inodes {told.inodes:,}{inodes})",
            f"bytes:  {size_text(told.bytes)}, {size_text(told.bytes_on_disk)} on disk, "
            f"{size_text(told.bytes_free)} free",
            f"time:   about {told.seconds:,.1f} s, {told.images_per_second:,.0f} images/s, "
            f"{told.device} with {crew(told.processes, told.workers)}",
            "nothing was written",
        )
    )
    return shown(lines)


@app.command()
def models(
    folders: Annotated[list[Path] | None, PathArgument(help="Folders to list instead.")] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare the shipped ones with the SHA-256 they were shipped with; exit code 5 when one differs.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the generators: the shipped ones, and those in the folders of GANRT_MODELS."""
    from ganrt.models import list_models

    if verify:
        _verify_models(folders or [], as_json)
        return
    found = list_models(*(folders or ()))
    if as_json:
        print(
            json.dumps(
                [
                    {"name": m.name, "path": str(m.path), "bytes": m.size, "problem": m.problem or None}
                    | {"dynamic": m.dynamic, "card": json.loads(m.card.to_json()) if m.card else None}
                    for m in found
                ]
            )
        )
        return
    if not found:
        print("no generators found", file=sys.stderr)
    for m in found:
        print(f"{short(m.name):<16} {_one_line(m.card, m.dynamic, m.size) if m.card else short(m.problem)}")


def _verify_models(folders: list[Path], as_json: bool) -> None:
    from ganrt.shipped import check_models

    found = check_models(*folders)
    if as_json:
        print(json.dumps([{**asdict(checked), "path": str(checked.path), "well": checked.well} for checked in found]))
    else:
        for checked in found:
            problem = f": {short(checked.problem)}" if checked.problem else ""
            print(f"{short(checked.name):<16} {checked.state:<12} {shown(str(checked.path))}{problem}")
    changed = [checked.name for checked in found if not checked.well]
    if changed:
        error = ModelError(
            f"not as shipped: {', '.join(changed)}",
            "Install ganrt again: pip install --force-reinstall ganrt",
        )
        error.exit_code = 5
        raise error


def _one_line(card: Card, dynamic: bool, size: int) -> str:
    from ganrt.card import IMAGES
    from ganrt.console import size_text

    told = [_sizes(card, dynamic)]
    if card.kind != IMAGES:
        told.append(f"{len(card.class_names)} classes" if card.class_names else "no classes")
    if card.num_ws:
        told.append(f"w of {card.num_ws} layers")
    told.append(size_text(size))
    if card.licence:
        told.append(short(card.licence))
    return f"{', '.join(told)}: {short(card.description.split('. ')[0])}"


def _sizes(card: Card, dynamic: bool) -> str:
    """The images that a generator makes, and those it makes them of: ``32x32 grey to 64x64 RGB``."""
    from ganrt.card import COLOURS, IMAGES

    made = f"{card.width}x{card.height} {COLOURS[card.channels]}"
    height, width, channels = card.in_shape
    if card.kind != IMAGES:
        return made
    if not dynamic:
        return f"{width}x{height} {COLOURS[channels]} to {made}"
    other = f" to {COLOURS[card.channels]}" if card.channels != channels else ""
    return f"any size {COLOURS[channels]}{other}" + (f", {card.scale}x" if card.scale > 1 else "")


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A name that `ganrt models` lists, or the path of an .onnx file.")],
    as_json: Json = False,
) -> None:
    """Check a generator's file against the contract and show its card."""
    from ganrt.card import IMAGES
    from ganrt.console import size_text
    from ganrt.contract import read_model
    from ganrt.models import find_model

    path = find_model(model)
    checked = read_model(path)
    card = json.loads(checked.card.to_json())
    if as_json:
        told = {"path": str(path), "bytes": len(checked.data), "sha256": checked.digest, "dynamic": checked.dynamic}
        print(json.dumps(told | {"card": card}))
        return
    print(f"{shown(str(path))}: {size_text(len(checked.data))}, SHA-256 {checked.digest}")
    print(f"follows version {checked.card.contract} of the contract")
    if checked.card.kind == IMAGES:
        print(f"images: {_sizes(checked.card, checked.dynamic)}")
    for key, value in card.items():
        if isinstance(value, dict):
            print(f"{key}:" + ("" if value else " none"))
            for inner, figure in value.items():
                print(f"  {inner}: {plain(figure)}")
        else:
            print(f"{key}: {plain(value)}")


@app.command()
@endable()
def preview(
    source: Annotated[str, typer.Argument(help="A generator's name or path, or a dataset's folder.")],
    out: Annotated[Path, PathOption(help="The grid's file, .png.")],
    rows: Annotated[int | None, typer.Option(help="Rows at most; each class is one.")] = None,
    cols: Annotated[int | None, typer.Option(help="Images a row. [10]")] = None,
    classes: Classes = None,
    seed: Annotated[int | None, typer.Option(help="Of a generator's samples. [0]")] = None,
    device: Device = "auto",
) -> None:
    """Draw a grid of images, a class a row."""
    from ganrt.grid import preview as draw

    before_running(device, quiet=False)
    grid = draw(source, out, rows=rows, cols=cols, classes=classes, seed=seed, device=device)
    print(shown(f"{out}: {grid.shape[1]}x{grid.shape[0]} pixels"))


@app.command()
@endable()
def verify(
    dataset: Annotated[Path, PathArgument(help="The dataset's folder.")],
    repair: Annotated[bool, typer.Option("--repair", help="Make exactly what is broken again.")] = False,
    model: Annotated[
        str | None,
        typer.Option(help="With --repair: the generator, where the manifest's name is not found."),
    ] = None,
    images: Annotated[
        Path | None,
        PathOption(help="With --repair, of what translate or upscale made: the images that it was made of."),
    ] = None,
    device: Device = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Compare every file with the ledger's digests; exit code 5 when anything is missing, extra or changed."""
    from ganrt.console import ProgressBar
    from ganrt.errors import DatasetDamaged
    from ganrt.verification import verify as check

    for option, value in (("--model", model), ("--images", images)):
        if value is not None and not repair:
            raise UsageError(f"{option} does not apply without --repair", "Leave it out, or add --repair.")
    before_running(device, quiet)
    bar = ProgressBar()

    def show(done: int, total: int) -> None:
        if not quiet:
            bar.show(done, total, 0)

    damage = check(dataset, repair=repair, model=model, images=images, device=device, progress=show)
    bar.clear()
    if as_json:
        print(json.dumps({"dataset": str(dataset), "well": not damage, "damage": [asdict(d) for d in damage]}))
    else:
        for found in damage:
            print(shown(f"{found.name}: {found.what}"))
        if not damage:
            print(shown(f"{dataset}: every file is as it was written"))
    if damage:
        again = "" if repair else f"Make what is broken again: ganrt verify {quoted(dataset)} --repair"
        extra = "Extra files are left alone; move them away yourself." if any(d.part is None for d in damage) else ""
        raise DatasetDamaged(f"{len(damage):,} things are not as they should be", again or extra or None)


@app.command()
def merge(dataset: Annotated[Path, PathArgument(help="The dataset's folder.")]) -> None:
    """Write README and manifest once all machines are done (the last one does it by itself)."""
    from ganrt.manifest import merge as join

    count = join(dataset)
    print(shown(f"{dataset}: {count:,} images, complete"))


@app.command()
def bench(
    model: Annotated[
        str, typer.Argument(help="A name that `ganrt models` lists, or the path of an .onnx file.")
    ] = "fashion",
    out: Annotated[
        Path | None, PathOption(help="The folder to write under, on the disk that counts. [the temporary one]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a call of the network. [64]")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that make batches. [as generate picks]")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads within a call of the network. [likewise]")] = None,
    seconds: Annotated[float, typer.Option(help="About how long each figure is measured.")] = 2.0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure on this machine: images a second in each layout, and what limits them."""
    from ganrt.benchmark import bench as measure
    from ganrt.console import stoppable

    before_running(device, quiet=as_json)
    with stoppable() as cancel:
        speed = measure(
            model,
            device=device,
            batch=batch,
            workers=workers,
            threads=threads,
            seconds=seconds,
            out=out,
            cancel=cancel,
        )
    if as_json:
        print(json.dumps(speed.to_dict()))
        return
    print(
        f"{short(speed.model)} on {speed.device}, {speed.processors} processors: {speed.workers} workers, "
        f"{speed.threads} threads a call, batch {speed.batch}"
    )
    print(f"{'network alone':<16}{speed.network:>12,.0f} images/s")
    for layout, row in speed.layouts.items():
        print(
            f"{layout:<16}{row.images_per_second:>12,.0f} images/s, {row.of_network:.2f} of the network alone; "
            f"limited by {_LIMITS[row.limit]}"
        )
    print(
        f"one worker, an image: network {speed.network_us:,.1f} us, PNG {speed.encoding_us:,.1f} us "
        f"({speed.png_bytes:,.0f} bytes), its file {speed.files_us:,.1f} us"
    )


_LIMITS = {
    "network": "the network",
    "encoding": "encoding",
    "files": "writing files",
    "turns": "turns (Python's interpreter lock, the file system)",
}


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed and which devices really work, and what to do about it."""
    from ganrt.doctor import examine, well

    checks = examine()
    if as_json:
        print(json.dumps({"well": well(checks), "checks": [asdict(check) for check in checks]}))
    else:
        for check in checks:
            mark = {True: "ok", False: "FAULT", None: "-"}[check.well]
            print(f"{mark:<6} {check.name}: {check.found}")
            if check.hint:
                print(f"       {check.hint}")
    if not well(checks):
        raise typer.Exit(1)


from ganrt import picture_commands, training_commands, translation_commands  # noqa: E402  their commands come after these

translation_commands.add_to(app)
picture_commands.add_to(app)
training_commands.add_to(app)

if __name__ == "__main__":
    main()
