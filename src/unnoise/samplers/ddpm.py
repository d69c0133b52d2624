"""Ancestral sampling: x_s is drawn from a Gaussian whose mean is the posterior's at the estimate of the picture.

    x_s = x_coef mean + x_t_coef x_t + sqrt(variance) z

Algorithm 2 of Ho et al. 2020, for any pair of times on any schedule. The step that ends at t = 0 adds no noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Noise
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.schedules import Level, Posterior, over, posterior

Variance = Callable[[Posterior, Level, Estimate], Tensor]
"""(kernel, level at t, estimate) -> the variance of x_s given x_t, that multiplies z: broadcast against x."""
Slope = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> the gradient of something that is to rise, like x_t."""


def small(kernel: Posterior, at: Level, estimate: Estimate) -> Tensor:
    """The posterior's own: right where the picture is a point. DDPM's beta tilde."""
    return over(kernel.small, estimate.mean)


def large(kernel: Posterior, at: Level, estimate: Estimate) -> Tensor:
    """The forward step's: right where the picture is N(0, I). DDPM's beta."""
    return over(kernel.large, estimate.mean)


def learned(kernel: Posterior, at: Level, estimate: Estimate) -> Tensor:
    """Between the two in the logarithm, where the network says. Eq. 15 of Nichol & Dhariwal 2021."""
    if estimate.variance_fraction is None:
        raise ValueError("this model did not learn a variance: take the variance small or large")
    spread = estimate.variance_fraction
    found = torch.exp(spread * over(kernel.large.log(), spread) + (1 - spread) * over(kernel.small.log(), spread))
    return torch.where(over(kernel.small, spread) > 0, found, 0.0)  # at the end one of the two is log 0


def known(variance: float) -> Variance:
    """The best one for data of this variance a number: the posterior's, and what the estimate leaves open."""

    def best(kernel: Posterior, at: Level, estimate: Estimate) -> Tensor:
        open_ = variance * at.sigma.square() / (variance * at.alpha.square() + at.sigma.square())
        return over(kernel.small + kernel.x_coef.square() * open_, estimate.mean)

    return best


def ddpm(variance: Variance = small, slope: Slope | None = None) -> Step:
    """Ancestral sampling with this variance; with `slope` each mean moves up that by the variance times it.

    A gradient of log p(y | x_t) makes this algorithm 1 of Dhariwal & Nichol 2021.
    """

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        at, to = denoiser.schedule(state.t), denoiser.schedule(s)
        estimate = denoiser(state.x, state.t)
        kernel = posterior(at, to)
        x = over(kernel.x_coef, state.x) * estimate.mean + over(kernel.x_t_coef, state.x) * state.x
        if slope is not None:
            x = x + variance(kernel, at, estimate) * slope(state.x, state.t)
        if bool((s > 0).any()):
            noisy = over((s > 0).double(), x).bool()
            x = torch.where(noisy, x + variance(kernel, at, estimate).sqrt() * noise(s, 0).to(x), x)
        return State(x, s, (Evaluation(state.x, state.t, estimate),))

    return step
