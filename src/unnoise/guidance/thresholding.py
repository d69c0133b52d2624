"""Keeps the estimate of the picture in the range of pictures. The noise is derived from the estimate, so both agree."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.schedules import over


def _on_mean(denoiser: Denoiser, change: Callable[[Tensor], Tensor]) -> Denoiser:
    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        mean, fraction = denoiser(x_t, t)
        return Estimate(change(mean), fraction)

    return Denoiser(denoiser.schedule, estimate)


def clip_denoised(denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """The estimate clipped to [low, high], as DDPM's sampler does. For pixels only: latents have no bounds."""
    return _on_mean(denoiser, lambda mean: mean.clamp(low, high))


def dynamic_threshold(denoiser: Denoiser, quantile: float = 0.995, most: float = float("inf")) -> Denoiser:
    """The estimate of each sample clipped at a quantile of |mean|, at least 1 and at most `most`, and divided by it.

    Saharia et al. 2022, sec. 2.3: strong guidance then does not saturate pixels. `quantile` is in [0, 1].
    """

    def squeeze(mean: Tensor) -> Tensor:
        edge = torch.quantile(mean.abs().flatten(1).float(), quantile, dim=1).clamp(1.0, most)
        edge = over(edge, mean)
        return mean.clamp(-edge, edge) / edge

    return _on_mean(denoiser, squeeze)
