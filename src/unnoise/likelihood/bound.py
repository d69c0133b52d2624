"""The terms of the variational bound: what each reverse step costs, in bits a number of the picture.

    L_{t-1} = KL( q(x_s | x_t, x) || N(mean, variance) ),    L_0 = -log p(x | x_1),    s = t - 1/T

Eq. 5 of Ho et al. 2020. L_0 is the discretised Gaussian of pictures of 256 grey levels, with the exact error function.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unnoise.denoiser import Estimate
from unnoise.schedules import Schedule, over, posterior


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the mass that N(mean, variance) puts on the grey level x, in nats, a number each; sums to 1 over levels.

    `x` is in [-1, 1] at k / 127.5 - 1; the levels 0 and 255 take the tails.
    """
    scale = torch.exp(-log_variance / 2)
    upper, lower = (x + 1 / 255 - mean) * scale, (x - 1 / 255 - mean) * scale
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    # log(cdf(upper) - cdf(lower)); on the right of the mean through the mirrored tails, where cdfs are near 1
    mirrored = lower > 0
    high = torch.where(mirrored, torch.special.log_ndtr(-lower), log_upper)
    low = torch.where(mirrored, torch.special.log_ndtr(-upper), log_lower)
    inner = high + torch.log(-torch.expm1((low - high).clamp(max=-1e-12)))
    return torch.where(x < -0.999, log_upper, torch.where(x > 0.999, torch.special.log_ndtr(-lower), inner))


def bound_term(x: Tensor, x_t: Tensor, estimate: Estimate, t: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """The term of the step that ends at t - 1/T, (B,), in bits a number: the mean over a picture's numbers.

    `t` (B,) is k/T. The variance is the learned one where the estimate has a spread, else the posterior's. At k = 1 the
    posterior has no variance, and the smaller bound is that of k = 2, as in the authors' code.
    """
    s = (t - 1 / steps).clamp(min=0)
    s = torch.where(s < 0.5 / steps, 0.0, s)
    kernel = posterior(schedule(t), schedule(s))
    two = torch.full_like(t, 2 / steps)
    floor = posterior(schedule(two), schedule(two / 2)).small
    log_small = over(torch.where(s > 0, kernel.small, floor).log(), x)
    log_variance = log_small.expand_as(x)
    if estimate.spread is not None:
        log_variance = estimate.spread * over(kernel.large.log(), x) + (1 - estimate.spread) * log_small
    mean_error = over(kernel.x_coef, x) * (x - estimate.mean)
    kl = ((log_variance - log_small) + torch.exp(log_small - log_variance) - 1) / 2
    kl = kl + mean_error.square() * torch.exp(-log_variance) / 2
    decoder = -discretized_log_likelihood(x, estimate.mean, log_variance)
    nats = torch.where(over((s > 0).double(), x).bool(), kl, decoder)
    return nats.flatten(1).mean(1) / math.log(2)
