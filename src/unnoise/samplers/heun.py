"""Second order in two evaluations, in EDM's coordinates, x / alpha against sigma / alpha: Heun and its family.

    x_s / alpha_s = x_t / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) ((1 - 1/2a) eps_t + 1/2a eps_u)

u is the fraction a of the way, in sigma / alpha: 1 is Heun, 1/2 the midpoint method, 2/3 Ralston's. Algorithms 1 to 3
of Karras et al. 2022. The step that ends at t = 0 is Euler's, and so is one that starts where nothing is left of the
picture, where these coordinates end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.multistep import NO_PICTURE, can_be_higher
from unnoise.samplers.state import Evaluation, State
from unnoise.samplers.walk import Step
from unnoise.schedules import Level, over
from unnoise.schedules.level import Number, nonzero, some, sqrt, where, where_rows

MAX_GAMMA = 2**0.5 - 1


def heun(
    gamma: float = 0.0,
    *,
    s_range: tuple[float, float] = (0.0, float("inf")),
    s_noise: float = 1.0,
    alpha: float = 1.0,
) -> Step:
    """Builds the step of algorithm 3, with the churn of algorithm 2; the second evaluation is at `alpha` in (0, 1].

    `gamma` is S_churn / N: before each step sigma / alpha is raised by this fraction with fresh noise, at most by
    sqrt(2) - 1. `s_range` is (S_min, S_max) in sigma / alpha, `s_noise` S_noise, which multiplies that noise.
    """
    if gamma < 0:
        raise ValueError(f"gamma, the fraction by which churn raises the noise, is 0 or more, not {gamma}")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha, the place of the second evaluation, is above 0 and at most 1, not {alpha}")

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        if gamma > 0:
            state = _churned(denoiser, state, min(gamma, MAX_GAMMA), s_range, s_noise, noise)
        here = Evaluation(state.x, state.t, denoiser(state.x, state.t))
        to, at = denoiser.schedule.levels(s, state.t)
        eps = at.eps(state.x, here.mean)
        euler = to.mix(here.mean, eps)
        higher = can_be_higher(at, to)
        if not some(higher):
            return State(euler, s, (here,))
        u = s
        if alpha < 1:
            ratio = _ratio(at) + alpha * (_ratio(to) - _ratio(at))
            u = denoiser.schedule.time(-torch.as_tensor(ratio, dtype=torch.float64).log())
        u = where(higher, u, state.t)  # the other rows have no second evaluation: there it has no weight
        (between,) = denoiser.schedule.levels(u)
        x_u = between.mix(here.mean, eps)
        eps_u = between.eps(x_u, denoiser(x_u, u).mean)
        weight = where(higher, to.alpha * (_ratio(to) - _ratio(at)) / (2 * alpha), 0.0)
        return State(euler + over(weight, euler) * (eps_u - eps), s, (here,))

    return step


def _ratio(level: Level[Number]) -> Number:
    """sigma / alpha; where nothing is left of the picture, sigma."""
    ratio: Number = level.sigma / nonzero(level.alpha)
    return ratio


def _churned(
    denoiser: Denoiser, state: State, gamma: float, s_range: tuple[float, float], s_noise: float, noise: Noise
) -> State:
    """The state at a slightly earlier time, where sigma / alpha is (1 + gamma) times what it is."""
    (at,) = denoiser.schedule.levels(state.t)
    ratio = _ratio(at)
    inside = (ratio >= s_range[0]) & (ratio <= s_range[1]) & (at.alpha > NO_PICTURE * at.sigma)
    if not some(inside):
        return state
    raised = torch.as_tensor(ratio * where(inside, 1 + gamma, 1.0), dtype=torch.float64)
    t = where(inside, denoiser.schedule.time(-raised.log()), state.t)
    (to,) = denoiser.schedule.levels(t)
    added = sqrt(_ratio(to) ** 2 - ratio**2) * to.alpha
    grown = over(to.alpha / nonzero(at.alpha), state.x) * state.x
    x = grown + over(s_noise * added, state.x) * noise(state.t, 1).to(state.x)
    return State(where_rows(inside, x, state.x), t, state.history)
