"""The real pictures that are nearest to a sample, to find pictures that a model has memorised.

    pixels     sqrt(mean (a - b)^2) over the numbers of two pictures, in grey levels of 255: 0 for the same picture
    features   the distance of two vectors, as of a classifier

Pixel distances are those of bytes in integer arithmetic: exact. Every real picture is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.errors import UserError


class Nearest(NamedTuple):
    """For each picture the rows of its nearest pictures, the nearest first, and their distances: (n, count) each."""

    row: Tensor  # int64; the first of equally near ones
    distance: Tensor  # float64


class HasPictures(Protocol):
    """(B, C, H, W) float in [-1, 1]."""

    @property
    def x(self) -> Tensor: ...


class Pictures(Protocol):
    """A data set, or an object with its interface."""

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

    By the RMSE of their bytes, in grey levels; with `features`, pictures -> (n, D), by the distance of these. Raises
    UserError if the pictures differ in size, or there are fewer than `count`.
    """
    if not 1 <= count <= len(dataset):
        raise UserError(f"{count} nearest of {len(dataset)} pictures: use 1 to {len(dataset)}")
    vectors = features or (lambda x: to_bytes(x).flatten(1))
    own = vectors(pictures).double()
    row = torch.zeros(len(pictures), 0, dtype=torch.int64)
    square = torch.zeros(len(pictures), 0, dtype=torch.float64)
    for first in range(0, len(dataset), batch):
        rows = range(first, min(first + batch, len(dataset)))
        x = dataset.batch(rows).x
        if x.shape[1:] != pictures.shape[1:]:
            raise UserError(f"pictures of {_size(pictures)} cannot be compared with those of {_size(x)}")
        found = _squares(own, vectors(x).double(), exact=features is not None)
        square, order = torch.cat([square, found], 1).sort(dim=1, stable=True)
        row = torch.cat([row, torch.tensor(rows).expand(len(pictures), -1)], 1).gather(1, order)
        row, square = row[:, :count], square[:, :count]
    return Nearest(row, (square / own.shape[1] if features is None else square).sqrt())


def _squares(a: Tensor, b: Tensor, *, exact: bool) -> Tensor:
    """|a_i - b_j|^2, (n, m), of (n, D) and (m, D).

    With `exact` they are computed from differences, so that copies have a distance of 0; the product of matrices is
    faster and as exact for bytes, whose sums are far below 2^53.
    """
    if exact:
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)


def _size(x: Tensor) -> str:
    return f"{x.shape[3]}x{x.shape[2]} pixels with {x.shape[1]} channels"
