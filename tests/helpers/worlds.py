"""Worlds known exactly: data whose best denoiser, path and likelihood have closed forms.

With a Gaussian picture, v_t = alpha^2 s^2 + sigma^2 is the variance of x_t, and everything else follows. The mixture
has two modes and a class; the finite set is what a data set really is. All in double.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.denoiser import Denoiser, Diffusion, Estimate, Prediction
from unnoise.schedules import Level, Schedule, over


@dataclass(frozen=True)
class Gaussian:
    """x ~ N(mean, std^2), every number alike and independent."""

    mean: float = 0.2
    std: float = 0.5

    def denoise(self, x_t: Tensor, level: Level) -> Tensor:
        gain = level.alpha * self.std**2 / self.variance(level)
        return self.mean + over(gain, x_t) * (x_t - over(level.alpha, x_t) * self.mean)

    def variance(self, level: Level) -> Tensor:
        return level.alpha.square() * self.std**2 + level.sigma.square()

    def denoiser(self, schedule: Schedule) -> Denoiser:
        return Denoiser(schedule, lambda x_t, t: Estimate(self.denoise(x_t, schedule(t))))

    def flow(self, x_t: Tensor, at: Level, to: Level) -> Tensor:
        """Where the probability flow takes x_t: exact, in either direction."""
        stretch = (self.variance(to) / self.variance(at)).sqrt()
        deviation = x_t - over(at.alpha, x_t) * self.mean
        return over(to.alpha, x_t) * self.mean + over(stretch, x_t) * deviation

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return self.mean + self.std * torch.randn(shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Mixture:
    """Gaussians around `means` (K, D) with one standard deviation: two modes or more, and a class each."""

    means: tuple[tuple[float, ...], ...] = ((-1.0, 0.5), (1.0, 0.0), (0.3, -1.2))
    weights: tuple[float, ...] = (0.2, 0.5, 0.3)
    std: float = 0.2

    def responsibilities(self, x_t: Tensor, level: Level) -> Tensor:
        """p(component | x_t): (B, K)."""
        means = torch.tensor(self.means, dtype=x_t.dtype)
        level = level.over(x_t)
        variance = level.alpha.square() * self.std**2 + level.sigma.square()
        distance = (x_t[:, None] - level.alpha[..., None] * means).square().sum(-1)
        return torch.softmax(torch.tensor(self.weights, dtype=x_t.dtype).log() - distance / (2 * variance), dim=-1)

    def denoise(self, x_t: Tensor, level: Level) -> Tensor:
        share = self.responsibilities(x_t, level)
        means = torch.tensor(self.means, dtype=x_t.dtype)
        level = level.over(x_t)
        gain = level.alpha * self.std**2 / (level.alpha.square() * self.std**2 + level.sigma.square())
        each = means + gain[..., None] * (x_t[:, None] - level.alpha[..., None] * means)
        return (share[..., None] * each).sum(1)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        return Denoiser(schedule, lambda x_t, t: Estimate(self.denoise(x_t, schedule(t))))


@dataclass(frozen=True)
class Finite:
    """A data set: the best denoiser is a softmax average of its points (N, D)."""

    points: Tensor

    def denoise(self, x_t: Tensor, level: Level) -> Tensor:
        level = level.over(x_t)
        distance = (x_t[:, None] - level.alpha[..., None] * self.points).square().sum(-1)
        return torch.softmax(-distance / (2 * level.sigma.square()), dim=-1) @ self.points

    def denoiser(self, schedule: Schedule) -> Denoiser:
        return Denoiser(schedule, lambda x_t, t: Estimate(self.denoise(x_t, schedule(t))))


class Oracle(nn.Module):
    """A network that says exactly what it is asked for, about a world: to test what stands around a network."""

    def __init__(self, world: Gaussian, schedule: Schedule, predicts: Prediction, time: object) -> None:
        super().__init__()
        self.world, self.schedule, self.predicts, self.time = world, schedule, predicts, time

    def forward(self, shown: Tensor, told: Tensor, cond: Cond) -> Tensor:
        t = self.time(told)  # type: ignore[operator]
        level = self.schedule(t)
        x_t = shown / over(self.predicts.c_in(level), shown)
        mean = self.world.denoise(x_t, level)
        return self.predicts.target(mean, level.eps(x_t, mean), level)


def as_denoiser(diffusion: Diffusion) -> Denoiser:
    return diffusion.given(Cond())
