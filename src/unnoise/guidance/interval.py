"""Guide where it helps: at noise levels between two, and nowhere else.

Kynkäänniemi et al. 2024: guidance harms at the highest levels, where it takes variety, and does nothing at the lowest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate


def guidance_interval(guided: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """`guided` where low <= sigma / alpha <= high, and `plain` elsewhere: one of the two is asked, not both.

    It is decided anew whenever the denoiser is asked. The authors' code decides once a step, by the level the step
    begins at, for both evaluations of Heun's method. Where rows are at different times and on both sides, both are
    asked. Raises ValueError where low > high.
    """
    if low > high:
        raise ValueError(f"no noise level lies between {low} and {high}")
    schedule = guided.schedule

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        ratio = torch.exp(-schedule(t).log_ratio)
        inside = (low <= ratio) & (ratio <= high)
        if inside.all():
            return guided(x_t, t)
        if not inside.any():
            return plain(x_t, t)
        rows = inside.to(x_t.device).view(-1, *[1] * (x_t.ndim - 1))
        yes, no = guided(x_t, t), plain(x_t, t)
        spread = None
        if yes.variance_fraction is not None and no.variance_fraction is not None:
            spread = torch.where(rows, yes.variance_fraction, no.variance_fraction)
        return Estimate(torch.where(rows, yes.mean, no.mean), spread)

    return Denoiser(schedule, estimate)
