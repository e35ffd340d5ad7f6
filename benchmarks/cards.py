"""``python -m benchmarks.cards``: exported/README.md, made from the cards of the generators that are shipped.

    python -m benchmarks.cards              writes it, and a picture of each generator into docs/images
    python -m benchmarks.cards --check      says whether it is what the cards make
    python -m benchmarks.cards --speed      measures all of them in turn, into exported/speed.json, and writes it

What a card cannot say, how to make the generator from nothing, stands in exported/NAME.md; feature networks are
described in exported/features/NAME.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

import ganrt
from benchmarks.cards_page import Shipped, page
from benchmarks.macs import macs, parameters
from benchmarks.rounds import Timed, in_turn, machine
from ganrt.card import LATENTS
from ganrt.contract import read_model
from ganrt.encode import Pixels
from ganrt.errors import GanrtError
from ganrt.grid import preview, write_picture
from ganrt.shards import DEFAULT_BATCH

ROOT = Path(__file__).resolve().parent.parent
EXPORTED, IMAGES = ROOT / "exported", ROOT / "docs" / "images"
_WIDE = 602  # pixels of a picture, at most
_GAP = 2  # between images in it
_ROWS = 10


@dataclass(frozen=True)
class Places:
    """Where the generators lie, README.md and speed.json beside them, and where their pictures do."""

    exported: Path = EXPORTED
    images: Path = IMAGES

    @property
    def readme(self) -> Path:
        return self.exported / "README.md"

    @property
    def speed(self) -> Path:
        return self.exported / "speed.json"


def main(words: list[str] | None = None) -> int:
    """The exit code: 0, or 1 where ``--check`` finds another page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cards", description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="say whether README.md is what the cards make")
    what.add_argument("--speed", action="store_true", help="measure all generators side by side first")
    parser.add_argument("--rounds", type=int, default=7, help="with --speed")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a generator and round")
    parser.add_argument("--exported", type=Path, default=EXPORTED, help="the folder of generators")
    parser.add_argument("--images", type=Path, default=IMAGES, help="the folder of their pictures")
    options = parser.parse_args(words)
    places = Places(options.exported, options.images)
    try:
        if options.check:
            return check(places)
        if options.speed:
            places.speed.write_text(json.dumps(measured(places, options.rounds, options.seconds), indent=1) + "\n")
        draw(places)
        places.readme.write_text(made(places), encoding="utf-8")
    except GanrtError as error:
        print(f"cards: {error}", file=sys.stderr)
        return 1
    print(f"cards: {places.readme} is written")
    return 0


def check(places: Places) -> int:
    """Whether the page is what the cards make, and every generator has its picture."""
    found = places.readme.read_text(encoding="utf-8") if places.readme.is_file() else ""
    problems = [] if found == made(places) else [f"{places.readme.name} is not what the cards make"]
    problems += [f"{path.stem} has no picture" for path in models(places) if not picture_of(places, path).is_file()]
    for problem in problems:
        print(f"cards: {problem}; write it: python -m benchmarks.cards", file=sys.stderr)
    return 1 if problems else 0


def made(places: Places) -> str:
    """The text of the page."""
    told = json.loads(places.speed.read_text()) if places.speed.is_file() else {}
    networks = [path.read_text(encoding="utf-8") for path in sorted((places.exported / "features").glob("*.md"))]
    return page([_shipped(path, told) for path in models(places)], told, networks)


def models(places: Places) -> list[Path]:
    """The generators' files, by name."""
    return sorted(places.exported.glob("*.onnx"))


def picture_of(places: Places, path: Path) -> Path:
    return places.images / f"{path.stem}.png"


def _shipped(path: Path, told: dict[str, Any]) -> Shipped:
    card = read_model(path).card
    rate = told.get("generators", {}).get(path.stem, {})
    by_hand = path.with_suffix(".md")
    return Shipped(
        path.stem,
        card,
        path.stat().st_size,
        parameters(onnx.load(path)),
        macs(path, card),
        rate if rate.get("sha256") == _digest(path) else None,  # of another file, it says nothing of this one
        by_hand.read_text(encoding="utf-8") if by_hand.is_file() else "",
    )


def measured(places: Places, rounds: int, seconds: float) -> dict[str, Any]:
    """Images/s of ``Generator.stream`` of every generator, in turn, so that they can be compared."""
    loaded = {path.stem: ganrt.load(path, "cpu") for path in models(places) if read_model(path).card.kind == LATENTS}
    with tempfile.TemporaryDirectory() as folder:
        timed = [Timed(name, partial(_streamed, one), Path(folder) / "none") for name, one in loaded.items()]
        in_turn(timed, rounds, seconds)
    return {
        "what": "images/s of Generator.stream: uint8 pixels in memory, classes in turn, nothing encoded or written",
        "protocol": {"device": "cpu", "processes": 1, "batch": DEFAULT_BATCH, "rounds": rounds, "seconds": seconds},
        "machine": {name: value for name, value in machine().items() if name != "system"},
        "generators": {
            one.name: {
                "images_per_second": round(one.median, 1),
                "spread": round(one.spread, 3),
                "sha256": _digest(places.exported / f"{one.name}.onnx"),
            }
            for one in timed
        },
    }


def _streamed(generator: ganrt.Generator, n: int, _: Path) -> None:
    for _batch in generator.stream(n):
        pass


def draw(places: Places) -> None:
    """A picture of each generator, written where it is not there or shows something else."""
    for path in models(places):
        card = read_model(path).card
        if card.kind != LATENTS:
            continue  # what it makes depends on what it is given: its pictures are drawn by hand
        cols = max(4, min(20, _WIDE // (card.width + _GAP)))
        drawn = preview(ganrt.load(path, "cpu"), rows=min(_ROWS, len(card.class_names) or _ROWS), cols=cols, seed=0)
        if not _shows(picture_of(places, path), drawn):
            write_picture(picture_of(places, path), drawn)


def _shows(path: Path, drawn: Pixels) -> bool:
    """Whether the file shows these pixels: one grey level apart, as on another machine, is the same picture."""
    if not path.is_file():
        return False
    with Image.open(path) as image:
        there = np.asarray(image).reshape(image.height, image.width, -1)
    return there.shape == drawn.shape and int(abs(there.astype(int) - drawn).max()) <= 1


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
