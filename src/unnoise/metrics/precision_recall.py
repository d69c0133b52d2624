"""Two questions instead of one number: do drawn pictures look real, and are all real ones drawn?

A set's neighbourhood is the union of balls around its samples, each as wide as the way to its k-th nearest neighbour
in the set (the sample itself not counted; the edge belongs to the ball).

    precision  share of drawn samples in the real neighbourhood              Kynkaanniemi et al. 2019, k = 3
    recall     share of real samples in the drawn neighbourhood
    density    real balls that hold a drawn sample, mean over samples, / k   Naeem et al. 2020, k = 5; may pass 1
    coverage   share of real balls that hold a drawn sample

A far-off sample has a wide ball: it alone can lift precision and recall; density and coverage do not mind.
For equal distributions and many samples coverage nears 1 - 2^-k (Naeem et al., lemma 2), density 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    density: float
    coverage: float


def precision_recall(real: Tensor, drawn: Tensor, *, k: int = 3, chunk: int = 1024) -> PrecisionRecall:
    """real (n, D), drawn (m, D); float64, `chunk` rows at a time. Raises ValueError unless both sets pass k samples."""
    _check(real, drawn, k)
    return PrecisionRecall(
        _inside(drawn, real, _radius(real, k, chunk), chunk), _inside(real, drawn, _radius(drawn, k, chunk), chunk)
    )


def density_coverage(real: Tensor, drawn: Tensor, *, k: int = 5, chunk: int = 1024) -> DensityCoverage:
    """real (n, D), drawn (m, D); float64, `chunk` rows at a time. Raises ValueError unless the real set passes k."""
    _check(real, drawn, k)
    radius = _radius(real, k, chunk)
    balls = zip(torch.split(real, chunk), torch.split(radius, chunk), strict=True)
    held = torch.cat([(_squared(rows, drawn) <= edge[:, None]).sum(1) for rows, edge in balls])
    return DensityCoverage(float(held.sum()) / (k * len(drawn)), float((held > 0).double().mean()))


def _check(real: Tensor, drawn: Tensor, k: int) -> None:
    if real.shape[1] != drawn.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and {drawn.shape[1]} numbers cannot be compared")
    if k < 1 or min(len(real), len(drawn)) <= k:
        raise ValueError(f"{k} nearest neighbours need more than {k} samples a set, not {len(real)} and {len(drawn)}")


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (n, m), float64."""
    x, y = x.double(), y.double()
    product = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)
    return product.add_(x.square().sum(1)[:, None]).clamp_(min=0)


def _radius(x: Tensor, k: int, chunk: int) -> Tensor:
    """The squared distance (n,) of each sample to its k-th nearest neighbour among the others."""
    parts = []
    for first, rows in enumerate(torch.split(x, chunk)):
        away = _squared(rows, x)
        here = torch.arange(len(rows))
        away[here, first * chunk + here] = torch.inf
        parts.append(away.topk(k, dim=1, largest=False).values[:, -1])  # eight times as fast as kthvalue
    return torch.cat(parts)


def _inside(x: Tensor, around: Tensor, radius: Tensor, chunk: int) -> float:
    """The share of x in at least one ball."""
    inside = [(_squared(rows, around) <= radius).any(1) for rows in torch.split(x, chunk)]
    return float(torch.cat(inside).double().mean())
