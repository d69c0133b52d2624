"""PLMS, the linear multistep method of PNDM: DDIM's step with a mean of the last four noises.

    eps' = (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24,    newest first

Eq. 9 and 12 of Liu et al. 2022 (arXiv 2202.09778). The weights of Adams and Bashforth are those of steps that are even
in the time the noise is a function of, and DDIM's step is not linear in that time: with two looks or more the method is
of order 2, on every grid whose steps change smoothly. It starts with fewer looks, with weights of order 1, 2 and 3 (not
with Runge and Kutta's steps of PRK, which cost 12 calls); a step to t = 0 returns the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence

from unnoise.samplers.ddim import kept
from unnoise.samplers.multistep import NO_PICTURE, NOISE, multistep
from unnoise.samplers.walk import Step
from unnoise.samplers.weights import OneStep

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def weights(levels: Sequence[tuple[float, float]]) -> list[float]:
    """(alpha, sigma) at s, t and the other looks -> what multiplies x, the estimate, the others' estimates, their x.

    With the ratio r = alpha_s / alpha_t it is x_s = r x + (sigma_s - r sigma_t) eps', eps = (x - alpha mean) / sigma.
    """
    (alpha_s, sigma_s), *looks = levels
    alpha, sigma = looks[0]
    if sigma_s == 0 or alpha <= NO_PICTURE * sigma:  # DDIM's step alone
        return [*kept.step(levels[:2]), *[0.0] * (2 * len(looks) - 2)]
    ratio = alpha_s / alpha
    counts = sigma_s - ratio * sigma
    own, *others = [counts * share / look[1] for share, look in zip(ADAMS_BASHFORTH[len(looks) - 1], looks)]
    return [ratio + own, -own * alpha, *[-on * look[0] for on, look in zip(others, looks[1:])], *others]


formula = OneStep(weights)


def plms(looks: int = 4) -> Step:
    """The method with this many looks, 1 to 4: one network call a step."""
    if looks not in (1, 2, 3, 4):
        raise ValueError(f"PLMS takes 1 to 4 looks, not {looks}")
    return multistep(formula, looks, NOISE)
