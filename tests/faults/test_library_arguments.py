"""Every argument of every public function, given values of the right and of all wrong types, ranges and shapes.

The call works, or raises a GanrtError that shows what was given: never Python's own TypeError from somewhere within.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ganrt
from tests.faults.conftest import Tally
from tests.faults.runs import furnish

QUICK = settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ROW = "library: any value for any argument"
NAN, INF = float("nan"), float("inf")
_numbers = itertools.count()

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 2**31, 2**48 - 1, 2**48, 2**63, 2**64 - 1, 2**64, 10**5000, 1.0, 3.0, 0.5),
    *(NAN, INF, -INF, 1e308, 1 + 2j, Ellipsis, object(), type, iter([1])),
    *("", "x", "1", "1,2", "a", "a,A", "é☃", "\udcff", "\0", "a\0b", "a" * 300, "x/" * 3000, b"x", "-x", "../x"),
    *("auto", "cuda:999999", "png", "rgb", "64x48", "1/2", "0/0", "5/4", "nearest", Path("x"), Path()),
    *([], (), {}, set(), {"a": 1}, [1], ["x"], [None], [0, 0], ["a", "A"], ["a"] * 1000, [[1], [1, 2]], range(3)),
    *((1, 2), (0, 0), (16385, 1), ("1", "2"), (1.0, 2.0), (1, 2, 3)),
    *(np.int32(3), np.uint8(2), np.float32(0.5), np.bool_(True), np.array(3), np.array([1, 2]), np.array([], int)),
    *(np.zeros((2, 8), "f4"), np.zeros((2, 8), "U1"), np.zeros((2, 4, 6)), np.full((2, 8), NAN), np.zeros((0, 8))),
    *(np.zeros((2, 8), bool), np.zeros((2, 8), object), np.zeros((1, 8, 8, 3), "u1"), np.zeros((1, 8, 8, 3))),
]

# What takes which arguments, beside those that it is given so that it works.
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "load": (ganrt.load, {"model": "tiny"}, "model device batch threads provider_options"),
    "load_translator": (ganrt.load_translator, {"model": "pix"}, "model device batch threads provider_options"),
    "generate": (
        ganrt.generate,
        {"model": "tiny", "n": 3, "out": "{}"},
        "model n out workers threads device provider_options shard overwrite progress cancel seed start classes psi "
        "latent_std size resample mode layout format quality mark shard_size batch part",
    ),
    "forecast": (ganrt.forecast, {"model": "tiny", "n": 3, "out": "{}"}, "model n out processes overwrite classes"),
    "translate": (
        ganrt.translate,
        {"model": "pix", "images": "photos", "out": "{}"},
        "model images out workers threads device overwrite progress cancel resize resample tile layout format quality "
        "mark shard_size batch",
    ),
    "upscale": (
        ganrt.upscale,
        {"model": "up", "images": "photos", "out": "{}", "tile": 16},
        "model images tile overlap multiple",
    ),
    "preview": (ganrt.preview, {"source": "tiny"}, "source out rows cols classes seed device"),
    "interpolate": (
        ganrt.interpolate,
        {"model": "tiny", "frames": 2},
        "model out seeds frames classes psi latent_std space loop square fps size device",
    ),
    "style_mix": (ganrt.style_mix, {"model": "tiny"}, "model out rows cols layers classes psi device"),
    "explain": (
        ganrt.explain,
        {"source": "tiny", "index": 1},
        "source index seed classes psi latent_std part model out device",
    ),
    "verify": (ganrt.verify, {"root": "data"}, "root repair model images device progress"),
    "merge": (ganrt.merge, {}, "root"),
    "list_models": (lambda folder: ganrt.list_models(folder), {}, "folder"),
    "bench": (ganrt.bench, {"seconds": 0}, "device batch workers threads out cancel"),
    "sample": (
        lambda **a: ganrt.load("tiny", "cpu").sample(**a),
        {"n": 2},
        "n seed start classes psi size latent_std resample mode",
    ),
    "stream": (lambda **a: next(ganrt.load("tiny", "cpu").stream(**a), None), {"n": 2}, "n seed start"),
    "call": (lambda **a: ganrt.load("tiny", "cpu")(**a), {"z": np.zeros((2, 8)), "y": 0}, "z y psi"),
    "w": (lambda **a: ganrt.load("tiny", "cpu").w(**a), {"z": np.zeros((2, 8)), "y": 0}, "z y psi"),
    "from_w": (lambda **a: ganrt.load("tiny", "cpu").from_w(**a), {}, "w"),
    "translator": (lambda **a: ganrt.load_translator("pix", "cpu")(**a), {}, "images"),
}
ARGUMENTS = [(name, argument) for name, (*_, arguments) in FUNCTIONS.items() for argument in arguments.split()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with generators, images and a dataset."""
    here = tmp_path_factory.mktemp("library")
    furnish(here)
    before = Path.cwd()
    os.chdir(here)
    with patch.dict(os.environ, {"GANRT_MODELS": str(here / "models")}):
        yield here
    os.chdir(before)


def long(name: str, argument: str, value: Any) -> bool:
    """Whether a value can be meant and is work, or is the test's own fault."""
    if argument == "progress" and callable(value):
        return True
    return name == "generate" and argument == "n" and type(value) is int and 2**31 <= value < 2**48


def tried(tally: Tally, name: str, argument: str, value: Any) -> None:
    """One call with a value for one argument."""
    if long(name, argument, value):
        return
    function, usual, arguments = FUNCTIONS[name]
    given = dict(usual)
    if isinstance(given.get("out"), str):
        given["out"] = f"out{next(_numbers)}"
    if "device" in arguments.split() or name == "forecast":
        given["device"] = "cpu"
    try:
        function(**{**given, argument: value})
    except ganrt.GanrtError as error:
        if not error.message or "\0" in error.message or len(error.message) > 9000:
            tally.lost(ROW, f"{name}({argument}={short(value)}): message {error.message[:100]!r}")
        elif isinstance(error, ganrt.UsageError) and not says(error.message, argument, value):
            tally.lost(ROW, f"{name}({argument}={short(value)}) is not named: {error.message[:200]!r}")
        else:
            tally.survived(ROW)
    except Exception as error:
        tally.lost(ROW, f"{name}({argument}={short(value)}): {type(error).__name__}: {str(error)[:200]}")
    else:
        tally.survived(ROW)


def says(message: str, argument: str, value: Any) -> bool:
    """Whether a message names the argument or shows its value."""
    words = {argument.replace("_", " "), argument.rstrip("s"), argument.rstrip("es"), short(value)[:40].strip("'[](),")}
    words |= {"width", "height"} if argument == "size" else {"parts"} if argument == "part" else set()
    words |= {str(value)} if isinstance(value, (str, Path)) else set()
    words |= {"labels"} if argument == "y" else set()
    words |= {"seed"} if argument in ("rows", "cols") else {"lies in"} if argument in ("images", "out") else set()
    words |= {"dataset", "folder"} if argument == "root" else {"model"} if argument == "source" else set()
    return any(word in message for word in words) or message == "seconds 0"  # of bench, where nothing else is wrong


def short(value: Any) -> str:
    """A value for a message."""
    try:
        return repr(value)[:80]
    except ValueError:
        return "thousands of digits"


@QUICK
@given(where=st.sampled_from(ARGUMENTS), value=st.sampled_from(VALUES))
def test_a_few_values_work_or_are_refused(place: Path, tally: Tally, where: tuple[str, str], value: Any) -> None:
    """A hundred and fifty of all."""
    tried(tally, *where, value)


@pytest.mark.faults
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_values_work_or_are_refused(place: Path, tally: Tally, name: str) -> None:
    """Every value for every argument."""
    for _, argument in (pair for pair in ARGUMENTS if pair[0] == name):
        for value in VALUES:
            tried(tally, name, argument, value)


def test_numbers_and_arrays_of_numpy_are_as_good_as_pythons(place: Path, tally: Tally) -> None:
    """Integers of numpy count, and memory laid out in any way is read as it is meant."""
    generator = ganrt.load("tiny", "cpu", batch=4)
    z = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    wanted = generator(z, [0, 1, 2, 0])
    ends: dict[str, Any] = {"n": np.int64(3), "seed": np.uint64(2**64 - 1)}
    locked = z.copy()
    locked.flags.writeable = False
    alike: list[Any] = [np.asfortranarray(z), z.astype(np.float64), z.tolist(), locked, z.astype(">f4"), z[::-1][::-1]]
    for layout in alike:
        assert np.array_equal(generator(layout, np.array([0, 1, 2, 0], np.uint8)), wanted)
    assert np.array_equal(generator.sample(**ends), generator.sample(3, 2**64 - 1))
    numbers: dict[str, Any] = {"n": np.int16(3), "size": (np.int8(4), 5), "batch": np.uint8(2)}
    ganrt.generate("tiny", out="numpy", device="cpu", **numbers)
    assert not ganrt.verify("numpy")
    tally.survived("library: numpy's integers, any layout of memory", len(alike) + 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"n": True}, "n True"),
        ({"n": 3.0}, "n 3.0"),
        ({"n": "3"}, "n '3'"),
        ({"n": 2**40}, f"n {2**40}: so many images do not fit into memory"),
        ({"n": 1, "start": 2**48 - 1}, "start \\+ n 281474976710656"),
        ({"n": 1, "seed": -1}, "seed -1"),
        ({"n": 1, "seed": 2**64}, f"seed {2**64}"),
        ({"n": 1, "seed": 10**5000}, "seed of thousands of digits"),
        ({"n": 1, "latent_std": NAN}, "latent std nan"),
        ({"n": 1, "psi": 1e308}, "psi 1e\\+308"),
        ({"n": 1, "size": (1, 16385)}, "height 16385"),
        ({"n": 1, "classes": ["a", 0]}, "class 'a' is named twice"),
        ({"n": 1, "classes": ["a"] * 100_000}, "class 'a' is named twice"),
        ({"n": 1, "classes": []}, "no class is named"),
    ],
)
def test_a_refusal_shows_the_value(place: Path, tally: Tally, arguments: dict[str, Any], told: str) -> None:
    """The message begins with the argument's name and its value."""
    with pytest.raises(ganrt.UsageError, match=f"^{told}"):
        ganrt.load("tiny", "cpu").sample(**arguments)
    tally.survived(ROW)


def test_the_ends_of_every_range_work(place: Path, tally: Tally) -> None:
    """No image, the last index, the largest seed, the smallest and the largest sides."""
    generator = ganrt.load("tiny", "cpu")
    assert generator.sample(0).shape == (0, 8, 8, 3)
    assert generator.sample(1, seed=2**64 - 1, start=2**48 - 2).shape == (1, 8, 8, 3)
    assert generator.sample(1, size=1).shape == (1, 1, 1, 3)
    assert generator.sample(1, size=(1, 16_384)).shape == (1, 16_384, 1, 3)
    assert generator.sample(1, psi=0, latent_std=100).any()
    assert ganrt.generate("tiny", n=0, out="none", device="cpu").images == 0
    assert not ganrt.verify("none")
    tally.survived("library: the ends of every range", 7)


def test_a_billion_images_are_forecast_at_once_and_refused_where_they_do_not_fit(place: Path, tally: Tally) -> None:
    """What a plan would need is told without going through it."""
    began = threading.Timer(20, lambda: os._exit(9))  # a forecast that goes through all of them takes minutes
    began.start()
    try:
        told = ganrt.forecast("tiny", n=10**9, out="large", device="cpu", layout="npy", size=1, batch=8)
        assert (told.images, told.files) == (10**9, 5)
        assert told.bytes < 4 * 10**9
    except ganrt.StorageFull as error:
        assert error.message.startswith("1,000,000,000 images need about ")
    finally:
        began.cancel()
    with pytest.raises(ganrt.StorageFull, match="^1,000,000,000 images need about "):
        ganrt.forecast("tiny", n=10**9, out="large", device="cpu", size=512)
    tally.survived("n = 10^9 with a forecast", 2)


def test_what_does_not_fit_into_memory_is_said(place: Path, tally: Tally) -> None:
    """A batch that numpy cannot have memory for: an error that says to take a smaller one."""
    with patch("ganrt.generator.resize", side_effect=MemoryError), patch("ganrt.encode._png", side_effect=MemoryError):
        for call in (
            lambda: ganrt.generate("tiny", n=9, out="much", size=9, device="cpu"),
            lambda: ganrt.forecast("tiny", n=9, out="more", device="cpu"),
            lambda: next(ganrt.load("tiny", "cpu").stream(9, size=9)),
        ):
            with pytest.raises(ganrt.InferenceError, match="do not fit into memory") as raised:
                call()
            assert "batch" in (raised.value.hint or "")
    tally.survived("no memory for a batch of large images", 3)


def test_the_arguments_tried_are_all_there_are() -> None:
    """A new argument of a function is tried too."""
    import inspect
    import typing

    from ganrt.planning import PlanOptions
    from ganrt.translation_planning import TranslationOptions

    options = {"generate": PlanOptions, "translate": TranslationOptions}
    for name in ("load", "load_translator", "generate", "translate", "preview", "interpolate", "style_mix", "explain"):
        there = set(inspect.signature(getattr(ganrt, name)).parameters) - {"options"}
        there |= set(typing.get_type_hints(options[name])) if name in options else set()
        tried_elsewhere = {"processes", "overlap", "multiple"}
        assert there - tried_elsewhere <= set(FUNCTIONS[name][2].split()), name
