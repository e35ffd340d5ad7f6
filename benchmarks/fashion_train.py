"""Makes the shipped generators of Fashion-MNIST from nothing: trains, gives variety, exports, measures.

    python -m benchmarks.fashion_train --device cuda --minutes 5 --out runs/shipped

The first training wants a GPU, which has room for all generators at once: their runs are OUT/first/NAME. The second
begins with the latest snapshot of each and gives it more variety (docs/decisions/0009-shipped.md): OUT/NAME. The same
command goes on with runs that were stopped. Each is then exported, measured by benchmarks.fashion_quality, and
exported again with its figures: OUT holds NAME.onnx, and NAME.json with the figures.

    python -m benchmarks.fashion_train --refine --out runs/shipped

leaves the first training as it is: the second takes two processors a quarter of an hour, and some twenty minutes for
small classifiers of the images. Measuring takes an hour and more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks import fashion_quality
from benchmarks.fashion_quality import DATA, tell
from benchmarks.narrowing import narrowed
from ganrt.errors import GanrtError
from ganrt_training.assemble import CardTexts
from ganrt_training.checkpoint import latest_snapshot
from ganrt_training.export import export_run

EXPORTED = Path(__file__).resolve().parent.parent / "exported"
RECIPE = "cgan_projection_28"
FIRST = "first"
# Two steps of the discriminator a step, and the relativistic loss: what gave most variety (docs/decisions/0009).
COMMON = (
    "z_dim=64 batch_size=256 lr_generator=4e-4 lr_discriminator=8e-4 lr_decay=0.4 loss=relativistic d_steps=2 "
    "augment=on augment_kimg=1000 precision=bf16 tick_kimg=250 snapshot_kimg=1000"
)
# Latents of their own for hidden units and channels; what is lowered is the distance to real images alone.
REFINED = (
    "d_width=1 noise=1.3 adversarial=0 energy=1 energy_spread=1.1 energy_labels=0.1 batch_size=128 lr_generator=2e-4 "
    "lr_decay=0.5 ema_decay=0.99 augment=off precision=bf16 total_kimg=96 tick_kimg=16 snapshot_kimg=32"
)
GENERATORS = {  # settings of the first training and of the second
    "fashion": ("width=64 total_kimg=6707", "width=64 z_dim=320"),
    # A fifth of the work of the other, judged as strictly.
    "fashion-fast": ("width=28 d_width=64 total_kimg=7696", "width=28 z_dim=248"),
}
# 28 channels are a two-hundredth too many for a fifth; one of those that the last convolution sees can go.
CHANGED = {"fashion-fast": partial(narrowed, classes=10)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fashion_train", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/shipped"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, help="of the first training; all that the recipes say unless given")
    parser.add_argument("--seeds", default="0,1", help="of the measurement")
    parser.add_argument("--limit", type=int, help="of the measurement: a trial only")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings, of both trainings")
    parser.add_argument("--refine", action="store_true", help="the second training only, of what OUT/first holds")
    options = parser.parse_args(arguments)
    try:
        if not ((options.refine or train(options)) and refine(options)):
            return 1
        for name in GENERATORS:
            make(name, options)
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(options: argparse.Namespace) -> bool:
    """The first training, of all at once; whether all went well."""
    limit = ["--minutes", str(options.minutes)] if options.minutes else []
    words = {name: [*COMMON.split(), *first.split(), *limit] for name, (first, _) in GENERATORS.items()}
    return _run(options, options.out / FIRST, words)


def refine(options: argparse.Namespace) -> bool:
    """The second training, of all at once; whether all went well. Raises GanrtError where the first is missing."""
    words = {name: [*settings(name), "--start", str(_latest(options.out / FIRST / name))] for name in GENERATORS}
    return _run(options, options.out, words)


def settings(name: str) -> list[str]:
    """The settings of the second training: those of the shipped network."""
    return [*REFINED.split(), *GENERATORS[name][1].split()]


def _run(options: argparse.Namespace, out: Path, words: dict[str, list[str]]) -> bool:
    out.mkdir(parents=True, exist_ok=True)
    running = {}
    for name, own in words.items():
        where = ["--data", str(options.data), "--run-dir", str(out / name), "--device", options.device]
        running[name] = subprocess.Popen([sys.executable, "-m", "ganrt", "train", RECIPE, *own, *options.set, *where])
    try:
        ended = {name: process.wait() for name, process in running.items()}
    finally:
        for process in running.values():
            process.terminate()  # on an error or Ctrl-C; those that have ended stay so
    for name, code in ended.items():
        if code:
            tell(f"{name}: training ended with exit code {code}")
    return not any(ended.values())


def _latest(run: Path) -> Path:
    snapshot = latest_snapshot(run)
    if snapshot is None:
        raise GanrtError(f"{run}: there is no snapshot", "Train for longer: the same command goes on.")
    return snapshot


def make(name: str, options: argparse.Namespace) -> None:
    """Exports the latest snapshot of a run, with its figures. Raises GanrtError."""
    snapshot = _latest(options.out / name)
    out, figures = options.out / f"{name}.onnx", options.out / f"{name}.json"
    export(name, snapshot, out)
    words = ["--model", out, "--real", options.data, "--json", figures, "--keep", options.out / "kept"]
    words += ["--seeds", options.seeds, "--device", options.device]
    words += ["--limit", options.limit] if options.limit else []
    if fashion_quality.main(list(map(str, words))):
        raise GanrtError(f"{name} was not measured", f"Its generator is {out}.")
    export(name, snapshot, out, figures)
    tell(f"{name}: {out}")


def export(name: str, snapshot: Path, out: Path, figures: Path | None = None) -> None:
    """Writes the generator of a snapshot, with its card's texts and, where they are known, its figures."""
    texts = CardTexts.read(EXPORTED / f"{name}.json", figures)
    export_run(snapshot, out, texts=texts, overwrite=True, changed=CHANGED.get(name))


if __name__ == "__main__":
    sys.exit(main())
