"""Steps that add to DDIM's what was seen elsewhere, as differences from what is seen here.

    x_s = (DDIM's step from x_t) + sum_j weight_j (f_j - f_t),    f the picture, or the noise, in x

All methods of higher order here are of this form. A row that ends at t = 0 takes DDIM's step alone, which returns the
estimate; so does one that starts where nothing is left of the picture: there the weights divide by alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.samplers.weights import Formula, combine, pick, weights
from unnoise.schedules import Level, Schedule

NO_PICTURE = 1e-6  # alpha / sigma below which nothing is left of the picture


class Smooth(NamedTuple):
    """What is taken to be smooth on the way, f: the noise in x_t, or else the picture."""

    noise: bool


PICTURE = Smooth(noise=False)
NOISE = Smooth(noise=True)


def ddim_weights(at: Level, to: Level) -> tuple[Tensor, Tensor]:
    """What multiplies x and the estimate. Divides by sigma_t alone; a row at t = 0 stays."""
    keep = torch.where(at.sigma > 0, to.sigma / at.sigma, 1.0)
    return keep, to.alpha - keep * at.alpha


def over_ddim(levels: Level, smooth: Smooth, raw: Sequence[Tensor]) -> list[Tensor]:
    """`levels` at (s, t, others...), a weight for each other -> what multiplies x, the estimate at t, the others'
    estimates, and where the noise is smooth the others' x.
    """
    at, to = pick(levels, 1), pick(levels, 0)
    keep, on_mean = ddim_weights(at, to)
    if not raw:
        return [keep, on_mean]
    each = torch.where(more(at, to), torch.stack([*raw]), 0.0)
    if not smooth.noise:
        return [keep, on_mean - each.sum(0), *each]
    sigmas = torch.where(levels.sigma > 0, levels.sigma, 1.0)  # f = (x - alpha mean) / sigma
    own, others = each.sum(0) / sigmas[1], each / sigmas[2:]
    return [keep - own, on_mean + own * at.alpha, *(-others * levels.alpha[2:]), *others]


def more(at: Level, to: Level) -> Tensor:
    """Which rows go on from a picture, however faint, to noise, however little: those that can be of higher order."""
    return (to.sigma > 0) & (at.alpha > NO_PICTURE * at.sigma)


def add(
    formula: Formula,
    schedule: Schedule,
    state: State,
    s: Tensor,
    looks: Sequence[Evaluation],
    smooth: Smooth,
    *how: object,
) -> Tensor:
    """x_s from x_t, what was seen at t, the first of `looks`, and elsewhere. `formula` gives over_ddim's weights."""
    others = looks[1:]
    scale = weights(formula, schedule, state.x, (s, state.t, *[look.t for look in others]), *how)
    pictures = [state.x, *[look.mean for look in looks]]
    return combine(scale, pictures + [look.x for look in others] if smooth.noise else pictures)


def multistep(formula: Formula, order: int, smooth: Smooth, *how: object) -> Step:
    """The step that remembers `order` looks; with a shorter trail, it is of the order that the trail allows."""

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        trail = (*state.history, Evaluation(state.x, state.t, denoiser(state.x, state.t)))[-order:]
        return State(add(formula, denoiser.schedule, state, s, trail[::-1], smooth, *how), s, trail)

    return step
