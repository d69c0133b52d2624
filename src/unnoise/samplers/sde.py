"""The reverse SDE, discretised in three ways: reverse diffusion, Euler-Maruyama, and the probability flow.

    dx = (f x - g^2 score) dt + g dw,    backwards in time

Song et al. 2021 (arXiv 2011.13456), sec. 3.3 and App. E, for any pair of levels on any schedule. Reverse diffusion
takes f and g^2 from the forward kernel from s to t, x_t = a x_s + g z with a = alpha_t / alpha_s: f = a - 1.
Euler-Maruyama takes the integrals of the continuous ones over the step, by finite differences: f = log a, and
g^2 = d sigma^2 - 2 f sigma^2 with the mean of the two sigma^2. The step to t = 0 returns the estimate, without noise
(their "denoise").
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.multistep import more
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.samplers.weights import Formula, combine, pick, weights
from unnoise.schedules import Level, posterior


def reverse_diffusion() -> Step:
    """Ancestral sampling's sibling: x - f x + g^2 score + g z."""
    return _reverse(forward_kernel, noisy=True)


def probability_flow() -> Step:
    """Reverse diffusion with half of g^2 and no noise: the same flow as DDIM's, in steps that are not exact for a fixed
    estimate."""
    return _reverse(flow, noisy=False)


def euler_maruyama() -> Step:
    """Euler-Maruyama on the continuous SDE. It needs small steps where alpha falls fast: many more than the others."""
    return _reverse(continuous, noisy=True)


def forward_kernel(levels: Level) -> list[Tensor]:
    """`levels` at (s, t) -> what multiplies x, the estimate, the noise."""
    at, to = pick(levels, 1), pick(levels, 0)
    return _weighed(at, to, at.alpha / to.alpha - 1, posterior(at, to).large)


def flow(levels: Level) -> list[Tensor]:
    """The same, with half of g^2 and no noise."""
    at, to = pick(levels, 1), pick(levels, 0)
    return _weighed(at, to, at.alpha / to.alpha - 1, posterior(at, to).large / 2)[:2]


def continuous(levels: Level) -> list[Tensor]:
    """The same from finite differences; a row that starts without a picture, where f is infinite, from the kernel."""
    at, to = pick(levels, 1), pick(levels, 0)
    drift = (at.alpha / to.alpha).log()
    diffusion = at.sigma.square() - to.sigma.square() - drift * (at.sigma.square() + to.sigma.square())
    both = zip(_weighed(at, to, drift, diffusion), forward_kernel(levels))
    return [torch.where(more(at, to), a, b) for a, b in both]


def _weighed(at: Level, to: Level, drift: Tensor, diffusion: Tensor) -> list[Tensor]:
    """x - drift x + diffusion score + sqrt(diffusion) z, where score = (alpha mean - x) / sigma^2."""
    pull = diffusion / at.sigma.square()
    ends = to.sigma == 0
    found = ((1 - drift - pull, 0.0), (pull * at.alpha, 1.0), (diffusion.sqrt(), 0.0))
    return [torch.where(ends, at_the_end, weight) for weight, at_the_end in found]


def _reverse(formula: Formula, *, noisy: bool) -> Step:
    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        seen = Evaluation(state.x, state.t, denoiser(state.x, state.t))
        scale = weights(formula, denoiser.schedule, state.x, (s, state.t))
        x = combine(scale[:2], (state.x, seen.mean))
        if noisy and bool((s > 0).any()):
            x = x + scale[2] * noise(s, 0).to(x)
        return State(x, s, (seen,))

    return step
