"""``ganrt evaluate``: how good generated images are, beside real ones (needs the extra ``evaluate``)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ganrt.console import PathOption, before_running, shown, stoppable
from ganrt.errors import MissingExtra
from ganrt.files import writable_folder

_INTERVAL = 10.0  # seconds


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="MODEL|DATASET|RUN_DIR", help="A generator's name or path, a dataset, a run.")
    ],
    real: Annotated[
        Path, PathOption(help="Real images, as `ganrt train` reads them; a test split is used where it is.")
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="With commas or given again: frechet, kernel, inception-score, manifold, fidelity, cas, neighbours, "
            "duplicates, sliced-wasserstein. [all that apply]"
        ),
    ] = None,
    features: Annotated[
        str, typer.Option(help="The network that sees features: auto, trained, a name or PATH.onnx, or inception-v3.")
    ] = "auto",
    weights: Annotated[Path | None, PathOption(help="The weights of inception-v3.")] = None,
    n: Annotated[int, typer.Option("--n", help="How many generated images.")] = 10_000,
    cas_n: Annotated[int | None, typer.Option(help="Images to train on for the accuracy score. [as --n]")] = None,
    seed: Annotated[int, typer.Option(help="Of the samples, and of all that is drawn.")] = 0,
    psi: Annotated[float | None, typer.Option(help="Truncation, 0 to 1 (1: none), where the generator has it.")] = None,
    latent_std: Annotated[float | None, typer.Option(help="Deviation of the latents. [1.0]")] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Of a generator, only images whose class a classifier is so sure of, 0 to 1.")
    ] = None,
    keep: Annotated[
        Path | None, PathOption(help="A folder that keeps the classifiers trained on real images for the next time.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="l (grey) or rgb, for both; as they are unless given.")] = None,
    background: Annotated[
        str, typer.Option(help="The colour behind transparent real images, a name or #rrggbb.")
    ] = "white",
    on_corrupt: Annotated[
        str, typer.Option(help="stop, or skip real images that cannot be read and name them.")
    ] = "stop",
    out: Annotated[Path | None, PathOption(help="A folder for report.html and evaluation.json.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="On a CPU; they decide the last digits. [all processors]")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
    ] = False,
) -> None:
    """Say how good generated images are: figures, each beside the same for real images (needs the extra evaluate)."""
    need_evaluation()
    from ganrt_training.evaluation import evaluate as run
    from ganrt_training.evaluation.report import write_evaluation
    from ganrt_training.evaluation.verdict import table

    before_running(device, quiet)
    if out is not None:
        writable_folder(out)
    show = _Progress()
    with stoppable(goes_on=False) as cancel:
        found = run(
            source,
            real,
            metrics=None if metrics is None else [name.strip() for text in metrics for name in text.split(",")],
            features=features,
            weights=weights,
            n=n,
            cas_n=cas_n,
            seed=seed,
            psi=psi,
            latent_std=latent_std,
            confidence=confidence,
            keep=keep,
            mode=mode,
            background=background,
            on_corrupt=on_corrupt,
            device=device,
            threads=threads,
            progress=None if quiet else show,
            cancel=cancel,
        )
    if as_json:
        print(json.dumps(found.to_json(), allow_nan=False), flush=True)
    else:
        print(shown("\n".join([table(found), *(f"warning: {text}" for text in found.warnings)])), flush=True)
    if out is not None:  # what took minutes is told already, should this fail
        page = write_evaluation(found, out)
        if not as_json:
            print(shown(f"report: {page}"))


class _Progress:
    """A line for each thing that is done, when it begins, and every few seconds how far it is."""

    def __init__(self) -> None:
        self._last, self._next = "", 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._last or now >= self._next:
            print(shown(f"{what}: {done:,}/{total:,}" if done else what), file=sys.stderr, flush=True)
            self._last, self._next = what, now + _INTERVAL


def need_evaluation() -> None:
    """Raises MissingExtra unless the packages of the extra ``evaluate`` are installed."""
    from ganrt.training_commands import need_training

    need_training()
    try:
        import sklearn  # noqa: F401
        import torchmetrics  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"evaluating needs the package {error.name or error}", "Install the extra: pip install 'ganrt[evaluate]'"
        ) from None
