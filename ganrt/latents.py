"""Latents and labels as functions of (seed, index): bit-equal on every machine.

A sample is its index. The bits come from the counter-based generator Philox4x64-10 (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"), so any index can be had without the ones before
it. Normal deviates are made by Box and Muller's transform (1958) from operations that IEEE 754 rounds
exactly (+, -, *, /, sqrt on float32, one at a time, in the order written here), never from a
library's log or cos, which differ between machines. docs/contract.md defines it for other languages.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

MAX_SEED = (1 << 64) - 1
MAX_INDEX = (1 << 48) - 1
# Second word of the Philox key: anything else that is ever drawn gets a number of its own.
Z_STREAM = 0
DIRECTION_STREAM = 1  # of the directions that neighbours of a sample lie in

_f32 = np.float32
_TWO_LN2 = _f32(float.fromhex("0x1.62e430p+0"))
# Minimax polynomials, lowest power first.
_ATANH4 = [_f32(float.fromhex(c)) for c in ("0x1.0p+2", "0x1.555588p+0", "0x1.9957a8p-1", "0x1.326d56p-1")]
_SIN = [
    _f32(float.fromhex(c))
    for c in ("0x1.921fb6p+0", "-0x1.4abbc4p-1", "0x1.4668f0p-4", "-0x1.32531ep-8", "0x1.3e1420p-13")
]
_COS = [
    _f32(float.fromhex(c)) for c in ("0x1.0p+0", "-0x1.de9e5ep-3", "0x1.472a68p-6", "-0x1.d4784ep-11", "0x1.8bf430p-16")
]


def latents(
    seed: int,
    start: int,
    count: int,
    z_dim: int,
    *,
    distribution: str = "normal",
    std: float = 1.0,
    stream: int = Z_STREAM,
) -> NDArray[np.float32]:
    """z of the samples start … start+count-1: float32 [count, z_dim].

    ``normal`` has mean 0 and deviation ``std``; ``uniform`` lies in [-std, std]. ``seed`` is 0 … 2^64-1,
    indices are 0 … 2^48-1. Another
    ``stream`` gives other numbers, independent of these.
    """
    pairs = (z_dim + 1) // 2
    words = _words(seed, start, count, 2 * pairs, stream)
    if distribution == "uniform":
        z = _signed(words[:, :z_dim])
    else:
        z = np.empty((count, 2 * pairs), _f32)
        radius, (cosine, sine) = _radius(words[:, :pairs]), _turn(words[:, pairs : 2 * pairs])
        np.multiply(radius, cosine, out=z[:, :pairs])
        np.multiply(radius, sine, out=z[:, pairs:])
        if z_dim % 2:
            z = np.ascontiguousarray(z[:, :z_dim])
    if std != 1.0:
        z *= _f32(std)
    return z


def labels(classes: tuple[int, ...], start: int, count: int) -> NDArray[np.int64]:
    """y of the samples start … start+count-1: int64 [count], label of index i = classes[i mod len(classes)].

    Any run of indices is balanced to within one image a class. No bits are drawn, so that label and z
    are independent.
    """
    turn = np.arange(start, start + count, dtype=np.int64) % len(classes)
    return np.array(classes, np.int64)[turn]


def _words(seed: int, start: int, count: int, needed: int, stream: int) -> NDArray[np.uint32]:
    """The first ``needed`` 32-bit words of each sample: uint32 [count, needed].

    A sample owns a whole number of blocks of four 64-bit outputs; each output gives its low half first.
    """
    blocks = (needed + 7) // 8
    # numpy's Philox counts up before it makes a block: block b of the stream has counter b + 1.
    philox = np.random.Philox(key=(stream << 64) | seed, counter=start * blocks)
    outputs = philox.random_raw(count * blocks * 4)
    if sys.byteorder == "big":
        outputs = outputs.byteswap()
    words: NDArray[np.uint32] = outputs.view(np.uint32)
    if sys.byteorder == "big":
        words = words.byteswap()
    return words.reshape(count, blocks * 8)[:, :needed]


def _signed(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """A word as a signed number, divided by 2^31: float32 in [-1, 1]."""
    x = words.astype(np.int32, order="C", casting="unsafe").astype(_f32)
    x *= _f32(2.0**-31)
    return x


def _radius(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """sqrt(-2 ln u) with u = (word >> 1 | 1) / 2^31: float32 in [0, 6.56]."""
    bits = ((words >> np.uint32(1)) | np.uint32(1)).view(np.int32).astype(_f32).view(np.int32)
    # u·2^31 = 2^exponent · mantissa, with the mantissa in [sqrt(1/2), sqrt(2))
    exponent = bits - np.int32(0x3F3504F3)
    exponent >>= np.int32(23)
    bits -= exponent << np.int32(23)
    mantissa = bits.view(_f32)
    # 2 ln m = 4 atanh(s), s = (m - 1) / (m + 1)
    s = mantissa + _f32(1)
    mantissa -= _f32(1)
    np.divide(mantissa, s, out=s)
    log = _polynomial(_ATANH4, s * s)
    log *= s
    result: NDArray[np.float32] = (np.int32(31) - exponent).astype(_f32)
    result *= _TWO_LN2
    result -= log
    return np.sqrt(result, out=result)


def _turn(words: NDArray[np.uint32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine of a uniform angle.

    The low 31 bits give an angle in [-pi/2, pi/2], where the cosine is not negative; the top bit is its sign.
    """
    x = _signed(words << np.uint32(1))  # angle / (pi/2)
    t = x * x
    sine = _polynomial(_SIN, t)
    sine *= x
    cosine = _polynomial(_COS, t)
    cosine *= _f32(1) - t
    signs = cosine.view(np.uint32)
    signs ^= words & np.uint32(0x80000000)
    return cosine, sine


def _polynomial(coefficients: list[np.float32], t: NDArray[np.float32]) -> NDArray[np.float32]:
    """Horner's scheme, each operation rounded to float32."""
    result = t * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        result += coefficient
        result *= t
    result += coefficients[0]
    return result
