"""Schedules given by a table of T betas: Markov chains of T steps.

The table sits at t = k/T, k = 0..T, exactly, and in between log(alpha^2) is linear.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unnoise.errors import UserError
from unnoise.schedules.base import VariancePreserving
from unnoise.schedules.ranges import check_betas, check_between, check_steps


class Tabled(VariancePreserving):
    """Schedules given by T betas: alpha^2 at t = k/T is the product of the first k of (1 - beta)."""

    @abstractmethod
    def betas(self) -> Tensor:
        """(T,) float64, each in (0, 1)."""

    @cached_property
    def table(self) -> Tensor:
        """log(alpha^2) at k/T, k = 0..T."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-self.betas()).cumsum(0)])

    @cached_property
    def _rising(self) -> Tensor:
        """-log(alpha^2), which rises: to search in."""
        return -self.table

    @cached_property
    def _pairs(self) -> Tensor:
        """Each entry of the table and the next one, (T, 2)."""
        return torch.stack([self.table[:-1], self.table[1:]], 1)

    def log_alpha2(self, t: Tensor) -> Tensor:
        steps = len(self.table) - 1
        place = t.clamp(0, 1) * steps
        nearest = place.round()
        place = torch.where((place - nearest).abs() < 1e-9, nearest, place)  # k / T * T need not be k
        low = place.floor().long().clamp(0, steps - 1)
        before, after = self._pairs[low].unbind(-1)
        return torch.lerp(before, after, place - low)

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        steps = len(self.table) - 1
        high = torch.searchsorted(self._rising, -log_alpha2.contiguous()).clamp(1, steps)
        low = high - 1
        return (low + (log_alpha2 - self.table[low]) / (self.table[high] - self.table[low])) / steps


def _linspace(begin: float, end: float, steps: int) -> Tensor:
    return torch.linspace(begin, end, steps, dtype=torch.float64)


@dataclass(frozen=True)
class LinearBeta(Tabled):
    """Betas rise linearly. Ho et al. 2020; for T other than 1,000 both ends scale by 1000/T (Nichol & Dhariwal).

    Raises UserError where a beta is not between 0 and 1: for the default ends with steps from 2 to 20.
    """

    steps: int = 1000
    begin: float = 1e-4
    end: float = 0.02

    def __post_init__(self) -> None:
        _check_scaled(self)

    def betas(self) -> Tensor:
        scale = 1000 / self.steps
        return _linspace(scale * self.begin, scale * self.end, self.steps)


@dataclass(frozen=True)
class ScaledLinear(Tabled):
    """The square roots of the betas rise linearly: "quad" in DDPM's code, "scaled_linear" in latent diffusion's.

    Both ends scale by 1000/T. Raises UserError where a beta is not between 0 and 1.
    """

    steps: int = 1000
    begin: float = 1e-4
    end: float = 0.02

    def __post_init__(self) -> None:
        _check_scaled(self)

    def betas(self) -> Tensor:
        scale = 1000 / self.steps
        return scale * _linspace(self.begin**0.5, self.end**0.5, self.steps).square()


def _check_scaled(schedule: LinearBeta | ScaledLinear) -> None:
    """Raises UserError for ends that are no betas, and for so few steps that a scaled one is none."""
    check_steps(schedule.steps)
    check_between(0, math.inf, begin=schedule.begin, end=schedule.end)
    steps = math.floor(1000 * max(schedule.begin, schedule.end)) + 1
    cure = f"with begin {schedule.begin:g} and end {schedule.end:g}, times 1000 / steps, set steps to {steps} or more"
    check_betas(schedule.betas(), f"{cure}, or choose the schedule cosine")


@dataclass(frozen=True)
class Cosine(Tabled):
    """The discretised cosine schedule with its clip. Nichol & Dhariwal 2021, eq. 17.

    Raises UserError for an offset below 0, and for a max_beta that is not between 0 and 1.
    """

    steps: int = 1000
    offset: float = 0.008
    max_beta: float = 0.999

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_between(0, math.inf, or_low=True, offset=self.offset)
        check_between(0, 1, max_beta=self.max_beta)
        check_betas(self.betas(), "set offset nearer to its default, 0.008")

    def betas(self) -> Tensor:
        t = _linspace(0, 1, self.steps + 1)
        squared = torch.cos((t + self.offset) / (1 + self.offset) * math.pi / 2).square()
        return (1 - squared[1:] / squared[:-1]).clamp(max=self.max_beta)


@dataclass(frozen=True)
class SigmoidBeta(Tabled):
    """Betas on a sigmoid between the two ends (GeoDiff; `sigmoid` in diffusers). Raises UserError for others."""

    steps: int = 1000
    begin: float = 1e-4
    end: float = 0.02

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_between(0, 1, begin=self.begin, end=self.end)

    def betas(self) -> Tensor:
        return torch.sigmoid(_linspace(-6, 6, self.steps)) * (self.end - self.begin) + self.begin


@dataclass(frozen=True)
class Table(Tabled):
    """A schedule of these betas. Raises UserError for none, and where one is not between 0 and 1."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(isinstance(beta, int | float) for beta in self.values):
            raise UserError("a table of betas needs at least one number: set values, each above 0 and below 1")
        check_steps(len(self.values))
        check_betas(self.betas(), "set values, each above 0 and below 1")

    def betas(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)
