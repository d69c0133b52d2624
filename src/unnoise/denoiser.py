"""From what a network says to the picture it means: the one place that knows what a network predicts.

A network is asked for a row, `a x + b eps`. With x_t = alpha x + sigma eps that is a 2x2 system, and its solution

    E[x | x_t] = (b x_t - sigma out) / (alpha b - sigma a)

replaces every conversion between eps, x0, v, flow and EDM's F. Samplers, guidance, edits and distillation see a
`Denoiser`: a function (x_t, t) -> Estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.errors import UserError, unknown
from unnoise.schedules import Level, Schedule, make_schedule, over, posterior
from unnoise.settings import Process

Clock = Callable[[Tensor, Level], Tensor]
"""(t, its level) -> what the network is told about the time, (B,)."""
Weight = Callable[[Level], Tensor]
"""The weight of the squared error of the picture, ||x - mean||^2, in the shape of the level."""
Draw = Callable[[Tensor, Schedule], Tensor]
"""(uniforms in (0, 1), schedule) -> times in (0, 1]."""


def discrete(steps: int) -> Clock:
    """The clock of a network trained on T steps: at t = k/T it is told k - 1; between two steps, a fraction."""
    return lambda t, level: t * steps - 1


def quarter_log_sigma(t: Tensor, level: Level) -> Tensor:
    """EDM's clock: a quarter of the logarithm of sigma / alpha. Table 1 of Karras et al. 2022."""
    return -level.log_ratio / 4


def _ones(level: Level) -> Tensor:
    return torch.ones_like(level.alpha)


@dataclass(frozen=True)
class Prediction:
    """The row `a x + b eps` that a network is asked for, and what it is shown: x_t times `scale`."""

    row: Callable[[Level], tuple[Tensor, Tensor]]
    scale: Callable[[Level], Tensor] = _ones
    clock: Clock | None = None  # None: that of the discrete steps

    def target(self, x: Tensor, eps: Tensor, level: Level) -> Tensor:
        """What the network should say: like x."""
        a, b = self.row(level)
        return over(a, x) * x + over(b, x) * eps

    def mean(self, x_t: Tensor, out: Tensor, level: Level) -> Tensor:
        """The estimate of the picture that `out` means. At t = 0 it is x_t itself."""
        on_x_t, on_out = self._solve(level)
        return over(on_x_t, x_t) * x_t + over(on_out, x_t) * out

    def error(self, level: Level) -> Tensor:
        """By how much an error of the network's output is an error of the picture."""
        return self._solve(level)[1].abs()

    def _solve(self, level: Level) -> tuple[Tensor, Tensor]:
        a, b = self.row(level)
        det = level.alpha * b - level.sigma * a
        clean = level.sigma == 0
        safe = torch.where(clean, 1.0, det)
        return torch.where(clean, 1 / level.alpha, b / safe), torch.where(clean, 0.0, -level.sigma / safe)


def _zero(level: Level) -> Tensor:
    return torch.zeros_like(level.alpha)


EPSILON = Prediction(lambda level: (_zero(level), _ones(level)))
SAMPLE = Prediction(lambda level: (_ones(level), _zero(level)))
VELOCITY = Prediction(lambda level: (-level.sigma, level.alpha))  # Salimans & Ho 2022
FLOW = Prediction(lambda level: (-_ones(level), _ones(level)))  # eps - x: Lipman et al. 2022


def edm(spread: float = 0.5) -> Prediction:
    """EDM's preconditioned network, for data of standard deviation `spread`. Table 1 of Karras et al. 2022."""

    def row(level: Level) -> tuple[Tensor, Tensor]:
        sigma = level.sigma / level.alpha
        norm = (sigma.square() + spread**2).sqrt()
        return sigma / (spread * norm), -spread / norm

    def scale(level: Level) -> Tensor:
        return 1 / (level.sigma.square() + (spread * level.alpha).square()).sqrt()

    return Prediction(row, scale, quarter_log_sigma)


def posterior_mean(schedule: Schedule, steps: int) -> Prediction:
    """DDPM's first parametrisation: the mean of q(x_{t - 1/T} | x_t, x). Table 2 of Ho et al. 2020."""

    def row(level: Level) -> tuple[Tensor, Tensor]:
        to = schedule((schedule.time(level.log_ratio) - 1 / steps).clamp(min=0))
        kernel = posterior(level, to)
        return kernel.x_coef + kernel.x_t_coef * level.alpha, kernel.x_t_coef * level.sigma

    return Prediction(row)


# --- the network, the schedule, the prediction: what is trained -------------------------------------------------------


class Estimate(NamedTuple):
    """E[x | x_t], like x_t; and where a network learns its variance, the place of the reverse variance between its two
    bounds: 0 is the posterior's, 1 the forward step's, in the logarithm, a number each pixel (Nichol & Dhariwal 2021).
    """

    mean: Tensor
    spread: Tensor | None = None


@dataclass(frozen=True)
class Denoiser:
    """A function (x_t, t) -> Estimate, and the schedule it is meant for. `t` is () or (B,), float64."""

    schedule: Schedule
    estimate: Callable[[Tensor, Tensor], Estimate]

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        return self.estimate(x_t, t)


class Diffusion(nn.Module):
    """A network, with what its input and its output mean.

    `net(x, time, cond)` gives a tensor like x, or one of twice the channels where `learned_variance`. The network
    works in the dtype of its own parameters; what comes in and goes out has the dtype of x_t.
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
        self._clock = predicts.clock or discrete(steps)
        if not torch.isfinite(predicts.error(schedule.at(1.0))) or predicts.error(schedule.at(1.0)) > 1e12:
            raise UserError(
                "at t = 1 this schedule leaves nothing of the picture, and this prediction cannot say it: "
                "predict v, flow or x0, or take a schedule that ends with a little of the picture"
            )

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = Cond()) -> Estimate:  # noqa: B008 (a frozen value)
        """The estimate of the picture in x_t (B, C, H, W) at times t, () or (B,)."""
        level = self.schedule(t)
        out, spread = self._ask(x_t, t, level, cond)
        return Estimate(self.predicts.mean(x_t, out, level), spread)

    def given(self, cond: Cond) -> Denoiser:
        """The denoiser that is told `cond`, a row per sample."""
        return Denoiser(self.schedule, lambda x_t, t: self(x_t, t, cond))

    def loss(self, x: Tensor, t: Tensor, cond: Cond = Cond(), *, noise: Tensor, weight: Weight) -> Tensor:  # noqa: B008
        """The weighted squared error of the picture, the mean over its numbers: a row each, (B,).

        Computed on the network's own target, where nothing cancels: ||x - mean|| is `error` times ||target - out||.
        """
        level = self.schedule(t)
        out, _ = self._ask(level.mix(x, noise), t, level, cond)
        return self._weigh(out - self.predicts.target(x, noise, level), level, weight)

    def loss_and_estimate(
        self, x: Tensor, t: Tensor, cond: Cond = Cond(), *, noise: Tensor, weight: Weight  # noqa: B008
    ) -> tuple[Tensor, Tensor, Estimate]:
        """The same loss, with the x_t and the estimate it came from: for the hybrid loss of learned variances."""
        level = self.schedule(t)
        x_t = level.mix(x, noise)
        out, spread = self._ask(x_t, t, level, cond)
        loss = self._weigh(out - self.predicts.target(x, noise, level), level, weight)
        return loss, x_t, Estimate(self.predicts.mean(x_t, out, level), spread)

    def _weigh(self, error: Tensor, level: Level, weight: Weight) -> Tensor:
        scale = weight(level) * self.predicts.error(level).square()
        return error.square().flatten(1).mean(1) * scale.to(error)

    def _ask(self, x_t: Tensor, t: Tensor, level: Level, cond: Cond) -> tuple[Tensor, Tensor | None]:
        dtype = next(self.net.parameters(), x_t).dtype
        shown = (over(self.predicts.scale(level), x_t) * x_t).to(dtype)
        told = self._clock(t.double(), level).expand(len(x_t)).to(device=x_t.device, dtype=torch.float32)
        out = self.net(shown, told, cond).to(x_t.dtype)
        if not self.learned_variance:
            return out, None
        out, spread = out.chunk(2, dim=1)
        return out, (spread + 1) / 2


# --- weights of the loss, as weights of ||x - mean||^2 ----------------------------------------------------------------


def simple(level: Level) -> Tensor:
    """||eps - eps_hat||^2 unweighted: DDPM's L_simple."""
    return level.snr


def constant(level: Level) -> Tensor:
    """||x - mean||^2 unweighted."""
    return _ones(level)


def truncated_snr(level: Level) -> Tensor:
    """max(SNR, 1). Salimans & Ho 2022."""
    return level.snr.clamp(min=1)


def snr_plus_one(level: Level) -> Tensor:
    """SNR + 1: ||v - v_hat||^2 unweighted, on variance-preserving schedules. Salimans & Ho 2022."""
    return level.snr + 1


def flow_matching(level: Level) -> Tensor:
    """||(eps - x) - out||^2 unweighted: (1 + alpha / sigma)^2, on the straight schedule 1 / t^2. Lipman et al. 2022."""
    return (1 + level.alpha / level.sigma).square()


def min_snr(gamma: float = 5.0) -> Weight:
    """min(SNR, gamma). Hang et al. 2023."""
    return lambda level: level.snr.clamp(max=gamma)


def p2(k: float = 1.0, gamma: float = 1.0) -> Weight:
    """L_simple over (k + SNR)^gamma. Choi et al. 2022."""
    return lambda level: level.snr / (k + level.snr) ** gamma


def edm_weight(spread: float = 0.5) -> Weight:
    """1 / c_out^2: every level starts with a loss of one. Karras et al. 2022."""

    def weight(level: Level) -> Tensor:
        sigma2 = (level.sigma / level.alpha).square()
        return (sigma2 + spread**2) / (sigma2 * spread**2)

    return weight


def bound_weight(schedule: Schedule, steps: int) -> Weight:
    """The weight that the variational bound of T steps gives, in nats a step: (SNR_s - SNR_t) / 2, s = t - 1/T.

    Ho et al. 2020, eq. 12. At the first step, where SNR_s is infinite, the decoder's: SNR_t / 2.
    """

    def weight(level: Level) -> Tensor:
        s = (schedule.time(level.log_ratio) - 1 / steps).clamp(min=0)
        before = schedule(torch.where(s < 0.5 / steps, 0.0, s)).snr
        return torch.where(torch.isinf(before), level.snr, before - level.snr) / 2

    return weight


# --- draws of t ---------------------------------------------------------------------------------------------------------


def any_time(u: Tensor, schedule: Schedule) -> Tensor:
    """Uniform on (0, 1], continuous, kept off the end where there is no noise."""
    return u.clamp(min=1e-5)


def table_steps(steps: int) -> Draw:
    """Uniform on k/T, k = 1..T."""
    return lambda u, schedule: ((u * steps).floor() + 1).clamp(max=steps) / steps


def _normal_quantile(u: Tensor) -> Tensor:
    return torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Draw:
    """The logit of t is normal. Esser et al. 2024, for the straight schedule."""
    return lambda u, schedule: torch.sigmoid(mean + std * _normal_quantile(u))


def log_normal(mean: float = -1.2, std: float = 1.2) -> Draw:
    """The logarithm of sigma / alpha is normal. Karras et al. 2022."""
    return lambda u, schedule: schedule.time(-(mean + std * _normal_quantile(u))).clamp(min=1e-8)


def stratified(u: Tensor, index: Tensor, count: int) -> Tensor:
    """Spreads uniforms evenly: sample `index` of `count` falls in its own one of `count` equal parts of (0, 1)."""
    return (index + u) / count


# --- the rim: names -----------------------------------------------------------------------------------------------------

PREDICTIONS: dict[str, Callable[[Schedule, int], Prediction]] = {
    "eps": lambda schedule, steps: EPSILON,
    "x0": lambda schedule, steps: SAMPLE,
    "v": lambda schedule, steps: VELOCITY,
    "flow": lambda schedule, steps: FLOW,
    "edm": lambda schedule, steps: edm(),
    "posterior-mean": posterior_mean,
}

WEIGHTS: dict[str, Callable[..., Weight]] = {
    "simple": lambda schedule, steps: simple,
    "x0": lambda schedule, steps: constant,
    "truncated-snr": lambda schedule, steps: truncated_snr,
    "snr-plus-one": lambda schedule, steps: snr_plus_one,
    "flow": lambda schedule, steps: flow_matching,
    "min-snr": lambda schedule, steps, gamma=5.0: min_snr(gamma),
    "p2": lambda schedule, steps, k=1.0, gamma=1.0: p2(k, gamma),
    "edm": lambda schedule, steps, spread=0.5: edm_weight(spread),
    "bound": bound_weight,
}

DRAWS: dict[str, Callable[[int], Draw]] = {
    "uniform": table_steps,
    "continuous": lambda steps: any_time,
    "logit-normal": lambda steps: logit_normal(),
    "edm": lambda steps: log_normal(),
}


def _chosen(what: str, name: str, table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if name not in table:
        raise unknown(what, name, table)
    return table[name]


def make_diffusion(net: nn.Module, process: Process) -> Diffusion:
    """The diffusion that a process describes, around this network."""
    schedule = make_schedule(
        process.schedule, process.schedule_options, steps=process.steps, zero_snr=process.zero_snr
    )
    predicts = _chosen("prediction", process.predicts, PREDICTIONS)(schedule, process.steps)
    return Diffusion(net, schedule, predicts, steps=process.steps, learned_variance=process.learned_variance)


def make_weight(process: Process, schedule: Schedule) -> Weight:
    """The weight of the loss that a process names."""
    make = _chosen("loss weight", process.weight, WEIGHTS)
    try:
        return cast(Weight, make(schedule, process.steps, **process.weight_options))
    except TypeError:
        raise UserError(f"the weight {process.weight!r} does not take {sorted(process.weight_options)}") from None


def make_draw(process: Process) -> Draw:
    """How training draws its times."""
    return cast(Draw, _chosen("draw of times", process.draw, DRAWS)(process.steps))

