"""Datasets of ganrt's kind from anyone: their ledgers fit their files, and their images are not what ganrt writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ganrt
from ganrt.files import digest
from ganrt.parts import sealed
from tests.datasets import image_files, make, model_file
from tests.faults.confined import Confined, confined
from tests.faults.conftest import Tally
from tests.faults.hostile_data import png
from tests.faults.hostile_images import NOISE, PIXELS, png_of, saved, scans
from tests.faults.reading import look_at, translate
from tests.faults.test_hostile_data import told
from tests.pictures import translator_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

SMALL = NOISE.resize((8, 8))
OTHER: dict[str, Callable[[], bytes]] = {
    "another size": lambda: png((5, 9)),
    "transparent": lambda: saved(SMALL.convert("RGBA")),
    "palette": lambda: saved(SMALL.quantize(4)),
    "one bit": lambda: saved(SMALL.convert("1")),
    "grey and alpha": lambda: saved(SMALL.convert("LA")),
    "16 bits": lambda: saved(Image.fromarray(np.zeros((8, 8), np.uint16))),
    "CMYK": lambda: saved(SMALL.convert("CMYK"), "JPEG"),
    "a program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
    "100 million pixels": lambda: saved(Image.new("1", (10_000, 10_000))),
    "a bomb": lambda: png_of(60_000, 60_000, PIXELS),
    "many scans": lambda: scans(100_000),
    "text": lambda: b"hello",
    "nothing": lambda: b"",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Confined]:
    """With a program for PostScript that leaves a trace, should Pillow start it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\ntouch '{tmp_path}/canary'\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with confined("tests.faults.reading", "onnxruntime", "ganrt.grid") as process:
        yield process


@pytest.mark.faults
def test_images_that_were_not_written_here_are_named(run: Confined, tally: Tally, tmp_path: Path) -> None:
    model, translator = model_file(tmp_path), translator_file(tmp_path, "other", dynamic=True)
    root = tmp_path / "dataset"
    make(model, root, 8, shard_size=32)
    image, ledger = sorted(image_files(root))[0], root / "ganrt.ledger"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    for line in lines:
        line.pop("sum", None)
    [record] = [line for line in lines if "shard" in line]
    for kind, data in OTHER.items():
        image.write_bytes(data())
        record["sizes"][0], record["digests"][0] = image.stat().st_size, digest(image.read_bytes())
        ledger.write_bytes(b"".join(sealed(line) for line in lines))
        assert all(damage.name != image.name for damage in ganrt.verify(root))
        for outcome in (run(translate, translator, root, tmp_path / "out"), run(look_at, root, tmp_path / "x.png")):
            told(tally, "dataset with an image of another's", kind, outcome.complaint("cannot be read", str(root)))
        assert not (tmp_path / "canary").exists()


def test_folders_nested_deeply_in_a_dataset_are_extra(tmp_path: Path) -> None:
    root, here = tmp_path / "dataset", tmp_path / "dataset"
    make(model_file(tmp_path), root, 8, shard_size=32)
    for _ in range(60):
        here = here / "d"
    here.mkdir(parents=True)
    assert [damage.what for damage in ganrt.verify(root)] == ["extra: not of this dataset"]
