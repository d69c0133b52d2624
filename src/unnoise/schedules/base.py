"""What a schedule is: a value, t in [0, 1] -> Level.

Three laws hold for every schedule (tests/test_schedules.py): it begins clean, `schedule(0) == (1, 0)`; the log-ratio
log(alpha / sigma) falls strictly; `time` inverts it. Levels and times are float64, tiny, and stay on the CPU until they
meet a picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from unnoise.schedules.level import Level, Number


class Schedule(ABC):
    """A value: t in [0, 1] -> Level."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Level:
        """The level at times `t` (any shape, float64)."""

    @abstractmethod
    def time(self, log_ratio: Tensor) -> Tensor:
        """The time at which log(alpha / sigma) is `log_ratio`: the inverse. Clamped to [0, 1]."""

    def at(self, t: float) -> Level:
        """The level at one time."""
        return self(torch.tensor(t, dtype=torch.float64))

    def levels(self, *times: Tensor) -> list[Level[Number]]:
        """The level at each of the times, () or (B,): plain floats where all are scalars, else tensors (B,)."""
        shape = max((t.shape for t in times), key=len)
        found = self(torch.stack([t.expand(shape) for t in times]))
        if shape:
            return [Level(alpha, sigma) for alpha, sigma in zip(found.alpha, found.sigma)]
        return [Level(alpha, sigma) for alpha, sigma in zip(found.alpha.tolist(), found.sigma.tolist())]


class VariancePreserving(Schedule):
    """Schedules with alpha^2 + sigma^2 = 1. They define log(alpha^2), from which sigma is exact where it is tiny."""

    @abstractmethod
    def log_alpha2(self, t: Tensor) -> Tensor:
        """log(alpha_t^2): 0 at t = 0, falling."""

    @abstractmethod
    def time_of(self, log_alpha2: Tensor) -> Tensor:
        """The inverse of `log_alpha2`."""

    def __call__(self, t: Tensor) -> Level:
        log_alpha2 = self.log_alpha2(t.double())
        return Level((log_alpha2 / 2).exp(), (-torch.expm1(log_alpha2)).clamp(min=0).sqrt())

    def time(self, log_ratio: Tensor) -> Tensor:
        return self.time_of(torch.nn.functional.logsigmoid(2 * log_ratio.double())).clamp(0, 1)
