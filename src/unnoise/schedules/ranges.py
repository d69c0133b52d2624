"""What is checked of a schedule's numbers where it is made: their ranges, and that the log-SNR falls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unnoise.errors import UserError

if TYPE_CHECKING:
    from unnoise.schedules.base import Schedule

MOST_STEPS = 1_000_000  # of a table: 8 MB


def check_steps(steps: object, least: int = 1) -> None:
    """Raises UserError unless `steps` is a whole number from `least` to 1,000,000."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not least <= steps <= MOST_STEPS:
        raise UserError(f"the schedule's steps is {steps}: set process.steps from {least} to {MOST_STEPS:,}")


def check_between(low: float, high: float, *, or_low: bool = False, **values: object) -> None:
    """Raises UserError unless each of the values, by its option's name, is a finite number above low and below high.

    A bound that is infinite is none; with `or_low` a value may be low.
    """
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (low < value < high or (or_low and value == low)):  # type: ignore[operator]
            above = "" if low == -math.inf else f" {low:g} or above" if or_low else f" above {low:g}"
            below = "" if high == math.inf else f" below {high:g}"
            both = " and".join(filter(None, (above, below)))
            raise UserError(
                f"the schedule's {name} is {value}: set {name} (process.schedule_options) to a finite number{both}"
            )


def check_order(**values: float) -> None:
    """Raises UserError unless the first of two values, by their options' names, is below the second."""
    (first, low), (second, high) = values.items()
    if low >= high:
        raise UserError(
            f"the schedule's {first} is {low:g} and its {second} {high:g}: set {first} below {second} "
            "(process.schedule_options)"
        )


def check_betas(betas: Tensor, cure: str) -> None:
    """Raises UserError, with this cure, unless each of the betas (T,) lies between 0 and 1.

    One so small that it vanishes beside the sum of those before it is refused too: alpha would not fall.
    """
    falls = torch.log1p(-betas).cumsum(0).diff(prepend=betas.new_zeros(1)) < 0
    wrong = ~((betas > 0) & (betas < 1) & falls)
    if wrong.any():
        k = int(wrong.nonzero()[0])
        raise UserError(
            f"beta {k + 1} of {len(betas):,} of this schedule is {betas[k].item():g}, and has to be above 0 and "
            f"below 1: {cure}"
        )


def check_falls(schedule: Schedule, cure: str) -> None:
    """Raises UserError, with this cure, unless log(alpha / sigma) falls strictly, on a grid of 1,001 times from 0 to 1.

    It is +inf at t = 0, and may be -inf at t = 1 alone.
    """
    ratios = schedule(torch.linspace(0, 1, 1001, dtype=torch.float64)).log_ratio
    falls = (ratios[1:] < ratios[:-1]) & (ratios[:-1] > -math.inf)
    if ratios[0] != math.inf or not falls.all():
        t = (~falls).nonzero()[0].item() / 1000 if not falls.all() else 0.0
        raise UserError(f"{schedule}: the signal-to-noise ratio does not fall at t = {t:g}, and has to: {cure}")
