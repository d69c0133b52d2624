"""DDIM inversion: the noise from which DDIM samples a given picture. A walk upwards, with steps that undo DDIM's.

    x_t = (alpha_t / alpha_s) x_s + (sigma_t - (alpha_t / alpha_s) sigma_s) eps,    s < t

DDIM's step from t to s uses the eps at (x_t, t), which is not known yet on the way up. There are three conventions: eps
at (x_s, s), the state's own level; eps at (x_s, t), the target's level; or x_t is solved for, so that DDIM's step leads
back exactly. The first two have an error of first order in the length of the step. Song et al. 2020, sec. 5.4.

    noise = last(walk(denoiser, x, times.flip(0), exact(), silence))
"""

from __future__ import annotations

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Noise
from unnoise.samplers import Evaluation, State, Step, ddim
from unnoise.samplers.ddim import deterministic
from unnoise.schedules import over
from unnoise.transfer import send

FIRST = 1e-3  # the time that is used for a clean picture, the first that networks are trained on: entry 0 of 1,000


def silence(t: Tensor, draw: int = 0) -> Tensor:
    """The noise of a walk that adds none."""
    raise AssertionError("an inversion adds no noise")


def own_level(first: float = FIRST) -> Step:
    """Builds the step with eps at the state's own level. A picture at time 0 is used as the state at time `first`.

    `ddim_reverse_sample` of improved-diffusion.
    """

    def step(denoiser: Denoiser, state: State, t: Tensor, noise: Noise) -> State:
        s = state.t.clamp(min=min(first, float(t.min())))
        estimate = denoiser(state.x, s)
        eps = denoiser.schedule(s).eps(state.x, estimate.mean)
        return State(_raised(denoiser, state.x, s, t, eps), t, (Evaluation(state.x, s, estimate),))

    return step


def target_level() -> Step:
    """Builds the step with eps at (x_s, t): about half the error. `DDIMInverseScheduler` of diffusers."""

    def step(denoiser: Denoiser, state: State, t: Tensor, noise: Noise) -> State:
        estimate = denoiser(state.x, t)
        eps = denoiser.schedule(t).eps(state.x, estimate.mean)
        return State(_raised(denoiser, state.x, state.t, t, eps), t, (Evaluation(state.x, t, estimate),))

    return step


def exact(tolerance: float = 1e-5, max_calls: int = 40, memory: int = 5) -> Step:
    """Builds the step to the x_t from which DDIM's step leads back to x_s, by a fixed-point iteration.

    It ends when each row is within `tolerance` (root mean square) of x_s, or after `max_calls` network calls: then with
    the best iterate (`residual` measures it). The map is x_t + stretch (x_s - down(x_t)), with Anderson's acceleration
    over the last `memory` iterates. The stretch is that of the flow where pictures have standard deviation 1: it
    divides by nothing that is 0 at the end of a schedule.
    """

    def step(denoiser: Denoiser, state: State, t: Tensor, noise: Noise) -> State:
        at, to = denoiser.schedule(t), denoiser.schedule(state.t)
        stretch = over(torch.hypot(at.alpha, at.sigma) / torch.hypot(to.alpha, to.sigma), state.x)
        keep, on_mean = (over(weight, state.x) for weight in deterministic(at, to))
        tries: list[Tensor] = []
        images: list[Tensor] = []
        x = stretch * state.x
        best: tuple[Tensor, Tensor, Estimate] | None = None  # x_t, its distance from x_s, its estimate
        for _ in range(max_calls):
            estimate = denoiser(x, t)
            off = state.x - (keep * x + on_mean * estimate.mean)
            found = x, _rms(off), estimate
            best = found if best is None else _better(best, found)
            if bool((best[1] <= tolerance).all()):
                break
            tries, images = [*tries[1 - memory :], x.cpu()], [*images[1 - memory :], (x + stretch * off).cpu()]
            x = send(_anderson(tries, images), x.device)
        assert best is not None, "at least one iterate"
        return State(best[0], t, (Evaluation(best[0], t, best[2]),))

    return step


def residual(denoiser: Denoiser, before: State, after: State) -> Tensor:
    """Returns the root mean square, (B,), of the difference between `before` and DDIM's step from `after`.

    The network is not called where the history of `after` ends with the evaluation at its x and t.
    """
    newest = after.history[-1] if after.history else None
    if newest is not None and newest.x is after.x and newest.t is after.t:
        denoiser = Denoiser(denoiser.schedule, lambda x, t: newest.estimate)
    back = ddim()(denoiser, State(after.x, after.t), before.t, silence)
    return _rms(back.x - before.x)


def _raised(denoiser: Denoiser, x: Tensor, s: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t, on the line from x_s along eps."""
    at, to = denoiser.schedule(s), denoiser.schedule(t)
    grow = to.alpha / at.alpha
    return over(grow, x) * x + over(to.sigma - grow * at.sigma, x) * eps


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


def _better(
    best: tuple[Tensor, Tensor, Estimate], new: tuple[Tensor, Tensor, Estimate]
) -> tuple[Tensor, Tensor, Estimate]:
    """Row by row, the one with the smaller distance."""
    take = new[1] < best[1]
    rows = take.reshape(-1, *[1] * (best[0].ndim - 1))
    spread = best[2].variance_fraction
    if spread is not None and new[2].variance_fraction is not None:
        spread = torch.where(rows, new[2].variance_fraction, spread)
    mean = torch.where(rows, new[2].mean, best[2].mean)
    return torch.where(rows, new[0], best[0]), torch.where(take, new[1], best[1]), Estimate(mean, spread)


def _anderson(tries: list[Tensor], images: list[Tensor]) -> Tensor:
    """The next iterate: the mixture of images with the least residual. Row by row, in double, and so on the CPU."""
    if len(tries) == 1:
        return images[-1]
    g = torch.stack([image.flatten(1) for image in images], dim=2).double()  # (B, D, k)
    f = g - torch.stack([x.flatten(1) for x in tries], dim=2).double()
    df, dg = f.diff(dim=2), g.diff(dim=2)
    normal = df.transpose(1, 2) @ df
    ridge = 1e-12 * normal.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-300
    normal = normal + ridge * torch.eye(normal.shape[1], dtype=normal.dtype, device=normal.device)
    gamma = torch.linalg.solve(normal, df.transpose(1, 2) @ f[..., -1:])
    mixed: Tensor = g[..., -1:] - dg @ gamma
    return mixed[..., 0].reshape(images[-1].shape).to(images[-1])
