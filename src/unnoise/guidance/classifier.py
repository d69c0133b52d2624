"""Classifier guidance: what a classifier of noisy pictures says moves the estimate. Dhariwal & Nichol 2021.

By Bayes the score of p(x_t | y) is that of p(x_t) and the gradient of log p(y | x_t); Tweedie's formula, alpha mean =
x_t + sigma^2 score, says what that is for the estimate:

    mean = mean + scale (sigma^2 / alpha) grad log p(y | x_t)

which is algorithm 2 of the paper, eps - scale sigma grad, for every solver. Exact at scale 1; a larger scale sharpens
the classifier, p(y | x_t)^scale.

Algorithm 1, ancestral sampling, moves the mean of a step by scale Sigma grad instead (`samplers.ddpm(slope=...)` with
`gradient`). The moved estimate moves that mean by scale large / (alpha_t / alpha_s) grad, `large` being the forward
step's variance: for Sigma = `large` the two differ by alpha_t / alpha_s, which is 1 in the limit of small steps; for
`small` also by its share of `large`. The moved estimate is what a conditional model would say.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.schedules import over

LogProb = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> log p(y | x_t) of each row's own y, (B,), or anything that differs from it by a constant."""


def classifier(denoiser: Denoiser, log_prob: LogProb, scale: float | Tensor) -> Denoiser:
    """The estimate moved towards what `log_prob` likes. Scale 0 is `denoiser` itself; (B,) is a scale a row.

    Where nothing of the picture is left (alpha = 0) x_t says nothing of y, and the estimate stays. The variance stays.
    """
    if not isinstance(scale, Tensor) and scale == 0:
        return denoiser
    slope = gradient(log_prob)

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        mean, spread = denoiser(x_t, t)
        level = denoiser.schedule(t)
        lever = torch.where(level.alpha > 0, level.sigma.square() / level.alpha, 0.0) * scale
        return Estimate(mean + over(lever, x_t) * slope(x_t, t), spread)

    return Denoiser(denoiser.schedule, estimate)


def gradient(log_prob: LogProb) -> Callable[[Tensor, Tensor], Tensor]:
    """(x_t, t) -> grad log p(y | x_t), like x_t: a row's own, for rows do not see each other."""

    def slope(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (found,) = torch.autograd.grad(log_prob(x, t).sum(), x)
        return found

    return slope
