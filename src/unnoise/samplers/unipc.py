"""UniPC: a multistep predictor, and a corrector that costs nothing.

x_s is predicted as DPM-Solver++ does; the network is asked there, and what it says goes through the same formula once
more, as one more place where the picture is known. That look is the next step's too: no x is asked about twice. Zhao et
al. 2023 (arXiv 2302.04867), in its data prediction. The corrector raises the order of convergence by one.

The function B(h) that the paper leaves open cancels wherever the weights are solved for. It is left in the two places
where they are set to 1/2: the predictor of order 2 and the corrector of order 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.exponential import interpolated, moments, places
from unnoise.samplers.multistep import PICTURE, add, over_ddim
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.schedules import Level


def formula(levels: Level, bh1: bool) -> list[Tensor]:
    """The weights of `over_ddim`: for the predictor the others are those before, for the corrector x_s itself too."""
    h, nodes = places(levels)
    found = moments(-h, len(nodes))
    raw = [(-h if bh1 else found[0]) / (2 * nodes[0])] if len(nodes) == 1 else interpolated(found, nodes)
    return over_ddim(levels, PICTURE, [-levels.alpha[0] * weight for weight in raw])


def unipc(order: int = 2, *, corrects: bool = True, bh1: bool = False) -> Step:
    """The method of this order, 1 to 3: N network calls in N steps. It converges with `order` + 1; where it `corrects`
    nothing, with `order`.

    `bh1` takes B(h) = h instead of e^h - 1 (bh2). The first steps are of the order that the trail allows; the step to
    t = 0 returns the estimate and corrects nothing.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"UniPC has the orders 1, 2 and 3, not {order}")

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        trail = state.history
        if not (trail and torch.equal(trail[-1].t, state.t)):
            trail = (*trail, Evaluation(state.x, state.t, denoiser(state.x, state.t)))
        trail = trail[-order:]
        looks = trail[::-1]
        x = add(formula, denoiser.schedule, state, s, looks, PICTURE, bh1)
        ends = s == 0
        if not corrects or bool(ends.all()):
            return State(x, s, trail)
        ahead = Evaluation(
            x, s, denoiser(x, torch.where(ends, state.t, s))
        )  # what a row that ends is told has no weight
        x = add(formula, denoiser.schedule, state, s, (*looks, ahead), PICTURE, bh1)
        return State(x, s, (*trail, ahead)[-order:])

    return step
