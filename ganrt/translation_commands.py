"""The commands that make datasets of images: translate, upscale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganrt.console import PathArgument, before_running, report_text, with_progress

if TYPE_CHECKING:
    from ganrt.translation_planning import TranslationOptions

Model = Annotated[
    str, typer.Argument(help="An image-to-image generator: a name that `ganrt models` lists, or the path of its file.")
]
Images = Annotated[
    Path, PathArgument(help="A folder of images, or of a folder a class; or a dataset of ganrt's in any layout.")
]
Out = Annotated[Path, PathArgument(help="The dataset's folder; the same command goes on where it stopped.")]
Resize = Annotated[
    str | None,
    typer.Option(help="For a generator of one size: crop (keep the middle) or stretch the images to it."),
]
Resample = Annotated[str | None, typer.Option(help="With --resize: nearest, bilinear or lanczos. [lanczos]")]
Tile = Annotated[
    int | None, typer.Option(help="For a generator of any size: make larger images in tiles of so many pixels a side.")
]
Overlap = Annotated[int | None, typer.Option(help="With --tile: by how many pixels tiles overlap. [a quarter]")]
Multiple = Annotated[
    int | None, typer.Option(help="For a generator of any size: pad sides to multiples of this, and crop the result.")
]
LayoutName = Annotated[str, typer.Option(help="folder, webdataset or npy.")]
Format = Annotated[str | None, typer.Option(help="png, jpeg or webp; not with npy. [png]")]
Quality = Annotated[int | None, typer.Option(help="With jpeg and webp: 1 to 100. [90]")]
NoMark = Annotated[bool, typer.Option("--no-mark", help="Leave the synthetic-media mark out of the images.")]
ShardSize = Annotated[
    int | None, typer.Option(help="Images a shard, a multiple of --batch. [512; 1024 for webdataset]")
]
BatchSize = Annotated[int | None, typer.Option(help="Images a call of the network. [16; fewer for large ones]")]
Workers = Annotated[int | None, typer.Option(help="Threads that make batches. [one a processor]")]
Threads = Annotated[
    int | None, typer.Option(help="Threads within a call of the network on a CPU. [1; more for few batches]")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="First remove what ganrt wrote there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command(
        "translate", help="Write a dataset of what a generator makes of images; names and classes are carried over."
    )(_command(enlarging=False))
    app.command("upscale", help="Write a dataset of images made larger: translate, with a generator that enlarges.")(
        _command(enlarging=True)
    )


def _command(enlarging: bool) -> Callable[..., None]:
    """Both commands are one, but for what they ask of the generator."""

    def command(
        model: Model,
        images: Images,
        out: Out,
        resize: Resize = None,
        resample: Resample = None,
        tile: Tile = None,
        overlap: Overlap = None,
        multiple: Multiple = None,
        layout: LayoutName = "folder",
        format: Format = None,
        quality: Quality = None,
        no_mark: NoMark = False,
        shard_size: ShardSize = None,
        batch: BatchSize = None,
        workers: Workers = None,
        threads: Threads = None,
        device: Device = "auto",
        overwrite: Overwrite = False,
        quiet: Quiet = False,
        as_json: Json = False,
    ) -> None:
        options: TranslationOptions = {
            "resize": resize,
            "resample": resample,
            "tile": tile,
            "overlap": overlap,
            "multiple": multiple,
            "layout": layout,
            "format": format,
            "quality": quality,
            "mark": False if no_mark else None,
            "shard_size": shard_size,
            "batch": batch,
        }
        from ganrt import translation

        run = translation.upscale if enlarging else translation.translate
        before_running(device, quiet)
        report = with_progress(
            lambda progress, cancel: run(
                model,
                images,
                out=out,
                workers=workers,
                threads=threads,
                device=device,
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

    return command
