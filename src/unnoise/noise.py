"""Randomness that belongs to something: a draw is a pure function of its key.

There is no global generator and no order of calls. The noise of picture 7 at time 0.3 is what it is, whatever else is
drawn in the same batch, on how many machines, and in which order. The numbers come from the CPU's generator, so they
are the same for every device.

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
"""(time, draw) -> noise (B, ...): fresh, independent standard normals for each pair; the same pair, the same noise."""

_TICKS = 2**40  # times are told apart to 1e-12: not by the last digit of how a grid was computed


def generator(*key: int | str) -> torch.Generator:
    """The CPU generator of this key. Keys that differ in anything have independent generators."""
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        match part:
            case str():
                digest.update(b"s" + struct.pack("<q", len(part.encode())) + part.encode())
            case _:
                digest.update(b"i" + int(part).to_bytes(16, "little", signed=True))
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little") >> 1)


def normal(shape: Sequence[int], *key: int | str) -> Tensor:
    """Standard normals, float32."""
    return torch.randn(tuple(shape), generator=generator(*key))


def uniform(shape: Sequence[int], *key: int | str) -> Tensor:
    """Uniform on [0, 1), float64."""
    return torch.rand(tuple(shape), generator=generator(*key), dtype=torch.float64)


@dataclass(frozen=True)
class Seeds:
    """Noise for a batch of pictures, a seed each. A row depends on its own seed, the time and the draw: nothing else.

    `shape` is a picture's (C, H, W). Rows are float32 on `device`.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"

    def start(self) -> Tensor:
        """The noise that a walk starts from: (B, C, H, W)."""
        return self._rows([(seed, "start") for seed in self.seeds])

    def __call__(self, t: Tensor, draw: int = 0) -> Tensor:
        """The noise that is added on arriving at time `t`, () or (B,)."""
        times = t.double().expand(len(self.seeds)).tolist()
        return self._rows([(seed, round(time * _TICKS), draw) for seed, time in zip(self.seeds, times)])

    def _rows(self, keys: list[tuple[int | str, ...]]) -> Tensor:
        return torch.stack([normal(self.shape, *key) for key in keys]).to(self.device)
