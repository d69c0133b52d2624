"""Classifier-free guidance: away from the estimate that was told nothing, towards the one that was told.

    mean = mean_null + scale (mean_cond - mean_null)

Ho & Salimans 2022. The scale is the one people type: 1 is no guidance; the paper's w is scale - 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.conditions import Cond
from unnoise.denoiser import Denoiser, Diffusion, Estimate


def classifier_free(diffusion: Diffusion, cond: Cond, null: Cond, scale: float) -> Denoiser:
    """Both estimates in one batch, the null rows first. Scale 1 is `diffusion.given(cond)` itself.

    A learned variance is that of the told estimate.
    """
    if scale == 1:
        return diffusion.given(cond)
    both = diffusion.given(null.then(cond))

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        times = torch.cat([t, t]) if t.ndim else t
        means, spread = both(torch.cat([x_t, x_t]), times)
        without, told = means.chunk(2)
        return Estimate(torch.lerp(without, told, scale), None if spread is None else spread.chunk(2)[1])

    return Denoiser(diffusion.schedule, estimate)
