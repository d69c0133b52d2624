"""DPM-Solver and DPM-Solver++: the probability flow, exact but for a polynomial in log(alpha / sigma).

DPM-Solver++ interpolates the picture by that polynomial (data prediction), DPM-Solver the noise (noise prediction);
exponential.py has the formula. Multistep methods interpolate past evaluations, single steps evaluate ahead. Lu et al.
2022a (arXiv 2206.00927) and 2022b (2211.01095).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.exponential import interpolated, log_ratio, moments, places
from unnoise.samplers.multistep import Weights, by_length, can_be_higher, corrected, level_times, multistep
from unnoise.samplers.state import Evaluation, State
from unnoise.samplers.walk import Step
from unnoise.schedules import Level, posterior
from unnoise.schedules.level import Number, combine, some, sqrt, where


class Rule(NamedTuple):
    """How differences are weighted where a published method is not the exact integral of the polynomial."""

    midpoint: bool = False  # one difference: as if all of the step stood at its middle
    half_curvature: bool = False  # two differences: the second derivative counts half


EXACT = Rule()  # "taylor" in the authors' code, "heun" in diffusers
MIDPOINT = Rule(midpoint=True)  # "dpmsolver" in the authors' code, "midpoint" in diffusers
RELEASED = Rule(half_curvature=True)  # the multistep method of order 3, as released


def weights_of(rule: Rule, *, predict_noise: bool) -> Weights:
    """The weights of all differences, by this rule."""

    def weights(at: Level[Number], to: Level[Number], others: Sequence[Level[Number]]) -> list[Number]:
        h, nodes = places(at, to, others)
        found = moments(h if predict_noise else -h, len(nodes))
        if rule.midpoint and len(nodes) == 1:
            raw = [found[0] / (2 * nodes[0])]
        else:
            if rule.half_curvature and len(nodes) == 2:
                found[2] = found[2] / 2
            raw = interpolated(found, nodes)
        amplitude = to.sigma if predict_noise else to.alpha
        return [-amplitude * weight for weight in raw]

    return weights


def dpm_solver(order: int = 2, *, predict_noise: bool = False, rule: Rule = MIDPOINT) -> Step:
    """Builds the multistep method of this order, 1 to 3: one network call a step. `predict_noise`: not the ++ version.

    The first steps are of the order that the history allows. Of order 2, MIDPOINT and EXACT are the two published
    rules; of order 3 use EXACT: RELEASED is what the authors' code runs, and of order 2 (docs/samplers.md).
    """
    return multistep(weights_of(rule, predict_noise=predict_noise), _checked(order), predict_noise=predict_noise)


def dpm_solver_single(order: int = 2, *, predict_noise: bool = False, rule: Rule = MIDPOINT) -> Step:
    """Builds the single-step method of this order, 1 to 3: as many network calls a step, and no history.

    Of order 3, MIDPOINT (DPM-Solver-3, DPM-Solver++(3S)) ends with the line through its last evaluation, and EXACT with
    the parabola through both.
    """
    fractions = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}[_checked(order)]
    exact = weights_of(EXACT, predict_noise=predict_noise)
    final = weights_of(rule, predict_noise=predict_noise) if order == 2 else exact

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        schedule = denoiser.schedule
        evaluations = [Evaluation(state.x, state.t, denoiser(state.x, state.t))]
        to, at = schedule.levels(s, state.t)
        if some(can_be_higher(at, to)):
            start, end = (torch.as_tensor(log_ratio(level), dtype=torch.float64) for level in (at, to))
            for fraction in fractions:
                u = schedule.time(torch.lerp(start, end, fraction))
                x = corrected(exact, schedule, u, evaluations, predict_noise=predict_noise)
                evaluations.append(Evaluation(x, u, denoiser(x, u)))
        used = [evaluations[0], evaluations[-1]] if rule.midpoint and len(evaluations) == 3 else evaluations
        x = corrected(final, schedule, s, used, predict_noise=predict_noise)
        return State(x, s, (evaluations[0],))

    return step


def dpm_solver_sde() -> Step:
    """Builds SDE-DPM-Solver++(2M): ancestral sampling with the estimate extrapolated to the middle of the step.

    One network call a step.
    """

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        history = (*state.history, Evaluation(state.x, state.t, denoiser(state.x, state.t)))[-2:]
        here, *before = history[::-1]
        to, at, *levels = denoiser.schedule.levels(s, state.t, *level_times(here, before))
        kernel = posterior(at, to)
        higher = can_be_higher(at, to)

        def weights(n: int) -> list[Number]:
            _, nodes = places(at, to, levels[: n - 1])
            return [where(higher, kernel.x_coef / (2 * node), 0.0) for node in nodes]

        ahead = by_length(weights, (here, *before))
        on_mean = kernel.x_coef - sum(ahead)
        pictures = [state.x, here.mean, *[each.mean for each in before]]
        x_t_coef = kernel.x_t_coef
        if not some(to.sigma > 0):
            return State(combine((x_t_coef, on_mean, *ahead), pictures), s, history)
        z = noise(s, 0).to(state.x)
        return State(combine((sqrt(kernel.small), x_t_coef, on_mean, *ahead), (z, *pictures)), s, history)

    return step


def _checked(order: int) -> int:
    if order not in (1, 2, 3):
        raise ValueError(f"DPM-Solver has the orders 1, 2 and 3, not {order}")
    return order
