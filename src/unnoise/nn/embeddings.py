"""Embeddings of conditions: sinusoids of numbers, tables of classes, positions of patches.

    sinusoid(t)_i = sin(t w_i), cos(t w_i),    w_i = 10^4 ** (-i / (half - shift)),  i = 0 .. half - 1

DDPM puts the sines first and shifts by one; ADM and DiT put the cosines first and do not shift. Both layouts hold the
same numbers at different places, so that weights of one silently fail in the other (Ho et al. 2020, Dhariwal & Nichol
2021).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.errors import UserError


def sinusoid(time: Tensor, width: int, *, shift: float, cosine_first: bool) -> Tensor:
    """Sines and cosines of `time` (B,), which may be fractional: (B, width), float32. `width` is even."""
    half = width // 2
    # in float32 and in this order, as published networks were trained: at t = 999 one rounding is 6e-5 of an angle
    exponent = -math.log(1e4) * torch.arange(half, dtype=torch.float32, device=time.device) / (half - shift)
    angle = time.float()[:, None] * exponent.exp()
    waves = [angle.cos(), angle.sin()] if cosine_first else [angle.sin(), angle.cos()]
    return torch.cat(waves, dim=1)


class TimeEmbedding(nn.Module):
    """A two-layer network of the sinusoid of t: (B, width_in) -> (B, width)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, waves: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return out


def class_table(classes: int, width: int, *, null_class: bool) -> nn.Embedding | None:
    """A table with a row per class and, with `null_class`, one more for "no class"; None if there are no classes."""
    return nn.Embedding(classes + null_class, width) if classes else None


def class_rows(cond: Cond, batch: int, *, classes: int, null_class: bool, device: torch.device) -> Tensor | None:
    """The row of the class table for each sample, (B,) int64: its label, or the null row without labels.

    Raises UserError for labels that the network does not support, or requires and does not get.
    """
    if classes == 0:
        if cond.label is not None:
            raise UserError("this network is not conditioned on classes: give no labels")
        return None
    if cond.label is not None:
        return cond.label
    if not null_class:
        raise UserError(
            f"this network has {classes} classes and no null class (null_class is false): give every picture a label"
        )
    return torch.full((batch,), classes, device=device)


def grid_waves(side: int, width: int) -> Tensor:
    """Fixed positions of a square grid of patches: (side * side, width) float32, row by row.

    The first half of the channels encodes the column, the second the row, each as sines then cosines; `width` is
    a multiple of four. Peebles & Xie 2023, as in MAE (He et al. 2022).
    """
    place = torch.arange(side, dtype=torch.float32, device="cpu")  # computed, also in a network without weights (meta)
    waves = sinusoid(place, width // 2, shift=0.0, cosine_first=False)  # (side, width / 2)
    column = waves[None, :, :].expand(side, side, -1)
    row = waves[:, None, :].expand(side, side, -1)
    return torch.cat([column, row], dim=2).reshape(side * side, width)


class ValueEmbedding(nn.Module):
    """Numbers (B, K), each by its sinusoid and a two-layer network of its own, summed: (B, width).

    NaN is a missing number: with `null` a learned vector of that column is added in its place, else nothing.
    """

    def __init__(self, count: int, width_in: int, width: int, *, null: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(TimeEmbedding(width_in, width) for _ in range(count))
        self.null = nn.Embedding(count, width) if null else None

    def forward(self, waves: Tensor, missing: Tensor) -> Tensor:
        """From the sinusoids (B, K, width_in), and which of the numbers are missing (B, K) bool."""
        out = torch.zeros((), dtype=waves.dtype, device=waves.device)
        for column, network in enumerate(self.networks):
            embedding: Tensor = network(waves[:, column])
            null = torch.zeros_like(embedding) if self.null is None else self.null.weight[column]
            out = out + torch.where(missing[:, column, None], null, embedding)
        return out


def value_rows(cond: Cond, batch: int, *, values: int, null: bool, device: torch.device) -> Tensor | None:
    """The values of each sample, (B, values) float32; NaN without any.

    Raises UserError for values that the network does not support, or requires and does not get.
    """
    if values == 0:
        if cond.value is not None:
            raise UserError("this network is not conditioned on values: give none")
        return None
    if cond.value is not None:
        if cond.value.ndim != 2 or cond.value.shape[1] != values:
            raise UserError(f"value must be of shape (rows, {values}) for this network, not {tuple(cond.value.shape)}")
        return cond.value
    if not null:
        raise UserError(
            f"this network has {values} values and no null value (null_value is false): give every picture values"
        )
    return torch.full((batch, values), math.nan, device=device)


def vector_rows(cond: Cond, width: int) -> Tensor | None:
    """The pooled vector of each sample, (B, width). Raises UserError if it is not supported, or missing."""
    if width == 0:
        if cond.pooled is not None:
            raise UserError("this network is not conditioned on a pooled vector: give none")
        return None
    if cond.pooled is None:
        raise UserError(f"this network is conditioned on a pooled vector of width {width}: give every picture one")
    if cond.pooled.ndim != 2 or cond.pooled.shape[1] != width:
        raise UserError(f"pooled must be of shape (rows, {width}) for this network, not {tuple(cond.pooled.shape)}")
    return cond.pooled


def concat(x: Tensor, cond: Cond, channels: int) -> Tensor:
    """x (B, C, H, W) followed by the channels of `cond.concat`. Raises UserError if it does not fit."""
    if channels == 0:
        if cond.concat is not None:
            raise UserError("this network has no concatenated picture (concat_channels is 0): give none")
        return x
    if cond.concat is None:
        raise UserError(f"this network needs a picture of {channels} channels concatenated to x_t: give it as concat")
    if cond.concat.shape[1:] != (channels, *x.shape[2:]):
        wanted, given = (" x ".join(map(str, shape)) for shape in ((channels, *x.shape[2:]), cond.concat.shape[1:]))
        raise UserError(f"concat is {given} (channels, height, width), but this network needs {wanted}")
    return torch.cat([x, cond.concat.to(x.dtype)], dim=1)
