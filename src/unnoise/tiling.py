"""Encoding and decoding in groups of rows and in overlapping tiles, so that memory does not grow with the area.

    rows that have at most `whole` pixels together      in one call
    a picture with more pixels                          in square tiles of one size, evenly spread
    y = sum_i w_i apply(tile_i) / sum_i w_i             w_i rises and falls in the middle half of an overlap

A tile ends where the picture goes on, so that its outermost pixels are wrong and have no weight. Norms and attention
are over a tile instead of the whole picture and differ a little from tile to tile, which the overlap blends. Laws
(tests/test_tiling.py): one tile is the plain result, bit for bit; so are tiles, to rounding, of a function that sees
nearby pixels only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """Above which size tiles are used, and their size, in pixels of the picture.

    1024 x 1024 pixels need about 4 GiB with the autoencoder of Stable Diffusion in float32, a tile about 1 GiB.
    """

    whole: int = 1024 * 1024  # pixels in one call
    side: int = 512  # of a tile
    overlap: int = 128  # of neighbouring tiles, at least


def tiled(
    apply: Callable[..., Tensor], inputs: Sequence[Tensor], size: tuple[int, int], factor: int, tiles: Tiles
) -> Tensor:
    """`apply(*inputs)`, computed for groups of rows, or for each row in tiles.

    `size` is (H, W) of the latents. Each input, and the result, is either of latents (B, C, H, W) or of pictures
    (B, C, factor H, factor W). `apply` treats rows separately.
    """
    height, width = size
    pixels = height * width * factor**2
    if pixels > tiles.whole:
        side, overlap = (max(1, length // factor) for length in (tiles.side, tiles.overlap))
        rows = [
            _blended(apply, row, size, side, min(overlap, side - 1))
            for row in zip(*(torch.split(x, 1) for x in inputs))
        ]
    else:
        groups = (torch.split(x, max(1, tiles.whole // pixels)) for x in inputs)
        rows = [apply(*group) for group in zip(*groups)]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _blended(
    apply: Callable[..., Tensor], inputs: Sequence[Tensor], size: tuple[int, int], side: int, overlap: int
) -> Tensor:
    """`apply` of one row in tiles of `side` latents."""
    down, across = (min(side, length) for length in size)
    rows, columns = (spread(length, side, overlap) for length in size)
    if len(rows) == len(columns) == 1:
        return apply(*inputs)
    whole: Tensor | None = None
    for row in rows:
        for column in columns:
            y = apply(*(_cut(x, size, (row, column), (down, across)) for x in inputs))
            scale = y.shape[-1] // across
            weight_rows = weights(rows, row, down, scale).to(y)[:, None]
            weight_columns = weights(columns, column, across, scale).to(y)
            if whole is None:
                whole = y.new_zeros(*y.shape[:2], scale * size[0], scale * size[1])
            _cut(whole, size, (row, column), (down, across)).add_(y * weight_rows * weight_columns)
    assert whole is not None
    return whole


def _cut(x: Tensor, size: tuple[int, int], start: tuple[int, int], sides: tuple[int, int]) -> Tensor:
    """The part of x, of latents or of pictures, that a tile of latents covers: a view."""
    scale = x.shape[-2] // size[0]
    (row, column), (down, across) = start, sides
    return x[..., scale * row : scale * (row + down), scale * column : scale * (column + across)]


def spread(length: int, side: int, overlap: int) -> list[int]:
    """The starts of tiles that cover 0 ... length - 1, evenly spread; neighbours overlap by `overlap` or more."""
    if length <= side:
        return [0]
    steps = -(-(length - side) // (side - overlap))
    return [round(i * (length - side) / steps) for i in range(steps + 1)]


def weights(starts: Sequence[int], start: int, side: int, scale: int) -> Tensor:
    """The weights (scale side,) of one tile along an axis, float64; those of all tiles sum to 1 at every place."""
    place = torch.arange(scale * side, dtype=torch.float64) + scale * start
    total = sum(_ramp(starts, i, side, scale, place) for i in range(len(starts)))
    return _ramp(starts, starts.index(start), side, scale, place) / total


def _ramp(starts: Sequence[int], i: int, side: int, scale: int, place: Tensor) -> Tensor:
    """The weight of tile `i` at these places before it is divided by the sum; 0 outside the tile."""
    first, end = starts[i], starts[i] + side
    weight = ((place >= scale * first) & (place < scale * end)).double()
    if i > 0:  # rises in the overlap with the tile before
        weight = weight * _rise((place + 0.5 - scale * first) / (scale * (starts[i - 1] + side - first)))
    if i < len(starts) - 1:
        weight = weight * _rise((scale * end - place - 0.5) / (scale * (end - starts[i + 1])))
    return weight


def _rise(share: Tensor) -> Tensor:
    """0 in the first quarter of an overlap, 1 in the last."""
    return (2 * share - 0.5).clamp(0, 1)
