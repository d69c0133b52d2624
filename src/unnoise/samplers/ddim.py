"""DDIM: a part of the current noise is kept, and fresh noise is added for the rest.

    x_s = alpha_s mean + sqrt(sigma_s^2 - added^2) eps + added z,    eps the noise in x_t if the picture is `mean`

Eq. 12 of Song et al. 2020, for any pair of times on any schedule. eta = 0 adds nothing and is the Euler step of the
probability flow in sigma / alpha; eta = 1 is the forward process's posterior.
"""

from __future__ import annotations

from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.state import Evaluation, State
from unnoise.samplers.walk import Step
from unnoise.schedules import Level, over, posterior
from unnoise.schedules.level import Number, combine, nonzero, some, sqrt, where


def ddim(eta: float = 0.0, *, sigma_hat: bool = False) -> Step:
    """Builds DDIM's step. `eta` in [0, 1] multiplies the posterior's standard deviation, that of the noise added.

    `sigma_hat` is the paper's row of that name: the mean of eta = 1, and noise of the forward step's deviation.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is between 0 (no new noise) and 1 (the posterior's), not {eta}")

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        here = Evaluation(state.x, state.t, denoiser(state.x, state.t))
        to, at = denoiser.schedule.levels(s, state.t)
        if eta == 0 and not sigma_hat:
            return State(combine(deterministic(at, to), (state.x, here.mean)), s, (here,))
        kernel = posterior(at, to)
        variance = kernel.small if sigma_hat else eta**2 * kernel.small
        keep = sqrt(to.sigma**2 - variance) / at.sigma
        x = combine((keep, to.alpha - keep * at.alpha), (state.x, here.mean))  # alpha_s mean + keep sigma_t eps
        if some(to.sigma > 0):
            added = where(to.sigma > 0, sqrt(kernel.large if sigma_hat else variance), 0.0)
            x = x + over(added, x) * noise(s, 0).to(x)
        return State(x, s, (here,))

    return step


def deterministic(at: Level[Number], to: Level[Number]) -> tuple[Number, Number]:
    """Returns what multiplies x_t and the mean in alpha_s mean + sigma_s eps. A row at t = 0, without noise, stays."""
    keep = where(at.sigma > 0, to.sigma / nonzero(at.sigma), 1.0)
    return keep, to.alpha - keep * at.alpha
