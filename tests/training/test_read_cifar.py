"""CIFAR-10 and CIFAR-100, through read_images."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from ganrt.errors import TrainingError
from ganrt_training.data import read_images

Pack = Callable[[Path], Path]
NAMES = tuple(f"class {i}" for i in range(10))
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def refused(path: Path, *, says: str, **options: Any) -> TrainingError:
    with pytest.raises(TrainingError) as raised:
        read_images(path, 32, **options)
    assert says in raised.value.message
    assert raised.value.hint
    return raised.value


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[N, 32, 32, 3] as CIFAR's rows of red, green and blue."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


# Six files of ten images, or two. Image i of the whole has label i * 7 % 10.


class Python2(pickle._Pickler):
    """Writes what Python 2 and its numpy wrote: texts are bytes, and so are arrays' contents."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)
    write: Callable[[bytes], object]
    memoize: Callable[[object], None]

    def text(self, text: bytes) -> None:
        size = len(text)
        self.write(b"U" + bytes([size]) if size < 256 else b"T" + size.to_bytes(4, "little"))
        self.write(text)
        self.memoize(text)

    def name(self, called: Any) -> None:
        self.write(f"c{called.__module__.replace('_core', 'core')}\n{called.__name__}\n".encode())
        self.memoize(called)

    dispatch[bytes] = text
    dispatch[type] = name
    dispatch[type(np.zeros)] = name
    dispatch[type(pickle.dumps)] = name


def python2(value: object) -> bytes:
    file = io.BytesIO()
    Python2(file, 2).dump(value)
    return file.getvalue()


def python3(value: object) -> bytes:
    return pickle.dumps(value, protocol=4)


IMAGES, TEN = pixels(60, 32, 32, 3), np.arange(60) * 7 % 10


def cifar10_binary(root: Path) -> None:
    for i, name in enumerate(BATCHES):
        part = slice(10 * i, 10 * i + 10)
        records = np.hstack([TEN[part, None].astype(np.uint8), planes(IMAGES[part])])
        (root / f"{name}.bin").write_bytes(records.tobytes())
    (root / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")


def cifar10_python(root: Path, dump: Callable[[dict[bytes, Any]], bytes] = python2) -> None:
    for i, name in enumerate(BATCHES):
        part = slice(10 * i, 10 * i + 10)
        values = {
            b"batch_label": b"batch",
            b"labels": TEN[part].tolist(),
            b"data": planes(IMAGES[part]),
            b"filenames": [b"x.png"] * 10,
        }
        (root / name).write_bytes(dump(values))
    meta = {b"num_cases_per_batch": 10000, b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072}
    (root / "batches.meta").write_bytes(dump(meta))


def cifar10_again(root: Path) -> None:
    cifar10_python(root, python3)


def cifar10_fortran(root: Path) -> None:
    def dump(value: dict[bytes, Any]) -> bytes:
        return python2({key: np.asfortranarray(v) if key == b"data" else v for key, v in value.items()})

    cifar10_python(root, dump)


def cifar100_binary(root: Path) -> None:
    for name, part in (("train", slice(0, 50)), ("test", slice(50, 60))):
        fine = TEN[part, None].astype(np.uint8)
        (root / f"{name}.bin").write_bytes(np.hstack([fine // 5, fine, planes(IMAGES[part])]).tobytes())
    (root / "fine_label_names.txt").write_text("\n".join(NAMES))
    (root / "coarse_label_names.txt").write_text("low\nhigh\n")


def cifar100_python(root: Path) -> None:
    for name, part in (("train", slice(0, 50)), ("test", slice(50, 60))):
        fine = TEN[part].tolist()
        values = {b"fine_labels": fine, b"coarse_labels": [y // 5 for y in fine], b"data": planes(IMAGES[part])}
        (root / name).write_bytes(python2(values))
    meta = {b"fine_label_names": [name.encode() for name in NAMES], b"coarse_label_names": [b"low", b"high"]}
    (root / "meta").write_bytes(python2(meta))


def tarred(root: Path, mode: str = "w:gz") -> Path:
    path = root.with_name("cifar.tar.gz")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.add(root, "cifar-10-batches")
    return path


KINDS = [cifar10_binary, cifar10_python, cifar10_again, cifar10_fortran, cifar100_binary, cifar100_python]
PACKS: dict[str, Pack] = {"folder": lambda root: root, "tar.gz": tarred, "tar": lambda root: tarred(root, "w")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cifar").mkdir()
    return tmp_path / "cifar"


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())
@pytest.mark.parametrize("write", KINDS)
def test_cifar_is_read_in_both_versions(root: Path, write: Callable[[Path], None], pack: Pack) -> None:
    write(root)
    path = pack(root)
    for split, part in (("train", slice(0, 50)), ("test", slice(50, 60))):
        data = read_images(path, 32, split=split)
        np.testing.assert_array_equal(data.images, IMAGES[part])
        np.testing.assert_array_equal(data.labels, TEN[part])
        assert (data.class_names, str(data.labels.dtype)) == (NAMES, "int64")


def test_cifar_is_brought_to_size_and_mode(root: Path) -> None:
    cifar10_binary(root)
    assert read_images(root, 16, mode="l").images.shape == (50, 16, 16, 1)


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("data_batch_3.bin", None, "lacks data_batch_3.bin"),
        ("batches.meta.txt", None, "lacks batches.meta.txt"),
        ("batches.meta.txt", b"\n", "batches.meta.txt: no class names"),
        ("batches.meta.txt", b"one\ntwo\n", "label 9, of 2 classes"),
        ("batches.meta.txt", b"one\n" * 10, "two classes are called 'one'"),
        ("data_batch_1.bin", bytes(3072), "data_batch_1.bin: 3,072 bytes are no whole number of records of 3073"),
        ("data_batch_1.bin", b"", "data_batch_1.bin: 0 bytes"),
    ],
)
def test_what_is_wrong_with_a_binary_archive_is_told(root: Path, file: str, data: bytes | None, message: str) -> None:
    cifar10_binary(root)
    if data is None:
        (root / file).unlink()
    else:
        (root / file).write_bytes(data)
    refused(root, says=message)
    refused(tarred(root), says=message)


ROW = np.zeros((1, 3072), np.uint8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds a list, not a dict"),
        ({b"labels": [1]}, "no data of shape [N, 3072]"),
        ({b"labels": [1], b"data": np.zeros((1, 3073), np.uint8)}, "no data of shape [N, 3072]"),
        ({b"labels": [1], b"data": bytes(3072)}, "no data of shape [N, 3072]"),
        ({b"labels": [1, 2], b"data": ROW}, "1 images with 2 labels"),
        ({b"labels": [-1], b"data": ROW}, "no list of labels under 'labels'"),
        ({b"labels": [b"1"], b"data": ROW}, "no list of labels under 'labels'"),
        ({b"fine_labels": [1], b"data": ROW}, "no list of labels under 'labels'"),
        ({b"labels": [10], b"data": ROW}, "label 10, of 10 classes"),
    ],
)
def test_what_is_wrong_with_a_pickled_batch_is_told(root: Path, value: object, message: str) -> None:
    cifar10_python(root)
    (root / "data_batch_2").write_bytes(python2(value))
    refused(root, says=message)


def test_links_devices_and_names_that_lead_out_of_a_tar_do_nothing(root: Path) -> None:
    cifar10_binary(root)
    (root.parent / "secret").write_bytes((root / "data_batch_5.bin").read_bytes())
    path = root.with_name("x.tar")
    with tarfile.open(path, "w") as tar:
        for name in sorted(os.listdir(root)):
            if name == "data_batch_5.bin":
                for kind, target in ((tarfile.SYMTYPE, "../secret"), (tarfile.LNKTYPE, "../data_batch_4.bin")):
                    link = tarfile.TarInfo(f"c/{name}")
                    link.type, link.linkname = kind, target
                    tar.addfile(link)
                device = tarfile.TarInfo(f"c/{name}")
                device.type = tarfile.CHRTYPE
                tar.addfile(device)
            else:
                tar.add(root / name, f"../../{name}")
    before = sorted(root.parent.rglob("*"))
    refused(path, says="lacks data_batch_5.bin")
    assert sorted(root.parent.rglob("*")) == before


def test_a_tar_bomb_is_refused_before_it_is_unpacked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promised = tarfile.TarInfo("data_batch_1.bin")
    promised.size = (1 << 28) + 1
    (root / "a.tar").write_bytes(promised.tobuf() + bytes(1 << 20))
    refused(root / "a.tar", says="data_batch_1.bin has 268,435,457 bytes")
    monkeypatch.setattr("ganrt_training.readers.cifar._MAX_UNPACKED", 1 << 20)
    promised = tarfile.TarInfo("filler")
    promised.size = 4 << 20
    (root / "b.tar.gz").write_bytes(gzip.compress(promised.tobuf() + bytes(4 << 20), 1))
    refused(root / "b.tar.gz", says="unpacks to more than 1 MiB")


def test_other_archives_are_told_as_such(root: Path) -> None:
    (root / "x.gz").write_bytes(gzip.compress(b"text" * 1000))
    refused(root / "x.gz", says="no tar archive that can be read")
    (root / "in").mkdir()
    (root / "in" / "a.png").touch()
    refused(tarred(root / "in"), says="a tar without the files of CIFAR-10 or CIFAR-100")
    cifar10_binary(root / "in")
    path = tarred(root / "in")
    path.write_bytes(path.read_bytes()[:-2000])
    refused(path, says="read")
    shutil.copy(root / "in" / "data_batch_1.bin", root / "in" / "sub.bin")
    with tarfile.open(root / "twice.tar", "w") as tar:
        for folder in ("a", "b"):
            tar.add(root / "in" / "data_batch_1.bin", f"{folder}/data_batch_1.bin")
    refused(root / "twice.tar", says="holds data_batch_1.bin twice")
