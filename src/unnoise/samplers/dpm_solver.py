"""DPM-Solver and DPM-Solver++: the probability flow, exact but for a polynomial in log(alpha / sigma).

DPM-Solver++ takes the picture for that polynomial, DPM-Solver the noise; exponential.py has the formula. Multistep
methods run it through what was seen before, single steps through looks ahead. Lu et al. 2022a (arXiv 2206.00927) and
2022b (2211.01095).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.exponential import between, interpolated, moments, places
from unnoise.samplers.multistep import PICTURE, Smooth, add, more, multistep, over_ddim
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.samplers.weights import combine, pick, weights
from unnoise.schedules import Level, posterior


class Rule(NamedTuple):
    """How differences are weighed where a published method is not the exact integral of the polynomial."""

    midpoint: bool = False  # one difference: as if all of the step stood at its middle
    half_curvature: bool = False  # two differences: the second derivative counts half


EXACT = Rule()  # "taylor" in the authors' code, "heun" in diffusers
MIDPOINT = Rule(midpoint=True)  # "dpmsolver" in the authors' code, "midpoint" in diffusers
RELEASED = Rule(half_curvature=True)  # the multistep method of order 3, as released


def formula(levels: Level, smooth: Smooth, rule: Rule) -> list[Tensor]:
    """The weights of `over_ddim`, through all the others."""
    h, nodes = places(levels)
    k = h if smooth.noise else -h
    found = moments(k, len(nodes))
    if rule.midpoint and len(nodes) == 1:
        raw = [found[0] / (2 * nodes[0])]
    else:
        if rule.half_curvature and len(nodes) == 2:
            found[2] = found[2] / 2
        raw = interpolated(found, nodes)
    amplitude = levels.sigma[0] if smooth.noise else levels.alpha[0]
    return over_ddim(levels, smooth, [-amplitude * weight for weight in raw])


def dpm_solver(order: int = 2, *, smooth: Smooth = PICTURE, rule: Rule = MIDPOINT) -> Step:
    """The multistep method of this order, 1 to 3: one network call a step.

    The first steps are of the order that the trail allows. Of order 2, MIDPOINT and EXACT are the two published rules;
    of order 3 take EXACT: RELEASED is what the authors' code runs, and of order 2 (docs/samplers.md).
    """
    return multistep(formula, _known(order), smooth, smooth, rule)


def dpm_solver_single(order: int = 2, *, smooth: Smooth = PICTURE, rule: Rule = MIDPOINT) -> Step:
    """The single-step method of this order, 1 to 3: as many network calls a step, and no memory.

    Of order 3, MIDPOINT (DPM-Solver-3, DPM-Solver++(3S)) ends with the line through its last look, and EXACT with the
    parabola through both.
    """
    fractions = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}[_known(order)]

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        schedule = denoiser.schedule
        looks = [Evaluation(state.x, state.t, denoiser(state.x, state.t))]
        levels = schedule(torch.stack((s, state.t)))
        if bool(more(pick(levels, 1), pick(levels, 0)).any()):
            for fraction in fractions:
                u = schedule.time(between(levels, fraction))
                x = add(formula, schedule, state, u, looks, smooth, smooth, EXACT)
                looks.append(Evaluation(x, u, denoiser(x, u)))
        used = [looks[0], looks[-1]] if rule.midpoint and len(looks) == 3 else looks
        end = add(formula, schedule, state, s, used, smooth, smooth, rule if order == 2 else EXACT)
        return State(end, s, (looks[0],))

    return step


def dpm_solver_sde() -> Step:
    """SDE-DPM-Solver++(2M): ancestral sampling from the picture as it will be half way. One network call a step."""

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        trail = (*state.history, Evaluation(state.x, state.t, denoiser(state.x, state.t)))[-2:]
        looks = trail[::-1]
        scale = weights(stochastic, denoiser.schedule, state.x, (s, *(look.t for look in looks)))
        pictures = [state.x, *(look.mean for look in looks)]
        if not bool((s > 0).any()):
            return State(combine(scale[1:], pictures), s, trail)
        return State(combine(scale, [noise(s, 0).to(state.x), *pictures]), s, trail)

    return step


def stochastic(levels: Level) -> list[Tensor]:
    """`levels` at (s, t, one before) -> what multiplies the noise, x, the estimate at t, the one before."""
    at, to = pick(levels, 1), pick(levels, 0)
    kernel = posterior(at, to)
    _, nodes = places(levels)
    ahead = [torch.where(more(at, to), kernel.x_coef / (2 * node), 0.0) for node in nodes]
    on_mean = kernel.x_coef - sum(ahead, torch.zeros_like(to.sigma))
    return [kernel.small.sqrt(), kernel.x_t_coef, on_mean, *ahead]


def _known(order: int) -> int:
    if order not in (1, 2, 3):
        raise ValueError(f"DPM-Solver has the orders 1, 2 and 3, not {order}")
    return order
