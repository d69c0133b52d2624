"""What a network is told besides the picture: numbers become sinusoids, classes rows of a table, places waves.

    sinusoid(t)_i = sin(t w_i), cos(t w_i),    w_i = 10^4 ** (-i / (half - shift)),  i = 0 .. half - 1

DDPM puts the sines first and shifts by one; ADM and DiT put the cosines first and do not shift. The two layouts hold
the same numbers at other places, so that weights of one silently fail in the other (Ho et al. 2020, Dhariwal & Nichol
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
    # in float32 and in this order, as the networks of others were trained: at t = 999 one rounding is 6e-5 of an angle
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
    """A row a class and, with `null_class`, one for "no class" at index `classes`; None where there are no classes."""
    return nn.Embedding(classes + null_class, width) if classes else None


def class_rows(cond: Cond, batch: int, *, classes: int, null_class: bool, device: torch.device) -> Tensor | None:
    """Which row of the table each sample is told, (B,) int64: its label; the null row where nothing is said.

    Raises UserError for labels that the network cannot take, or needs and does not get.
    """
    if classes == 0:
        if cond.label is not None:
            raise UserError("this network knows no classes: give it no labels")
        return None
    if cond.label is not None:
        return cond.label
    if not null_class:
        raise UserError(f"this network was taught {classes} classes and no 'no class': give every picture a label")
    return torch.full((batch,), classes, device=device)


def grid_waves(side: int, width: int) -> Tensor:
    """Fixed positions of a square grid of patches: (side * side, width) float32, row by row.

    The first half of the channels says the column, the second the row, each by sines then cosines; `width` is a
    multiple of four. Peebles & Xie 2023, as in MAE (He et al. 2022).
    """
    place = torch.arange(side, dtype=torch.float32)
    waves = sinusoid(place, width // 2, shift=0.0, cosine_first=False)  # (side, width / 2)
    column = waves[None, :, :].expand(side, side, -1)
    row = waves[:, None, :].expand(side, side, -1)
    return torch.cat([column, row], dim=2).reshape(side * side, width)
