"""Rate and distortion of progressive coding: the error of the picture, for the bits received so far.

    rate(t) = L_T + sum of L_{k-1} over steps above t,    rmse(t) = 127.5 sqrt(mean (x - mean_t)^2)

As in sec. 4.3 and table 4 of Ho et al. 2020, a receiver of x_t, and of nothing below it, shows the estimate at t. L_0
belongs to no t: it is the remaining cost of the exact picture.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from unnoise.likelihood.bound import Bound


class Curve(NamedTuple):
    """At each time, (K,), falling: bits per number received so far, and the error of the estimate, in grey levels."""

    t: Tensor
    rate: Tensor
    rmse: Tensor


def curve(found: Bound) -> Curve:
    """Computes the curve of a bound: means over its pictures; the error at t over those evaluated there, else nan."""
    each = found.terms.mean(0)
    there = len(found.terms) if found.asked is None else (found.asked > 0).sum(0)
    received = found.prior.mean() + each.cumsum(0) - each  # the step from t itself is not there yet
    return Curve(found.t, received, 127.5 * (found.errors.sum(0) / there).sqrt())
