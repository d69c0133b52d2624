"""From the output of a network to an estimate of the picture: the one file that knows what a network predicts.

A network predicts a row, `a x + b eps`. With x_t = alpha x + sigma eps that is a 2x2 system, and its solution

    E[x | x_t] = (b x_t - sigma out) / (alpha b - sigma a)

replaces every conversion between eps, x0, v, flow and EDM's F. Guidance and edits work on a `Conditional`, which gives
a denoiser for each condition; samplers and distillation on a `Denoiser`, a function (x_t, t) -> Estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from unnoise.conditions import NOTHING, Cond
from unnoise.config.diffusion import DiffusionConfig
from unnoise.errors import UserError, unknown
from unnoise.schedules import Level, Schedule, make_schedule, over, posterior, times
from unnoise.schedules.level import combine

Clock = Callable[[Tensor, Level], Tensor]
"""(t, its level) -> the time that is passed to the network, (B,)."""
Weight = Callable[[Level], Tensor]
"""The weight of the squared error of the picture, ||x - mean||^2, in the shape of the level (losses.py)."""


def discrete(steps: int) -> Clock:
    """The clock of a network trained on T steps: k - 1 at t = k/T, linear in between."""
    return partial(_entry, steps, 1)


def scaled(steps: int) -> Clock:
    """The clock of flow matching in diffusers: t T, which is T at the noise and 0 at the picture."""
    return partial(_entry, steps, 0)


def _entry(steps: int, first: int, t: Tensor, level: Level) -> Tensor:
    return t * steps - first


def quarter_log_sigma(t: Tensor, level: Level) -> Tensor:
    """EDM's clock: a quarter of the logarithm of sigma / alpha. Table 1 of Karras et al. 2022."""
    return -level.log_ratio / 4


def _ones(level: Level) -> Tensor:
    return torch.ones_like(level.alpha)


@dataclass(frozen=True)
class Prediction:
    """The row `a x + b eps` that a network predicts, and its input: x_t times `c_in`, and the time `c_noise`."""

    row: Callable[[Level], tuple[Tensor, Tensor]]
    c_in: Callable[[Level], Tensor] = _ones
    c_noise: Clock | None = None  # None: that of a network trained on discrete steps

    def target(self, x: Tensor, eps: Tensor, level: Level) -> Tensor:
        """The network's target, a x + b eps, like x."""
        return combine(self.row(level), (x, eps))

    def mean(self, x_t: Tensor, out: Tensor, level: Level) -> Tensor:
        """The estimate of the picture from the network's output. At t = 0 it is x_t itself."""
        return combine(self._solve(level), (x_t, out))

    def error(self, level: Level) -> Tensor:
        """The error of the estimate for each unit of error of the network's output."""
        return self._solve(level)[1].abs()

    def _solve(self, level: Level) -> tuple[Tensor, Tensor]:
        a, b = self.row(level)
        det = level.alpha * b - level.sigma * a
        clean = level.sigma == 0
        safe = torch.where(clean, 1.0, det)
        return torch.where(clean, 1 / level.alpha, b / safe), torch.where(clean, 0.0, -level.sigma / safe)


def _zero(level: Level) -> Tensor:
    return torch.zeros_like(level.alpha)


Row = tuple[Tensor, Tensor]


def _epsilon(level: Level) -> Row:  # functions with names, here and below: a model can be pickled
    return _zero(level), _ones(level)


def _sample(level: Level) -> Row:
    return _ones(level), _zero(level)


def _velocity(level: Level) -> Row:  # Salimans & Ho 2022
    return -level.sigma, level.alpha


def _flow(level: Level) -> Row:  # eps - x: Lipman et al. 2022
    return -_ones(level), _ones(level)


def _unit_noise(level: Level) -> Tensor:
    return (level.alpha.square() + level.sigma.square()).rsqrt()


EPSILON, SAMPLE, VELOCITY, FLOW = map(Prediction, (_epsilon, _sample, _velocity, _flow))

# eps, which is -sigma times the score, from an input scaled to unit variance of the noise: for variance-exploding
# schedules. NCSN++ reads x_t unscaled (Song et al. 2021), which its norms make possible.
SCORE = Prediction(_epsilon, _unit_noise)


def edm(sigma_data: float = 0.5) -> Prediction:
    """The preconditioning of EDM, for data of standard deviation `sigma_data`. Table 1 of Karras et al. 2022."""
    return Prediction(partial(_edm_row, sigma_data), partial(_edm_in, sigma_data), quarter_log_sigma)


def _norm(sigma_data: float, level: Level) -> Tensor:
    """The standard deviation of x_t."""
    return (level.sigma.square() + (sigma_data * level.alpha).square()).sqrt()


def _edm_row(sigma_data: float, level: Level) -> Row:
    norm = _norm(sigma_data, level)
    return level.sigma / (sigma_data * norm), -sigma_data * level.alpha / norm


def _edm_in(sigma_data: float, level: Level) -> Tensor:
    return 1 / _norm(sigma_data, level)


def posterior_mean(schedule: Schedule, steps: int) -> Prediction:
    """DDPM's first parametrisation, the mean of q(x_{t - 1/T} | x_t, x). Table 2 of Ho et al. 2020."""
    return Prediction(partial(_posterior_row, schedule, steps))


def _posterior_row(schedule: Schedule, steps: int, level: Level) -> Row:
    to = schedule((schedule.time(level.log_ratio) - 1 / steps).clamp(min=0))
    kernel = posterior(level, to)
    return kernel.x_coef + kernel.x_t_coef * level.alpha, kernel.x_t_coef * level.sigma


# --- the network, the schedule, the prediction: what is trained ---


class Estimate(NamedTuple):
    """E[x | x_t], like x_t, and the reverse variance where the network learns it.

    `variance_fraction`, like x_t, interpolates the logarithm of the variance between its two bounds: 0 is the variance
    of the posterior, 1 that of the forward step (Nichol & Dhariwal 2021, eq. 15).
    """

    mean: Tensor
    variance_fraction: Tensor | None = None


@dataclass(frozen=True)
class Denoiser:
    """A function (x_t, t) -> Estimate, and the schedule of its x_t. `t` is () or (B,), float64."""

    schedule: Schedule
    estimate: Callable[[Tensor, Tensor], Estimate]

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        return self.estimate(x_t, t)


class Conditional(Protocol):
    """A denoiser whose condition is still open: a `Diffusion`, or a wrapper of one that edits what it estimates.

    Guidance takes a Conditional and binds several conditions in one batch, so it composes with every wrapper.
    """

    @property
    def schedule(self) -> Schedule:
        """The schedule of all its denoisers."""

    def given(self, cond: Cond) -> Denoiser:
        """The denoiser with this condition, a row for each sample."""


class Diffusion(nn.Module):
    """A network with its schedule and its prediction: a `Conditional`.

    `net(x, time, cond)` returns a tensor like x, or of twice its channels where `learned_variance`. The network
    computes in the dtype of its parameters; x_t and the estimate have the dtype of x_t. Raises UserError where the
    prediction does not determine the picture at t = 1.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        predicts: Prediction = EPSILON,
        *,
        steps: int = 1000,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.schedule = schedule
        self.predicts = predicts
        self.steps = steps
        self.learned_variance = learned_variance
        self._clock = predicts.c_noise or discrete(steps)
        check_determined(schedule, predicts)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = NOTHING) -> Estimate:
        """The estimate of the picture from x_t (B, C, H, W) at times t, () or (B,)."""
        level = self.schedule(t)
        out, fraction = self._predict(x_t, t, level, cond)
        return Estimate(self.predicts.mean(x_t, out, level), fraction)

    def given(self, cond: Cond) -> Denoiser:
        """The denoiser with this condition, a row for each sample; what does not depend on x_t is encoded here."""
        encode = getattr(self.net, "encode", None)
        cond = cond if encode is None else encode(cond)
        return Denoiser(self.schedule, lambda x_t, t: self(x_t, t, cond))

    def loss(self, x: Tensor, t: Tensor, cond: Cond = NOTHING, *, noise: Tensor, weight: Weight) -> Tensor:
        """The weighted squared error of the estimate, averaged over the elements of x: (B,).

        Computed on the network's target, where nothing cancels: ||x - mean|| is `error` times ||target - out||.
        """
        return self.loss_and_estimate(x, t, cond, noise=noise, weight=weight)[0]

    def loss_and_estimate(
        self, x: Tensor, t: Tensor, cond: Cond = NOTHING, *, noise: Tensor, weight: Weight
    ) -> tuple[Tensor, Tensor, Estimate]:
        """The same loss, with its x_t and estimate, which the hybrid loss of learned variances needs."""
        level = self.schedule(t)
        x_t = level.mix(x, noise)
        out, fraction = self._predict(x_t, t, level, cond)
        error = (out - self.predicts.target(x, noise, level)).square().flatten(1).mean(1)
        scale = weight(level) * self.predicts.error(level).square()
        return error * over(scale, error), x_t, Estimate(self.predicts.mean(x_t, out, level), fraction)

    def _predict(self, x_t: Tensor, t: Tensor, level: Level, cond: Cond) -> tuple[Tensor, Tensor | None]:
        dtype = next(self.net.parameters(), x_t).dtype
        scaled = (over(self.predicts.c_in(level), x_t) * x_t).to(dtype)
        time = times(self._clock(t.double(), level), x_t)
        out = self.net(scaled, time, cond).to(x_t.dtype)
        if not self.learned_variance:
            return out, None
        out, fraction = out.chunk(2, dim=1)
        return out, (fraction + 1) / 2


def check_determined(schedule: Schedule, predicts: Prediction) -> None:
    """Raises UserError where the prediction does not determine the picture at t = 1, or the network's time there."""
    end = schedule.at(1.0)
    time = 0 * end.alpha if predicts.c_noise is None else predicts.c_noise(torch.ones_like(end.alpha), end)
    if not (predicts.error(end) < 1e12 and torch.isfinite(time)):
        raise UserError(
            "this schedule has zero terminal SNR, where this prediction does not determine the picture: predict v, "
            "flow or x0, or choose a schedule with alpha(1) > 0"
        )


# --- by name ---

PREDICTIONS: dict[str, Callable[[Schedule, int], Prediction]] = {
    "eps": lambda schedule, steps: EPSILON,
    "x0": lambda schedule, steps: SAMPLE,
    "v": lambda schedule, steps: VELOCITY,
    "flow": lambda schedule, steps: FLOW,
    "edm": lambda schedule, steps: edm(),
    "score": lambda schedule, steps: SCORE,
    "posterior-mean": posterior_mean,
}


def make_prediction(process: DiffusionConfig, schedule: Schedule) -> Prediction:
    """The prediction that a configuration names. Raises UserError for an unknown one."""
    if process.predicts not in PREDICTIONS:
        raise unknown("prediction", process.predicts, PREDICTIONS)
    found = PREDICTIONS[process.predicts](schedule, process.steps)
    if process.time_input == "entry":
        return found
    if found.c_noise is not None:
        raise UserError(f"process.time_input scaled has no effect on the prediction {process.predicts!r}: remove it")
    return replace(found, c_noise=scaled(process.steps))


def schedule_of(process: DiffusionConfig) -> Schedule:
    """The schedule that a configuration names."""
    return make_schedule(process.schedule, process.schedule_options, steps=process.steps, zero_snr=process.zero_snr)


def make_diffusion(net: nn.Module, process: DiffusionConfig) -> Diffusion:
    """The diffusion of this network that a configuration describes."""
    schedule = schedule_of(process)
    predicts = make_prediction(process, schedule)
    return Diffusion(net, schedule, predicts, steps=process.steps, learned_variance=process.learned_variance)
