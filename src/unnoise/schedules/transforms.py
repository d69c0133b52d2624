"""Schedules made from others: zero terminal SNR, and a shift of sigma / alpha."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unnoise.errors import UserError
from unnoise.schedules.base import Schedule, VariancePreserving
from unnoise.schedules.ranges import check_between, check_falls
from unnoise.schedules.tables import Tabled


@dataclass(frozen=True)
class ZeroTerminalSNR(VariancePreserving):
    """A schedule shifted and scaled in alpha so that nothing of the picture is left at t = 1. Lin et al. 2023, alg. 1.

    Where the base is a table, its first entry keeps its alpha, as in the paper. Raises UserError for a table of one
    entry, which cannot both keep its alpha and lose it.
    """

    base: VariancePreserving

    def __post_init__(self) -> None:
        if isinstance(self.base, Tabled) and len(self.base.table) == 2:
            raise UserError("zero terminal SNR needs a table of at least two steps: set steps to 2 or more")
        check_falls(self, "remove zero terminal SNR, or choose another schedule")

    @cached_property
    def _fixed(self) -> tuple[float, float]:
        first = torch.exp(self.base.table[1] / 2).item() if isinstance(self.base, Tabled) else 1.0
        return first, self.base.at(1.0).alpha.item()

    def log_alpha2(self, t: Tensor) -> Tensor:
        first, last = self._fixed
        alpha = torch.exp(self.base.log_alpha2(t) / 2)
        shifted = (alpha - last) * (first / (first - last))
        return torch.where(alpha >= first, self.base.log_alpha2(t), 2 * shifted.clamp(min=0).log())

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        first, last = self._fixed
        shifted = torch.exp(log_alpha2 / 2)
        alpha = shifted * ((first - last) / first) + last
        return self.base.time_of(torch.where(shifted >= first, log_alpha2, 2 * alpha.log()))


@dataclass(frozen=True)
class Shifted(VariancePreserving):
    """A schedule whose sigma / alpha is everywhere `shift` times the base's: more noise for larger pictures.

    A picture made k times smaller by means of k x k pixels keeps its colours and loses k of its noise: with shift 1 / k
    a network has at each time the input that the larger picture's network has, made smaller. Hoogeboom et al. 2023,
    eq. 4, has shift = side / 64 (arXiv 2301.11093). Raises UserError for a shift that is not above 0, or extreme.
    """

    base: VariancePreserving
    shift: float

    def __post_init__(self) -> None:
        check_between(0, math.inf, shift=self.shift)
        check_falls(self, "set shift nearer to 1")

    def log_alpha2(self, t: Tensor) -> Tensor:
        return self._log_alpha2(self.base.log_alpha2(t), self.shift)

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        return self.base.time_of(self._log_alpha2(log_alpha2, 1 / self.shift))

    @staticmethod
    def _log_alpha2(log_alpha2: Tensor, shift: float) -> Tensor:
        return -torch.log1p(shift * shift * torch.expm1(-log_alpha2))  # expm1: (sigma / alpha)^2


def first_entry(schedule: Schedule) -> float:
    """Returns the time of a table's first entry, 1/T, below which it states no level; 0 for a curve."""
    if isinstance(schedule, ZeroTerminalSNR | Shifted):
        return first_entry(schedule.base)
    return 1 / (len(schedule.table) - 1) if isinstance(schedule, Tabled) else 0.0


def is_table(schedule: Schedule) -> bool:
    """Whether the schedule is a table of betas, or made from one; any other is a curve, which has no steps."""
    if isinstance(schedule, ZeroTerminalSNR | Shifted):
        return is_table(schedule.base)
    return isinstance(schedule, Tabled)
