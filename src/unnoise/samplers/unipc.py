"""UniPC: a multistep predictor, and a corrector that costs no further network call.

x_s is predicted as DPM-Solver++ does; the denoiser is evaluated there, and that evaluation enters the same formula once
more, as one more place where the picture is known. It is the next step's too, so each x is evaluated once. Zhao et al.
2023 (arXiv 2302.04867), in its data prediction. The corrector raises the order of convergence by one.

The function B(h) that the paper leaves open cancels wherever the weights are solved for. It is left in the two places
where they are set to 1/2: the predictor of order 2 and the corrector of order 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.exponential import interpolated, moments, places
from unnoise.samplers.multistep import corrected
from unnoise.samplers.state import Evaluation, State, merge
from unnoise.samplers.walk import Step
from unnoise.schedules import Level
from unnoise.schedules.level import Number, some, where


def unipc(order: int = 2, *, corrects: bool = True, bh1: bool = False) -> Step:
    """Builds the method of this order, 1 to 3: N network calls in N steps.

    It converges with `order` + 1; without the corrector (`corrects` false) with `order`. `bh1` is B(h) = h instead of
    e^h - 1 (bh2). The first steps are of the order that the history allows; the step to t = 0 returns the estimate and
    corrects nothing.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"UniPC has the orders 1, 2 and 3, not {order}")

    def weights(at: Level[Number], to: Level[Number], others: Sequence[Level[Number]]) -> list[Number]:
        h, nodes = places(at, to, others)
        found = moments(-h, len(nodes))
        raw = [(-h if bh1 else found[0]) / (2 * nodes[0])] if len(nodes) == 1 else interpolated(found, nodes)
        return [-to.alpha * weight for weight in raw]

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        history = _with_current(denoiser, state)[-order:]
        here, *before = history[::-1]
        here = Evaluation(state.x, state.t, here.estimate)  # x is the corrected one, the estimate the predicted one's
        x = corrected(weights, denoiser.schedule, s, (here, *before))
        (to,) = denoiser.schedule.levels(s)
        if not corrects or not some(to.sigma > 0):
            return State(x, s, history)
        u = where(to.sigma > 0, s, state.t)  # a row that ends has no corrector: there this evaluation has no weight
        ahead = Evaluation(x, s, denoiser(x, u))
        x = corrected(weights, denoiser.schedule, s, (here, ahead, *before))
        return State(x, s, (*history, ahead)[-order:])

    return step


def _with_current(denoiser: Denoiser, state: State) -> tuple[Evaluation, ...]:
    """The history with an evaluation at the current time: the corrector's, or for rows that have none a new one."""
    history = state.history
    if history and history[-1].t is state.t:
        return history
    there = history[-1].t == state.t if history else torch.tensor(False)
    if bool(there.all()):
        return history
    new = Evaluation(state.x, state.t, denoiser(state.x, state.t))
    if not bool(there.any()):
        return (*history, new)
    return (*history[:-1], merge(there, history[-1], new))
