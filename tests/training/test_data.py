from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ganrt.errors import TrainingError
from ganrt_training.data import (
    FASHION_CLASSES,
    ImageData,
    balanced_order,
    digest,
    epoch_order,
    read_idx,
    read_images,
    read_mnist_family,
)

Write = Callable[[bytes], Path]


def idx(array: NDArray[np.uint8], shape: tuple[int, ...] | None = None) -> bytes:
    shape = array.shape if shape is None else shape
    return b"\x00\x00\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(data: bytes) -> Path:
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_idx_file_gives_its_array_gzipped_or_not(
    write: Write, shape: tuple[int, ...], pack: Callable[[bytes], bytes]
) -> None:
    array = pixels(*shape)
    np.testing.assert_array_equal(read_idx(write(pack(idx(array)))), array)


GOOD = idx(pixels(3, 4, 5))


BROKEN = {
    "empty": (b"", "ends early: 4 bytes promised, 0 there"),
    "cut header": (GOOD[:10], "ends early: 12 bytes promised, 6 there"),
    "cut data": (GOOD[:-1], "promises 60 bytes of data and holds 59"),
    "too much data": (GOOD + b"\0", "promises 60 bytes of data and holds more"),
    "floats": (b"\x00\x00\x0d" + GOOD[3:], "starts with 00000d03, not with 000008"),
    "a png": (b"\x89PNG" + GOOD[4:], "starts with 89504e47, not with 000008"),
    "no dimensions": (b"\x00\x00\x08\x00", "starts with 00000800"),
    "nine dimensions": (b"\x00\x00\x08\x09" + bytes(36), "starts with 00000809"),
    "nothing promised": (idx(pixels(0), (0, 28, 28)), "promises shape [0, 28, 28]"),
    "too much promised": (idx(pixels(1), (0xFFFFFFFF,) * 3), "promises shape [4294967295, 4294967295, 4294967295]"),
    "cut gzip": (gzip.compress(GOOD)[:-12], "cannot be read"),
    "broken gzip": (gzip.compress(GOOD)[:20] + bytes(20), "cannot be read"),
    "gzip with a wrong sum": (gzip.compress(GOOD)[:-8] + bytes(8), "cannot be read: CRC check failed"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_idx_file_is_named_with_what_is_wrong(write: Write, data: bytes, message: str) -> None:
    path = write(data)
    with pytest.raises(TrainingError) as raised:
        read_idx(path)
    assert raised.value.message.startswith(f"{path}: ")
    assert message in raised.value.message
    assert "Expected an IDX file of unsigned bytes" in str(raised.value)


def test_no_file_and_a_folder_are_told_as_such(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(TrainingError, match=f"cannot be read: .*{reason}"):
            read_idx(path)


@pytest.mark.parametrize("promised", [(4,), (0xFFFFFFFF,), (60_000, 28, 28)])
def test_memory_is_bounded_by_the_smaller_of_promise_and_content(write: Write, promised: tuple[int, ...]) -> None:
    content = 40 << 20 if promised == (4,) else 1000
    path = write(gzip.compress(idx(np.zeros(content, np.uint8), promised), 1))
    tracemalloc.start()
    try:
        with pytest.raises(TrainingError, match="promises"):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def splits(folder: Path, arrays: Mapping[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]], pack: str = "") -> Path:
    """A folder of the family's files, from images and labels by prefix, ``train`` and ``t10k``."""
    folder.mkdir(exist_ok=True)
    for prefix, (images, labels) in arrays.items():
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            (folder / f"{prefix}-{kind}-ubyte{pack}").write_bytes(gzip.compress(data) if pack else data)
    return folder


def noise(folder: Path, **counts: int) -> Path:
    """The same of so many images a prefix, all noise, of ten classes in turn."""
    random = np.random.default_rng(0)
    return splits(
        folder,
        {
            prefix: (random.integers(0, 256, (count, 28, 28), np.uint8), (np.arange(count) % 10).astype(np.uint8))
            for prefix, count in counts.items()
        },
    )


def family(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8], pack: str = "") -> Path:
    return splits(folder, {"train": (images, labels), "t10k": (images, labels)}, pack)


@pytest.mark.parametrize("pack", ["", ".gz"])
def test_a_folder_of_the_family_gives_images_with_a_channel_and_their_labels(tmp_path: Path, pack: str) -> None:
    images, labels = pixels(5, 28, 28), np.array([3, 0, 9, 1, 1], np.uint8)
    for split in ("train", "test"):
        folder = tmp_path / f"{split}{pack}"
        data = read_mnist_family(family(folder, images, labels, pack), split)
        np.testing.assert_array_equal(data.images, images[..., None])
        np.testing.assert_array_equal(data.labels, labels)
        assert (len(data), str(data.labels.dtype), data.class_names[9]) == (5, "int64", "9")


def test_fashion_is_known_by_the_folders_name(tmp_path: Path) -> None:
    folder = family(tmp_path / "Fashion-MNIST", pixels(1, 28, 28), np.array([8], np.uint8))
    assert read_mnist_family(folder).class_names == FASHION_CLASSES
    assert FASHION_CLASSES[8] == "Bag"


def test_read_images_knows_a_folder_of_the_family_and_brings_it_to_size(tmp_path: Path) -> None:
    images, labels = pixels(70, 28, 28), np.arange(70, dtype=np.uint8) % 10
    folder = family(tmp_path / "fashion", images, labels, ".gz")
    calls: list[tuple[int, int]] = []
    data = read_images(folder, 32, split="test", progress=lambda *call: calls.append(call))
    wanted = [np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS)) for image in images]
    np.testing.assert_array_equal(data.images[..., 0], wanted)
    np.testing.assert_array_equal(data.labels, labels)
    assert (data.class_names, data.skipped, calls[-1]) == (FASHION_CLASSES, (), (70, 70))
    np.testing.assert_array_equal(read_images(folder, 28).images, images[..., None])
    assert read_images(folder, 28, mode="rgb").images.shape == (70, 28, 28, 3)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (pixels(5, 8, 8), np.zeros(4, np.uint8), r"images of shape \[5, 8, 8\] with labels of shape \[4\]"),
        (pixels(5, 8), np.zeros(5, np.uint8), r"images of shape \[5, 8\]"),
        (pixels(2, 8, 8), np.array([1, 10], np.uint8), "label 10\nExpected labels of 0 to 9"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(
    tmp_path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        read_mnist_family(family(tmp_path / "data", images, labels))


def test_a_folder_without_the_files_says_which_and_where_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no train-images-idx3-ubyte\[.gz\]\n.*dataset-fashion-mnist"):
        read_mnist_family(tmp_path)


def test_an_epochs_order_is_a_permutation_by_seed_and_epoch() -> None:
    orders = {(seed, epoch): epoch_order(100, epoch, seed).tolist() for seed in (0, 1) for epoch in (0, 1)}
    assert all(sorted(order) == list(range(100)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert epoch_order(100, 1, 1).tolist() == orders[1, 1]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.integers(0, 1 << 40),
    st.integers(0, 1000),
)
def test_a_balanced_epoch_shows_classes_in_turns_and_images_as_often_as_can_be(
    listed: list[int], seed: int, epoch: int
) -> None:
    labels = np.array(listed, np.int64)
    order = balanced_order(labels, epoch, seed)
    classes, counts = np.unique(labels, return_counts=True)
    assert len(order) == counts.max() * len(classes)
    np.testing.assert_array_equal(labels[order], np.resize(classes, len(order)))
    for label, count in zip(classes, counts, strict=True):
        shown = order[labels[order] == label]
        for start in range(0, len(shown), count):
            turn = shown[start : start + count]
            assert len(set(turn.tolist())) == len(turn)  # none again before all were shown
    np.testing.assert_array_equal(order, balanced_order(labels, epoch, seed))


def test_balanced_epochs_differ_by_seed_and_epoch_and_in_each_round_of_a_small_class() -> None:
    labels = np.array([0] * 40 + [1] * 20)
    orders = {tuple(balanced_order(labels, epoch, seed).tolist()) for epoch in (0, 1) for seed in (0, 1)}
    assert len(orders) == 4
    small = balanced_order(labels, 0, 0)[1::2]
    assert sorted(small[:20]) == sorted(small[20:]) == list(range(40, 60))
    assert small[:20].tolist() != small[20:].tolist()


def test_a_digest_is_of_shape_pixels_labels_and_names_alone() -> None:
    images, labels = pixels(1500, 2, 4, 1), np.arange(1500) % 2
    data = ImageData(images, labels, ("a", "b"))
    changed = images.copy()
    changed[-1, -1, -1] ^= 1
    others = (
        ImageData(changed, labels, ("a", "b")),
        ImageData(images.reshape(1500, 4, 2, 1), labels, ("a", "b")),
        ImageData(images, labels[::-1], ("a", "b")),
        ImageData(images, labels, ("ab", "")),
        ImageData(images[:-1], labels[:-1], ("a", "b")),
    )
    assert len({digest(data), *map(digest, others)}) == 6
    assert digest(ImageData(np.asfortranarray(images), labels.copy(), ("a", "b"), ("c.png: broken",))) == digest(data)
    # The same on every machine and in every version: runs are resumed by it.
    few = ImageData(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), np.array([0]), ("ä",))
    assert digest(few) == "sha256:362d2668754c1eae3caeefef2856bdfd918d4ec4c2434bf30668579ca1c863a4"
