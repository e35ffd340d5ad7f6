"""Generators with w: w and from_w, mixtures of styles, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ganrt
from ganrt.encode import Pixels
from ganrt.errors import UsageError
from ganrt.latents import latents
from ganrt.style_mixing import choose_layers
from ganrt_training.checkpoint import load_generator
from ganrt_training.export import export_run, torch_styles
from tests.models import tiny_model
from tests.training.zoo import players_of, smallest, snapshot_of

Make = Callable[..., ganrt.Generator]


@pytest.fixture
def tiny(tmp_path: Path) -> Make:
    """Loads a tiny generator with w, five layers of six numbers."""

    def make(**arguments: object) -> ganrt.Generator:
        path = tmp_path / "tiny.onnx"
        path.write_bytes(tiny_model(**{"num_ws": 5, "w_dim": 6, "psi": True, **arguments}))  # type: ignore[arg-type]
        return ganrt.load(path, device="cpu", batch=8)

    return make


@pytest.fixture(scope="module")
def stylegan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of StyleGAN2 at its smallest, and its export."""
    folder = tmp_path_factory.mktemp("stylegan")
    recipe = smallest("stylegan2_32", "conditional=false", "image_size=16")
    players = players_of(recipe, 3)
    players.averaged.w_avg.normal_()  # type: ignore[operator]
    [(out, card)] = export_run(snapshot_of(recipe, players, folder, 3), folder / "style.onnx").items()
    assert (card.num_ws, card.w_dim, card.psi) == (5, 6, True)
    assert card.parity["w_max"] <= 1e-4
    assert card.parity["fed_back_uint8_max"] <= 1
    assert card.parity["mixed_float_max"] <= 1e-4
    return folder, out


# w ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_names", [("a", "b", "c"), ()])
def test_images_of_w_fed_back_are_those_of_z(tiny: Make, class_names: tuple[str, ...]) -> None:
    generator = tiny(class_names=class_names)
    z, y = latents(3, 0, 7, 8), np.arange(7) % 3 if class_names else None
    for psi in (None, 0.5, 1.0):
        w = generator.w(z, y, psi)
        assert w.shape == (7, 5, 6)
        assert w.dtype == np.float32
        assert np.array_equal(generator.from_w(w), generator(z, y, psi))
        assert not np.array_equal(generator.from_w(w[::-1]), generator(z, y, psi))
    assert not np.array_equal(generator.w(z, y, 0.5), generator.w(z, y))
    assert generator.w(z[:0], None if y is None else 0).shape == (0, 5, 6)
    assert generator.from_w(w[:0]).shape == (0, 8, 8, 3)


def test_each_layer_takes_its_own_w(tiny: Make) -> None:
    generator = tiny()
    w = generator.w(latents(3, 0, 1, 8), 0)
    images = generator.from_w(w)
    for layer in range(5):
        changed = w.copy()
        changed[:, layer] += 1
        assert not np.array_equal(generator.from_w(changed), images)


def test_a_generator_with_w_goes_through_pickle_threads_and_datasets(tiny: Make, tmp_path: Path) -> None:
    generator = tiny()
    again = pickle.loads(pickle.dumps(generator))
    w = generator.w(latents(3, 0, 2, 8), 1)
    assert np.array_equal(again.from_w(w), generator.from_w(w))
    ganrt.generate(tmp_path / "tiny.onnx", n=16, out=tmp_path / "d", device="cpu", batch=8, shard_size=8)
    assert ganrt.verify(tmp_path / "d") == []
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "d" / "a" / "00000000.png")), generator.sample(1, psi=1.0)[0]
    )


def test_w_that_does_not_fit_is_told(tiny: Make) -> None:
    generator = tiny()
    for w, said in (
        (np.zeros((2, 4, 6)), "w of shape [2, 4, 6]\nExpected [N, 5, 6]."),
        (np.zeros((5, 6)), "w of shape [5, 6]\nExpected [N, 5, 6]."),
        (np.full((1, 5, 6), np.nan), "w holds NaN or infinity\nExpected finite numbers."),
        ("w", "w is no array of numbers: "),
    ):
        with pytest.raises(UsageError) as raised:
            generator.from_w(w)
        assert str(raised.value).startswith(said)
    with pytest.raises(UsageError, match="generator tiny needs y"):
        generator.w(latents(3, 0, 1, 8))


def test_a_generator_without_w_says_so(tiny: Make) -> None:
    generator = tiny(num_ws=0, w_dim=0)
    calls: list[Callable[[], object]] = [
        lambda: generator.w(latents(3, 0, 1, 8), 0),
        lambda: generator.from_w(np.zeros((1, 5, 6))),
        lambda: ganrt.style_mix(generator),
        lambda: ganrt.style_mix("fashion"),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="has no w: only those exported .*\nInterpolating works without"):
            call()


# Mixtures -----------------------------------------------------------------------------------------------------------


def test_the_grid_has_sources_at_its_edges_and_mixtures_inside(tiny: Make, tmp_path: Path) -> None:
    generator = tiny()
    out = tmp_path / "mix.png"
    mix = ganrt.style_mix(generator, out, rows=[1, 2], cols=[3, 4, 5], layers="0,2-3", psi=0.8)
    assert mix.layers == (0, 2, 3)
    for images, seeds in ((mix.rows, (1, 2)), (mix.cols, (3, 4, 5))):
        for image, seed in zip(images, seeds, strict=True):
            assert np.array_equal(image, generator.sample(1, seed=seed, psi=0.8)[0])
    w = {seed: generator.w(latents(seed, 0, 1, 8), 0, 0.8)[0] for seed in range(1, 6)}
    for r, c in np.ndindex(2, 3):
        mixed = w[1 + r].copy()
        mixed[[0, 2, 3]] = w[3 + c][[0, 2, 3]]
        assert np.abs(mix.mixed[r, c].astype(int) - generator.from_w(mixed[None])[0]).max() <= 1
    picture = np.asarray(Image.open(out))
    assert np.array_equal(picture, mix.grid)
    assert picture.shape == (32, 42, 3)

    def cell(row: int, col: int) -> Pixels:
        part: Pixels = picture[2 + 10 * row : 10 + 10 * row, 2 + 10 * col : 10 + 10 * col]
        return part

    assert (cell(0, 0) == 255).all()
    for r, c in np.ndindex(2, 3):
        assert np.array_equal(cell(0, 1 + c), mix.cols[c])
        assert np.array_equal(cell(1 + r, 0), mix.rows[r])
        assert np.array_equal(cell(1 + r, 1 + c), mix.mixed[r, c])


def test_of_no_layer_and_of_all_layers_come_the_sources_themselves(stylegan: tuple[Path, Path]) -> None:
    for psi in (0.5, 1.0):
        none = ganrt.style_mix(stylegan[1], rows=[1, 2], cols=[3, 4], layers=(), psi=psi, device="cpu")
        every = ganrt.style_mix(stylegan[1], rows=[1, 2], cols=[3, 4], layers="0-4", psi=psi, device="cpu")
        for r, c in np.ndindex(2, 2):
            assert np.array_equal(none.mixed[r, c], none.rows[r])
            assert np.array_equal(every.mixed[r, c], every.cols[c])


def test_mixtures_are_what_pytorch_makes_of_the_mixed_w(stylegan: tuple[Path, Path]) -> None:
    styles = torch_styles(load_generator(stylegan[0] / "best.safetensors").generator)
    generator = ganrt.load(stylegan[1], device="cpu")
    mix = ganrt.style_mix(generator, rows=[1, 2], cols=[3], layers="middle", psi=0.7)
    assert mix.layers == (2, 3)
    z = np.concatenate([latents(seed, 0, 1, 6) for seed in (1, 2, 3)])
    w = styles.mapping(z, None, 0.7)
    assert np.abs(generator.w(z, psi=0.7) - w).max() <= 1e-4
    for r in range(2):
        mixed = w[r].copy()
        mixed[2:4] = w[2, 2:4]
        made = styles.synthesis(mixed[None])[1][0]
        assert np.abs(mix.mixed[r, 0].astype(int) - made).max() <= 1
        assert not np.array_equal(mix.mixed[r, 0], mix.rows[r])


def test_torch_is_as_before_without_w(stylegan: tuple[Path, Path]) -> None:
    network = load_generator(stylegan[0] / "best.safetensors").generator
    z = torch.from_numpy(latents(1, 0, 4, 6))
    with torch.no_grad():
        mean = network(z, None, torch.tensor(0.0))
    torch.testing.assert_close(mean, mean[:1].expand_as(mean))  # psi 0 is the mean image


def test_one_class_for_all_or_one_a_source(tiny: Make) -> None:
    generator = tiny()
    mix = ganrt.style_mix(generator, rows=[1], cols=[2, 3], classes=["a", "b", "c"])
    for image, seed, name in ((mix.rows[0], 1, "a"), (mix.cols[0], 2, "b"), (mix.cols[1], 3, "c")):
        assert np.array_equal(image, generator.sample(1, seed=seed, classes=[name])[0])
    mix = ganrt.style_mix(generator, rows=[1], cols=[2], classes="c")
    assert np.array_equal(mix.cols[0], generator.sample(1, seed=2, classes=["c"])[0])


@pytest.mark.parametrize(
    ("layers", "num_ws", "chosen"),
    [
        ("coarse", 7, (0, 1, 2)),
        ("middle", 7, (3, 4)),
        ("fine", 7, (5, 6)),
        ("coarse", 18, (0, 1, 2, 3, 4, 5)),
        ("fine,coarse", 3, (0, 2)),
        ("3, 0-1", 4, (0, 1, 3)),
        ([2, 0, 2], 3, (0, 2)),
        ((), 3, ()),
    ],
)
def test_layers_are_named_by_number_and_by_third(layers: str, num_ws: int, chosen: tuple[int, ...]) -> None:
    assert choose_layers(layers, num_ws) == chosen


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"layers": "5"}, "layers '5'\nThere are the layers 0 to 4."),
    ({"layers": "3-1"}, "layers '3-1'\nThere are the layers 0 to 4."),
    ({"layers": "course"}, "layers 'course'\nExpected coarse, middle, fine, or numbers as in 0-3 or 0,2,5."),
    ({"layers": ""}, "layers ''\nExpected coarse"),
    ({"layers": [5]}, "layer 5\nExpected a whole number of 0 to 4."),
    ({"rows": []}, "0 rows and 4 columns\nGive a seed for each"),
    ({"cols": [-1]}, "seed -1\nExpected a whole number"),
    ({"classes": "a,b,c", "rows": [1], "cols": [2]}, "3 classes for 2 seeds\nGive one class"),
    ({"psi": 2}, "psi 2\nExpected a number of 0 (the mean image) to 1"),
    ({"out": "mix.gif"}, "mix.gif does not end in .png\n"),
    ({"out": "no/mix.png"}, "no is no folder\n"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_cannot_be_meant_is_told(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        ganrt.style_mix(tiny(), **arguments)
    assert str(raised.value).startswith(said)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]
