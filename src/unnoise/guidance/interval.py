"""Guidance in a limited interval of noise levels. Kynkäänniemi et al. 2024.

At the highest noise levels guidance reduces diversity, and at the lowest it has no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.transfer import send

SAME = 1e-6  # levels that differ by this fraction are equal: an end may be an entry of a table, computed elsewhere


def guidance_interval(guided: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """`guided` where low <= sigma / alpha <= high, and `plain` elsewhere.

    The interval includes its ends, within a millionth.

    Only one of the two is evaluated, unless rows at different times lie on both sides. The interval is applied to each
    evaluation by its own level; the authors' code applies it once a step, by the level where the step begins, to both
    evaluations of Heun's method. Raises ValueError if low > high.
    """
    if low > high:
        raise ValueError(f"the guidance interval is empty: low {low} is above high {high}")
    schedule = guided.schedule

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        ratio = torch.exp(-schedule(t).log_ratio)
        inside = (low * (1 - SAME) <= ratio) & (ratio <= high * (1 + SAME))
        if inside.all():
            return guided(x_t, t)
        if not inside.any():
            return plain(x_t, t)
        rows = send(inside, x_t.device).view(-1, *[1] * (x_t.ndim - 1))
        on, off = guided(x_t, t), plain(x_t, t)
        fraction = None
        if on.variance_fraction is not None and off.variance_fraction is not None:
            fraction = torch.where(rows, on.variance_fraction, off.variance_fraction)
        return Estimate(torch.where(rows, on.mean, off.mean), fraction)

    return Denoiser(schedule, estimate)
