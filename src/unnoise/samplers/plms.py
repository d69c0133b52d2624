"""PLMS, the linear multistep method of PNDM: DDIM's step with a mean of the last four noises.

    eps' = (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24,    newest first

Eq. 9 and 12 of Liu et al. 2022 (arXiv 2202.09778). The weights of Adams and Bashforth are those of steps that are even
in the time the noise is a function of, and DDIM's step is not linear in that time: with two evaluations or more the
method is of order 2, on every grid whose steps change smoothly. It starts with fewer evaluations, with weights of order
1, 2 and 3 (not with Runge and Kutta's steps of PRK, which cost 12 calls); a step to t = 0 returns the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence

from unnoise.samplers.multistep import multistep
from unnoise.samplers.walk import Step
from unnoise.schedules import Level
from unnoise.schedules.level import Number, nonzero

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def plms(order: int = 4) -> Step:
    """Builds the method through this many evaluations, 1 to 4: one network call a step."""
    if order not in (1, 2, 3, 4):
        raise ValueError(f"PLMS has 1 to 4 evaluations, not {order}")
    return multistep(weights, order, predict_noise=True)


def weights(at: Level[Number], to: Level[Number], others: Sequence[Level[Number]]) -> list[Number]:
    """The weights of eps_j - eps_0; the step is (alpha_s / alpha_t) x + (sigma_s - sigma_t alpha_s / alpha_t) eps'."""
    on_eps = to.sigma - to.alpha / nonzero(at.alpha) * at.sigma
    return [on_eps * weight for weight in ADAMS_BASHFORTH[len(others)][1:]]
