"""Chance without a state: every draw is a pure function of integers.

    bits(a, b, c) = mix(mix(mix(a) + b) + c),    mix = splitmix64 (Steele, Lea & Flood 2014)

The order of an epoch, each crop and each flip come from here, so that they are the same for any number of workers,
processes and restarts, on every machine and version of numpy (whose own generators may change between releases).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

ORDER, FLIP, CROP, REPLACE, TOY, SHAPES = range(6)  # what a draw is for: the first number of its key

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: splitmix64's increment


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One output of splitmix64 at state z, modulo 2^64."""
    z = z + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bits(*key: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each key; arrays in the key are broadcast, the result has at least one axis."""
    state = np.zeros(1, np.uint64)
    for part in key:
        if isinstance(part, int):
            part = np.array([part & (2**64 - 1)], np.uint64)
        state = mix(state + part.astype(np.uint64))
    return state


def uniform(*key: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """Evenly in [0, 1), from the upper 53 bits."""
    return (bits(*key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@functools.lru_cache(maxsize=4)  # a step asks for the same epoch as the one before
def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order of an epoch: a permutation of 0..n-1, (n,), read-only, a pure function of its arguments."""
    shuffled = np.argsort(bits(ORDER, seed, epoch, np.arange(n)), kind="stable")
    shuffled.flags.writeable = False
    return shuffled
