"""Interpolation between two noises, along a curve of noises: DDIM samples the pictures between.

    slerp(a, b, k) = (sin((1 - k) theta) a + sin(k theta) b) / sin(theta),    cos(theta) = <a, b> / (|a| |b|)

Theta is one number for each row. Song et al. 2020, App. D.5. Where the ends are pictures with noise of
their own, x_t interpolated linearly (Ho et al. 2020, sec. 4.4) has too little noise in the middle; `preserving` has as
much as the ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unnoise.schedules import Level

Interpolation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(a, b (B, ...), k (B,) in [0, 1]) -> the states between: a at k = 0, b at k = 1."""


def slerp(a: Tensor, b: Tensor, k: Tensor) -> Tensor:
    """Interpolates along the great circle; on the straight line where the two are parallel or opposite, or one is 0."""
    x, y = a.flatten(1).double(), b.flatten(1).double()
    lengths = x.norm(dim=1) * y.norm(dim=1)
    cosine = torch.where(lengths > 0, (x * y).sum(1) / lengths, 1.0)
    theta = cosine.clamp(-1, 1).acos()
    k = k.double().to(theta)
    straight = theta.sin() < 1e-6
    sine = torch.where(straight, 1.0, theta.sin())
    on_a = torch.where(straight, 1 - k, ((1 - k) * theta).sin() / sine)
    on_b = torch.where(straight, k, (k * theta).sin() / sine)
    return (on_a[:, None] * x + on_b[:, None] * y).reshape(a.shape).to(a.dtype)


def linear(a: Tensor, b: Tensor, k: Tensor) -> Tensor:
    """Returns (1 - k) a + k b."""
    k = k.to(a).reshape(-1, *[1] * (a.ndim - 1))
    return (1 - k) * a + k * b


def preserving(level: Level, x: Tensor, y: Tensor) -> Interpolation:
    """Returns the interpolation of x_t made from the pictures x and y that preserves the variance of the noise.

    The pictures are interpolated linearly, the noises with (1 - k) and k over the root of the sum of their squares.
    `level` is that of t.
    """
    at = level.over(x)

    def interpolate(a: Tensor, b: Tensor, k: Tensor) -> Tensor:
        picture = at.alpha * linear(x, y, k)
        fraction = k.to(a).reshape(-1, *[1] * (a.ndim - 1))
        norm = ((1 - fraction).square() + fraction.square()).sqrt()
        return picture + linear(a - at.alpha * x, b - at.alpha * y, k) / norm

    return interpolate


def strip(a: Tensor, b: Tensor, count: int, interpolate: Interpolation = slerp) -> Tensor:
    """Returns `count` states from a to b (C, H, W), both ends included: (count, C, H, W)."""
    k = torch.linspace(0, 1, count, dtype=torch.float64)
    return interpolate(a.expand(count, *a.shape), b.expand(count, *b.shape), k)


def plane(corners: Sequence[Tensor], rows: int, columns: int, interpolate: Interpolation = slerp) -> Tensor:
    """Returns a grid of states between four corners: the upper left and right, the lower left and right.

    The shape is (rows * columns, C, H, W), line by line.
    """
    upper_left, upper_right, lower_left, lower_right = corners
    left, right = strip(upper_left, lower_left, rows, interpolate), strip(upper_right, lower_right, rows, interpolate)
    return torch.cat([strip(a, b, columns, interpolate) for a, b in zip(left, right, strict=True)])
