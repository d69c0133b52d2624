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
from unnoise.samplers.walk import Evaluation, State, Step
from unnoise.samplers.weights import OneStep, combine, pick, weights
from unnoise.schedules import Level, posterior


def ddim(eta: float = 0.0, *, sigma_hat: bool = False) -> Step:
    """`eta` in [0, 1]: the share of the posterior's standard deviation that is renewed.

    `sigma_hat` is the paper's row of that name: the mean as at eta = 1, the noise as large as the forward step's.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is between 0 (no new noise) and 1 (the posterior's), not {eta}")

    how = (formula, eta, sigma_hat) if eta or sigma_hat else (kept,)

    def step(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
        seen = Evaluation(state.x, state.t, denoiser(state.x, state.t))
        keep, on_mean, *added = weights(how[0], denoiser.schedule, state.x, (s, state.t), *how[1:])
        x = combine((keep, on_mean), (state.x, seen.mean))
        if added and bool((s > 0).any()):
            x = x + added[0] * noise(s, 0).to(x)
        return State(x, s, (seen,))

    return step


@OneStep
def kept(levels: Sequence[tuple[float, float]]) -> Sequence[float]:
    """(alpha, sigma) at (s, t) -> what multiplies x and the estimate where nothing is renewed."""
    (alpha_s, sigma_s), (alpha, sigma) = levels
    keep = sigma_s / sigma if sigma > 0 else 1.0
    return keep, alpha_s - keep * alpha


def formula(levels: Level, eta: float, sigma_hat: bool) -> Sequence[Tensor]:
    """`levels` at (s, t) -> what multiplies x, the estimate, and the new noise."""
    at, to = pick(levels, 1), pick(levels, 0)
    kernel = posterior(at, to)
    renewed = kernel.small if sigma_hat else eta**2 * kernel.small
    keep = (to.sigma.square() - renewed).clamp(min=0).sqrt() / at.sigma
    added = torch.where(to.sigma > 0, kernel.large if sigma_hat else renewed, 0.0).sqrt()
    return [keep, to.alpha - keep * at.alpha, added]
