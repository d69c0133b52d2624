"""The configuration of the diffusion process: schedule, prediction and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.field import setting


@dataclass(frozen=True)
class DiffusionConfig:
    """The noise schedule, what the network predicts, and the loss that it is trained with."""

    schedule: str = setting("linear", "a name in schedules.SCHEDULES")
    steps: int = setting(1000, "T: entries of the table of betas, and the unit of the network's time input")
    schedule_options: dict[str, int | float | tuple[float, ...]] = setting({}, "fields of that schedule, by name")
    zero_snr: bool = setting(False, "rescale the schedule to zero terminal SNR: alpha(1) = 0 (Lin et al. 2023)")
    predicts: str = setting("eps", "a name in denoiser.PREDICTIONS")
    learned_variance: bool = setting(False, "the network also predicts the variance of reverse steps")
    time_input: Literal["entry", "scaled"] = setting(
        "entry", "the time that the network receives at t = k/T: entry k - 1 of the table, or scaled to k"
    )
    objective: Literal["auto", "simple", "hybrid", "bound"] = setting(
        "auto", "auto: hybrid if the variance is learned, otherwise simple"
    )
    weight: str = setting("simple", "the weight of the loss over time: a name in losses.WEIGHTS")
    weight_options: dict[str, float] = setting({}, "arguments of that weight, by name")
    time_sampler: str = setting("uniform", "the distribution of t in training: a name in losses.TIME_SAMPLERS")
    time_sampler_options: dict[str, float] = setting({}, "arguments of that distribution, by name")
    stratified: bool = setting(True, "spread the times of a batch evenly (low discrepancy)")
    cond_dropout: float = setting(
        0.1, "probability that a sample is trained without any condition, for classifier-free guidance"
    )
    cond_dropout_each: float = setting(
        0.0, "probability that the class, the caption and each number of a sample are dropped, each independently"
    )
    concat: Literal["", "low_res", "masked"] = setting(
        "", "a picture concatenated to x_t: the downscaled picture, or the picture with a hole in it"
    )
    concat_factor: int = setting(4, 'by how much "low_res" is smaller, in each direction')
