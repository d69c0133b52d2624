"""Langevin dynamics at a level of noise: NCSN's annealed sampler, and the corrector of predictor-corrector sampling.

    x <- x + step score + sqrt(2 step) z,    score = (alpha mean - x) / sigma^2

Song & Ermon 2019 and 2020; algorithms 4 and 5 of Song et al. 2021. With a step size of c sigma^2,

    x <- x + c (alpha mean - x) + sqrt(2 c) sigma z

is the same in x as in x / alpha, and divides by nothing. NCSN's paper writes step / 2 and sqrt(step) where its code
writes step and sqrt(2 step), with the same numbers: the code, which made the results, has twice the paper's step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.multistep import can_be_higher
from unnoise.samplers.state import Evaluation, State, merge
from unnoise.samplers.walk import Step
from unnoise.schedules import over
from unnoise.schedules.level import Number, combine, nonzero, some, where

StepSize = Callable[[Tensor, Tensor, Number], Number]
"""(alpha mean - x, z, sigma) -> the step size as a fraction of sigma^2: a float, or broadcast with x."""
FIRST_DRAW = 2  # of the noises at a time: 0 is that of arriving there, 1 that of Heun's churn


def fraction(c: float) -> StepSize:
    """The same fraction at every level. The code's NCSN is 0.2, its paper's text 0.1, NCSNv2 0.062."""
    return lambda pull, z, sigma: c


def absolute(step: float, smallest: float, *, half: bool = False) -> StepSize:
    """NCSN's parametrisation: `step` at the level `smallest` (sigma / alpha), and proportional to sigma^2 above it.

    `half` is the convention of the paper's text; its code does not halve.
    """
    return fraction(step / smallest**2 / (2 if half else 1))


def snr(ratio: float, *, batch: bool = False) -> StepSize:
    """The step size at which the score's part is `ratio` times the noise: step = 2 (ratio ||z|| / ||score||)^2.

    ||z|| is sqrt(d), ||score|| that of the row. `batch` uses the means of both over the batch, as the authors' code
    does; then a picture depends on the rest of its batch.
    """

    def step_size(pull: Tensor, z: Tensor, sigma: Number) -> Number:
        exact = torch.promote_types(pull.dtype, torch.float32)
        pulls = pull.flatten(1).to(exact).norm(dim=1)
        noises = math.sqrt(pull[0].numel()) * torch.ones_like(pulls)
        if batch:
            pulls, noises = pulls.mean().expand_as(pulls), z.flatten(1).to(exact).norm(dim=1).mean().expand_as(pulls)
        rows = (-1,) + (1,) * (pull.ndim - 1)
        wide = 2 * (ratio * sigma * (noises / pulls.clamp(min=1e-30)).reshape(rows)).square()
        return torch.where(pulls.reshape(rows) > 0, wide, 0.0).to(pull)

    return step_size


def langevin(step_size: StepSize, inner: int, *, denoise: bool = True) -> Step:
    """Builds annealed Langevin dynamics: `inner` steps at the level of t, then on to the level of s at equal x / alpha.

    At s = 0 the estimate at the last level is returned, for one more network call; without `denoise` x / alpha, which
    still has the noise of that level.
    """

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        x, evaluated = _dynamics(denoiser, state.x, state.t, state.t, step_size, inner, noise)
        to, at = denoiser.schedule.levels(s, state.t)
        clean = to.sigma == 0
        if denoise and some(clean):
            evaluated = merge(clean, Evaluation(x, state.t, denoiser(x, state.t)), evaluated)
        grow = to.alpha / nonzero(at.alpha)
        on_x = where(can_be_higher(at, to) | clean, grow, to.sigma / at.sigma)  # without a picture, noise of that level
        ends = clean & denoise
        return State(combine((where(ends, 0.0, on_x), where(ends, 1.0, 0.0)), (x, evaluated.mean)), s, (evaluated,))

    return step


def ncsn(*, denoise: bool = False) -> Step:
    """Builds the sampler of NCSN's code: 100 steps a level. Song & Ermon 2019.

    It has 10 levels from 1 to 0.01 for pictures in [0, 1], which is 2 to 0.02 for ours. It leaves the noise of the last
    level in the picture, which `denoise` removes.
    """
    return langevin(absolute(2e-5, 0.01), 100, denoise=denoise)


def ncsn_v2() -> Step:
    """Builds NCSNv2's sampler on CIFAR-10: 5 steps a level. Song & Ermon 2020.

    It has 232 levels from 50 to 0.01 for pictures in [0, 1], which is 100 to 0.02 for ours.
    """
    return langevin(absolute(6.2e-6, 0.01), 5)


def predictor_corrector(
    predictor: Step, step_size: StepSize, corrections: int = 1, *, predictor_first: bool = False
) -> Step:
    """Builds the predictor's step with `corrections` steps of Langevin dynamics at each time.

    They come before the predictor, as in the authors' code, which ends with the predictor's estimate; `predictor_first`
    is the order of the paper's algorithm 1. A step size is multiplied by (alpha_t / alpha_s)^2, a table's 1 - beta.
    """

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        to, at = denoiser.schedule.levels(s, state.t)
        arrived = (to.sigma == 0) & predictor_first  # no correction at t = 0
        damping = over(where(arrived, 0.0, (at.alpha / to.alpha) ** 2), state.x)

        def damped(pull: Tensor, z: Tensor, sigma: Number) -> Number:
            size: Number = damping * step_size(pull, z, sigma)
            return size

        if not predictor_first:
            x, _ = _dynamics(denoiser, state.x, state.t, state.t, damped, corrections, noise)
            return predictor(denoiser, State(x, state.t, state.history), s, noise)
        ahead = predictor(denoiser, state, s, noise)
        if not some(to.sigma > 0):
            return ahead
        evaluated_at = torch.where(s > 0, s, state.t)  # a row that has arrived does not move: there it has no weight
        x, evaluated = _dynamics(denoiser, ahead.x, s, evaluated_at, damped, corrections, noise)
        return State(x, s, (*ahead.history, evaluated)[-len(ahead.history) :])

    return step


def _dynamics(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor,
    evaluated_at: Tensor,
    step_size: StepSize,
    inner: int,
    noise: Noise,
) -> tuple[Tensor, Evaluation]:
    """`inner` steps at the level of t, and the last evaluation."""
    if inner < 1:
        raise ValueError(f"Langevin dynamics needs at least one step at each level, not {inner}")
    (level,) = denoiser.schedule.levels(t)
    alpha, sigma = level.over(x)
    for j in range(inner):
        evaluated = Evaluation(x, t, denoiser(x, evaluated_at))
        pull, z = alpha * evaluated.mean - x, noise(t, FIRST_DRAW + j).to(x)
        c = step_size(pull, z, sigma)
        x = x + c * pull + (2 * c) ** 0.5 * sigma * z
    return x, evaluated
