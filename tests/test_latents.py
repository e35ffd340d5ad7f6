"""Latents and labels: the same bits everywhere, normal, and independent of one another."""

from __future__ import annotations

import importlib
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ganrt.latents import MAX_SEED, labels, latents

Floats = NDArray[np.float64]
CONTRACT = Path(__file__).parent.parent / "docs" / "contract.md"

# An implementation of the definition that shares nothing with ganrt's: Python's integers, and Python's floats
# (binary64) rounded to binary32 after each operation. For + - * / and sqrt that is the exactly rounded binary32
# result, since 53 >= 2 * 24 + 2 (Figueroa 1995, "When is double rounding innocuous?").

MASK = (1 << 64) - 1


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x64-10 of Salmon et al. 2011."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        low, high = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = (high >> 64) ^ b ^ k, high & MASK, (low >> 64) ^ d ^ m, low & MASK
        k, m = (k + 0x9E3779B97F4A7C15) & MASK, (m + 0xBB67AE8584CAA73B) & MASK
    return a, b, c, d


def f32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def horner(coefficients: str, t: float) -> float:
    result = 0.0
    for coefficient in reversed(coefficients.split()):
        result = f32(f32(result * t) + float.fromhex(coefficient))
    return result


def signed(word: int) -> float:
    return f32(f32(float(word - (1 << 32) if word >> 31 else word)) * 2.0**-31)


def normal_pair(first: int, second: int) -> tuple[float, float]:
    mantissa, exponent = math.frexp(f32(float((first >> 1) | 1)))
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = mantissa * 2, exponent - 1
    s = f32(f32(mantissa - 1) / f32(mantissa + 1))
    log = f32(horner("0x1.0p+2 0x1.555588p+0 0x1.9957a8p-1 0x1.326d56p-1", f32(s * s)) * s)
    radius = f32(math.sqrt(f32(f32((31 - exponent) * float.fromhex("0x1.62e430p+0")) - log)))
    x = signed((second << 1) & 0xFFFFFFFF)
    t = f32(x * x)
    sine = f32(horner("0x1.921fb6p+0 -0x1.4abbc4p-1 0x1.4668f0p-4 -0x1.32531ep-8 0x1.3e1420p-13", t) * x)
    cosine = f32(horner("0x1.0p+0 -0x1.de9e5ep-3 0x1.472a68p-6 -0x1.d4784ep-11 0x1.8bf430p-16", t) * f32(1 - t))
    return f32(radius * (-cosine if second >> 31 else cosine)), f32(radius * sine)


def reference(seed: int, index: int, z_dim: int, distribution: str) -> list[float]:
    pairs = (z_dim + 1) // 2
    blocks = (2 * pairs + 7) // 8
    words: list[int] = []
    for block in range(blocks):
        count = index * blocks + block + 1
        for output in philox((count & MASK, count >> 64, 0, 0), (seed, 0)):
            words += [output & 0xFFFFFFFF, output >> 32]
    if distribution == "uniform":
        return [signed(word) for word in words[:z_dim]]
    made = [normal_pair(words[k], words[pairs + k]) for k in range(pairs)]
    return ([pair[0] for pair in made] + [pair[1] for pair in made])[:z_dim]


def test_the_reference_is_philox() -> None:
    # Known answers of its authors: Random123, tests/kat_vectors, "philox4x64 10".
    assert [f"{w:016x}" for w in philox((0, 0, 0, 0), (0, 0))] == [
        "16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b"
    ]  # fmt: skip
    assert [f"{w:016x}" for w in philox((MASK,) * 4, (MASK, MASK))] == [
        "87b092c3013fe90b", "438c3c67be8d0224", "9cc7d7c69cd777b6", "a09caebf594f0ba0"
    ]  # fmt: skip


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("z_dim", [1, 2, 7, 100, 128])
@pytest.mark.parametrize("index", [0, 1, 12345, 2**48 - 9])
@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_latents_equal_the_reference_bit_for_bit(seed: int, index: int, z_dim: int, distribution: str) -> None:
    z = latents(seed, index, 8, z_dim, distribution=distribution)
    assert z.dtype == np.float32
    assert z.shape == (8, z_dim)
    for row in (0, 7):
        assert z[row].tolist() == reference(seed, index + row, z_dim, distribution)


@pytest.mark.parametrize(
    ("seed", "index", "distribution", "golden"),
    [
        (0, 0, "normal", "0x1.19c2p-3 0x1.fb6f1ep+0 0x1.841072p-1 0x1.4b563ap+1 -0x1.1e097ep+1"),
        (1, 12345, "normal", "-0x1.20d61cp+1 -0x1.963c4cp+0 0x1.145ac6p+0 -0x1.e96fa6p-1 0x1.c0d44ap+0"),
        (MAX_SEED, 2**48 - 9, "normal", "0x1.b723d2p-2 -0x1.8d86bap+0 -0x1.c28f2p-5 0x1.05f4fep-3 0x1.e6af3ep-2"),
        (0, 0, "uniform", "0x1.1c9b14p-4 0x1.7a5d32p-6 -0x1.8d5ceap-1 0x1.eeb158p-2 0x1.7640bap-1"),
    ],
)
def test_golden_latents(seed: int, index: int, distribution: str, golden: str) -> None:
    z = latents(seed, index, 1, 5, distribution=distribution)
    assert z[0].tolist() == [float.fromhex(number) for number in golden.split()]


def test_the_contract_tells_other_languages_these_latents() -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in CONTRACT.read_text().splitlines()
        if line.count("| ") == 5 and "0x" in line
    ]
    assert len(rows) >= 4
    for seed, index, z_dim, distribution, golden in rows:
        z = latents(int(seed), int(index), 1, int(z_dim), distribution=distribution)
        assert z[0].tolist() == [float.fromhex(number) for number in golden.split(", ")]


DIGEST = "25e39c08218e28a52c74a0f3cf5d75ded696da1e57decc65b7b6324b7001904b"
DIGEST_OF = """
import hashlib, json, sys
import numpy as np
from ganrt.latents import MAX_SEED, latents
state = hashlib.sha256()
for seed in (0, MAX_SEED):
    for distribution in ("normal", "uniform"):
        state.update(latents(seed, 2**48 - 5001, 5000, 101, distribution=distribution, std=0.7).astype("<f4").tobytes())
digest = state.hexdigest()
"""


def test_a_million_golden_latents() -> None:
    found: dict[str, Any] = {}
    exec(DIGEST_OF, found)
    assert found["digest"] == DIGEST


def test_latents_are_bit_equal_without_any_cpu_feature() -> None:
    numpy_core = importlib.import_module(
        ("numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core") + "._multiarray_umath"
    )
    dispatched = [name for name in numpy_core.__cpu_dispatch__ if numpy_core.__cpu_features__[name]]
    if not dispatched:
        pytest.skip("this processor has no feature that numpy would use")
    code = f"import {numpy_core.__name__} as core; features = core.__cpu_features__\n" + DIGEST_OF
    code += "print(digest, *[name for name in core.__cpu_dispatch__ if features[name]])"
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [DIGEST], "another digest, or features that were still on"


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("z_dim", [1, 7, 100])
def test_a_run_of_latents_equals_its_samples_one_by_one(z_dim: int, distribution: str) -> None:
    run = latents(3, 1000, 37, z_dim, distribution=distribution, std=2.5)
    one_by_one = [latents(3, 1000 + k, 1, z_dim, distribution=distribution, std=2.5) for k in range(37)]
    assert np.array_equal(run, np.concatenate(one_by_one))
    assert np.array_equal(run[20:], latents(3, 1020, 17, z_dim, distribution=distribution, std=2.5))
    assert latents(3, 1000, 0, z_dim, distribution=distribution).shape == (0, z_dim)


def test_std_scales_latents() -> None:
    z = latents(5, 0, 10, 8)
    assert np.array_equal(latents(5, 0, 10, 8, std=0.5), z * np.float32(0.5))


@pytest.fixture(scope="module")
def many() -> Floats:
    """Three million values, as 30,000 samples of 100."""
    return latents(2024, 0, 30_000, 100).astype(np.float64)


def bound(deviations: float, count: int) -> float:
    return deviations / math.sqrt(count)


def test_latents_have_the_moments_of_the_normal_distribution(many: Floats) -> None:
    # The deviation of an estimate from n values is sqrt(c / n): c = 1, 2, 6, 24 for the first four moments.
    assert abs(many.mean()) < bound(4, many.size)
    assert abs(many.var() - 1) < bound(4 * math.sqrt(2), many.size)
    assert abs((many**3).mean()) < bound(4 * math.sqrt(15), many.size)
    assert abs((many**4).mean() - 3) < bound(4 * math.sqrt(96), many.size)
    assert np.abs(many.mean(axis=0)).max() < bound(5, len(many))
    assert np.abs(many.var(axis=0) - 1).max() < bound(5 * math.sqrt(2), len(many))


def test_latents_follow_the_normal_distribution_into_its_tails(many: Floats) -> None:
    values = np.sort(many[:10_000], axis=None)
    expected = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in values])
    steps = np.arange(len(values) + 1) / len(values)
    distance = max((steps[1:] - expected).max(), (expected - steps[:-1]).max())
    assert distance < bound(1.63, len(values))  # Kolmogorov and Smirnov's test at 1 %
    for limit in (2, 3, 4, 4.5):
        wanted = many.size * math.erfc(limit / math.sqrt(2))
        assert abs((np.abs(many) > limit).sum() - wanted) < 4 * math.sqrt(wanted)
    assert np.abs(many).max() < 6.6


def test_uniform_latents_fill_their_interval() -> None:
    values = np.sort(latents(7, 0, 10_000, 100, distribution="uniform").astype(np.float64), axis=None)
    assert -1 <= values[0] < -0.99999
    assert 0.99999 < values[-1] <= 1
    steps = np.arange(len(values)) / len(values)
    assert np.abs((values + 1) / 2 - steps).max() < bound(1.63, len(values))


def correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_the_dimensions_of_a_latent_are_independent(many: Floats) -> None:
    for values in (many, many**2, np.abs(many)):  # a pair from one radius would show in the squares
        correlations = np.corrcoef(values, rowvar=False)
        np.fill_diagonal(correlations, 0)
        assert np.abs(correlations).max() < bound(5, len(many))


@pytest.mark.parametrize("power", [1, 2])
def test_neighbouring_samples_and_seeds_are_independent(many: Floats, power: int) -> None:
    values = many**power
    for lag in (1, 2, 8, 10, 64):
        assert abs(correlation(values[lag:], values[:-lag])) < bound(4, many.size)
    for seed in (2023, 2025, 2024 ^ 1 << 32, 2024 ^ 1 << 63):
        other = latents(seed, 0, len(many), many.shape[1]).astype(np.float64) ** power
        assert abs(correlation(values, other)) < bound(4, many.size)
    assert not np.isin(latents(2025, 0, 100, 100), latents(2024, 0, 300, 100)).all(axis=1).any()


def test_label_and_latent_are_independent(many: Floats) -> None:
    y = labels(tuple(range(10)), 0, len(many))
    for label in range(10):
        mine = many[y == label]
        assert np.abs(mine.mean(axis=0)).max() < bound(5, len(mine))
        assert np.abs(mine.var(axis=0) - 1).max() < bound(5 * math.sqrt(2), len(mine))
    assert abs(correlation(many, np.repeat(y[:, None], many.shape[1], axis=1).astype(np.float64))) < bound(4, many.size)


def test_labels_take_turns_by_absolute_index() -> None:
    y = labels((4, 0, 7), 10, 7)
    assert y.dtype == np.int64
    assert y.tolist() == [0, 7, 4, 0, 7, 4, 0]
    assert labels((4, 0, 7), 2**48 - 9, 3).tolist() == [(4, 0, 7)[(2**48 - 9 + k) % 3] for k in range(3)]
    assert labels((1,), 0, 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize("start", [0, 1, 6, 12345])
def test_any_run_of_labels_is_balanced(start: int) -> None:
    for count in range(0, 60):
        counts = np.bincount(labels(tuple(range(7)), start, count), minlength=7)
        assert counts.sum() == count
        assert counts.max() - counts.min() <= 1
