"""Noise schedules: how much picture and how much noise there is in x_t.

    x_t = alpha_t x + sigma_t eps,    eps ~ N(0, I),    t in [0, 1]

Three laws hold for every schedule (tests/test_schedules.py): it begins clean, `schedule(0) == (1, 0)`; the log-ratio
log(alpha / sigma) falls strictly; `time` inverts it. A table of T betas sits at t = k/T, k = 0..T, exactly, and in
between log(alpha^2) is linear. Levels and times are float64, tiny, and stay on the CPU until they meet a picture.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.errors import UserError, unknown


class Level(NamedTuple):
    """The amplitudes of picture and noise at some times: float64, in the shape of the times."""

    alpha: Tensor
    sigma: Tensor

    def over(self, x: Tensor) -> Level:
        """The same level, ready to multiply `x` (B, ...): trailing axes of one, in x's dtype and on its device."""
        return Level(over(self.alpha, x), over(self.sigma, x))

    def mix(self, x: Tensor, eps: Tensor) -> Tensor:
        """x_t, from the picture and the noise."""
        level = self.over(x)
        return level.alpha * x + level.sigma * eps

    def eps(self, x_t: Tensor, mean: Tensor) -> Tensor:
        """The noise in x_t if the picture is `mean`. Undefined at t = 0, where there is none."""
        level = self.over(x_t)
        return (x_t - level.alpha * mean) / level.sigma

    def score(self, x_t: Tensor, mean: Tensor) -> Tensor:
        """The gradient of log p(x_t), by Tweedie's formula: (alpha E[x | x_t] - x_t) / sigma^2."""
        return -self.eps(x_t, mean) / self.over(x_t).sigma

    @property
    def log_ratio(self) -> Tensor:
        """log(alpha / sigma), half the log signal-to-noise ratio; +inf where there is no noise."""
        return self.alpha.log() - self.sigma.log()

    @property
    def snr(self) -> Tensor:
        """alpha^2 / sigma^2."""
        return (self.alpha / self.sigma).square()


def over(values: Tensor, x: Tensor) -> Tensor:
    """Numbers of shape () or (B,), shaped to multiply x (B, ...) and cast to its dtype: the one way to broadcast."""
    return values.to(device=x.device, dtype=x.dtype).reshape(values.shape + (1,) * (x.ndim - 1))


class Posterior(NamedTuple):
    """q(x_s | x_t, x) = N(x_coef x + x_t_coef x_t, small), and the two variances between which the reverse one lies.

    `small` is the posterior's own (DDPM's beta tilde), `large` the forward step's, Var[x_t | x_s] (DDPM's beta).
    Eq. 6-7 of Ho et al. 2020, for any pair of levels.
    """

    x_coef: Tensor
    x_t_coef: Tensor
    small: Tensor
    large: Tensor


def posterior(at: Level, to: Level) -> Posterior:
    """The posterior of x_s given x_t and the picture, `at` the level of t, `to` that of s < t."""
    renewed = -torch.expm1(2 * (at.log_ratio - to.log_ratio))  # share of the noise that came after s; no cancellation
    return Posterior(
        x_coef=to.alpha * renewed,
        x_t_coef=(at.alpha * to.sigma.square()) / (to.alpha * at.sigma.square()),
        small=to.sigma.square() * renewed,
        large=at.sigma.square() * renewed,
    )


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


# --- variance preserving: alpha^2 + sigma^2 = 1, said by log(alpha^2) ---


class VariancePreserving(Schedule):
    """Schedules with alpha^2 + sigma^2 = 1. They say log(alpha^2), which keeps sigma exact where it is tiny."""

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
        high = torch.searchsorted(-self.table, -log_alpha2.contiguous()).clamp(1, steps)
        low = high - 1
        return (low + (log_alpha2 - self.table[low]) / (self.table[high] - self.table[low])) / steps


def _linspace(begin: float, end: float, steps: int) -> Tensor:
    return torch.linspace(begin, end, steps, dtype=torch.float64)


@dataclass(frozen=True)
class LinearBeta(Tabled):
    """Betas rise linearly. Ho et al. 2020; for T other than 1,000 both ends scale by 1000/T (Nichol & Dhariwal)."""

    steps: int = 1000
    begin: float = 1e-4
    end: float = 0.02

    def betas(self) -> Tensor:
        scale = 1000 / self.steps
        return _linspace(scale * self.begin, scale * self.end, self.steps)


@dataclass(frozen=True)
class ScaledLinear(Tabled):
    """The square roots of the betas rise linearly: "quad" in DDPM's code, "scaled_linear" in latent diffusion's."""

    steps: int = 1000
    begin: float = 1e-4
    end: float = 0.02

    def betas(self) -> Tensor:
        scale = 1000 / self.steps
        return scale * _linspace(self.begin**0.5, self.end**0.5, self.steps).square()


@dataclass(frozen=True)
class Cosine(Tabled):
    """The discretised cosine schedule with its clip. Nichol & Dhariwal 2021, eq. 17."""

    steps: int = 1000
    offset: float = 0.008
    max_beta: float = 0.999

    def betas(self) -> Tensor:
        t = _linspace(0, 1, self.steps + 1)
        kept = torch.cos((t + self.offset) / (1 + self.offset) * math.pi / 2).square()
        return (1 - kept[1:] / kept[:-1]).clamp(max=self.max_beta)


@dataclass(frozen=True)
class SigmoidBeta(Tabled):
    """Betas on a sigmoid between the two ends (GeoDiff; `sigmoid` in diffusers)."""

    steps: int = 1000
    begin: float = 1e-4
    end: float = 0.02

    def betas(self) -> Tensor:
        return torch.sigmoid(_linspace(-6, 6, self.steps)) * (self.end - self.begin) + self.begin


@dataclass(frozen=True)
class Table(Tabled):
    """Any betas."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(0 < beta < 1 for beta in self.values):
            raise UserError("a table of betas holds numbers between 0 and 1, at least one of them")

    def betas(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64)


@dataclass(frozen=True)
class CosineContinuous(VariancePreserving):
    """alpha = cos(pi t / 2): equal steps in angle. With an offset, the curve that `Cosine` discretises, unclipped."""

    offset: float = 0.0

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


def _beta_time(integral: Tensor, begin: float, end: float) -> Tensor:
    return 2 * integral / (begin + (begin**2 + 2 * (end - begin) * integral).sqrt())


@dataclass(frozen=True)
class VPSDE(VariancePreserving):
    """The variance-preserving SDE, whose rate of noise beta(t) rises linearly: `LinearBeta` for T to infinity.

    Song et al. 2021, App. C.
    """

    begin: float = 0.1
    end: float = 20.0

    def log_alpha2(self, t: Tensor) -> Tensor:
        return -_beta_integral(t, self.begin, self.end)

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        return _beta_time(-log_alpha2, self.begin, self.end)


@dataclass(frozen=True)
class Sigmoid(VariancePreserving):
    """alpha^2 falls from 1 to 0 along a sigmoid. Jabri et al. 2022."""

    start: float = -3.0
    end: float = 3.0
    temperature: float = 1.0

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
        low, high = (1 / (1 + math.exp(-edge / self.temperature)) for edge in (self.start, self.end))
        return low, high


@dataclass(frozen=True)
class ZeroTerminalSNR(VariancePreserving):
    """A schedule shifted and scaled in alpha so that nothing of the picture is left at t = 1. Lin et al. 2023, alg. 1.

    Where the base is a table, its first entry keeps its alpha, as in the paper.
    """

    base: VariancePreserving

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
    a network sees at each time what the larger picture's network sees of it. Hoogeboom et al. 2023, eq. 4, has
    shift = side / 64 (arXiv 2301.11093).
    """

    base: VariancePreserving
    shift: float

    def __post_init__(self) -> None:
        if not isinstance(self.shift, int | float) or not 0 < self.shift < math.inf:
            raise UserError(f"a schedule's shift multiplies sigma / alpha: a number above 0, not {self.shift}")

    def log_alpha2(self, t: Tensor) -> Tensor:
        return self._log_alpha2(self.base.log_alpha2(t), self.shift)

    def time_of(self, log_alpha2: Tensor) -> Tensor:
        return self.base.time_of(self._log_alpha2(log_alpha2, 1 / self.shift))

    @staticmethod
    def _log_alpha2(log_alpha2: Tensor, shift: float) -> Tensor:
        return -torch.log1p(shift**2 * torch.expm1(-log_alpha2))  # expm1: (sigma / alpha)^2


# --- others ---


@dataclass(frozen=True)
class SubVP(Schedule):
    """The sub-VP SDE: the alpha of `VPSDE`, and sigma = 1 - alpha^2, VPSDE's variance. Song et al. 2021, App. C."""

    begin: float = 0.1
    end: float = 20.0

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
    """Noise is added and nothing else changes: sigma rises linearly in t to `sigma_max`. Karras et al. 2022."""

    sigma_max: float = 80.0

    def __call__(self, t: Tensor) -> Level:
        t = t.double()
        return Level(torch.ones_like(t), t * self.sigma_max)

    def time(self, log_ratio: Tensor) -> Tensor:
        return (torch.exp(-log_ratio.double()) / self.sigma_max).clamp(0, 1)


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """Noise levels in geometric progression from `sigma_min` at t = 1/steps to `sigma_max` at t = 1. Song et al. 2021.

    Below 1/steps sigma is linear, down to the clean picture at t = 0.
    """

    steps: int = 1000
    sigma_min: float = 0.01
    sigma_max: float = 50.0

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


def is_table(schedule: Schedule) -> bool:
    """Whether its levels are given by betas, one a step, or made of such: any other is a curve, which has no steps."""
    if isinstance(schedule, ZeroTerminalSNR | Shifted):
        return is_table(schedule.base)
    return isinstance(schedule, Tabled)


# --- the rim: names ---

SCHEDULES: dict[str, type[Schedule]] = {
    "linear": LinearBeta,
    "scaled-linear": ScaledLinear,
    "quadratic": ScaledLinear,
    "cosine": Cosine,
    "cosine-continuous": CosineContinuous,
    "sigmoid": Sigmoid,
    "sigmoid-beta": SigmoidBeta,
    "vp-sde": VPSDE,
    "sub-vp": SubVP,
    "flow": Flow,
    "edm": EDM,
    "variance-exploding": VarianceExploding,
    "table": Table,
}


def make_schedule(name: str, options: Mapping[str, Any], *, steps: int = 1000, zero_snr: bool = False) -> Schedule:
    """The schedule of this name; `options` are its fields, and `shift` of Shifted. A table has `steps` entries.

    Raises UserError for an unknown name or option, and for a shift, or zero terminal SNR, where alpha and sigma are not
    on a circle.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    kind = SCHEDULES[name]
    fields = list(inspect.signature(kind).parameters)
    given = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in options.items()}
    shift: Any = given.pop("shift", 1.0)
    for key in given:
        if key not in fields:
            raise unknown(f"option of the schedule {name!r}", key, [*fields, "shift"])
    if "steps" in fields:
        given.setdefault("steps", steps)
    schedule = kind(**given)
    if shift == 1 and not zero_snr:
        return schedule
    if not isinstance(schedule, VariancePreserving):
        what = "zero terminal SNR" if zero_snr else "shift"
        raise UserError(f"{what} is for variance-preserving schedules; {name!r} is not one: leave it off")
    schedule = ZeroTerminalSNR(schedule) if zero_snr else schedule
    return schedule if shift == 1 else Shifted(schedule, shift)
