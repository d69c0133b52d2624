"""Euler's step of the probability flow in EDM's coordinates, and Euler ancestral: other names of DDIM.

With sigma' = sigma / alpha, Euler's step is x_s / alpha_s = x_t / alpha_t + (sigma'_s - sigma'_t) eps. That is eq. 13
of Song et al. 2020: `ddim(0)`. Euler ancestral (k-diffusion) goes down to sqrt(sigma'_s^2 - up^2) and adds `up` of
noise, up^2 = sigma'_s^2 (1 - sigma'_s^2 / sigma'_t^2): that is the posterior's variance, so it is `ddim(1)`, DDPM's
ancestral sampling.
"""

from __future__ import annotations

from unnoise.samplers.ddim import ddim
from unnoise.samplers.walk import Step


def euler() -> Step:
    """Returns `ddim(0)`."""
    return ddim()


def euler_ancestral(eta: float = 1.0) -> Step:
    """Returns `ddim(eta)`; `eta` in [0, 1], 1 is ancestral sampling."""
    return ddim(eta)
