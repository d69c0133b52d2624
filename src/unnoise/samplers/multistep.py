"""Methods of higher order: DDIM's step, corrected by differences between evaluations.

    x_s = (DDIM's step from x_t) + sum_j weight_j (f_j - f_t),    f the picture, or the noise, in x

All methods of higher order here are of this form. A row that ends at t = 0 gets DDIM's step alone, which returns the
estimate; so does one that starts where nothing is left of the picture: there the weights divide by alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.ddim import deterministic
from unnoise.samplers.state import Evaluation, State
from unnoise.samplers.walk import Step
from unnoise.schedules import Level, Schedule
from unnoise.schedules.level import Number, combine, nonzero, some, where

NO_PICTURE = 1e-6  # alpha / sigma below which nothing is left of the picture

Weights = Callable[[Level[Number], Level[Number], Sequence[Level[Number]]], Sequence[Number]]
"""(level at t, at s, at the other evaluations) -> the weight of each difference f_j - f_t."""


def multistep(weights: Weights, order: int, *, predict_noise: bool = False) -> Step:
    """Builds the step through the last `order` evaluations; with a shorter history, through those that there are."""

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        here = Evaluation(state.x, state.t, denoiser(state.x, state.t))
        history = (*state.history, here)[-order:]
        x = corrected(weights, denoiser.schedule, s, history[::-1], predict_noise=predict_noise)
        return State(x, s, history)

    return step


def corrected(
    weights: Weights,
    schedule: Schedule,
    s: Tensor,
    evaluations: Sequence[Evaluation],
    *,
    predict_noise: bool = False,
) -> Tensor:
    """x_s from the evaluation at x_t, the first one, and the others."""
    here, *others = evaluations
    to, at, *levels = schedule.levels(s, here.t, *level_times(here, others))
    on_x, on_mean = deterministic(at, to)
    higher = can_be_higher(at, to)
    if not others or not some(higher):
        return combine((on_x, on_mean), (here.x, here.mean))
    each = by_length(lambda n: weights(at, to, levels[: n - 1]), evaluations)
    if isinstance(higher, Tensor):
        each = [torch.where(higher, weight, 0.0) for weight in each]
    means = [other.mean for other in others]
    if not predict_noise:
        return combine((on_x, on_mean - sum(each, 0.0), *each), (here.x, here.mean, *means))
    own, *rest = [  # f = (x - alpha mean) / sigma
        weight / nonzero(level.sigma) for weight, level in zip((sum(each, 0.0), *each), (at, *levels))
    ]
    on_means = [-weight * level.alpha for weight, level in zip(rest, levels)]
    return combine(
        (on_x - own, on_mean + own * at.alpha, *on_means, *rest),
        (here.x, here.mean, *means, *[other.x for other in others]),
    )


def can_be_higher(at: Level[Number], to: Level[Number]) -> bool | Tensor:
    """Whether a row goes from a picture, however faint, to noise, however little: where a higher order is defined."""
    return (to.sigma > 0) & (at.alpha > NO_PICTURE * at.sigma)


def by_length(weights: Callable[[int], Sequence[Number]], evaluations: Sequence[Evaluation]) -> list[Number]:
    """`weights(n)`, those of the first n evaluations; for each row, n is the number that it has.

    Rows of a joined state may have histories of different lengths; a weight of an evaluation that a row lacks is 0.
    """
    count = len(evaluations)
    if not any(each.t.ndim for each in evaluations):
        return [*weights(count)]
    lengths = sum((~each.t.isnan()).long() for each in evaluations)  # () or (B,)
    if not some(lengths < count):
        return [*weights(count)]
    found: list[Number] = [0.0] * (count - 1)
    for n in range(1, count + 1):
        row = [*weights(n), *[0.0] * (count - n)] if n > 1 else [0.0] * (count - 1)
        found = [where(lengths == n, new, old) for new, old in zip(row, found)]
    return found


def level_times(here: Evaluation, others: Sequence[Evaluation]) -> list[Tensor]:
    """The times of the others; for a row that lacks one the current time: its weight is 0 (`by_length`)."""
    return [torch.where(each.t.isnan(), here.t, each.t) if each.t.ndim else each.t for each in others]
