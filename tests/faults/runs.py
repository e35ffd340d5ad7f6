"""The two commands that write datasets, with models slow enough to have something happen in the middle."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ganrt
from tests import datasets, pictures
from tests.datasets import LAYOUTS

N, SHARD = 480, 16  # of latents: 30 shards of a dozen milliseconds
PICTURES = 64  # 8 shards of two batches
KINDS = ("generate", "translate")


@dataclass(frozen=True)
class Runs:
    """Runs of one command: ``make`` in this process, ``command`` for another one."""

    kind: str
    model: Path
    images: Path

    def make(self, out: Path, layout: str, **options: Any) -> ganrt.Report:
        """A dataset, by two workers."""
        if self.kind == "translate":
            return pictures.translate(self.model, self.images, out, layout=layout, **options)
        sizes = {"shard_size": SHARD, "batch": SHARD}
        return datasets.make(self.model, out, N, **{"layout": layout, **sizes, **options})

    def command(self, out: Path, layout: str, *words: str) -> list[str]:
        """The command line that does the same."""
        words = ("--layout", layout, *words)
        if self.kind == "translate":
            return pictures.command(self.model, self.images, out, *words)
        return datasets.command(self.model, out, N, *words, shard_size=SHARD, batch=SHARD)

    @property
    def n(self) -> int:
        """How many images."""
        return N if self.kind == "generate" else PICTURES

    def repair(self, out: Path) -> list[ganrt.Damage]:
        """What ``verify --repair`` leaves."""
        images = self.images if self.kind == "translate" else None
        return ganrt.verify(out, repair=True, model=self.model, images=images, device="cpu")


def prepared(kind: str, folder: Path) -> Runs:
    """A model in a folder, and images for it where it takes some."""
    if kind == "generate":
        return Runs(kind, datasets.slow_model_file(folder), folder)
    pictures.two_classes(folder / "in", PICTURES)
    return Runs(kind, pictures.slow_translator_file(folder, 1500), folder / "in")


def few_fast(values: Iterable[Any], fast: int = 1) -> list[Any]:
    """Values of a parameter, of which all but the first few are for ``make faults``."""
    return [
        pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=[pytest.mark.faults] if k >= fast else [])
        for k, v in enumerate(values)
    ]


every_kind_and_layout = pytest.mark.parametrize(("kind", "layout"), few_fast((k, x) for x in LAYOUTS for k in KINDS))


def once(do: Callable[[], object]) -> Callable[[ganrt.Progress], None]:
    """A progress callback that does something when a part of the images is made."""
    state: list[bool] = []

    def progress(told: ganrt.Progress) -> None:
        if told.made and not state:
            state.append(True)
            do()

    return progress


def bound_by_permissions() -> None:
    """For a child of root: gives up the right to pass over permissions (capabilities(7): CAP_DAC_*)."""
    if os.geteuid() == 0:
        prctl, drop = _prctl(), 24  # PR_CAPBSET_DROP
        for capability in (1, 2):
            if prctl(drop, capability, 0, 0, 0):
                os._exit(77)


@cache
def _prctl() -> Callable[..., int]:
    assert sys.platform.startswith("linux")
    found: Callable[..., int] = ctypes.CDLL(None).prctl
    return found


def furnish(here: Path) -> None:
    """Puts generators of each kind, images and a dataset into a folder."""
    (here / "models").mkdir()
    datasets.model_file(here / "models", psi=True, num_ws=4, w_dim=6)
    pictures.translator_file(here / "models", "pix")
    pictures.translator_file(here / "models", "up", scale=2, dynamic=True)
    pictures.folder_of(here / "photos", ["a/0.png", "a/1.png", "b/2.png"])
    ganrt.generate(here / "models/tiny.onnx", n=3, out=here / "data", device="cpu")
