"""DDIM: keep part of the noise that is there, renew the rest.

    x_s = alpha_s mean + sqrt(sigma_s^2 - spread^2) eps + spread z,    eps the noise in x_t if the picture is `mean`

Eq. 12 of Song et al. 2020, for any pair of times on any schedule. eta = 0 renews nothing and is the Euler step of the
probability flow in sigma / alpha; eta = 1 is the forward process's posterior.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.differences import ddim_weights
from unnoise.samplers.walk import Seen, State, Step
from unnoise.samplers.weights import combine, pick, weights
from unnoise.schedules import Level, posterior


def ddim(eta: float = 0.0, *, sigma_hat: bool = False) -> Step:
    """`eta` in [0, 1]: the share of the posterior's standard deviation that is renewed.

    `sigma_hat` is the paper's row of that name: the mean as at eta = 1, the noise as large as the forward step's.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is between 0 (no new noise) and 1 (the posterior's), not {eta}")

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        seen = Seen(state.x, state.t, denoiser(state.x, state.t))
        keep, on_mean, *added = weights(formula, denoiser.schedule, state.x, (s, state.t), eta, sigma_hat)
        x = combine((keep, on_mean), (state.x, seen.mean))
        if added and bool((s > 0).any()):
            x = x + added[0] * noise(s, 0).to(x)
        return State(x, s, (seen,))

    return step


def formula(levels: Level, eta: float, sigma_hat: bool) -> Sequence[Tensor]:
    """`levels` at (s, t) -> what multiplies x, the estimate, and the new noise where there is any."""
    at, to = pick(levels, 1), pick(levels, 0)
    if eta == 0 and not sigma_hat:
        return ddim_weights(at, to)
    kernel = posterior(at, to)
    renewed = kernel.small if sigma_hat else eta**2 * kernel.small
    keep = (to.sigma.square() - renewed).clamp(min=0).sqrt() / at.sigma
    added = torch.where(to.sigma > 0, kernel.large if sigma_hat else renewed, 0.0).sqrt()
    return [keep, to.alpha - keep * at.alpha, added]
