"""Guidance without a classifier: extrapolates from the estimate of a poorer denoiser to that of a better one.

    mean = mean_poor + scale (mean_good - mean_poor)

The poorer one is the same network with a null condition (classifier-free guidance, Ho & Salimans 2022) or an unwanted
one (a negative prompt), or a weaker network (autoguidance, Karras et al. 2024). A scale of 1 is no guidance; w of Ho
and Salimans is scale - 1 (`scale_from_w`). The weights sum to one, so guiding eps, x, v or the score is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from unnoise.conditions import Cond
from unnoise.denoiser import Conditional, Denoiser, Estimate
from unnoise.schedules import over

Scale = float | Tensor
"""The guidance scale: one number for all rows, or (B,), one for each row."""


def scale_from_w(w: float) -> float:
    """The scale of the paper's w: (1 + w) mean_cond - w mean_null. Ho & Salimans 2022, eq. 6."""
    return 1 + w


def classifier_free(
    conditional: Conditional, cond: Cond, null: Cond, scale: Scale, *, rescale: float = 0.0
) -> Denoiser:
    """The estimate with `cond`, guided away from that with `null`: no condition, or a negative prompt.

    Both are computed in one batch, null first. Scale 1 in every row is `conditional.given(cond)` itself, and scale 0
    `conditional.given(null)`: only one estimate is computed. Otherwise a learned variance is that of the conditional
    estimate. `rescale`: see `rescaled`.
    """
    if _all(scale, 1):
        return conditional.given(cond)
    if _all(scale, 0):
        return conditional.given(null)
    return chain(conditional, (null, cond), (scale,), rescale=rescale)


def chain(
    conditional: Conditional, conds: Sequence[Cond], scales: Sequence[Scale], *, rescale: float = 0.0
) -> Denoiser:
    """Guidance by several conditions, each with more information than the one before it.

        mean = mean_0 + scale_1 (mean_1 - mean_0) + scale_2 (mean_2 - mean_1) + ...

    All estimates are computed in one batch, in this order. With the conditions null, picture, picture and text it is
    eq. 3 of Brooks et al. 2023 (InstructPix2Pix). A learned variance is that of the last condition, and with all
    scales 1 the estimate is too. Raises ValueError where the number of scales is not that of the differences.
    """
    if len(conds) != len(scales) + 1:
        raise ValueError(
            f"{len(conds)} conditions have {len(conds) - 1} differences: give so many scales, not {len(scales)}"
        )
    together = conditional.given(reduce(Cond.cat, conds))

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        times = t.repeat(len(conds)) if t.ndim else t
        found, fraction = together(torch.cat([x_t] * len(conds)), times)
        means = found.chunk(len(conds))
        mean = _towards(means[0], means[1], scales[0])
        for (before, after), more in zip(pairwise(means[1:]), scales[1:], strict=True):
            mean = mean + _weight(more, mean) * (after - before)
        last = None if fraction is None else fraction.chunk(len(conds))[-1]
        return Estimate(rescaled(mean, means[-1], rescale), last)

    return Denoiser(conditional.schedule, estimate)


def autoguidance(good: Denoiser, poor: Denoiser, scale: Scale, *, rescale: float = 0.0) -> Denoiser:
    """The estimate of `good`, guided away from that of a smaller or less trained model with the same condition.

    Karras et al. 2024, eq. 3: two calls, and at scale 1 `good` itself. Raises ValueError where the schedules differ.
    """
    if good.schedule != poor.schedule:
        raise ValueError(f"the two models have different schedules, {good.schedule} and {poor.schedule}")
    if _all(scale, 1):
        return good

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        mean, fraction = good(x_t, t)
        return Estimate(rescaled(_towards(poor(x_t, t).mean, mean, scale), mean, rescale), fraction)

    return Denoiser(good.schedule, estimate)


def rescaled(mean: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """The guided estimate with its contrast brought to that of the conditional one, to the fraction `phi` in [0, 1].

    Each row is multiplied by phi std(conditional) / std(mean) + 1 - phi, the standard deviations being over all its
    elements: sec. 3.4 of Lin et al. 2023, who use phi = 0.7. Here it acts on the estimate of the picture. Diffusers
    applies it to the network's output, eps or v, so that two models with equal estimates give different pictures.
    """
    if phi == 0:
        return mean
    ratio = conditional.flatten(1).std(1) / mean.flatten(1).std(1).clamp(min=1e-12)
    return mean * over(phi * ratio + 1 - phi, mean)


def _towards(poor: Tensor, good: Tensor, scale: Scale) -> Tensor:
    """Extrapolates row by row: exactly `poor` at scale 0 and `good` at scale 1."""
    return torch.lerp(poor, good, _weight(scale, poor)) if isinstance(scale, Tensor) else torch.lerp(poor, good, scale)


def _weight(scale: Scale, x: Tensor) -> Tensor | float:
    return over(scale, x) if isinstance(scale, Tensor) else scale


def _all(scale: Scale, value: float) -> bool:
    return bool((scale == value).all()) if isinstance(scale, Tensor) else scale == value
