"""Classifier guidance: the gradient of a classifier of noisy pictures shifts the estimate. Dhariwal & Nichol 2021.

By Bayes' rule the score of p(x_t | y) is that of p(x_t) plus the gradient of log p(y | x_t). With Tweedie's formula,
alpha mean = x_t + sigma^2 score, the estimate becomes

    mean = mean + scale (sigma^2 / alpha) grad log p(y | x_t)

which is algorithm 2 of the paper, eps - scale sigma grad, for every solver. Exact at scale 1; a larger scale sharpens
the classifier, p(y | x_t)^scale.

Algorithm 1, ancestral sampling, shifts the mean of a step by scale Sigma grad instead (`samplers.ddpm(slope=...)` with
`gradient`). The shifted estimate shifts that mean by scale large / (alpha_t / alpha_s) grad, where `large` is the
variance of the forward step: for Sigma = `large` the two differ by the factor alpha_t / alpha_s, which is 1 in the
limit of small steps; for `small` also by small / large. The shifted estimate is that of a conditional model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.schedules import over

LogProb = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> log p(y | x_t) for the y of each row, (B,), up to a constant."""


def classifier(denoiser: Denoiser, log_prob: LogProb, scale: float | Tensor) -> Denoiser:
    """The estimate shifted along the gradient of `log_prob`; `scale` is one number, or (B,), one for each row.

    Scale 0 is `denoiser` itself. Where alpha = 0, x_t does not depend on y and the estimate is unchanged. A learned
    variance is never changed.
    """
    if not isinstance(scale, Tensor) and scale == 0:
        return denoiser
    slope = gradient(log_prob)

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        mean, fraction = denoiser(x_t, t)
        level = denoiser.schedule(t)
        factor = torch.where(level.alpha > 0, level.sigma.square() / level.alpha, 0.0) * scale
        return Estimate(mean + over(factor, x_t) * slope(x_t, t), fraction)

    return Denoiser(denoiser.schedule, estimate)


def gradient(log_prob: LogProb) -> Callable[[Tensor, Tensor], Tensor]:
    """(x_t, t) -> grad log p(y | x_t), like x_t. The sum over rows is differentiated, since rows are independent."""

    def slope(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (found,) = torch.autograd.grad(log_prob(x, t).sum(), x)
        return found

    return slope
