"""Guidance without a classifier: away from what a poorer denoiser estimates, towards what a better one does.

    mean = mean_poor + scale (mean_good - mean_poor)

Poor is the same network told nothing (classifier-free guidance, Ho & Salimans 2022), or told something unwanted, or a
weaker network (autoguidance, Karras et al. 2024). The scale is the one that people type: 1 is no guidance; Ho and
Salimans' w is scale - 1 (`from_w`). The weights sum to one, so that guiding eps, x, v or the score is the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from unnoise.conditions import Cond
from unnoise.denoiser import Denoiser, Diffusion, Estimate
from unnoise.schedules import over

Scale = float | Tensor
"""How strongly: one number for all rows, or (B,), a number each."""


def scale_from_w(w: float) -> float:
    """The scale that the paper of classifier-free guidance calls w: (1 + w) mean_cond - w mean_null."""
    return 1 + w


def classifier_free(diffusion: Diffusion, cond: Cond, null: Cond, scale: Scale, *, rescale: float = 0.0) -> Denoiser:
    """Away from what is estimated told `null`, nothing or a negative prompt. Both estimates in one batch, null first.

    Scale 1 in every row is `diffusion.given(cond)` itself, and scale 0 `diffusion.given(null)`: one estimate is asked
    for. Otherwise a learned variance is that of the told estimate. `rescale`: see `rescaled`.
    """
    if _all(scale, 1):
        return diffusion.given(cond)
    if _all(scale, 0):
        return diffusion.given(null)
    return chain(diffusion, (null, cond), (scale,), rescale=rescale)


def chain(diffusion: Diffusion, conds: Sequence[Cond], scales: Sequence[Scale], *, rescale: float = 0.0) -> Denoiser:
    """Several guidances, each condition telling more than the one before it: all estimates in one batch, in order.

        mean = mean_0 + scale_1 (mean_1 - mean_0) + scale_2 (mean_2 - mean_1) + ...

    With nothing, a picture, a picture and words it is eq. 3 of Brooks et al. 2023 (InstructPix2Pix). The variance is
    the last one's. All scales 1 is the last condition alone.
    """
    if len(conds) != len(scales) + 1:
        raise ValueError(
            f"{len(conds)} conditions have {len(conds) - 1} differences, and there are {len(scales)} scales"
        )
    together = diffusion.given(reduce(Cond.cat, conds))

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        times = t.repeat(len(conds)) if t.ndim else t
        found, spread = together(torch.cat([x_t] * len(conds)), times)
        means = found.chunk(len(conds))
        mean = _towards(means[0], means[1], scales[0])
        for (before, after), more in zip(pairwise(means[1:]), scales[1:], strict=True):
            mean = mean + _weight(more, mean) * (after - before)
        return Estimate(rescaled(mean, means[-1], rescale), None if spread is None else spread.chunk(len(conds))[-1])

    return Denoiser(diffusion.schedule, estimate)


def autoguidance(good: Denoiser, poor: Denoiser, scale: Scale, *, rescale: float = 0.0) -> Denoiser:
    """Away from a weaker model told the same: smaller, or less trained, of the same schedule. Two calls.

    Karras et al. 2024, eq. 3. Scale 1 is `good` itself. Raises ValueError where the schedules differ.
    """
    if good.schedule != poor.schedule:
        raise ValueError(f"the two models must share a schedule: {good.schedule} and {poor.schedule}")
    if _all(scale, 1):
        return good

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        mean, spread = good(x_t, t)
        return Estimate(rescaled(_towards(poor(x_t, t).mean, mean, scale), mean, rescale), spread)

    return Denoiser(good.schedule, estimate)


def rescaled(mean: Tensor, told: Tensor, share: float) -> Tensor:
    """The guided estimate with the contrast of the told one, mixed with itself: `share` 0 changes nothing.

    Each row is multiplied by share std(told) / std(mean) + 1 - share, its deviations over all its numbers: sec. 3.4 of
    Lin et al. 2023, there with share 0.7. Here on the estimate of the picture. Diffusers does it to whatever the
    network put out, eps or v, which is something else, and differs between two models that say the same.
    """
    if share == 0:
        return mean
    ratio = told.flatten(1).std(1) / mean.flatten(1).std(1).clamp(min=1e-12)
    return mean * over(share * ratio + 1 - share, mean)


def _towards(poor: Tensor, good: Tensor, scale: Scale) -> Tensor:
    """Bit for bit `poor` at scale 0 and `good` at scale 1, row by row."""
    return torch.lerp(poor, good, _weight(scale, poor)) if isinstance(scale, Tensor) else torch.lerp(poor, good, scale)


def _weight(scale: Scale, x: Tensor) -> Tensor | float:
    return over(scale, x) if isinstance(scale, Tensor) else scale


def _all(scale: Scale, value: float) -> bool:
    return bool((scale == value).all()) if isinstance(scale, Tensor) else scale == value
