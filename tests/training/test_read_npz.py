"""Arrays in an .npz, through read_images."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganrt_training.data import read_images
from tests.training.test_read_cifar import pixels, refused


def npz(tmp_path: Path, **arrays: Any) -> Path:
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def test_images_and_labels_of_an_npz(tmp_path: Path) -> None:
    images = pixels(5, 32, 32, 3)
    data = read_images(npz(tmp_path, images=images, labels=np.array([3, 1, 1, 7, 3])), 32)
    np.testing.assert_array_equal(data.images, images)
    assert (data.class_names, data.labels.tolist()) == (("1", "3", "7"), [1, 0, 0, 2, 1])
    data = read_images(npz(tmp_path, images=images, labels=np.array([1, 0, 0, 1, 2], np.uint8),
                           class_names=np.array(["kā", "b", "c"])), 32)  # fmt: skip
    assert (data.class_names, data.labels.tolist()) == (("kā", "b", "c"), [1, 0, 0, 1, 2])
    assert read_images(npz(tmp_path, images=images), 32).class_names == ()


def test_medmnist_keys_give_the_split(tmp_path: Path) -> None:
    images = pixels(6, 28, 28)
    path = npz(
        tmp_path,
        train_images=images[:3],
        train_labels=np.array([[0], [1], [2]], np.uint8),
        val_images=images[3:4],
        val_labels=np.array([[1]], np.uint8),
        test_images=images[4:],
        test_labels=np.array([[1], [0]], np.uint8),
    )
    for split, wanted, labels in (("train", images[:3], [0, 1, 2]), ("test", images[4:], [1, 0])):
        data = read_images(path, 28, split=split)
        np.testing.assert_array_equal(data.images, wanted[..., None])
        assert data.labels.tolist() == labels


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((2, 6, 8), (2, 6, 6, 1)),
        ((2, 6, 6, 1), (2, 6, 6, 1)),
        ((2, 8, 6, 3), (2, 6, 6, 3)),
        ((2, 3, 6, 8), (2, 6, 6, 3)),
        ((2, 1, 6, 6), (2, 6, 6, 1)),
    ],
)
def test_shapes_of_images(tmp_path: Path, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    images = pixels(*shape)
    data = read_images(npz(tmp_path, images=images), 6)
    assert data.images.shape == wanted
    first = images[0] if len(shape) == 3 else images[0].transpose(1, 2, 0) if shape[1] < 4 else images[0]
    first = first.reshape(*first.shape[:2], -1)
    top, left = (first.shape[0] - 6) // 2, (first.shape[1] - 6) // 2
    np.testing.assert_array_equal(data.images[0], first[top : top + 6, left : left + 6])


def test_alpha_in_an_npz_lies_on_the_background(tmp_path: Path) -> None:
    images = np.zeros((1, 8, 8, 4), np.uint8)
    images[..., :] = 255, 0, 0, 51
    data = read_images(npz(tmp_path, images=images), 8, background="blue")
    assert data.images[0, 0, 0].tolist() == [51, 0, 204]
    images[..., :] = 100, 0, 255, 50  # 19.6 is rounded
    assert read_images(npz(tmp_path, images=images), 8, background="black").images[0, 0, 0].tolist() == [20, 0, 50]


def test_grey_in_three_channels_of_an_npz_is_grey(tmp_path: Path) -> None:
    grey = npz(tmp_path, images=np.repeat(pixels(100, 8, 8, 1), 3, axis=3))
    assert read_images(grey, 8).images.shape == (100, 8, 8, 1)
    assert read_images(grey, 8, mode="rgb").images.shape == (100, 8, 8, 3)


EIGHT = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message", "hint"),
    [
        ({"images": EIGHT / 255}, "images is an array of float64", "(images * 255).round().astype('uint8')"),
        ({"images": EIGHT.astype(np.uint16)}, "images is an array of uint16", "uint8"),
        ({"images": EIGHT.astype(object)}, "images is an array of object", "uint8"),
        ({"images": EIGHT, "labels": np.zeros(2)}, "labels is an array of float64", "astype('int64')"),
        ({"images": EIGHT, "labels": np.array([{}, {}])}, "labels is an array of object", "integers"),
        ({"images": EIGHT, "labels": np.zeros((2, 14), int)}, "labels of shape [2, 14]: several an image", "one label"),
        ({"images": EIGHT, "labels": np.zeros(3, int)}, "2 images with labels of shape [3]", "Expected"),
        ({"images": EIGHT, "labels": np.array([0, -1])}, "label -1", "from 0"),
        ({"images": EIGHT, "labels": np.array([0, 2]), "class_names": np.array(["a", "b"])}, "label 2 with 2", "Name"),
        ({"images": EIGHT, "labels": np.array([0, 1]), "class_names": np.array([b"a", b"b"])}, "array of |S1", "text"),
        ({"images": np.zeros((2, 3, 8, 3), np.uint8)}, "channels could come first or last", "[N, H, W, C]"),
        ({"images": np.zeros((2, 8, 8, 2), np.uint8)}, "no 1, 3 or 4 channels", "[N, H, W, C]"),
        ({"images": np.zeros((8, 8), np.uint8)}, "images of shape [8, 8]", "[N, H, W]"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "images of shape [0, 8, 8]", "[N, H, W]"),
        ({"x": EIGHT, "y": EIGHT}, "keys x, y, without images of train", "train_images"),
    ],
)
def test_what_is_wrong_with_an_npz_is_told(tmp_path: Path, arrays: dict[str, Any], message: str, hint: str) -> None:
    assert hint in str(refused(npz(tmp_path, **arrays), says=message).hint)


def test_an_npz_without_splits_has_no_test(tmp_path: Path) -> None:
    refused(npz(tmp_path, images=EIGHT), split="test", says="no test_images")


def test_an_npz_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 10, 1 << 10)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    refused(tmp_path / "x.npz", says="promises shape [1048576, 1024, 1024]")
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x02\x00" + (24 << 20).to_bytes(4, "little") + bytes(24 << 20))
    tracemalloc.start()
    try:
        refused(path, says="images: cannot be read")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"no array")
    refused(path, says="images: cannot be read")
