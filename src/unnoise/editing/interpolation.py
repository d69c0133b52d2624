"""Between two pictures: a way from one noise to another that stays among noises, and DDIM draws what lies on it.

    slerp(a, b, k) = (sin((1 - k) theta) a + sin(k theta) b) / sin(theta),    cos(theta) = <a, b> / (|a| |b|)

Over whole samples: theta is one number a row. Song et al. 2020, App. D.5. Where the ends are pictures with noise of
their own, x_t mixed linearly (Ho et al. 2020, sec. 4.4) has too little noise in the middle; `preserving` has as much as
the ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unnoise.schedules import Level

Way = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(a, b (B, ...), shares k (B,)) -> what lies between: a at k = 0, b at k = 1."""


def slerp(a: Tensor, b: Tensor, k: Tensor) -> Tensor:
    """Along the great circle. Where the two point the same way, or exactly opposite ways, along the straight line."""
    x, y = a.flatten(1).double(), b.flatten(1).double()
    cosine = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
    theta = cosine.clamp(-1, 1).acos()
    k = k.double().to(theta)
    straight = theta.sin() < 1e-6
    sine = torch.where(straight, 1.0, theta.sin())
    on_a = torch.where(straight, 1 - k, ((1 - k) * theta).sin() / sine)
    on_b = torch.where(straight, k, (k * theta).sin() / sine)
    return (on_a[:, None] * x + on_b[:, None] * y).reshape(a.shape).to(a.dtype)


def linear(a: Tensor, b: Tensor, k: Tensor) -> Tensor:
    """(1 - k) a + k b."""
    k = k.to(a).reshape(-1, *[1] * (a.ndim - 1))
    return (1 - k) * a + k * b


def preserving(level: Level, x: Tensor, y: Tensor) -> Way:
    """For x_t made from the pictures x, y: the pictures are mixed linearly and the noises along the circle of their
    variances, (1 - k) and k over the root of the sum of their squares. `level` is that of t.
    """
    at = level.over(x)

    def way(a: Tensor, b: Tensor, k: Tensor) -> Tensor:
        picture = at.alpha * linear(x, y, k)
        share = k.to(a).reshape(-1, *[1] * (a.ndim - 1))
        norm = ((1 - share).square() + share.square()).sqrt()
        return picture + linear(a - at.alpha * x, b - at.alpha * y, k) / norm

    return way


def strip(a: Tensor, b: Tensor, count: int, way: Way = slerp) -> Tensor:
    """`count` states from a to b (C, H, W), both ends included: (count, C, H, W)."""
    k = torch.linspace(0, 1, count, dtype=torch.float64)
    return way(a.expand(count, *a.shape), b.expand(count, *b.shape), k)


def plane(corners: Sequence[Tensor], rows: int, columns: int, way: Way = slerp) -> Tensor:
    """Between four: strips between strips. `corners` are the upper left and right, the lower left and right.

    (rows * columns, C, H, W), line by line.
    """
    upper_left, upper_right, lower_left, lower_right = corners
    left, right = strip(upper_left, lower_left, rows, way), strip(upper_right, lower_right, rows, way)
    return torch.cat([strip(a, b, columns, way) for a, b in zip(left, right, strict=True)])
