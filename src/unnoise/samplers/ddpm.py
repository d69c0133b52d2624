"""Ancestral sampling: x_s is sampled from a Gaussian whose mean is the posterior's at the estimate of the picture.

    x_s = x_coef mean + x_t_coef x_t + sqrt(variance) z

Algorithm 2 of Ho et al. 2020, for any pair of times on any schedule. The step that ends at t = 0 adds no noise.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Noise
from unnoise.samplers.state import Evaluation, State
from unnoise.samplers.walk import Step
from unnoise.schedules import Level, Posterior, over, posterior
from unnoise.schedules.level import Number, log, some, sqrt, where

Variance = Callable[[Posterior[Number], Level[Number], Estimate], Number]
"""(kernel, level at t, estimate) -> the variance of x_s given x_t, that multiplies z: a float, or broadcast with x."""
Slope = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> the gradient of a function that the samples are to increase, like x_t."""


def small(kernel: Posterior[Number], at: Level[Number], estimate: Estimate) -> Number:
    """The posterior's variance, DDPM's beta tilde: exact where the picture is a point."""
    return over(kernel.small, estimate.mean)


def large(kernel: Posterior[Number], at: Level[Number], estimate: Estimate) -> Number:
    """The forward step's variance, DDPM's beta: exact where the picture is N(0, I)."""
    return over(kernel.large, estimate.mean)


def learned(kernel: Posterior[Number], at: Level[Number], estimate: Estimate) -> Number:
    """The variance that the network predicts, between the two in the logarithm. Eq. 15 of Nichol & Dhariwal 2021.

    Raises ValueError if the network predicts none.
    """
    fraction = estimate.variance_fraction
    if fraction is None:
        raise ValueError("this model did not learn a variance: use the variance small or large")
    low, high = over(log(kernel.small), fraction), over(log(kernel.large), fraction)
    variance: Number = where(over(kernel.small, fraction) > 0, (fraction * high + (1 - fraction) * low).exp(), 0.0)
    return variance  # at t = 0 one of the two is log 0


def known(variance: float) -> Variance:
    """Returns the best variance for data whose variance is a number: the posterior's, and what the estimate leaves."""

    def best(kernel: Posterior[Number], at: Level[Number], estimate: Estimate) -> Number:
        uncertain = variance * at.sigma**2 / (variance * at.alpha**2 + at.sigma**2)  # Var[x | x_t]
        return over(kernel.small + kernel.x_coef**2 * uncertain, estimate.mean)

    return best


def ddpm(variance: Variance = small, slope: Slope | None = None) -> Step:
    """Builds ancestral sampling with this variance; with `slope` each mean moves by the variance times it.

    A gradient of log p(y | x_t) makes this algorithm 1 of Dhariwal & Nichol 2021.
    """

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        estimate = denoiser(state.x, state.t)
        to, at = denoiser.schedule.levels(s, state.t)
        kernel = posterior(at, to)
        x = over(kernel.x_coef, state.x) * estimate.mean + over(kernel.x_t_coef, state.x) * state.x
        if slope is not None:
            x = x + variance(kernel, at, estimate) * slope(state.x, state.t)
        if some(to.sigma > 0):
            added = where(over(to.sigma, x) > 0, sqrt(variance(kernel, at, estimate)), 0.0)
            x = x + added * noise(s, 0).to(x)
        return State(x, s, (Evaluation(state.x, state.t, estimate),))

    return step
