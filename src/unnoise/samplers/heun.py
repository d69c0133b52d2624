"""Second order in two looks, in EDM's coordinates, x / alpha against sigma / alpha: Heun and its family; with churn.

    x_s / alpha_s = x_t / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) ((1 - 1/2a) eps_t + 1/2a eps_u)

u is the share a of the way, in sigma / alpha: 1 is Heun, 1/2 the midpoint method, 2/3 Ralston's. Algorithms 1 to 3 of
Karras et al. 2022. The step that ends at t = 0 is Euler's, and so is one that starts where nothing is left of the
picture, where these coordinates end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.multistep import NO_PICTURE, NOISE, add, more, over_ddim
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.schedules import Level, over

MOST_CHURN = 2**0.5 - 1


def heun(
    churn: float = 0.0,
    *,
    place: float = 1.0,
    between: tuple[float, float] = (0.0, float("inf")),
    inflate: float = 1.0,
) -> Step:
    """`place`, in (0, 1], is that of the second look, a. `churn` is the share by which sigma / alpha is raised with
    fresh noise before each step, at most sqrt(2) - 1.

    It is S_churn / N in the paper's words, `between` is (S_min, S_max) in sigma / alpha, `inflate` is S_noise.
    """
    if churn < 0:
        raise ValueError(f"churn is a share of the noise, 0 or more, not {churn}")
    if not 0 < place <= 1:
        raise ValueError(f"the second look is between 0 (where the step starts) and 1 (its end), not at {place}")

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        if churn > 0:
            state = _churned(denoiser, state, min(churn, MOST_CHURN), between, inflate, noise)
        schedule = denoiser.schedule
        seen = Evaluation(state.x, state.t, denoiser(state.x, state.t))
        at, to = schedule(state.t), schedule(s)
        some = more(at, to)
        if not bool(some.any()):
            return State(add(formula, schedule, state, s, [seen], NOISE, place), s, (seen,))
        u = s
        if place < 1:
            u = schedule.time(-torch.lerp(at.sigma / at.alpha, to.sigma / to.alpha, place).log())
        u = torch.where(some, u, state.t)  # what the other rows are told has no weight
        x = add(formula, schedule, state, u, [seen], NOISE, place)
        looks = [seen, Evaluation(x, u, denoiser(x, u))]
        return State(add(formula, schedule, state, s, looks, NOISE, place), s, (seen,))

    return step


def formula(levels: Level, place: float) -> list[Tensor]:
    """The weights of `over_ddim`: half of what the noise counts for in DDIM's step, over a."""
    counts = levels.sigma[0] - levels.alpha[0] / levels.alpha[1] * levels.sigma[1]
    return over_ddim(levels, NOISE, [counts / (2 * place)] * (len(levels.sigma) - 2))


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
    return State(torch.where(over(inside.double(), x).bool(), x, state.x), t, state.history)
