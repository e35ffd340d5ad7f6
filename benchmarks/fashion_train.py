"""Makes the shipped generators of Fashion-MNIST from nothing: trains, exports, measures. For where a GPU is at hand.

    python -m benchmarks.fashion_train --device cuda --minutes 5 --out runs/shipped

All are trained at once, since a GPU has room for them; the same command goes on with runs that were stopped. Of each
the latest snapshot is exported, measured by benchmarks.fashion_quality, and exported again with its figures: OUT holds
NAME.onnx, NAME.json with the figures, and the run's folder NAME.

    python -m benchmarks.fashion_train --refine runs/shipped/fashion/snapshot-005002.safetensors --out runs/refined

is a trial of what is not shipped yet: more variety for a generator that was trained, on a CPU in half an hour
(docs/decisions/0009-shipped.md). It is exported and measured in the same way, which takes as long again and more.
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
from ganrt_training.export import export_run

EXPORTED = Path(__file__).resolve().parent.parent / "exported"
RECIPE = "cgan_projection_28"
# Two steps of the discriminator a step, and the relativistic loss: what gave most variety (docs/decisions/0009).
COMMON = (
    "z_dim=64 batch_size=256 lr_generator=4e-4 lr_discriminator=8e-4 lr_decay=0.4 loss=relativistic d_steps=2 "
    "augment=on augment_kimg=1000 precision=bf16 tick_kimg=250 snapshot_kimg=1000"
)
GENERATORS = {
    "fashion": "width=64 total_kimg=6707",
    "fashion-fast": "width=28 d_width=64 total_kimg=7696",  # a fifth of the work of the other, judged as strictly
}
# Latents of their own for hidden units and channels; then no more than the energy distance is lowered.
REFINED = (
    "width=64 d_width=1 noise=1.2 z_dim=320 adversarial=0 energy=1 batch_size=128 lr_generator=2e-4 lr_decay=0.5 "
    "ema_decay=0.99 precision=bf16 augment=off total_kimg=48 tick_kimg=16 snapshot_kimg=16"
)
# 28 channels are a two-hundredth too many for a fifth; one of those that the last convolution sees can go.
CHANGED = {"fashion-fast": partial(narrowed, classes=10)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fashion_train", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/shipped"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, help="of training; all that the recipes say unless given")
    parser.add_argument("--seeds", default="0,1", help="of the measurement")
    parser.add_argument("--limit", type=int, help="of the measurement: a trial only")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of the recipes")
    parser.add_argument(
        "--refine", type=Path, metavar="SNAPSHOT", help="of fashion: train nothing else, give it variety"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        if not train(options):
            return 1
        for name in ["fashion"] if options.refine else GENERATORS:
            make(name, options)
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(options: argparse.Namespace) -> bool:
    """Trains all at once, or refines one; whether all went well."""
    limit = ["--minutes", str(options.minutes)] if options.minutes else []
    settings = {name: [*COMMON.split(), *own.split()] for name, own in GENERATORS.items()}
    if options.refine:
        settings = {"fashion": REFINED.split()}
        limit += ["--start", str(options.refine)]
    running = {}
    for name, words in settings.items():
        where = ["--data", str(options.data), "--run-dir", str(options.out / name), "--device", options.device, *limit]
        running[name] = subprocess.Popen([sys.executable, "-m", "ganrt", "train", RECIPE, *words, *options.set, *where])
    try:
        ended = {name: process.wait() for name, process in running.items()}
    finally:
        for process in running.values():
            process.terminate()  # on an error or Ctrl-C; those that have ended stay so
    for name, code in ended.items():
        if code:
            tell(f"{name}: training ended with exit code {code}")
    return not any(ended.values())


def make(name: str, options: argparse.Namespace) -> None:
    """Exports the latest snapshot of a run, with its figures. Raises GanrtError."""
    snapshot = max((options.out / name).glob("snapshot-*.safetensors"), default=None)
    if snapshot is None:
        raise GanrtError(f"{name}: there is no snapshot yet", "Train for longer: the same command goes on.")
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
