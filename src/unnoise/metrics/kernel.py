"""The kernel distance (KID): a distance of two sets of features, unbiased for any number of samples.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)
    k(x, y) = (x . y / D + 1)^3

Binkowski et al. 2018. Its mean is zero for equal distributions, so that single values may be negative.
Laws (tests/metrics/test_kernel.py): the sums over all pairs on small sets; mean zero for equal distributions; the
standard error is the standard deviation over repetitions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Kernel(NamedTuple):
    """A kernel distance, its standard error, and the standard deviation over subsets (None for the whole sets)."""

    value: float
    error: float
    spread: float | None


def kernel(x: Tensor, y: Tensor, *, chunk: int = 256) -> Kernel:
    """MMD^2 of all of x (n, D) and y (m, D); float64, `chunk` rows at a time.

    The standard error is the U-statistic's first-order one (Sutherland et al. 2017), from the variance of each sample's
    mean similarity; for equal distributions it is too large by up to sqrt(2).
    Raises ValueError for fewer than two samples in a set.
    """
    _check(x, y, 2)
    n, m = len(x), len(y)
    xx, yy = _similarity(x, x, chunk), _similarity(y, y, chunk)
    to_x = (xx - _self(x)) / (n - 1)  # (n,) mean similarity of each x to the other x
    to_y = (yy - _self(y)) / (m - 1)  # (m,)
    x_to_y = _similarity(x, y, chunk) / m  # (n,)
    y_to_x = _similarity(y, x, chunk) / n  # (m,)
    value = to_x.mean() + to_y.mean() - 2 * x_to_y.mean()
    variance = 4 * ((to_x - x_to_y).var() / n + (to_y - y_to_x).var() / m)
    return Kernel(float(value), float(variance.sqrt()), None)


def kernel_of_subsets(
    x: Tensor, y: Tensor, *, subsets: int = 100, size: int = 1000, generator: torch.Generator
) -> Kernel:
    """The mean of MMD^2 over random subsets of `size` samples of both sets: the convention of published KID values.

    x (n, D), y (m, D). `spread` is the standard deviation over subsets (torchmetrics' second number), `error` that of
    their mean if the subsets were independent: too small if they overlap much.
    Raises ValueError if a set has fewer than `size` samples.
    """
    _check(x, y, size)
    values = []
    for _ in range(subsets):
        rows_x = torch.randperm(len(x), generator=generator)[:size]
        rows_y = torch.randperm(len(y), generator=generator)[:size]
        values.append(kernel(x[rows_x], y[rows_y], chunk=size).value)
    all_values = torch.tensor(values, dtype=torch.float64)
    spread = float(all_values.std(correction=0))
    return Kernel(float(all_values.mean()), spread / subsets**0.5, spread)


def _check(x: Tensor, y: Tensor, least: int) -> None:
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and {y.shape[1]} numbers cannot be compared")
    if min(len(x), len(y)) < least:
        raise ValueError(f"the kernel distance needs at least {least} samples in each set, not {len(x)} and {len(y)}")


def _similarity(x: Tensor, y: Tensor, chunk: int) -> Tensor:
    """The sum of each x's similarities to all y: (n,) float64."""
    other = y.double().T / y.shape[1]

    def cubed(base: Tensor) -> Tensor:
        return base * base * base

    return torch.cat([cubed(rows.double() @ other + 1).sum(1) for rows in torch.split(x, chunk)])


def _self(x: Tensor) -> Tensor:
    """Each sample's similarity to itself (n,)."""
    return (x.double().square().sum(1) / x.shape[1] + 1).pow(3)
