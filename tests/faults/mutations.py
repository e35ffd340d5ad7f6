"""Valid files of every kind that is read, changed at random where it hurts, and given to their readers.

A change is decided by the kind and a number, so that one that does harm can be made again:
``python -m tests.faults.mutations KIND NUMBER FILE`` writes it.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from ganrt.errors import GanrtError
from tests.faults import reading
from tests.faults.hostile_arrays import entry, idx_of, tar_of
from tests.faults.hostile_checkpoints import torch_bytes
from tests.faults.hostile_data import png, stored, zip_of
from tests.faults.hostile_images import NOISE, chunk, saved
from tests.training.test_read_cifar import python2
from tests.training.tiny import quick_recipe

Change = Callable[[bytes, random.Random], bytes]
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
SLOW = 2.0  # seconds for one file of some kilobytes


def anywhere(data: bytes, draws: random.Random) -> bytes:
    """One to four changes: bits, bytes, numbers, pieces cut, doubled or moved."""
    made = bytearray(data)
    for _ in range(draws.randint(1, 4)):
        at, kind = draws.randrange(len(made) + 1), draws.randrange(7)
        size = draws.choice((1, 2, 4, 8, 16, 64, 256))
        if kind == 0 and at < len(made):
            made[at] ^= 1 << draws.randrange(8)
        elif kind == 1 and at < len(made):
            made[at] = draws.choice(_INTERESTING)
        elif kind == 2:
            value = draws.choice(
                (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)
            )
            width = draws.choice((2, 4, 8))
            made[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, draws.choice(("little", "big")))
        elif kind == 3:
            del made[at : at + size]
        elif kind == 4:
            made[at:at] = made[at : at + size]
        elif kind == 5:
            other = draws.randrange(len(made) + 1)
            made[at : at + size] = made[other : other + size]
        elif draws.randrange(4) == 0:
            del made[at:]
    return bytes(made)


def start(count: int) -> Change:
    """Within the first bytes, where the structure is."""
    return lambda data, draws: anywhere(data[:count], draws) + data[count:]


def in_zip(change: Change = anywhere) -> Change:
    """One member, packed again with its right sum; or the archive itself."""

    def changed(data: bytes, draws: random.Random) -> bytes:
        if draws.randrange(4) == 0:
            return anywhere(data, draws)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        one = draws.choice(list(members))
        members[one] = change(members[one], draws)
        return zip_of(*(stored(name.encode(), member) for name, member in members.items()))

    return changed


def in_gzip(data: bytes, draws: random.Random) -> bytes:
    return gzip.compress(anywhere(gzip.decompress(data), draws), 1) if draws.randrange(3) else anywhere(data, draws)


def in_chunks(data: bytes, draws: random.Random) -> bytes:
    """Of a PNG, with right sums."""
    at, chunks = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    number = draws.randrange(len(chunks))
    kind, body = chunks[number]
    if kind == b"IDAT" and draws.randrange(2):
        body = zlib.compress(anywhere(zlib.decompress(body), draws))
    chunks[number] = (kind if draws.randrange(8) else draws.choice((b"tRNS", b"PLTE", b"iCCP", b"eXIf", b"acTL")),
                      anywhere(body, draws))  # fmt: skip
    if draws.randrange(4) == 0:
        chunks.insert(draws.randrange(len(chunks)), draws.choice(chunks))
    return data[:8] + b"".join(chunk(*one) for one in chunks)


def _npz() -> bytes:
    buffer = io.BytesIO()
    names = np.array(["a", "b"])
    np.savez(buffer, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 1]), class_names=names)
    return buffer.getvalue()


def _snapshot() -> bytes:
    recipe = quick_recipe("mlp_28")
    generator, _ = recipe.build(recipe, 1, 1)
    about = {"channels": 1, "class_names": ["a"], "kimg": 1.0, "recipe": recipe.settings()}
    return safetensors.torch.save(generator.state_dict(), {"run": json.dumps(about)})


def _stream() -> bytes:
    return torch_bytes(WEIGHTS, _use_new_zipfile_serialization=False)


def _zip() -> bytes:
    return zip_of(stored(b"a/x.png", png()), stored(b"b/y.png", png()))


def _idx_gz() -> bytes:
    return gzip.compress(idx_of(2, 8, 8) + bytes(128))


def _cifar() -> bytes:
    batch = python2({b"labels": [1], b"data": np.zeros((1, 3072), np.uint8)})
    files = {f"data_batch_{k}": batch for k in range(1, 6)} | {"batches.meta": python2({b"label_names": [b"a", b"b"]})}
    return tar_of(*(entry(f"cifar/{name}", data) for name, data in files.items()))


def _keras(name: str) -> bytes:
    import tempfile

    from tests.faults.hostile_keras import archive, h5

    with tempfile.TemporaryDirectory() as folder:
        path: Path = (h5 if name == "g.h5" else archive)()(Path(folder))
        return path.read_bytes()


def _image(name: str, data: Callable[[], bytes], change: Change = anywhere) -> tuple[Any, ...]:
    return name, data, change, reading.train_on


WEIGHTS: dict[str, Any] = {
    "epoch": 3,
    "net": {"w": torch.zeros(2, 2)},
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
}
# kind → the name of its file, a valid one, how it is changed, its reader
KINDS: dict[str, tuple[Any, ...]] = {
    "safetensors": ("x.safetensors", lambda: safetensors.torch.save(WEIGHTS["net"]), anywhere, reading.weights),
    "snapshot": ("x.safetensors", _snapshot, start(2000), reading.snapshot),
    "torch zip": ("x.pth", lambda: torch_bytes(WEIGHTS), in_zip(), reading.weights),
    "checkpoint": ("x.pt", lambda: torch_bytes(WEIGHTS), in_zip(), reading.checkpoint),
    "torch stream": ("x.pth", _stream, anywhere, reading.weights),
    "h5": ("g.h5", lambda: _keras("g.h5"), anywhere, reading.keras_file),
    "keras": ("g.keras", lambda: _keras("g.keras"), in_zip(), reading.keras_file),
    "npz": ("x.npz", _npz, in_zip(start(140)), reading.train_on),
    "zip": ("x.zip", _zip, in_zip(in_chunks), reading.train_on),
    "tar": ("x.tar", _cifar, start(5000), reading.train_on),
    "tar.gz": ("x.tar.gz", lambda: gzip.compress(_cifar(), 1), in_gzip, reading.train_on),
    "IDX": ("train-images-idx3-ubyte", lambda: idx_of(2, 8, 8) + bytes(128), start(24), reading.train_on),
    "IDX.gz": ("train-images-idx3-ubyte.gz", _idx_gz, in_gzip, reading.train_on),
    "PNG": _image("x.png", lambda: saved(NOISE.convert("RGBA").resize((16, 16))), in_chunks),
    "palette PNG": _image("x.png", lambda: saved(NOISE.quantize(16), transparency=bytes(16)), in_chunks),
    "JPEG": _image("x.jpg", lambda: saved(NOISE.resize((16, 16)), "JPEG")),
    "GIF": _image("x.gif", lambda: saved(NOISE.quantize(16), "GIF", save_all=True, append_images=[NOISE])),
    "WebP": _image("x.webp", lambda: saved(NOISE.resize((16, 16)), "WEBP")),
    "TIFF": _image("x.tif", lambda: saved(NOISE.resize((16, 16)), "TIFF", compression="tiff_lzw")),
    "BMP": _image("x.bmp", lambda: saved(NOISE.resize((16, 16)), "BMP"), start(60)),
}  # fmt: skip


def changed(kind: str, number: int) -> bytes:
    """The file of that kind and number."""
    _, valid, change, _ = KINDS[kind]
    data: bytes = change(valid(), random.Random(f"{kind} {number}"))
    return data


def given(kind: str, data: bytes, folder: Path) -> Path:
    """A file as its reader wants it: images and IDX files lie in a folder."""
    name, *_ = KINDS[kind]
    inside = (
        folder
        if name.startswith("x.") and not name.endswith(("png", "jpg", "gif", "webp", "tif", "bmp"))
        else folder / "in"
    )
    inside.mkdir(exist_ok=True)
    (inside / name).write_bytes(data)
    if name.startswith("train-"):
        (inside / "train-labels-idx1-ubyte").write_bytes(idx_of(2) + bytes(2))
    return inside if name.startswith("train-") or (inside != folder and not name.startswith("g.")) else inside / name


def attack(kind: str, folder: Path, first: int, seconds: float) -> str:
    """Reads as many as there is time for; returns how many, or raises RuntimeError that says which did harm."""
    _, valid, change, read = KINDS[kind]
    good, number, ends = valid(), first, time.monotonic() + seconds
    read(given(kind, good, folder))
    while time.monotonic() < ends:
        (folder / "number").write_text(f"{number}")  # should it never end
        path = given(kind, change(good, random.Random(f"{kind} {number}")), folder)
        began = time.process_time()
        try:
            read(path)
        except GanrtError as error:
            if path.name not in str(error) and not str(error).startswith(("the run", "recipe", "no image", "none of")):
                raise RuntimeError(f"{kind} {number}: names no file: {error}") from error
        except Exception as error:
            raise RuntimeError(f"{kind} {number}: {traceback.format_exc()[-1500:]}") from error
        if (took := time.process_time() - began) > SLOW:
            raise RuntimeError(f"{kind} {number}: took {took:.1f} s")
        number += 1
    return str(number - first)


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(changed(sys.argv[1], int(sys.argv[2])))
