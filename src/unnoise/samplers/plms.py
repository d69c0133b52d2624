"""PLMS, the linear multistep method of PNDM: DDIM's step with a mean of the last four noises.

    eps' = (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24,    newest first

Eq. 9 and 12 of Liu et al. 2022 (arXiv 2202.09778). The weights of Adams and Bashforth are those of steps that are even
in the time the noise is a function of, and DDIM's step is not linear in that time: with two looks or more the method is
of order 2, on every grid whose steps change smoothly. It starts with fewer looks, with weights of order 1, 2 and 3 (not
with Runge and Kutta's steps of PRK, which cost 12 calls); a step to t = 0 returns the estimate.
"""

from __future__ import annotations

from torch import Tensor

from unnoise.samplers.differences import NOISE, multistep, over_ddim
from unnoise.samplers.walk import Step
from unnoise.schedules import Level

ADAMS_BASHFORTH = ((), (-1 / 2,), (-16 / 12, 5 / 12), (-59 / 24, 37 / 24, -9 / 24))  # of the looks before the newest


def formula(levels: Level) -> list[Tensor]:
    """The weights of `over_ddim`: the share of each noise times what the noise counts for in DDIM's step."""
    counts = levels.sigma[0] - levels.alpha[0] / levels.alpha[1] * levels.sigma[1]
    return over_ddim(levels, NOISE, [counts * share for share in ADAMS_BASHFORTH[len(levels.sigma) - 2]])


def plms(looks: int = 4) -> Step:
    """The method with this many looks, 1 to 4: one network call a step."""
    if looks not in (1, 2, 3, 4):
        raise ValueError(f"PLMS takes 1 to 4 looks, not {looks}")
    return multistep(formula, looks, NOISE)
