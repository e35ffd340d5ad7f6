"""Walks through latent space: keyframes, ways between them, files read back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

import ganrt
from ganrt.encode import Pixels
from ganrt.errors import MissingExtra, UnknownClass, UsageError
from ganrt.latents import latents
from ganrt.walks import images_at, lerp, slerp
from tests.models import tiny_model, tiny_translator

Make = Callable[..., ganrt.Generator]


@pytest.fixture
def tiny(tmp_path: Path) -> Make:
    """Loads a tiny generator; arguments as ``tiny_model``."""

    def make(**arguments: object) -> ganrt.Generator:
        path = tmp_path / "tiny.onnx"
        path.write_bytes(tiny_model(**arguments))  # type: ignore[arg-type]
        return ganrt.load(path, device="cpu", batch=8)

    return make


def frames_of(path: Path) -> list[Pixels]:
    """The frames of a GIF or WebP as RGB."""
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


# The way ------------------------------------------------------------------------------------------------------------


def test_keyframes_are_sample_0_of_each_seed_byte_for_byte(tiny: Make) -> None:
    generator = tiny(psi=True)
    walk = ganrt.interpolate(generator, seeds=[5, 6, 7], frames=4, psi=0.5)
    assert walk.shape == (9, 8, 8, 3)
    assert walk.dtype == np.uint8
    for place, seed in ((0, 5), (4, 6), (8, 7)):
        assert np.array_equal(walk[place : place + 1], generator.sample(1, seed=seed, psi=0.5))


def test_keyframes_of_the_shipped_generator_are_its_samples() -> None:
    walk = ganrt.interpolate("fashion", seeds=[1, 2], frames=2, classes="Bag", device="cpu")
    generator = ganrt.load("fashion", device="cpu")
    for place, seed in ((0, 1), (2, 2)):
        assert np.array_equal(walk[place : place + 1], generator.sample(1, seed=seed, classes=["Bag"]))


def test_a_loop_goes_back_to_the_first_which_does_not_come_twice(tiny: Make) -> None:
    generator = tiny()
    once, round_ = (ganrt.interpolate(generator, seeds=[1, 2], frames=3, loop=loop) for loop in (False, True))
    assert (len(once), len(round_)) == (4, 6)
    assert np.array_equal(once, round_[:4])
    back = ganrt.interpolate(generator, seeds=[2, 1], frames=3)
    assert np.array_equal(round_[3:], back[:3])


def test_frames_between_normal_latents_lie_on_the_sphere(tiny: Make) -> None:
    generator = tiny(class_names=())
    walk = ganrt.interpolate(generator, seeds=[1, 2], frames=4, latent_std=2.0)
    a, b = (latents(seed, 0, 1, 8, std=2.0)[0].astype(np.float64) for seed in (1, 2))
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    for k in range(1, 4):
        t = k / 4
        # White's formula, on directions.
        unit = np.sin((1 - t) * angle) * a / np.linalg.norm(a) + np.sin(t * angle) * b / np.linalg.norm(b)
        z = unit / np.sin(angle) * ((1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b))
        assert np.abs(walk[k].astype(int) - generator(z[None].astype(np.float32))[0]).max() <= 1


def test_frames_between_uniform_latents_lie_on_a_line(tiny: Make) -> None:
    generator = tiny(class_names=(), card_changes={"z_distribution": "uniform"})
    walk = ganrt.interpolate(generator, seeds=[1, 2], frames=2)
    a, b = (latents(seed, 0, 1, 8, distribution="uniform") for seed in (1, 2))
    assert np.abs(walk[1].astype(int) - generator((a + b) / 2)[0]).max() <= 1


def test_slerp_keeps_norms_and_turns_evenly() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        a, b = random.standard_normal(16), 3 * random.standard_normal(16)
        path = slerp(a, b, np.linspace(0, 1, 9)).astype(np.float64)
        assert np.array_equal(path[[0, -1]].astype(np.float32), np.array([a, b], np.float32))
        norms = np.linalg.norm(path, axis=1)
        assert np.all(np.diff(norms) > -1e-5) or np.all(np.diff(norms) < 1e-5)
        units = path / norms[:, None]
        turns = np.arccos(np.clip((units[1:] * units[:-1]).sum(1), -1, 1))
        assert turns == pytest.approx(np.full(8, turns.mean()), abs=1e-3)


@pytest.mark.parametrize("noise", [0, 1e-12, 1e-7, 1e-4])
def test_slerp_of_nearly_parallel_and_opposite_vectors(noise: float) -> None:
    random = np.random.default_rng(1)
    a = random.standard_normal(16)
    near = 2 * a + noise * random.standard_normal(16)
    assert slerp(a, near, 0.5)[0] == pytest.approx(1.5 * a, abs=1e-3)
    path = slerp(a, -near, np.linspace(0, 1, 5)).astype(np.float64)
    norms = np.linalg.norm(path, axis=1)
    assert norms / np.linalg.norm(a) == pytest.approx(np.linspace(1, 2, 5), rel=1e-3)
    assert abs(path[2] @ a) / norms[2] / np.linalg.norm(a) < 1e-3  # half way it is at a right angle
    assert np.array_equal(path, slerp(a, -near, np.linspace(0, 1, 5)))


def test_slerp_of_what_has_no_direction() -> None:
    assert slerp(np.zeros(3), np.ones(3), 0.5).tolist() == [[0.5, 0.5, 0.5]]
    assert slerp(np.array([1.0]), np.array([-3.0]), [0.0, 0.5, 1.0]).ravel().tolist() == [1, -1, -3]
    assert lerp(np.zeros((2, 2)), np.ones((2, 2)), 0.25).tolist() == [[[0.25, 0.25], [0.25, 0.25]]]


# Classes ------------------------------------------------------------------------------------------------------------


def test_between_two_classes_pixels_fade_at_the_same_z(tiny: Make) -> None:
    generator = tiny()
    walk = ganrt.interpolate(generator, seeds=[1, 2, 3], frames=4, classes=["a", "c"])
    for place, seed, name in ((0, 1, "a"), (4, 2, "c"), (8, 3, "a")):
        assert np.array_equal(walk[place : place + 1], generator.sample(1, seed=seed, classes=[name]))
    z = slerp(latents(1, 0, 1, 8)[0], latents(2, 0, 1, 8)[0], [0.25, 0.5, 0.75])
    ours, theirs = (images_at(generator, z, y).astype(float) for y in (0, 2))
    for k, share in enumerate((0.25, 0.5, 0.75)):
        faded = np.floor((1 - share) * ours[k] + share * theirs[k] + 0.5)
        assert np.array_equal(walk[1 + k], faded)


def test_classes_are_the_first_unless_given_and_one_may_be_for_all(tiny: Make) -> None:
    generator = tiny()
    assert np.array_equal(
        ganrt.interpolate(generator, seeds=[1, 2]), ganrt.interpolate(generator, seeds=[1, 2], classes="a")
    )
    walk = ganrt.interpolate(generator, seeds=[1, 2], frames=2, classes=[1])
    assert np.array_equal(walk[2:], generator.sample(1, seed=2, classes=["b"]))
    faded = ganrt.interpolate(generator, seeds=[4, 4], frames=1, classes="a,b")
    assert np.array_equal(faded[1:], generator.sample(1, seed=4, classes=["b"]))


def test_in_w_classes_mix_and_the_way_is_straight(tiny: Make) -> None:
    generator = tiny(num_ws=3, w_dim=5, psi=True)
    walk = ganrt.interpolate(generator, seeds=[1, 2], frames=2, classes="a,b", space="w", psi=0.7)
    assert np.array_equal(walk[:1], generator.sample(1, seed=1, classes="a", psi=0.7))
    assert np.array_equal(walk[2:], generator.sample(1, seed=2, classes="b", psi=0.7))
    w = [generator.w(latents(seed, 0, 1, 8), y, 0.7) for seed, y in ((1, 0), (2, 1))]
    assert np.abs(walk[1].astype(int) - generator.from_w((w[0] + w[1]) / 2)[0]).max() <= 1


# Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_an_animation_holds_every_frame_enlarged_by_whole_pixels(
    tiny: Make, tmp_path: Path, ending: str, channels: int
) -> None:
    out = tmp_path / f"walk.{ending}"
    walk = ganrt.interpolate(tiny(channels=channels, width=20), out, seeds=[1, 2], frames=3)
    assert walk.shape == (6, 8, 20, channels)  # it loops
    found = frames_of(out)
    assert len(found) == 6
    for frame, image in zip(found, walk, strict=True):
        assert frame.shape == (256, 640, 3)  # 32 times
        wanted = np.repeat(image, 3, axis=2) if channels == 1 else image
        assert np.array_equal(frame, wanted.repeat(32, axis=0).repeat(32, axis=1))  # 160 colours: none is lost
    with Image.open(out) as image_file:
        image_file.load()
        assert image_file.info["loop"] == 0
        assert image_file.info["duration"] == 50
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".onnx"] == [out.name]


def test_fps_loop_and_size_of_an_animation(tiny: Make, tmp_path: Path) -> None:
    out = tmp_path / "walk.GIF"
    walk = ganrt.interpolate(tiny(channels=1), out, seeds=[1, 2], frames=3, fps=10, loop=False, size=(24, 16))
    assert len(walk) == 4
    found = frames_of(out)
    assert [frame.shape for frame in found] == [(16, 24, 3)] * 4
    assert np.array_equal(found[3][:, :, 0], walk[3, :, :, 0].repeat(2, axis=0).repeat(3, axis=1))
    with Image.open(out) as image:
        assert image.info["duration"] == 100
        assert "loop" not in image.info


@pytest.mark.parametrize(("channels", "side", "shown"), [(1, 8, 256), (3, 7, 266)])
def test_an_mp4_holds_every_frame_at_even_sides(
    tiny: Make, tmp_path: Path, channels: int, side: int, shown: int
) -> None:
    out = tmp_path / "walk.mp4"
    walk = ganrt.interpolate(tiny(channels=channels, width=side, height=side), out, seeds=[1, 2], frames=6, fps=25)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 25
    assert len(found) == len(walk) == 12
    for frame, image in zip(found, walk, strict=True):
        assert frame.shape == (shown, shown, 3)
        large = image.repeat(shown // side, axis=0).repeat(shown // side, axis=1)
        assert np.abs(frame.astype(int) - large).mean() < 6  # colours are kept at half the resolution


def test_mp4_without_its_package_says_how_to_get_it(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        MissingExtra, match=r"mp4 needs the package av\nInstall the extra: pip install 'ganrt\[video\]'"
    ):
        ganrt.interpolate(tiny(), tmp_path / "walk.mp4", seeds=[1, 2])
    assert not (tmp_path / "walk.mp4").exists()


def test_a_png_has_a_row_a_leg_with_both_its_ends(tiny: Make, tmp_path: Path) -> None:
    out = tmp_path / "walk.png"
    generator = tiny()
    for loop, legs in ((None, 2), (True, 3)):
        walk = ganrt.interpolate(generator, out, seeds=[1, 2, 3], frames=4, loop=loop)
        picture = np.asarray(Image.open(out))
        assert picture.shape == (2 + legs * 10, 2 + 5 * 10, 3)
        for row in range(legs):
            for col in range(5):
                cell = picture[2 + 10 * row : 10 + 10 * row, 2 + 10 * col : 10 + 10 * col]
                assert np.array_equal(cell, walk[(4 * row + col) % len(walk)])
    ganrt.interpolate(generator, out, seeds=[1, 2], frames=4, size=16)
    assert np.asarray(Image.open(out)).shape == (20, 92, 3)


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_square_has_the_four_seeds_at_its_corners(tiny: Make, tmp_path: Path, space: str) -> None:
    generator = tiny(num_ws=3, w_dim=5)
    images = ganrt.interpolate(
        generator, tmp_path / "square.png", seeds=[1, 2, 3, 4], frames=2, square=True, space=space
    )
    assert images.shape == (9, 8, 8, 3)
    for place, seed in ((0, 1), (2, 2), (6, 3), (8, 4)):
        assert np.array_equal(images[place : place + 1], generator.sample(1, seed=seed))
    edge = ganrt.interpolate(generator, seeds=[1, 3], frames=2, space=space)
    assert np.abs(images[3].astype(int) - edge[1]).max() <= 1
    assert np.asarray(Image.open(tmp_path / "square.png")).shape == (32, 32, 3)
    # The middle is the middle of the middles of both sides.
    if space == "z":
        z = [latents(seed, 0, 1, 8)[0] for seed in (1, 2, 3, 4)]
        middle = slerp(slerp(z[0], z[2], 0.5)[0], slerp(z[1], z[3], 0.5)[0], 0.5)
        assert np.abs(images[4].astype(int) - generator(middle, 0)[0]).max() <= 1


# Errors -------------------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"out": "walk.avi"}, "walk.avi ends in none of .gif, .webp, .mp4 and .png\nName an animation"),
    ({"out": "no/walk.gif"}, "no is no folder\nMake it first"),
    ({"seeds": [1]}, "1 seeds: 1\nGive two at least."),
    ({"seeds": [1, -2]}, "seed -2\nExpected a whole number of 0"),
    ({"frames": 0}, "frames 0\nExpected a whole number of 1 to 10000."),
    ({"out": "walk.gif", "fps": 60}, "fps 60\nExpected a whole number of 1 to 50."),
    ({"out": "walk.png", "fps": 20}, "fps does not apply without an animation\nWrite a .gif"),
    ({"size": 64}, "size does not apply without a file\n"),
    ({"out": "walk.gif", "size": 0}, "width 0\nExpected a whole number of 1"),
    ({"out": "walk.mp4", "size": (63, 64)}, "size 63x64\nAn mp4 (h264) has even sides: --size 64x64"),
    ({"space": "x"}, "space 'x'\nExpected z or w."),
    ({"space": "w"}, "generator tiny has no w: only those exported from StyleGAN have\nInterpolating works without"),
    ({"psi": 0.5}, "psi 0.5: generator tiny takes no truncation\nLeave psi out."),
    ({"latent_std": 0}, "latent std 0\nExpected a number above 0"),
    ({"classes": "a,b,c"}, "3 classes for 2 seeds\nGive one class, or as many as there are seeds."),
    ({"classes": "a,a"}, "class 'a' is named twice"),
    ({"square": True}, "2 seeds: 1, 2\nGive four, for the corners of the square."),
    ({"square": True, "out": "walk.gif"}, "a square is a picture\nWrite it as .png"),
    ({"square": True, "loop": True, "seeds": [1, 2, 3, 4]}, "a square has no loop\n"),
    ({"square": True, "classes": "a,b", "seeds": [1, 2, 3, 4]}, "a square in z has one class\nGive one class"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_cannot_be_meant_is_told(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        ganrt.interpolate(tiny(), **{"seeds": [1, 2], **arguments})
    assert str(raised.value).startswith(said)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


def test_a_class_that_there_is_not_and_a_generator_of_the_other_kind(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(UnknownClass, match="generator tiny has no class 'd'"):
        ganrt.interpolate(tiny(), seeds=[1, 2], classes="d")
    (tmp_path / "translator.onnx").write_bytes(tiny_translator())
    with pytest.raises(UsageError, match="it takes images, not latents"):
        ganrt.interpolate(tmp_path / "translator.onnx", device="cpu")
