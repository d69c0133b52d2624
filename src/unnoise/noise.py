"""Random numbers as pure functions of a key.

There is no global generator and no order of calls. The noise of picture 7 at time 0.3 is the same whatever else is
sampled in its batch, on how many machines, and in which order. The numbers are computed on the CPU, so they are the
same for every device.

A key, such as (seed, time, draw), is hashed to 128 bits, all of which are the key of the counter-based generator
Philox4x64-10 (Salmon et al. 2011, "Random123"): two of n keys have the same numbers with a probability of n^2 / 2^129.
Its 64-bit words w become uniform numbers, and pairs of normals by the transform of Box and Muller (1958):

    r = sqrt(-2 log u),    (r cos 2 pi v, r sin 2 pi v),    u in (0, 1] from the upper half of w, v from the lower

These numbers fill tensors: the noise of training and sampling. The order of a data set, its crops and its flips come
from data/random.py, which computes one number for each of many keys at once (splitmix64).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unnoise.transfer import send

Noise = Callable[[Tensor, int], Tensor]
"""(time, draw) -> standard normals (B, ...): independent for different pairs, the same for the same pair."""

_TICKS = 2**40  # times are equal within 1e-12: the rounding of a computed grid does not change the noise


def hashed(*key: int | str) -> int:
    """Returns 128 bits that stand for the key: its parts, each with its type and length, by BLAKE2b."""
    digest = hashlib.blake2b(digest_size=16)
    for part in key:
        match part:
            case str():
                digest.update(b"s" + struct.pack("<q", len(part.encode())) + part.encode())
            case _:
                digest.update(b"i" + int(part).to_bytes(16, "little", signed=True))
    return int.from_bytes(digest.digest(), "little")


def words(count: int, *key: int | str) -> NDArray[np.uint64]:
    """Returns the first `count` 64-bit words of this key's generator; those of different keys are independent."""
    return np.random.Philox(key=hashed(*key)).random_raw(count)


def normal(shape: Sequence[int], *key: int | str) -> Tensor:
    """Standard normals of this shape and key, float32."""
    count = math.prod(shape)
    found = words((count + 1) // 2, *key)
    u = torch.from_numpy(((found >> np.uint64(32)) + 1.0) * 2.0**-32)
    angle = torch.from_numpy((found & np.uint64(2**32 - 1)) * (2.0**-31 * math.pi))
    radius = (-2 * u.log()).sqrt()
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], 1).float()
    return pairs.flatten()[:count].reshape(tuple(shape))


def uniform(shape: Sequence[int], *key: int | str) -> Tensor:
    """Uniform numbers on [0, 1) of this shape and key, float64: multiples of 2^-53."""
    found = (words(math.prod(shape), *key) >> np.uint64(11)) * 2.0**-53
    return torch.from_numpy(found.reshape(tuple(shape)))


def signs(shape: Sequence[int], *key: int | str) -> Tensor:
    """-1 or 1 with equal probability, of this shape and key, float32."""
    return torch.where(uniform(shape, *key) < 0.5, -1.0, 1.0)


def generator(*key: int | str) -> torch.Generator:
    """Returns PyTorch's own CPU generator, seeded by this key: for dropout, initial weights and subsets of pictures.

    PyTorch's generator for the CPU uses 32 bits of its seed, so no noise of a picture is drawn from it.
    """
    return torch.Generator().manual_seed(hashed(*key) >> 65)


@dataclass(frozen=True)
class Seeds:
    """The noise of a batch of pictures with one seed each. A row depends on its seed, the time and the draw alone.

    `shape` is a picture's (C, H, W). Rows are float32 on `device`.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"

    def start(self) -> Tensor:
        """Returns the noise that a walk starts from: (B, C, H, W)."""
        return self._rows([(seed, "start") for seed in self.seeds])

    def __call__(self, t: Tensor, draw: int = 0) -> Tensor:
        """Returns the noise that is added on arriving at time `t`, () or (B,)."""
        times = t.double().expand(len(self.seeds)).tolist()
        return self._rows([(seed, round(time * _TICKS), draw) for seed, time in zip(self.seeds, times)])

    def _rows(self, keys: list[tuple[int | str, ...]]) -> Tensor:
        return send(torch.stack([normal(self.shape, *key) for key in keys]), self.device)
