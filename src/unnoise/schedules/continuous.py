"""Schedules given by a curve, at any time in [0, 1]: variance preserving, straight, and variance exploding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.schedules.base import Schedule, VariancePreserving
from unnoise.schedules.level import Level
from unnoise.schedules.ranges import check_between, check_falls, check_order, check_steps


@dataclass(frozen=True)
class CosineContinuous(VariancePreserving):
    """alpha = cos(pi t / 2): equal steps in angle. With an offset, the curve that `Cosine` discretises, unclipped.

    Raises UserError for an offset below 0.
    """

    offset: float = 0.0

    def __post_init__(self) -> None:
        check_between(0, math.inf, or_low=True, offset=self.offset)
        check_falls(self, "set offset nearer to 0")

    def _angle(self, t: Tensor) -> Tensor:
        return (t + self.offset) / (1 + self.offset) * (math.pi / 2)

    @property
    def _first(self) -> float:
        return math.cos(self.offset / (1 + self.offset) * math.pi / 2)

    def log_alpha2(self, t: Tensor) -> Tensor:
        if self.offset == 0:
            return torch.log1p(-torch.sin(self._angle(t)).square())
        return 2 * (torch.cos(self._angle(t)).log() - math.log(self._first))

    def __call__(self, t: Tensor) -> Level:
        if self.offset == 0:  # exact where log(alpha^2) has no digits left: at both ends
            angle = self._angle(t.double())
            return Level(torch.cos(angle), torch.sin(angle))
        return super().__call__(t)

    def time(self, log_ratio: Tensor) -> Tensor:
        if self.offset == 0:
            return (torch.atan(torch.exp(-log_ratio.double())) * (2 / math.pi)).clamp(0, 1)
        return super().time(log_ratio)

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        angle = torch.acos((torch.exp(log_alpha2 / 2) * self._first).clamp(max=1))
        return angle * (2 / math.pi) * (1 + self.offset) - self.offset


def _beta_integral(t: Tensor, begin: float, end: float) -> Tensor:
    """The integral of beta(t) = begin + (end - begin) t from 0."""
    return t * begin + t.square() * (end - begin) / 2


def _check_rates(schedule: VPSDE | SubVP) -> None:
    """Raises UserError for rates of noise that are not above 0, or so large that alpha underflows."""
    check_between(0, math.inf, begin=schedule.begin, end=schedule.end)
    check_falls(schedule, "set begin and end nearer to their defaults, 0.1 and 20")


def _beta_time(integral: Tensor, begin: float, end: float) -> Tensor:
    return 2 * integral / (begin + (begin**2 + 2 * (end - begin) * integral).sqrt())


@dataclass(frozen=True)
class VPSDE(VariancePreserving):
    """The variance-preserving SDE, whose rate of noise beta(t) rises linearly: `LinearBeta` for T to infinity.

    Song et al. 2021, App. C. Raises UserError for rates that are not above 0, or too large.
    """

    begin: float = 0.1
    end: float = 20.0

    def __post_init__(self) -> None:
        _check_rates(self)

    def log_alpha2(self, t: Tensor) -> Tensor:
        return -_beta_integral(t, self.begin, self.end)

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        return _beta_time(-log_alpha2, self.begin, self.end)


@dataclass(frozen=True)
class Sigmoid(VariancePreserving):
    """alpha^2 falls from 1 to 0 along a sigmoid. Jabri et al. 2022.

    Raises UserError unless start < end, and for a temperature that is not above 0, or so low that the sigmoid is flat.
    """

    start: float = -3.0
    end: float = 3.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_between(-math.inf, math.inf, start=self.start, end=self.end)
        check_order(start=self.start, end=self.end)
        check_between(0, math.inf, temperature=self.temperature)
        check_falls(self, "set temperature higher, or start and end nearer to each other")

    def log_alpha2(self, t: Tensor) -> Tensor:
        v0, v1 = self._ends
        value = torch.sigmoid((t * (self.end - self.start) + self.start) / self.temperature)
        return torch.log1p((v0 - value) / (v1 - v0))

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        v0, v1 = self._ends
        value = v0 - torch.expm1(log_alpha2) * (v1 - v0)
        return (torch.logit(value) * self.temperature - self.start) / (self.end - self.start)

    @property
    def _ends(self) -> tuple[float, float]:
        edges = torch.tensor([self.start, self.end], dtype=torch.float64)
        low, high = torch.sigmoid(edges / self.temperature).tolist()
        return low, high


@dataclass(frozen=True)
class SubVP(Schedule):
    """The sub-VP SDE: the alpha of `VPSDE`, and sigma = 1 - alpha^2, VPSDE's variance. Song et al. 2021, App. C.

    Raises UserError as `VPSDE`.
    """

    begin: float = 0.1
    end: float = 20.0

    def __post_init__(self) -> None:
        _check_rates(self)

    def __call__(self, t: Tensor) -> Level:
        log_alpha2 = -_beta_integral(t.double(), self.begin, self.end)
        return Level((log_alpha2 / 2).exp(), -torch.expm1(log_alpha2))

    def time(self, log_ratio: Tensor) -> Tensor:
        # alpha / sigma = 1 / (2 sinh(-log alpha))
        integral = 2 * torch.asinh(torch.exp(-log_ratio.double()) / 2)
        return _beta_time(integral, self.begin, self.end).clamp(0, 1)


@dataclass(frozen=True)
class Flow(Schedule):
    """The straight line from picture to noise: x_t = (1 - t) x + t eps. Liu et al. 2022, Lipman et al. 2022."""

    def __call__(self, t: Tensor) -> Level:
        t = t.double()
        return Level(1 - t, t.clone())

    def time(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(-log_ratio.double())


@dataclass(frozen=True)
class EDM(Schedule):
    """Noise is added and nothing else changes: sigma rises linearly in t to `sigma_max`. Karras et al. 2022.

    Raises UserError for a sigma_max that is not above 0.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_between(0, math.inf, sigma_max=self.sigma_max)
        check_falls(self, "set sigma_max nearer to its default, 80")

    def __call__(self, t: Tensor) -> Level:
        t = t.double()
        return Level(torch.ones_like(t), t * self.sigma_max)

    def time(self, log_ratio: Tensor) -> Tensor:
        return (torch.exp(-log_ratio.double()) / self.sigma_max).clamp(0, 1)


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """Noise levels in geometric progression from `sigma_min` at t = 1/steps to `sigma_max` at t = 1. Song et al. 2021.

    Below 1/steps sigma is linear, down to the clean picture at t = 0. Raises UserError unless 0 < sigma_min <
    sigma_max, and for fewer than 2 steps.
    """

    steps: int = 1000
    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_steps(self.steps, least=2)
        check_between(0, math.inf, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_order(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_falls(self, "set sigma_min and sigma_max nearer to their defaults, 0.01 and 50")

    def __call__(self, t: Tensor) -> Level:
        t = t.double()
        place = (t * self.steps - 1) / (self.steps - 1)
        sigma = self.sigma_min * (self.sigma_max / self.sigma_min) ** place.clamp(min=0)
        return Level(torch.ones_like(t), torch.where(place < 0, t * self.steps * self.sigma_min, sigma))

    def time(self, log_ratio: Tensor) -> Tensor:
        ratio = torch.exp(-log_ratio.double()) / self.sigma_min
        place = ratio.log() / math.log(self.sigma_max / self.sigma_min)
        t = torch.where(ratio < 1, ratio, 1 + place * (self.steps - 1)) / self.steps
        return t.clamp(0, 1)
