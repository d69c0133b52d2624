"""The reverse SDE, discretised in three ways: reverse diffusion, Euler-Maruyama, and the probability flow.

    dx = (f x - g^2 score) dt + g dw,    backwards in time

Song et al. 2021 (arXiv 2011.13456), sec. 3.3 and App. E, for any pair of levels on any schedule. Reverse diffusion
has the f and g^2 of the forward kernel from s to t, x_t = a x_s + g z with a = alpha_t / alpha_s: f = a - 1.
Euler-Maruyama has the integrals of the continuous ones over the step, by finite differences: f = log a, and
g^2 = d sigma^2 - 2 f sigma^2 with the mean of the two sigma^2. The step to t = 0 returns the estimate, without noise
(their "denoise").
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.multistep import can_be_higher
from unnoise.samplers.state import Evaluation, State
from unnoise.samplers.walk import Step
from unnoise.schedules import Level, over, posterior
from unnoise.schedules.level import Number, combine, log, some, sqrt, where

Coefficients = Callable[[Level[Number], Level[Number]], tuple[Number, Number]]
"""(level at t, level at s) -> f and g^2, over the step."""


def reverse_diffusion() -> Step:
    """Builds the step x - f x + g^2 score + g z, with the forward kernel's f and g^2."""
    return _reverse(forward_kernel, noisy=True)


def probability_flow() -> Step:
    """Builds reverse diffusion with half of g^2 and no noise.

    It is the same flow as DDIM's, in steps that are not exact for a fixed estimate.
    """
    return _reverse(forward_kernel, noisy=False)


def euler_maruyama() -> Step:
    """Builds Euler-Maruyama on the continuous SDE. It needs many more steps than the others where alpha falls fast."""
    return _reverse(continuous, noisy=True)


def forward_kernel(at: Level[Number], to: Level[Number]) -> tuple[Number, Number]:
    """f = a - 1 and g^2 of the forward kernel."""
    return at.alpha / to.alpha - 1, posterior(at, to).large


def continuous(at: Level[Number], to: Level[Number]) -> tuple[Number, Number]:
    """f and g^2 by finite differences; where a row starts without a picture, f is infinite: there the kernel's."""
    drift = log(at.alpha / to.alpha)
    diffusion = at.sigma**2 - to.sigma**2 - drift * (at.sigma**2 + to.sigma**2)
    finite, (kernel_drift, kernel_diffusion) = can_be_higher(at, to), forward_kernel(at, to)
    return where(finite, drift, kernel_drift), where(finite, diffusion, kernel_diffusion)


def _reverse(coefficients: Coefficients, *, noisy: bool) -> Step:
    """x - f x + g^2 score + g z; without noise, half of g^2. The score is (alpha mean - x) / sigma^2."""

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        here = Evaluation(state.x, state.t, denoiser(state.x, state.t))
        to, at = denoiser.schedule.levels(s, state.t)
        f, g2 = coefficients(at, to)
        pull = (g2 if noisy else g2 / 2) / at.sigma**2
        ends = to.sigma == 0
        on_x, on_mean = where(ends, 0.0, 1 - f - pull), where(ends, 1.0, pull * at.alpha)
        x = combine((on_x, on_mean), (state.x, here.mean))
        if noisy and some(to.sigma > 0):
            x = x + over(where(ends, 0.0, sqrt(g2)), x) * noise(s, 0).to(x)
        return State(x, s, (here,))

    return step
