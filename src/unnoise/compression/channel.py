"""Reverse channel coding of a Gaussian: the sender picks one of many shared noises, and sends its number.

    wanted: target + N(0, I),    shared: candidates z_i ~ N(0, I),    log w_i = z_i . target - |target|^2 / 2

Theis et al. 2022. In a Gaussian step the Gaussians of receiver and sender have one variance and differ by
`target` standard deviations, which is |target|^2 / 2 nats. There are two methods:

    draw      a sample of the channel: ordered random coding (Theis & Yosri 2022). Exact with enough candidates; it
              costs some more bits for each piece
    nearest   the candidate that goes as far along the target as the target itself: the channel's mean along it, without
              its noise. In the other directions the noise is the shared one

The candidates are the cyclic shifts of few random vectors, so that all products with the target are FFTs: 2^16
candidates of 784 numbers cost some milliseconds. Each is exactly N(0, I), and two are nearly independent where the
target looks like noise, as it does after `spread`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from unnoise.noise import normal, signs, uniform

Key = tuple[int | str, ...]
Pick = Callable[[Tensor, Key, int], int]
"""(target (m,), key, bits) -> the number of one of the 2^bits candidates of this key."""


# --- the candidates ---


def _vectors(size: int, key: Key, bits: int) -> Tensor:
    return normal((-(-(2**bits) // size), size), "candidates", *key)


def candidate(index: int, size: int, key: Key, bits: int) -> Tensor:
    """Returns candidate `index` of 2^bits, (size,) float32: a function of the key."""
    return _vectors(size, key, bits)[index // size].roll(index % size)


def products(target: Tensor, key: Key, bits: int) -> Tensor:
    """Returns z_i . target of all candidates, (2^bits,), for a target (m,)."""
    size = len(target)
    spectrum = torch.fft.rfft(_vectors(size, key, bits)).conj() * torch.fft.rfft(target.float())
    found: Tensor = torch.fft.irfft(spectrum, n=size)
    return found.flatten()[: 2**bits]


def spread(x: Tensor, key: Key) -> Tensor:
    """Maps the last axis orthogonally so that any vector looks like noise: the key's signs, then Hartley's transform.

    `gather` is its inverse.
    """
    return _hartley(x * _signs(x, key))


def gather(x: Tensor, key: Key) -> Tensor:
    """The inverse of `spread`."""
    return _hartley(x) * _signs(x, key)


def _signs(x: Tensor, key: Key) -> Tensor:
    return signs(x.shape[-1:], "signs", *key).to(x)


def _hartley(x: Tensor) -> Tensor:
    spectrum: Tensor = torch.fft.fft(x, norm="ortho")
    return spectrum.real - spectrum.imag


# --- which one ---


def nearest(target: Tensor, key: Key, bits: int) -> int:
    """The candidate whose product with the target is nearest to the target's own square."""
    return int((products(target, key, bits) - target.float().square().sum()).abs().argmin())


def draw(target: Tensor, key: Key, bits: int) -> int:
    """Ordered random coding: argmin log T_i - log w_i, with T_i the arrivals of a Poisson process.

    The sender's arrivals: no receiver needs them. Small numbers are likelier than large ones, see `law`.
    """
    waits = -torch.log1p(-uniform((2**bits,), "arrivals", *key))
    return int((waits.cumsum(0).log() - products(target, key, bits).double()).argmin())


PICKS: dict[str, Pick] = {"nearest": nearest, "draw": draw}


# --- what its number costs ---


@lru_cache
def law(bits: int, spare: float | None) -> tuple[float, ...]:
    """Returns the probability of each octave of number + 1, (bits + 1,): [1], [2, 3], [4..7] ...; uniform within one.

    `spare` None: all numbers are alike, which is the law of `nearest`. Otherwise that of `draw` where 2^bits candidates
    are 2^spare times the divergence: log2 of the number is about normal, for log w is, cut at the last candidate.
    """
    width = [1.0] * bits + [2.0**-bits]  # number + 1 = 2^bits is alone in its octave
    if spare is None:
        chance = [2.0 ** (o - bits) * width[o] for o in range(bits + 1)]
    else:
        nats = max(bits - spare, 1) * math.log(2)
        middle, deviation = bits - spare + CENTRE, WIDTH * math.sqrt(2 * nats) / math.log(2)
        chance = [math.exp(-(((o + 0.5 - middle) / deviation) ** 2) / 2) * width[o] + 1e-4 for o in range(bits + 1)]
    return tuple(each / sum(chance) for each in chance)


CENTRE, WIDTH = -0.7, 0.9  # of log2(number), against bits - spare and the deviation of log2 w: measured, see the tests


def octave(index: int) -> tuple[int, int]:
    """(the octave of index + 1, the place in it)."""
    high = (index + 1).bit_length() - 1
    return high, index + 1 - (1 << high)


def cost(index: int, bits: int, spare: float | None) -> float:
    """Bits that the number costs under its law."""
    high, _ = octave(index)
    return -math.log2(law(bits, spare)[high]) + (high if high < bits else 0)
