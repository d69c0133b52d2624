"""Loss weights and time samplers: how much the error at each time weighs, and how often each time is sampled.

A weight multiplies the squared error of the picture, ||x - mean||^2, whatever the network predicts: `simple` is the
signal-to-noise ratio, because ||eps - eps_hat||^2 = SNR ||x - mean||^2. A time sampler maps uniform numbers to times.
The variational bound can be minimised instead of a weighted error (recipes/diffusion.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import Prediction, Weight, check_determined, make_prediction, schedule_of
from unnoise.errors import UserError, unknown
from unnoise.schedules import Level, Schedule
from unnoise.transfer import send

TimeSampler = Callable[[Tensor, Schedule], Tensor]
"""(uniforms in (0, 1), schedule) -> times in (0, 1]."""


def simple(level: Level) -> Tensor:
    """||eps - eps_hat||^2 unweighted: DDPM's L_simple."""
    return level.snr


def constant(level: Level) -> Tensor:
    """||x - mean||^2 unweighted."""
    return torch.ones_like(level.alpha)


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


def edm_weight(sigma_data: float = 0.5) -> Weight:
    """1 / c_out^2: an untrained network has a loss of one at every level. Karras et al. 2022."""

    def weight(level: Level) -> Tensor:
        sigma2 = (level.sigma / level.alpha).square()
        return (sigma2 + sigma_data**2) / (sigma2 * sigma_data**2)

    return weight


def bound_weight(schedule: Schedule, steps: int) -> Weight:
    """The weight in the variational bound of T steps, in nats per step: (SNR_s - SNR_t) / 2, s = t - 1/T.

    Ho et al. 2020, eq. 12. At the first step, where SNR_s is infinite, it is the decoder's: SNR_t / 2.
    """

    def weight(level: Level) -> Tensor:
        s = (schedule.time(level.log_ratio) - 1 / steps).clamp(min=0)
        before = schedule(torch.where(s < 0.5 / steps, 0.0, s)).snr
        return torch.where(torch.isinf(before), level.snr, before - level.snr) / 2

    return weight


def output_weight(predicts: Prediction) -> Weight:
    """The error of the network's own output unweighted, for every prediction: L_simple for eps, SNR + 1 for v."""
    return lambda level: 1 / predicts.error(level).square()


# --- time samplers ---


def any_time(u: Tensor, schedule: Schedule) -> Tensor:
    """Uniform on (0, 1], continuous, at least 1e-5, because there is no noise at 0."""
    return u.clamp(min=1e-5)


def table_steps(steps: int) -> TimeSampler:
    """Uniform on k/T, k = 1..T."""
    return lambda u, schedule: ((u * steps).floor() + 1).clamp(max=steps) / steps


def _normal_quantile(u: Tensor) -> Tensor:
    quantile: Tensor = torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))
    return quantile


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeSampler:
    """The logit of t is normal. Esser et al. 2024, for the straight schedule."""
    return lambda u, schedule: torch.sigmoid(mean + std * _normal_quantile(u))


def log_normal(mean: float = -1.2, std: float = 1.2) -> TimeSampler:
    """The logarithm of sigma / alpha is normal. Karras et al. 2022."""
    return lambda u, schedule: schedule.time(-(mean + std * _normal_quantile(u))).clamp(min=1e-8)


class LossAwareSampler:
    """Samples the steps k/T, k = 1..T, most often where the loss is largest.

    Sec. 3.3 of Nichol & Dhariwal 2021: p_k is proportional to the root mean square of the last `keep` losses of step k,
    mixed with a fraction `uniform` of the uniform distribution; it is uniform until every step has `keep` losses.
    Multiply a loss by `weight`, so that its expectation does not change. Losses recorded in a training step count from
    the next one on (`settle`), in the order of samples: the same for any number of processes and parts. The state
    belongs in a checkpoint.
    """

    def __init__(self, steps: int, *, keep: int = 10, uniform: float = 0.001) -> None:
        self.steps, self.uniform = steps, uniform
        self._losses = torch.zeros(steps, keep, dtype=torch.float64)
        self._count = torch.zeros(
            steps, dtype=torch.int64
        )  # number of losses of a step so far; the newest is at count - 1
        self._recorded: list[Tensor] = []

    @property
    def ready(self) -> bool:
        """Whether every step has `keep` losses."""
        return bool((self._count >= self._losses.shape[1]).all())

    def chances(self) -> Tensor:
        """Returns p_k, (T,), float64; their sum is 1."""
        even = torch.full((self.steps,), 1 / self.steps, dtype=torch.float64)
        if not self.ready:
            return even
        size = self._losses.square().mean(1).sqrt()
        return torch.lerp(size / size.sum(), even, self.uniform)

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        if not self.ready:
            return table_steps(self.steps)(u, schedule)
        return (torch.searchsorted(self.chances().cumsum(0), u, right=True).clamp(max=self.steps - 1) + 1) / self.steps

    def weight(self, t: Tensor) -> Tensor:
        """Returns 1 / (T p) of sampled times, (B,)."""
        return 1 / (self.steps * self.chances()[self._row(t)])

    def record(self, t: Tensor, loss: Tensor) -> None:
        """Records losses (B,) of this training step, or of a part of it, before their weight."""
        dtype = torch.promote_types(loss.dtype, torch.float32)  # exact up to step 2^24
        row = send(self._row(t).to(dtype), loss.device)
        self._recorded.append(torch.stack([row, loss.detach().to(dtype)], 1))

    def settle(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Ends a training step: recorded losses of all processes, concatenated in order by `gather`, now count."""
        for row, loss in gather(torch.cat(self._recorded)).tolist():
            k = int(row)
            self._losses[k, self._count[k] % self._losses.shape[1]] = loss
            self._count[k] += 1
        self.forget()

    def forget(self) -> None:
        """Discards the recorded losses."""
        self._recorded.clear()

    def state(self) -> dict[str, Tensor]:
        return {"losses": self._losses.clone(), "count": self._count.clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.forget()
        self._losses.copy_(state["losses"])
        self._count.copy_(state["count"])

    def _row(self, t: Tensor) -> Tensor:
        return (t * self.steps).round().long() - 1


def stratified(u: Tensor, index: Tensor, count: int) -> Tensor:
    """Stratifies uniform numbers: sample `index` of `count` falls in its own one of `count` equal parts of (0, 1)."""
    return (index + u) / count


# --- names ---

WEIGHTS: dict[str, Callable[..., Weight]] = {
    "simple": lambda process, schedule: simple,
    "x0": lambda process, schedule: constant,
    "output": lambda process, schedule: output_weight(make_prediction(process, schedule)),
    "truncated-snr": lambda process, schedule: truncated_snr,
    "snr-plus-one": lambda process, schedule: snr_plus_one,
    "flow": lambda process, schedule: flow_matching,
    "min-snr": lambda process, schedule, gamma=5.0: min_snr(gamma),
    "p2": lambda process, schedule, k=1.0, gamma=1.0: p2(k, gamma),
    "edm": lambda process, schedule, spread=0.5: edm_weight(spread),
    "bound": lambda process, schedule: bound_weight(schedule, process.steps),
}

TIME_SAMPLERS: dict[str, Callable[..., TimeSampler]] = {  # (steps, **options)
    "uniform": table_steps,
    "importance": LossAwareSampler,
    "continuous": lambda steps: any_time,
    "logit-normal": lambda steps, **options: logit_normal(**options),
    "edm": lambda steps, **options: log_normal(**options),
}
ON_STEPS = ("uniform", "importance")  # samplers of the times k/T only


def _chosen(what: str, name: str, table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if name not in table:
        raise unknown(what, name, table)
    return table[name]


def make_weight(process: DiffusionConfig, schedule: Schedule) -> Weight:
    """Returns the loss weight that a process names.

    Raises UserError for an unknown name or option, and for a weight that leaves a time untrained (`_check_weight`).
    """
    make = _chosen("loss weight", process.weight, WEIGHTS)
    try:
        weight = cast(Weight, make(process, schedule, **process.weight_options))
    except TypeError:
        raise UserError(f"the weight {process.weight!r} does not take {sorted(process.weight_options)}") from None
    if make_objective(process) != "bound":  # which has no weight
        _check_weight(weight, process, schedule)
    return weight


UNTRAINED = 1e-15  # of the error of the network's output: cosine's last step has 2e-9 of it, zero terminal SNR 0


def _check_weight(weight: Weight, process: DiffusionConfig, schedule: Schedule) -> None:
    """Raises UserError where the squared error of the network's output has no weight, or no finite one, at a time k/T.

    With zero terminal SNR, weights that are proportional to the SNR are 0 at t = 1, where every walk starts: the
    network's output there would be that of its random weights. Lin et al. 2024 train v with its unweighted error.
    """
    predicts = make_prediction(process, schedule)
    check_determined(schedule, predicts)
    t = torch.arange(process.steps, 0, -1, dtype=torch.float64) / process.steps
    level = schedule(t)
    scale = weight(level) * predicts.error(level).square()
    trained = torch.isfinite(scale) & (scale > UNTRAINED)
    if not trained.all():
        k = int((~trained).nonzero()[0])
        value = "0" if torch.isfinite(scale[k]) else "not finite"
        raise UserError(
            f"the loss weight {process.weight!r} is {value} at t = {t[k].item():g} for the prediction "
            f"{process.predicts!r} on this schedule, so the network would not learn to denoise there: set "
            "process.weight=output, the unweighted error of the network's output"
        )


def check(process: DiffusionConfig) -> None:
    """Raises UserError for an unknown name or option of schedule, weight, time sampler or objective.

    Also for a weight that leaves a time untrained, and a prediction that does not determine the picture at t = 1.
    """
    make_weight(process, schedule_of(process))
    make_time_sampler(process)
    make_objective(process)


def make_objective(process: DiffusionConfig) -> str:
    """Returns what is minimised: "simple", "hybrid" or "bound". Raises UserError for "hybrid" with a fixed variance."""
    if process.objective == "auto":
        return "hybrid" if process.learned_variance else "simple"
    if process.objective == "hybrid" and not process.learned_variance:
        raise UserError(
            "the hybrid objective needs a learned variance: set process.learned_variance to true (and net.out_channels "
            "to twice the channels), or the objective to simple"
        )
    return process.objective


def make_time_sampler(process: DiffusionConfig) -> TimeSampler:
    """Returns the time sampler that a process names. Raises UserError for an unknown name or option."""
    make = _chosen("time sampler", process.time_sampler, TIME_SAMPLERS)
    try:
        return cast(TimeSampler, make(process.steps, **process.time_sampler_options))
    except TypeError:
        raise UserError(
            f"process.time_sampler_options: {process.time_sampler!r} does not take "
            f"{sorted(process.time_sampler_options)}"
        ) from None
