"""Heun's step of the probability flow in EDM's coordinates, x / alpha against sigma / alpha; with churn, stochastic.

    x_s / alpha_s = x_t / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) (eps_t + eps_s) / 2

Algorithms 1 and 2 of Karras et al. 2022. Order 2, two network calls a step; the step that ends at t = 0 is Euler's, and
so is one that starts where nothing is left of the picture, where these coordinates end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.walk import Seen, State, Step
from unnoise.schedules import over

MOST_CHURN = 2**0.5 - 1
NO_PICTURE = 1e-6  # alpha / sigma below which these coordinates end


def heun(churn: float = 0.0, *, between: tuple[float, float] = (0.0, float("inf")), inflate: float = 1.0) -> Step:
    """`churn` is the share by which sigma / alpha is raised with fresh noise before each step, at most sqrt(2) - 1.

    It is S_churn / N in the paper's words, `between` is (S_min, S_max) in sigma / alpha, `inflate` is S_noise.
    """
    if churn < 0:
        raise ValueError(f"churn is a share of the noise, 0 or more, not {churn}")

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        if churn > 0:
            state = _churned(denoiser, state, min(churn, MOST_CHURN), between, inflate, noise)
        at, to = denoiser.schedule(state.t), denoiser.schedule(s)
        first = denoiser(state.x, state.t)
        seen = Seen(state.x, state.t, first)
        keep = to.sigma / at.sigma
        euler = over(keep, state.x) * state.x + over(to.alpha - keep * at.alpha, state.x) * first.mean
        again = (to.sigma > 0) & (at.alpha > NO_PICTURE * at.sigma)  # elsewhere Euler's
        if not bool(again.any()):
            return State(euler, s, (seen,))
        second = denoiser(euler, s)
        eps = (at.eps(state.x, first.mean) + to.eps(euler, second.mean)) / 2
        grow = to.alpha / at.alpha
        x = over(grow, state.x) * state.x + over(to.sigma - grow * at.sigma, state.x) * eps
        return State(torch.where(over(again.double(), x).bool(), x, euler), s, (seen,))

    return step


def _churned(
    denoiser: Denoiser, state: State, churn: float, between: tuple[float, float], inflate: float, noise: Noise
) -> State:
    """The state at a slightly earlier time, where sigma / alpha is (1 + churn) times what it is."""
    schedule = denoiser.schedule
    at = schedule(state.t)
    ratio = at.sigma / at.alpha
    inside = (ratio >= between[0]) & (ratio <= between[1]) & (at.alpha > NO_PICTURE * at.sigma)
    raised = schedule.time(-(ratio * torch.where(inside, 1 + churn, 1.0)).log())
    t = torch.where(inside, raised, state.t)
    to = schedule(t)
    added = ((to.sigma / to.alpha).square() - ratio.square()).clamp(min=0).sqrt() * to.alpha
    x = over(to.alpha / at.alpha, state.x) * state.x + over(inflate * added, state.x) * noise(state.t, 1).to(state.x)
    return State(torch.where(over(inside.double(), x).bool(), x, state.x), t, state.trail)
