"""What diffusion is: schedule, prediction and loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DiffusionConfig:
    """What diffusion is: the schedule, what the network is asked for, and how it is taught."""

    schedule: str = "linear"  # a name in schedules.SCHEDULES
    steps: int = 1000  # T: entries of a table, and what the network's clock counts
    schedule_options: dict[str, int | float | tuple[float, ...]] = field(
        default_factory=dict
    )  # fields of that schedule
    zero_snr: bool = False  # shifted so that nothing of the picture is left at t = 1 (Lin et al. 2023)
    predicts: str = "eps"  # a name in denoiser.PREDICTIONS
    learned_variance: bool = False
    objective: Literal["auto", "simple", "hybrid", "bound"] = "auto"  # auto: hybrid where the variance is learned
    weight: str = "simple"  # a name in objectives.WEIGHTS
    weight_options: dict[str, float] = field(default_factory=dict)
    time_sampler: str = "uniform"  # how training draws t: a name in objectives.DRAWS
    time_sampler_options: dict[str, float] = field(default_factory=dict)
    stratified: bool = True  # the batch's draws are spread evenly (low discrepancy)
    cond_dropout: float = 0.1  # share of rows told nothing (no class, no words), per row; for guidance
    cond_dropout_each: float = (
        0.0  # share of rows not told their class; likewise words, and each number, each by itself
    )
    concat: Literal["", "low_res", "masked"] = ""  # what is joined to x_t: the picture made small, or with a hole in it
    concat_factor: int = 4  # how much smaller "low_res" is, in each direction
