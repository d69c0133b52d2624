"""Which real pictures are nearest to a drawn one: what a model learned by heart is seen when they lie side by side.

    pixels     sqrt(mean (a - b)^2) over the numbers of two pictures, in grey levels of 255: 0 for the same picture
    features   the distance of two vectors, as of a judge that says what a picture shows

Pixel distances are those of bytes, counted in whole numbers: exact. Every real picture is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.errors import UserError


class Nearest(NamedTuple):
    """For each picture the rows of those nearest to it, the nearest first, and how far they are: (n, count) each."""

    row: Tensor  # int64; of equally near ones the first
    distance: Tensor  # float64


class HasPictures(Protocol):
    """(B, C, H, W) float in [-1, 1]."""

    @property
    def x(self) -> Tensor: ...


class Pictures(Protocol):
    """A data set, or what reads like one."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], /) -> HasPictures: ...


def nearest(
    pictures: Tensor,
    dataset: Pictures,
    count: int,
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    batch: int = 512,
) -> Nearest:
    """The `count` pictures of `dataset` that are nearest to each of `pictures` (n, C, H, W) in [-1, 1].

    By their bytes, in grey levels (RMSE); with `features`, pictures -> (n, D), by the distance of these. Raises
    UserError where the pictures are not of one size, or there are fewer.
    """
    if not 1 <= count <= len(dataset):
        raise UserError(f"{count} nearest of {len(dataset)} pictures: ask for 1 to {len(dataset)}")
    take = features or (lambda x: to_bytes(x).flatten(1))
    mine = take(pictures).double()
    row = torch.zeros(len(pictures), 0, dtype=torch.int64)
    square = torch.zeros(len(pictures), 0, dtype=torch.float64)
    for first in range(0, len(dataset), batch):
        rows = range(first, min(first + batch, len(dataset)))
        x = dataset.batch(rows).x
        if x.shape[1:] != pictures.shape[1:]:
            raise UserError(f"pictures of {_size(pictures)} cannot be compared with those of {_size(x)}")
        found = _squares(mine, take(x).double())
        square, order = torch.cat([square, found], 1).sort(dim=1, stable=True)
        row = torch.cat([row, torch.tensor(rows).expand(len(pictures), -1)], 1).gather(1, order)
        row, square = row[:, :count], square[:, :count]
    return Nearest(row, (square / mine.shape[1] if features is None else square).sqrt())


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2, (n, m), of (n, D) and (m, D): whole where they are whole, for all sums are far below 2^53."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)


def _size(x: Tensor) -> str:
    return f"{x.shape[3]}x{x.shape[2]} pixels with {x.shape[1]} channels"
