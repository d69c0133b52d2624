"""DPM-Solver and DPM-Solver++: the probability flow, exact but for a polynomial in log(alpha / sigma).

DPM-Solver++ takes the picture for that polynomial, DPM-Solver the noise. Multistep methods run it through what was seen
before, single steps through looks on the way. Lu et al. 2022a (2206.00927), 2022b (2211.01095); exponential.py has the
formula. A step to t = 0 returns the estimate, and one that starts without a picture is of order 1: DDIM's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.exponential import ddim_weights, interpolated, moments, places
from unnoise.samplers.walk import Seen, State, Step
from unnoise.samplers.weights import combine, pick, weights
from unnoise.schedules import Level


class Smooth(NamedTuple):
    """What is taken for a polynomial, f: the noise in x_t, or else the picture."""

    noise: bool

    def sign(self) -> float:
        """Of the exponent k."""
        return 1.0 if self.noise else -1.0

    def amplitude(self, to: Level) -> Tensor:
        """What multiplies the integral."""
        return to.sigma if self.noise else to.alpha


PICTURE = Smooth(noise=False)  # DPM-Solver++
NOISE = Smooth(noise=True)  # DPM-Solver


class Rule(NamedTuple):
    """How the differences are weighed, where the published methods differ from the exact integral of the polynomial."""

    midpoint: bool = False  # one difference: its half, not the integral of the line ("midpoint", "dpmsolver")
    half: bool = False  # two differences: half of the curvature, as the multistep method of order 3 was released


EXACT = Rule()  # "taylor" and "heun" elsewhere
MIDPOINT = Rule(midpoint=True)
RELEASED = Rule(half=True)


def differences(k: Tensor, nodes: list[Tensor], rule: Rule) -> list[Tensor]:
    """What multiplies each f(r_j) - f(0) in the integral."""
    found = moments(k, len(nodes))
    if rule.midpoint and len(nodes) == 1:
        return [found[0] / (2 * nodes[0])]
    if rule.half and len(nodes) == 2:
        found[2] = found[2] / 2
    return interpolated(found, nodes)


def multistep(levels: Level, smooth: Smooth, rule: Rule) -> list[Tensor]:
    """`levels` at (s, t, those before, the newest first) -> the weights of `over_ddim`."""
    h, nodes = places(levels)
    amplitude = smooth.amplitude(pick(levels, 0))
    return over_ddim(levels, smooth, [-amplitude * weight for weight in differences(smooth.sign() * h, nodes, rule)])


def over_ddim(levels: Level, smooth: Smooth, raw: list[Tensor]) -> list[Tensor]:
    """What multiplies x, the estimate at t, the other estimates, and, where the noise is smooth, the other x: of DDIM's
    step from t to s, plus each f_j - f_t times its weight in `raw`. A row that ends at t = 0 takes DDIM's step alone.
    """
    to, at = pick(levels, 0), pick(levels, 1)
    raw = [torch.where(to.sigma > 0, weight, 0.0) for weight in raw]
    total = sum(raw, torch.zeros_like(to.sigma))
    keep, on_mean = ddim_weights(at, to)
    if not smooth.noise:
        return [keep, on_mean - total, *raw]
    sigmas = torch.where(levels.sigma > 0, levels.sigma, 1.0)  # f = (x - alpha mean) / sigma
    own = total / sigmas[1]
    others = [weight / sigma for weight, sigma in zip(raw, sigmas[2:])]
    means = [-weight * alpha for weight, alpha in zip(others, levels.alpha[2:])]
    return [keep - own, on_mean + own * at.alpha, *means, *others]


def dpm_solver(order: int = 2, *, smooth: Smooth = PICTURE, rule: Rule = MIDPOINT) -> Step:
    """The multistep method of this order, 1 to 3: one network call a step, and memory of `order` looks.

    The first steps are of the order that the trail allows, 1, 2, ... `rule`: MIDPOINT and EXACT are the two of order 2;
    of order 3, EXACT and RELEASED, which is what the authors' code runs and of order 2 (docs/samplers.md).
    """
    _check(order)

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        seen = Seen(state.x, state.t, denoiser(state.x, state.t))
        trail = (*state.trail, seen)[-order:]
        others = trail[-2::-1]
        times = (s, state.t, *(other.t for other in others))
        scale = weights(multistep, denoiser.schedule, state.x, times, smooth, rule)
        pictures = [state.x, seen.mean, *(other.mean for other in others)]
        if smooth.noise:
            pictures += [other.x for other in others]
        return State(combine(scale, pictures), s, trail)

    return step


def _check(order: int) -> None:
    if order not in (1, 2, 3):
        raise ValueError(f"DPM-Solver has the orders 1, 2 and 3, not {order}")
