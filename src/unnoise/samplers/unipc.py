"""UniPC: a multistep predictor, and a corrector that costs nothing.

The prediction of x_s is made as DPM-Solver++ does; the network is asked there, and what it says goes through the same
formula once more, as one more place where the picture is known. That look is also the next step's: no x is asked twice.
Zhao et al. 2023 (2302.04867), in its data prediction. The corrector raises the order of convergence by one.

B(h), the function that the paper leaves open, cancels wherever the weights are solved for; it is left in the two places
where they are set to 1/2, the predictor of order 2 and the corrector of order 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.dpm_solver import PICTURE, over_ddim
from unnoise.samplers.exponential import NO_PICTURE, interpolated, moments, places
from unnoise.samplers.walk import Seen, State, Step
from unnoise.samplers.weights import combine, pick, weights
from unnoise.schedules import Level


def predictor(levels: Level, bh1: bool) -> list[Tensor]:
    """`levels` at (s, t, those before) -> what multiplies x, the estimate at t, the estimates before."""
    h, nodes = places(levels)
    return _weighed(levels, nodes, -h, bh1)


def corrector(levels: Level, bh1: bool) -> list[Tensor]:
    """The same, and what multiplies the estimate at s, last. Nothing, in a row that begins without a picture."""
    at = pick(levels, 1)
    h, nodes = places(levels)
    found = _weighed(levels, [*nodes, torch.ones_like(h)], -h, bh1)
    without = [*_weighed(levels, nodes, -h, bh1), torch.zeros_like(h)]
    some = at.alpha > NO_PICTURE * at.sigma
    return [torch.where(some, a, b) for a, b in zip(found, without)]


def _weighed(levels: Level, nodes: list[Tensor], k: Tensor, bh1: bool) -> list[Tensor]:
    found = moments(k, len(nodes))
    raw = interpolated(found, nodes)
    if len(nodes) == 1:
        raw = [(k if bh1 else found[0]) / (2 * nodes[0])]
    return over_ddim(levels, PICTURE, [-levels.alpha[0] * weight for weight in raw])


def unipc(order: int = 2, *, corrects: bool = True, bh1: bool = False) -> Step:
    """The method of this order, 1 to 3: N network calls in N steps. It converges with `order` + 1; where it `corrects`
    nothing, with `order`.

    `bh1` takes B(h) = h, said to be better in very few steps without guidance; the other is B(h) = e^h - 1, bh2. The
    first steps are of the order that the trail allows; the step to t = 0 returns the estimate.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"UniPC has the orders 1, 2 and 3, not {order}")

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        trail = state.trail
        if not (trail and torch.equal(trail[-1].t, state.t)):
            trail = (*trail, Seen(state.x, state.t, denoiser(state.x, state.t)))
        trail = trail[-order:]
        times = (s, *(seen.t for seen in reversed(trail)))
        pictures = [state.x, *(seen.mean for seen in reversed(trail))]
        x = combine(weights(predictor, denoiser.schedule, state.x, times, bh1), pictures)
        arriving = s == 0
        if not corrects or bool(arriving.all()):
            return State(x, s, trail)
        asked = torch.where(arriving, state.t, s)  # a row that ends is not corrected: what it is asked has no weight
        ahead = Seen(x, s, denoiser(x, asked))
        scale = weights(corrector, denoiser.schedule, state.x, times, bh1)
        return State(combine(scale, [*pictures, ahead.mean]), s, (*trail, ahead)[-order:])

    return step
