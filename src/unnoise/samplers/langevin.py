"""Langevin dynamics at a level of noise: NCSN's annealed sampler, and the corrector of predictor-corrector sampling.

    x <- x + step score + sqrt(2 step) z,    score = (alpha mean - x) / sigma^2

Song & Ermon 2019 and 2020; algorithms 4 and 5 of Song et al. 2021. A step is said as its share of sigma^2, c: then

    x <- x + c (alpha mean - x) + sqrt(2 c) sigma z

is the same in x as in x / alpha, and divides by nothing. NCSN's paper writes step / 2 and sqrt(step) where its code
writes step and sqrt(2 step), with the same numbers: the code, which made the results, takes twice the paper's step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.multistep import more
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.samplers.weights import Weight, combine, pick, weights
from unnoise.schedules import Level

Share = Callable[[Tensor, Tensor, Weight], Weight]
"""(alpha mean - x, z, sigma) -> the share of sigma^2 that a step is: one number, or one a row."""
FIRST_DRAW = 2  # of the noises at a time: 0 is that of arriving there, 1 that of Heun's churn


def fraction(c: float) -> Share:
    """The same share at every level. The code's NCSN is 0.2, its paper's text 0.1, NCSNv2 0.062."""
    return lambda pull, z, sigma: c


def absolute(step: float, smallest: float, *, half: bool = False) -> Share:
    """NCSN's own words: `step` at the level `smallest` (sigma / alpha), and growing with sigma^2 above it.

    `half` is the convention of the paper's text, its code's is not.
    """
    return fraction(step / smallest**2 / (2 if half else 1))


def snr(ratio: float, *, batch: bool = False) -> Share:
    """The step at which the noise is 1 / `ratio` times as long as the pull: step = 2 (ratio ||z|| / ||score||)^2.

    ||z|| is sqrt(d), ||score|| that of the row. `batch` takes the means of both over the batch, as the authors' code
    does; then a picture depends on what is drawn beside it.
    """

    def share(pull: Tensor, z: Tensor, sigma: Weight) -> Weight:
        exact = torch.promote_types(pull.dtype, torch.float32)
        pulls = pull.flatten(1).to(exact).norm(dim=1)
        noises = math.sqrt(pull[0].numel()) * torch.ones_like(pulls)
        if batch:
            pulls, noises = pulls.mean().expand_as(pulls), z.flatten(1).to(exact).norm(dim=1).mean().expand_as(pulls)
        rows = (-1,) + (1,) * (pull.ndim - 1)
        wide = 2 * (ratio * sigma * (noises / pulls.clamp(min=1e-30)).reshape(rows)).square()
        return torch.where(pulls.reshape(rows) > 0, wide, 0.0).to(pull)

    return share


def langevin(share: Share, inner: int, *, denoise: bool = True) -> Step:
    """Annealed Langevin dynamics: `inner` steps at the level of t, and on to the level of s with x / alpha as it is.

    At s = 0 the estimate at the last level is returned, for one more network call; without `denoise` x / alpha, which
    still has the noise of that level.
    """

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        x, seen = _dynamics(denoiser, state.x, state.t, state.t, share, inner, noise)
        if denoise and bool((s == 0).any()):
            seen = Evaluation(x, state.t, denoiser(x, state.t))
        scale = weights(onward, denoiser.schedule, x, (s, state.t), denoise)
        return State(combine(scale, (x, seen.mean)), s, (seen,))

    return step


def ncsn(*, denoise: bool = False) -> Step:
    """NCSN's code: 100 steps a level, 10 levels from 1 to 0.01 for pictures in [0, 1]: 2 to 0.02 for ours. Song & Ermon
    2019. It leaves the noise of the last level in the picture, which `denoise` takes away."""
    return langevin(absolute(2e-5, 0.01), 100, denoise=denoise)


def ncsn_v2() -> Step:
    """NCSNv2 on CIFAR-10: 5 steps a level, 232 levels from 50 to 0.01 for pictures in [0, 1]: 100 to 0.02 for ours.
    Song & Ermon 2020."""
    return langevin(absolute(6.2e-6, 0.01), 5)


def predictor_corrector(predictor: Step, share: Share, corrections: int = 1, *, predictor_first: bool = False) -> Step:
    """`corrections` steps of Langevin dynamics at each time beside the predictor's step.

    They come before the predictor, as in the authors' code, which ends with the predictor's estimate; `predictor_first`
    is the order of the paper's algorithm 1. A step's share is multiplied by (alpha_t / alpha_s)^2, a table's 1 - beta.
    """

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        damped = weights(damping, denoiser.schedule, state.x, (s, state.t), predictor_first)[0]

        def shrunk(pull: Tensor, z: Tensor, sigma: Weight) -> Weight:
            return damped * share(pull, z, sigma)

        if not predictor_first:
            x, _ = _dynamics(denoiser, state.x, state.t, state.t, shrunk, corrections, noise)
            return predictor(denoiser, State(x, state.t, state.history), s, noise)
        ahead = predictor(denoiser, state, s, noise)
        if not bool((s > 0).any()):
            return ahead
        asked = torch.where(s > 0, s, state.t)  # a row that has arrived is not moved: what it is told has no weight
        x, seen = _dynamics(denoiser, ahead.x, s, asked, shrunk, corrections, noise)
        return State(x, s, (*ahead.history, seen)[-len(ahead.history) :])

    return step


def _dynamics(
    denoiser: Denoiser, x: Tensor, t: Tensor, asked: Tensor, share: Share, inner: int, noise: Noise
) -> tuple[Tensor, Evaluation]:
    """`inner` steps at the level of t, and the last look."""
    if inner < 1:
        raise ValueError(f"Langevin dynamics takes at least one step a level, not {inner}")
    alpha, sigma = weights(amplitudes, denoiser.schedule, x, (t,))
    for j in range(inner):
        seen = Evaluation(x, t, denoiser(x, asked))
        pull, z = alpha * seen.mean - x, noise(t, FIRST_DRAW + j).to(x)
        c = share(pull, z, sigma)
        x = x + c * pull + (2 * c) ** 0.5 * sigma * z
    return x, seen


def amplitudes(levels: Level) -> list[Tensor]:
    """The level at one time."""
    return [levels.alpha[0], levels.sigma[0]]


def onward(levels: Level, denoise: bool) -> list[Tensor]:
    """`levels` at (s, t) -> what multiplies x and the estimate. Without a picture, the noise goes down to its level."""
    at, to = pick(levels, 1), pick(levels, 0)
    ends = (to.sigma == 0) & denoise
    keep = torch.where(more(at, to) | (to.sigma == 0), to.alpha / at.alpha, to.sigma / at.sigma)
    return [torch.where(ends, 0.0, keep), torch.where(ends, 1.0, 0.0)]


def damping(levels: Level, arrived: bool) -> list[Tensor]:
    """`levels` at (s, t) -> (alpha_t / alpha_s)^2; nothing for rows that have `arrived` at s = 0."""
    damped = (levels.alpha[1] / levels.alpha[0]).square()
    return [torch.where((levels.sigma[0] == 0) & arrived, 0.0, damped)]
