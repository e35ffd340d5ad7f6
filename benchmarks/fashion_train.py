"""Makes the shipped generators of Fashion-MNIST from nothing: trains, exports, measures. For where a GPU is at hand.

    python -m benchmarks.fashion_train --device cuda --minutes 5 --out runs/shipped

All are trained at once, since a GPU has room for them; then what a generator lacks in variety is added to it, in a run
that begins with its snapshot (--refine alone does that part, on a CPU in half an hour). The same command goes on with
runs that were stopped. Of each the latest snapshot is exported, measured by benchmarks.fashion_quality, and exported
again with its figures: OUT holds NAME.onnx, NAME.json with the figures, and the folders of the runs, NAME and
NAME-refined.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
# A latent of its own for each hidden unit; then no more than the energy distance is lowered.
REFINED = {
    "fashion": "width=64 noise=1.6 z_dim=192 adversarial=0 energy=1 batch_size=128 lr_generator=2e-4 lr_decay=0.5 "
    "ema_decay=0.99 precision=bf16 augment=off total_kimg=320 tick_kimg=16 snapshot_kimg=32"
}
# 28 channels are a two-hundredth too many for a fifth; one of those that the last convolution sees can go.
_REFINED = "-refined"
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
    parser.add_argument("--set-refined", nargs="*", default=[], metavar="KEY=VALUE", help="and of the runs that refine")
    parser.add_argument(
        "--refine", type=Path, metavar="SNAPSHOT", help="refine this one of fashion; nothing else is trained or made"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        if options.refine:
            names = ["fashion"]
            done = refine({"fashion": options.refine}, options)
        else:
            names = list(GENERATORS)
            done = train(options) and refine({name: latest(options.out / name) for name in names}, options)
        if not done:
            return 1
        for name in names:
            make(name, options)
    except GanrtError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(options: argparse.Namespace) -> bool:
    """Trains all at once; whether all went well."""
    limit = ["--minutes", str(options.minutes)] if options.minutes else []
    runs = {}
    for name, settings in GENERATORS.items():
        words = [*COMMON.split(), *settings.split(), *options.set]
        runs[name] = [RECIPE, *words, *limit, *_where(options, name)]
    return _ran(runs)


def refine(snapshots: Mapping[str, Path], options: argparse.Namespace) -> bool:
    """Refines those of these generators that are to be; whether all went well."""
    runs = {}
    for name, snapshot in snapshots.items():
        if name in REFINED:
            words = [*REFINED[name].split(), *options.set_refined, "--start", str(snapshot)]
            runs[name] = [RECIPE, *words, *_where(options, f"{name}{_REFINED}")]
    return _ran(runs)


def latest(run_dir: Path) -> Path:
    """The latest snapshot of a run. Raises GanrtError."""
    snapshot = max(run_dir.glob("snapshot-*.safetensors"), default=None)
    if snapshot is None:
        raise GanrtError(f"{run_dir}: there is no snapshot yet", "Train for longer: the same command goes on.")
    return snapshot


def _where(options: argparse.Namespace, folder: str) -> list[str]:
    return ["--data", str(options.data), "--run-dir", str(options.out / folder), "--device", options.device]


def _ran(runs: Mapping[str, Sequence[str]]) -> bool:
    """Runs ``ganrt train`` with all these words at once; whether all went well."""
    running = {name: subprocess.Popen([sys.executable, "-m", "ganrt", "train", *words]) for name, words in runs.items()}
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
    snapshot = latest(options.out / (f"{name}{_REFINED}" if name in REFINED else name))
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
