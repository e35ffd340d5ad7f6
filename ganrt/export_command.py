"""``ganrt export``: a generator from wherever it is to an ONNX file of the contract (needs the extra ``train``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ganrt.console import PathArgument, PathOption, plain, quoted, shown
from ganrt.errors import UsageError

if TYPE_CHECKING:
    from ganrt.card import Card
    from ganrt_training.assemble import CardTexts
    from ganrt_training.foreign import Foreign
    from ganrt_training.probing import Said

_KERAS = (".h5", ".hdf5", ".keras")
_WEIGHTS = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class _Target:
    """The file to write and what its card and numbers are to be."""

    out: Path | None
    name: str | None
    texts: CardTexts
    fp16: bool
    overwrite: bool

    def file(self, otherwise: Path | None = None) -> Path:
        out = self.out or otherwise
        if out is None:
            raise UsageError("--out is missing", "Name the file to write: --out generator.onnx")
        return out


def export(
    source: Annotated[
        Path | None,
        PathArgument(
            help="A run folder or a snapshot of it; Keras' .h5 or .keras; a float .onnx, or a generator to export "
            "again. Not with --torch."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        PathOption(help="The file to write, .onnx. [of a run: RUN_DIR/NAME.onnx; of Keras' files: beside them]"),
    ] = None,
    torch: Annotated[
        str | None,
        typer.Option(metavar="MODULE:CALLABLE", help="What makes a PyTorch network; it is imported, which runs it."),
    ] = None,
    weights: Annotated[Path | None, PathOption(help="With --torch: its weights, .pt, .pth, .tar, …")] = None,
    torch_args: Annotated[
        str | None, typer.Option(metavar="JSON", help='With --torch: its arguments, {"ngpu": 1} or [100, 64].')
    ] = None,
    key: Annotated[str | None, typer.Option(help="With --torch: where in the file the weights are.")] = None,
    z_shape: Annotated[
        str | None, typer.Option(metavar="100,1,1", help="With --torch: a latent's shape. [found by trying]")
    ] = None,
    value_range: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW,HIGH", help="The values of black and white, as in -1,1. [found]"),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, with commas, in the labels' order.")] = None,
    labels: Annotated[str | None, typer.Option(help="int or onehot: what the network takes. [found]")] = None,
    layout: Annotated[str | None, typer.Option(help="nchw or nhwc, where the shape does not tell.")] = None,
    z_distribution: Annotated[
        str | None, typer.Option(help="normal, or uniform from -1 to 1: what it was trained with. [normal]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The generator's name. [that of the file]")] = None,
    description: Annotated[str | None, typer.Option(help="For the card: what it makes.")] = None,
    data: Annotated[str | None, typer.Option(help="For the card: what it was trained on.")] = None,
    data_licence: Annotated[str | None, typer.Option(help="For the card: the licence of that data.")] = None,
    licence: Annotated[str | None, typer.Option(help="For the card: the licence of the weights.")] = None,
    card: Annotated[Path | None, PathOption(help="JSON with those four texts.")] = None,
    quality: Annotated[Path | None, PathOption(help="JSON with measured figures for the card.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or fp16 for GPUs, a file of its own.")] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Export a trained generator to ONNX, proven equal to its source (needs the extra train).

    Of a run, of somebody's PyTorch code and weights, of a Keras model, or of a float ONNX file.
    """
    from ganrt.training_commands import need_training

    need_training()
    from ganrt_training.assemble import CardTexts

    if precision not in ("fp32", "fp16"):
        raise UsageError(f"precision {precision!r}", "Expected fp32 or fp16.")
    of_files = CardTexts.read(card, quality)
    texts = CardTexts(
        description=of_files.description if description is None else description,
        data=of_files.data if data is None else data,
        data_licence=of_files.data_licence if data_licence is None else data_licence,
        licence=of_files.licence if licence is None else licence,
        quality=of_files.quality,
    )
    target = _Target(out, name, texts, precision == "fp16", overwrite)
    of_torch = {"--weights": weights, "--torch-args": torch_args, "--key": key, "--z-shape": z_shape}
    of_foreign = {
        "--range": value_range,
        "--classes": classes,
        "--labels": labels,
        "--layout": layout,
        "--z-distribution": z_distribution,
    }
    if torch is not None:
        if source is not None:
            raise UsageError(f"{source} and --torch: two sources", "Name one; the weights are given with --weights.")
        if weights is None:
            raise UsageError("--weights is missing", "Name the file of the network's weights: --weights FILE")
        foreign = _of_torch(torch, weights, of_torch, _said(of_foreign))
        made = {target.file(): _export_foreign(foreign, target, _said(of_foreign))}
    else:
        if source is None:
            raise UsageError(
                "what to export is missing", "Name a run folder or a file, or --torch MODULE:CALLABLE --weights FILE."
            )
        _refuse(of_torch, "without --torch", "Name the code that makes the network: --torch MODULE:CALLABLE")
        made = _of_file(source, target, of_foreign, texts != CardTexts())
    for file, written in made.items():
        print(f"{file}: {shown(written.name)}, equal to its source: {plain(dict(written.parity))}")
    _say_next(*next(iter(made.items())))


def _of_file(source: Path, target: _Target, of_foreign: dict[str, Any], texts_said: bool) -> dict[Path, Card]:
    kind = source.suffix.lower()
    if (source / "saved_model.pb").is_file() or kind in (".pb", ".tflite"):
        raise UsageError(
            f"{source}: is a model of TensorFlow's own",
            "Load it in TensorFlow and save it as Keras, model.save('generator.keras'); or convert it with tf2onnx "
            "and export the .onnx.",
        )
    if kind in _WEIGHTS:
        raise UsageError(
            f"{source}: weights alone do not say what network they belong to",
            f"Name the code that makes it: ganrt export --torch module:Generator --weights {quoted(source)} "
            "--out generator.onnx",
        )
    if kind in _KERAS:
        from ganrt_training.keras_source import open_keras

        target = replace(target, out=target.file(source.with_suffix(".onnx")))
        return {target.file(): _export_foreign(open_keras(source), target, _said(of_foreign))}
    if kind == ".onnx":
        return {target.file(): _of_onnx(source, target, of_foreign, texts_said)}
    from ganrt_training.export import export_run

    _refuse(of_foreign, "to a run", "The run knows it: leave it out.")
    folder = source if source.is_dir() else source.parent
    called = folder.resolve().name
    file = target.file(folder / f"{called or 'generator'}{'.fp16' if target.fp16 else ''}.onnx")
    return export_run(
        source,
        file,
        name=target.name or (called if target.out is None else None) or None,
        texts=target.texts,
        fp16=target.fp16,
        overwrite=target.overwrite,
    )


def _of_onnx(source: Path, target: _Target, of_foreign: dict[str, Any], texts_said: bool) -> Card:
    from ganrt_training.again import export_again, is_generator
    from ganrt_training.onnx_source import open_onnx

    if not is_generator(source):
        return _export_foreign(open_onnx(source), target, _said(of_foreign))
    of_card = {"a text for the card": texts_said or None}
    _refuse(of_foreign | of_card, f": {source} has a card already", "Leave it out.")
    return export_again(source, target.file(), name=target.name, fp16=target.fp16, overwrite=target.overwrite)


def _of_torch(code: str, weights: Path, of_torch: dict[str, Any], said: Said) -> Foreign:
    from ganrt_training.torch_source import open_torch

    return open_torch(
        code,
        weights,
        said,
        args=of_torch["--torch-args"],
        key=of_torch["--key"],
        z_shape=_sizes(of_torch["--z-shape"]) if of_torch["--z-shape"] else None,
        tell=_tell,
    )


def _export_foreign(foreign: Foreign, target: _Target, said: Said) -> Card:
    from ganrt_training.wrap import export_foreign

    return export_foreign(
        foreign,
        target.file(),
        said,
        name=target.name,
        texts=target.texts,
        fp16=target.fp16,
        overwrite=target.overwrite,
        tell=_tell,
    )


def _tell(sentence: str) -> None:
    print(shown(sentence))


def _said(of_foreign: dict[str, Any]) -> Said:
    from ganrt_training.probing import Said

    classes, value_range = of_foreign["--classes"], of_foreign["--range"]
    return Said(
        value_range=_range(value_range) if value_range is not None else None,
        class_names=[part.strip() for part in classes.split(",")] if classes else [],
        labels=of_foreign["--labels"],
        layout=of_foreign["--layout"],
        z_distribution=of_foreign["--z-distribution"] or "normal",
    )


def _refuse(options: dict[str, Any], where: str, hint: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} does not apply{where if where.startswith(':') else f' {where}'}", hint)


def _say_next(file: Path, card: Card) -> None:
    from ganrt.card import IMAGES

    model = quoted(str(file) if file.parent != Path() else f"./{file}")
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


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise UsageError(
            f"z shape {text!r}", "Expected sizes after N, as in --z-shape 100 or --z-shape 100,1,1."
        ) from None
