"""The decoder of the bound: the probability of a grey level under a Gaussian, log p(x | x_1).

Sec. 3.3 of Ho et al. 2020: the mass that the Gaussian has on the interval of the grey level.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x, mean, log variance) -> log p(x | x_1), nats, for each number."""


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns the log of the mass of N(mean, variance) on the grey level x, in nats, like x; it sums to 1 over levels.

    `x` is in [-1, 1] at k / 127.5 - 1; the levels 0 and 255 include the tails.
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


def tanh_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns it as DDPM's code does: with a tanh for the error function, off by at most 2e-4, no mass below 1e-12.

    For parity with published figures; `discretized_log_likelihood` is exact.
    """
    scale = torch.exp(-log_variance / 2)

    def cdf(at: Tensor) -> Tensor:
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (at + 0.044715 * at**3))) / 2

    upper, lower = cdf((x + 1 / 255 - mean) * scale), cdf((x - 1 / 255 - mean) * scale)
    mass = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return mass.clamp(min=1e-12).log()
