"""A loaded generator: what it makes, how it is asked, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ganrt
from ganrt.encode import resize, to_mode
from ganrt.generator import DRAWN
from ganrt.latents import labels, latents
from ganrt.samples import check_samples
from tests.models import tiny_model

Load = Callable[..., ganrt.Generator]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a tiny model of the given options and loads it."""

    def load(batch: int | None = None, **options: Any) -> ganrt.Generator:
        path = tmp_path / f"{options.get('name', 'tiny')}.onnx"
        path.write_bytes(tiny_model(**options))
        return ganrt.load(path, device="cpu", batch=batch, threads=1)

    return load


def some_z(count: int, z_dim: int = 8) -> NDArray[np.float32]:
    return latents(11, 0, count, z_dim)


def levels_apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max(initial=0))


def test_a_generator_is_loaded_by_name_path_and_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(tiny_model(name="tiny"))
    monkeypatch.setenv("GANRT_MODELS", str(tmp_path))
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    by_name = ganrt.load("mine", device="cpu")
    for other in (ganrt.load(path, device="cpu"), ganrt.load(str(path), device="cpu"), ganrt.load(session)):
        assert other.card == by_name.card
        assert other.device == "cpu"
        assert np.array_equal(other.sample(7), by_name.sample(7))
    assert ganrt.load(session).digest is None
    assert len(by_name.digest or "") == 64
    with pytest.raises(ganrt.UsageError, match=r"belong to the session given\nSet them where it is made"):
        ganrt.load(session, threads=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch": 0}, "batch 0\nExpected a whole number of 1 to 65536"), ({"threads": 0}, "threads 0\nExpected a whole")],
)
def test_what_load_refuses(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model())
    with pytest.raises(ganrt.UsageError, match=message):
        ganrt.load(tmp_path / "tiny.onnx", "cpu", **options)


def test_calling_makes_images_of_the_cards_size(load: Load) -> None:
    generator = load(width=5, height=7, channels=1)
    images = generator(some_z(3), [0, 1, 2])
    assert images.dtype == np.uint8
    assert images.shape == (3, 7, 5, 1)
    assert generator(some_z(0), 0).shape == (0, 7, 5, 1)
    assert np.array_equal(generator(some_z(3).astype(np.float64).tolist(), np.array([0, 1, 2], np.uint8)), images)
    assert np.array_equal(generator(some_z(3), 1), generator(some_z(3), [1, 1, 1]))
    assert not np.array_equal(generator(some_z(3), 1), generator(some_z(3), 2))


@pytest.mark.parametrize(
    ("z", "y", "message"),
    [
        ("text", 0, "z is no array of numbers: .*\nExpected float32 \\[N, 8\\]"),
        ([[0.0] * 8, [0.0]], 0, "z is no array of numbers"),
        (np.zeros(8), 0, "z of shape \\[8\\]\nExpected \\[N, 8\\]"),
        (np.zeros((2, 7)), 0, "z of shape \\[2, 7\\]\nExpected \\[N, 8\\]"),
        (np.full((1, 8), np.nan), 0, "z holds NaN or infinity\nExpected finite numbers"),
        (np.zeros((2, 8)), None, "generator tiny needs y\nExpected labels of 0 to 2"),
        (np.zeros((2, 8)), [0, 1, 2], "3 labels for 2 latents\nExpected one each"),
        (np.zeros((2, 8)), [0, 3], "y holds 0 to 3\nExpected labels of 0 to 2"),
        (np.zeros((2, 8)), -1, "y holds -1 to -1\nExpected labels of 0 to 2"),
        (np.zeros((2, 8)), 2**64 - 1, "y holds 18446744073709551615"),
        (np.zeros((2, 8)), [0.0, 1.0], "y is float64 \\[2\\]\nExpected integers \\[N\\] or one for all"),
        (np.zeros((2, 8)), [[0], [1]], "y is int64 \\[2, 1\\]"),
        (np.zeros((2, 8)), True, "y is bool"),
    ],
)
def test_wrong_latents_and_labels_are_refused(load: Load, z: Any, y: Any, message: str) -> None:
    with pytest.raises(ganrt.UsageError, match=message):
        load()(z, y)


def test_an_unconditional_generator_takes_no_labels(load: Load) -> None:
    generator = load(class_names=())
    assert generator(some_z(2)).shape == (2, 8, 8, 3)
    [batch] = generator.stream(2)
    assert batch.labels is None
    with pytest.raises(ganrt.UsageError, match="generator tiny has no classes\nLeave y out"):
        generator(some_z(2), 0)
    with pytest.raises(ganrt.UnknownClass, match="class 'a': generator tiny has no classes\nLeave the classes out"):
        generator.sample(2, classes=["a"])


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_samples_are_the_images_of_their_latents_and_labels(load: Load, distribution: str) -> None:
    generator = load(batch=4, card_changes={"z_distribution": distribution})
    z = latents(9, 5, 12, 8, distribution=distribution, std=0.5)
    wanted = generator(z, labels((0, 1, 2), 5, 12))
    assert levels_apart(generator.sample(12, seed=9, start=5, latent_std=0.5), wanted) <= 1
    assert levels_apart(generator.sample(12, seed=9, start=5), wanted) > 1


def test_sampling_equals_streaming_in_every_piece(load: Load) -> None:
    generator = load(batch=4)
    images = generator.sample(23, seed=3)
    batches = list(generator.stream(23, seed=3))
    assert np.array_equal(np.concatenate([batch.images for batch in batches]), images)
    assert [int(i) for batch in batches for i in batch.indices] == list(range(23))
    assert [batch.labels.tolist() for batch in batches if batch.labels is not None] == [
        [i % 3 for i in batch.indices] for batch in batches
    ]
    for start, n in ((1, 1), (3, 2), (4, 4), (5, 18), (22, 1), (9, 0)):
        assert np.array_equal(generator.sample(n, seed=3, start=start), images[start : start + n])
    assert not np.array_equal(generator.sample(23, seed=4), images)


def test_the_batch_changes_no_sample(load: Load) -> None:
    images = load(batch=64).sample(50)
    for batch in (1, 3, 50):
        generator = load(batch=batch)
        assert levels_apart(generator.sample(50), images) <= 1
        assert {len(b.images) for b in generator.stream(100)} <= {batch, 100 % batch}


class Watched:
    """A session that counts the rows it is given in each run."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(tiny_model(), providers=["CPUExecutionProvider"])
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: list[str], feeds: dict[str, Any]) -> Any:
        self.rows.append(len(feeds["z"]))
        return self._session.run(outputs, feeds)


def test_batches_lie_at_absolute_indices_and_are_run_whole() -> None:
    session = Watched()
    batches = list(ganrt.load(session, batch=4).stream(8, start=6))
    assert [batch.indices.tolist() for batch in batches] == [[6, 7], [8, 9, 10, 11], [12, 13]]
    assert session.rows == [4, 4, 4]


@pytest.mark.parametrize("class_names", [("a", "b", "c"), ()])
@pytest.mark.parametrize(("start", "n", "batch"), [(0, 64, 8), (5, 61, 8), (10**8 - 3, 70, 7), (7, 1, 8), (0, 9, 1)])
def test_how_many_latents_are_drawn_at_a_time_changes_no_sample(
    start: int, n: int, batch: int, class_names: tuple[str, ...], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load(batch=batch, class_names=class_names)
    seen: list[list[ganrt.Batch]] = []
    for drawn in (1, 3 * 8 * batch - 1, 3 * 8 * batch, 1 << 16):  # a batch at a time, two, three, all
        monkeypatch.setattr("ganrt.generator.DRAWN", drawn)
        seen.append(list(generator.stream(n, seed=3, start=start)))
        given = list(generator.draws(check_samples(generator.card, 3), start, start + n, batch))
        first = start - start % batch
        assert [(draw.first, len(draw.z)) for draw in given] == [(first + k * batch, batch) for k in range(len(given))]
        assert np.array_equal(np.concatenate([draw.z for draw in given]), latents(3, first, len(given) * batch, 8))
        for draw in given:
            if class_names:
                assert np.array_equal(draw.y, labels((0, 1, 2), draw.first, batch))  # type: ignore[arg-type]
            else:
                assert draw.y is None
    for other in seen[1:]:
        for mine, theirs in zip(other, seen[0], strict=True):
            assert np.array_equal(mine.images, theirs.images) and np.array_equal(mine.indices, theirs.indices)
            assert np.array_equal(mine.labels, theirs.labels) if class_names else mine.labels is None  # type: ignore[arg-type]
    assert [index for batch in seen[0] for index in batch.indices.tolist()] == list(range(start, start + n))


def test_latents_are_drawn_for_several_batches_but_never_without_end(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def watched(seed: int, start: int, count: int, *rest: Any, **options: Any) -> Any:
        drawn.append(count)
        return latents(seed, start, count, *rest, **options)

    monkeypatch.setattr("ganrt.generator.latents", watched)
    next(load(batch=4).stream(10**9))
    assert drawn == [DRAWN // 8]
    next(load(name="wide", batch=4, z_dim=DRAWN).stream(10**9))
    assert drawn[1:] == [4]  # a batch is never cut


def test_a_stream_is_made_as_it_is_read() -> None:
    session = Watched()
    generator = ganrt.load(session, batch=4)
    first = list(itertools.islice(generator.stream(10**9, start=10**12), 3))
    assert session.rows == [4, 4, 4]
    assert [batch.indices.tolist() for batch in first] == [[10**12 + 4 * k + i for i in range(4)] for k in range(3)]
    assert np.array_equal(np.concatenate([b.images for b in first]), generator.sample(12, start=10**12))


def test_classes_are_named_by_name_case_number_and_list(load: Load) -> None:
    generator = load(class_names=("Bag", "bag", "T-shirt/top", "Sneaker, high", "7", "Coat"))
    wanted = [2, 4, 5]
    named: list[Any] = [["T-shirt/top", "7", "Coat"], "t-SHIRT/top,7,COAT", [2, 4, 5], ["2, 7", 5]]
    for classes in named:
        [batch] = generator.stream(7, classes=classes)
        assert batch.labels is not None
        assert batch.labels.tolist() == [wanted[i % 3] for i in range(7)]
    for one, label in (("Sneaker, high", 3), ("bag", 1), ("Bag", 0), (5, 5)):
        [batch] = generator.stream(2, classes=one)  # type: ignore[arg-type]
        assert batch.labels is not None
        assert batch.labels.tolist() == [label] * 2
    z = latents(0, 0, 2, 8)
    assert np.array_equal(generator.sample(2, classes=["Coat"]), generator(z, 5))


def test_size_resample_and_mode(load: Load) -> None:
    generator = load()
    images = generator.sample(5)
    assert np.array_equal(generator.sample(5, size=(12, 6)), resize(images, (12, 6), "lanczos"))
    assert np.array_equal(generator.sample(5, size=16, resample="nearest"), resize(images, (16, 16), "nearest"))
    assert np.array_equal(generator.sample(5, mode="l"), to_mode(images, "l"))
    assert generator.sample(0, size=(12, 6), mode="l").shape == (0, 6, 12, 1)
    grey = load(name="grey", channels=1)
    assert np.array_equal(grey.sample(5, mode="rgb"), np.repeat(grey.sample(5), 3, axis=3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n -1\nExpected a whole number of 0 to"),
        ({"n": 2.0}, "n 2.0\nExpected a whole number"),
        ({"start": 2**48}, "start 281474976710656\nExpected a whole number of 0 to 281474976710655"),
        ({"n": 2, "start": 2**48 - 1}, "start \\+ n 281474976710657"),
        ({"seed": 2**64}, "seed 18446744073709551616\nExpected a whole number of 0 to 18446744073709551615"),
        ({"seed": -1}, "seed -1"),
        ({"latent_std": 0}, "latent std 0\nExpected a number above 0, up to 100"),
        ({"latent_std": float("nan")}, "latent std nan"),
        ({"psi": 0.5}, "psi 0.5: generator tiny takes no truncation\nLeave psi out"),
        ({"size": 0}, "width 0\nExpected a whole number of 1 to 16384"),
        ({"size": (8, 16385)}, "height 16385"),
        ({"size": (1, 2, 3)}, "size \\(1, 2, 3\\)\nExpected a side in pixels, or \\(width, height\\)"),
        ({"size": "64"}, "size '64'\nExpected a side"),
        ({"resample": "lanczos"}, "resample does not apply without a size\nGive a size too"),
        ({"size": 9, "resample": "best"}, "resample 'best'\nExpected nearest, bilinear, lanczos"),
        ({"mode": "cmyk"}, "mode 'cmyk'\nExpected l \\(grey\\) or rgb"),
        ({"classes": []}, "no class is named\nName at least one"),
        ({"classes": ["a", "A"]}, "class 'a' is named twice\nName each class once"),
        ({"classes": ["d"]}, "generator tiny has no class 'd'\nIt has 3: a, b, c"),
        ({"classes": [3]}, "no class 3"),
        ({"classes": [1.5]}, "no class 1.5"),
        ({"classes": [None]}, "no class None"),
    ],
)
def test_a_stream_checks_its_arguments_at_once(load: Load, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ganrt.UsageError, match=message):
        load().stream(**{"n": 1, **arguments})


def test_psi_truncates_where_the_card_says_so(load: Load) -> None:
    generator = load(psi=True)
    z = some_z(4)
    assert np.array_equal(generator(z, 0), generator(z, 0, psi=1.0))
    assert np.array_equal(generator(z, 0, psi=0.5), generator(z / 2, 0))
    assert len({image.tobytes() for image in generator(z, 0, psi=0)}) == 1
    assert np.array_equal(generator.sample(4, psi=0.5), generator(latents(0, 0, 4, 8) / 2, labels((0, 1, 2), 0, 4)))
    for psi in (-0.1, 1.1, float("nan"), True, "0.5"):
        with pytest.raises(ganrt.UsageError, match=r"psi .*\nExpected a number of 0 \(the mean image\) to 1"):
            generator(z, 0, psi=psi)  # type: ignore[arg-type]


def test_many_threads_make_what_one_makes(load: Load) -> None:
    generator = load(batch=4, psi=True)
    jobs = [(5 + k % 7, k, 3 * k, 1 - k / 100) for k in range(64)]

    def work(job: tuple[int, int, int, float]) -> NDArray[np.uint8]:
        n, seed, start, psi = job
        return generator.sample(n, seed=seed, start=start, psi=psi)

    with ThreadPoolExecutor(8) as threads:
        for made, job in zip(threads.map(work, jobs), jobs, strict=True):
            assert np.array_equal(made, work(job))


def test_numbers_from_numpy_are_numbers(load: Load, tmp_path: Path) -> None:
    generator = load(psi=True)
    plain = generator.sample(5, 3, 2, [1], 0.5, (9, 7), latent_std=0.5)
    sides: Any = (np.int64(9), np.int64(7))
    given: list[Any] = [np.int64(5), np.uint64(3), np.int32(2), [np.int64(1)], np.float32(0.5), sides]
    assert np.array_equal(ganrt.Generator.sample(generator, *given, latent_std=np.float64(0.5)), plain)
    counts: dict[str, Any] = {"n": np.int64(10), "seed": np.int64(1), "batch": np.int64(8), "shard_size": np.int64(8)}
    assert ganrt.generate(tmp_path / "tiny.onnx", out=tmp_path / "set", **counts).images == 10


def test_generate_refuses_a_device_for_a_generator_that_has_one(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ganrt.UsageError, match="device belongs to the generator given"):
        ganrt.generate(load(), n=1, out=tmp_path / "set", device="cpu")
    assert not (tmp_path / "set").exists()
