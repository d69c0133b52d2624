"""The Frechet distance between two sets of features, each approximated by a Gaussian.

    d^2 = |m_a - m_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a^1/2 S_b S_a^1/2)^1/2)

It is called FID only in Inception-v3's features (Heusel et al. 2017). The last trace is the sum of the singular values
of S_a^1/2 S_b^1/2: real, and exact for a singular covariance, because no root of a rounded zero is computed.

From n samples it is too large, to first order by c/n. For two equal unit Gaussians in D dimensions, one of them known
exactly, c = D + D (D + 1) / 4. `extrapolated` removes this (Chong & Forsyth 2020, "FID infinity").
Laws (tests/metrics/test_frechet.py): Gaussians of known moments; d(a, a) = 0; rotations change nothing; merged parts
equal the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ENOUGH = 10  # samples a dimension: the bias of equal unit Gaussians is then 2.5 % of the total variance


@dataclass(frozen=True)
class Moments:
    """The first two moments of a set of features: mean (D,) and scatter (D, D), the sum of (x - mean)(x - mean)^T.

    float64. Moments of parts are merged exactly, in any order and over any number of processes.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @property
    def cov(self) -> Tensor:
        """The unbiased covariance (D, D). Raises ValueError below two samples."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, not {self.n}")
        return self.scatter / (self.n - 1)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together. Chan, Golub & LeVeque 1979, eq. 2.1."""
        n = self.n + other.n
        if n == 0:
            return self
        step = other.mean - self.mean
        between = torch.outer(step, step) * (self.n * other.n / n)
        return Moments(n, self.mean + step * (other.n / n), self.scatter + other.scatter + between)


def no_moments(dim: int) -> Moments:
    """The moments of no samples, the neutral element of the sum."""
    return Moments(0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64))


def moments(features: Tensor) -> Moments:
    """The moments of features (n, D)."""
    x = features.double()
    if len(x) == 0:
        return no_moments(x.shape[1])
    mean = x.mean(0)
    centred = x - mean
    return Moments(len(x), mean, centred.T @ centred)


def gaussian(mean: Tensor, cov: Tensor, *, n: int) -> Moments:
    """Published statistics as moments: mean (D,), unbiased covariance (D, D), from n samples."""
    return Moments(n, mean.double(), cov.double() * (n - 1))


def frechet(a: Moments, b: Moments) -> float:
    """d^2 of two Gaussians with these means and unbiased covariances. Never below zero.

    Raises ValueError if the features differ in width, are not finite, or a set has fewer than two samples.
    """
    return _distance(a, _root(a.cov), b)


class Extrapolated(NamedTuple):
    """Distances of growing subsets, and the line through them over 1/n: `value` at 1/n = 0, `slope` the bias's c."""

    value: float
    slope: float
    sizes: tuple[int, ...]
    values: tuple[float, ...]


def extrapolated(real: Moments, samples: Tensor, *, generator: torch.Generator, points: int = 8) -> Extrapolated:
    """The distance extrapolated to infinitely many samples. Chong & Forsyth 2020, sec. 3.1.

    samples (n, D). Sizes are n/5 to n pictures, evenly spaced in 1/n; a point is the mean over all disjoint
    subsets of that size, unlike in the paper, whose 15 points of one subset vary 1.5 times as much at the same cost.
    The bias of the real set's own size remains; if the true distance is 0 the estimate may be below zero.
    Raises ValueError below 10 pictures.
    """
    n = len(samples)
    if n < 10:
        raise ValueError(f"extrapolating the Frechet distance needs at least 10 pictures, not {n}")
    inverse = torch.linspace(5 / n, 1 / n, points, dtype=torch.float64)
    sizes = (1 / inverse).round().long().clamp(2, n).tolist()
    root = _root(real.cov)
    values = [_mean_distance(real, root, samples[torch.randperm(n, generator=generator)], size) for size in sizes]
    slope, value = _line([1 / size for size in sizes], values)
    return Extrapolated(value, slope, tuple(sizes), tuple(values))


def too_few(n: int, dim: int) -> str | None:
    """The warning for a Frechet distance of n pictures in `dim` features; None if n is enough."""
    if n >= ENOUGH * dim:
        return None
    singular = " (fewer than the width: the covariance is singular)" if n <= dim else ""
    return (
        f"{n:,} pictures are few for {dim:,} features{singular}: the Frechet distance is too large; "
        f"read the extrapolated value or the kernel distance, or use at least {ENOUGH * dim:,}"
    )


def _root(cov: Tensor) -> Tensor:
    """The symmetric square root (D, D) of a covariance."""
    if not bool(torch.isfinite(cov).all()):
        raise ValueError("the features are not finite: their Frechet distance is undefined")
    values, vectors = torch.linalg.eigh(cov)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _distance(a: Moments, root_a: Tensor, b: Moments) -> float:
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} numbers cannot be compared")
    overlap = torch.linalg.svdvals(root_a @ _root(b.cov)).sum()
    squared = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * overlap
    return max(float(squared), 0.0)


def _mean_distance(a: Moments, root_a: Tensor, samples: Tensor, size: int) -> float:
    """The mean over the disjoint parts of `size` samples."""
    parts = [part for part in torch.split(samples, size) if len(part) == size]
    return sum(_distance(a, root_a, moments(part)) for part in parts) / len(parts)


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The least-squares line: its slope and its value at zero."""
    at = torch.tensor(x, dtype=torch.float64)
    of = torch.tensor(y, dtype=torch.float64)
    slope = ((at - at.mean()) * (of - of.mean())).sum() / (at - at.mean()).square().sum()
    return float(slope), float(of.mean() - slope * at.mean())
