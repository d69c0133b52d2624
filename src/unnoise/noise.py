"""Random numbers as pure functions of a key.

There is no global generator and no order of calls. The noise of picture 7 at time 0.3 is the same whatever else is
sampled in its batch, on how many machines, and in which order. The numbers come from the CPU's generator, so they are
the same for every device.

This generator fills tensors: the noise of training and sampling, keyed by seed, time and draw (blake2b into PyTorch's
CPU generator). The order of a data set, its crops and its flips come from data/random.py, which needs no torch and
computes one number for each of many keys at once (splitmix64).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Noise = Callable[[Tensor, int], Tensor]
"""(time, draw) -> standard normals (B, ...): independent for different pairs, the same for the same pair."""

_TICKS = 2**40  # times are equal within 1e-12: the rounding of a computed grid does not change the noise


def generator(*key: int | str) -> torch.Generator:
    """Returns the CPU generator of this key; generators of different keys are independent."""
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        match part:
            case str():
                digest.update(b"s" + struct.pack("<q", len(part.encode())) + part.encode())
            case _:
                digest.update(b"i" + int(part).to_bytes(16, "little", signed=True))
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little") >> 1)


def normal(shape: Sequence[int], *key: int | str) -> Tensor:
    """Standard normals of this shape and key, float32."""
    return torch.randn(tuple(shape), generator=generator(*key))


def uniform(shape: Sequence[int], *key: int | str) -> Tensor:
    """Uniform numbers on [0, 1) of this shape and key, float64."""
    return torch.rand(tuple(shape), generator=generator(*key), dtype=torch.float64)


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
        return torch.stack([normal(self.shape, *key) for key in keys]).to(self.device)
