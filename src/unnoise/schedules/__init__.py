"""Noise schedules: how much picture and how much noise there is in x_t.

x_t = alpha_t x + sigma_t eps,    eps ~ N(0, I),    t in [0, 1]
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from unnoise.errors import UserError, unknown
from unnoise.schedules.base import Schedule, VariancePreserving
from unnoise.schedules.continuous import (
    EDM,
    VPSDE,
    CosineContinuous,
    Flow,
    Sigmoid,
    SubVP,
    VarianceExploding,
)
from unnoise.schedules.level import Level, Posterior, over, posterior, times
from unnoise.schedules.ranges import check_steps
from unnoise.schedules.tables import Cosine, LinearBeta, ScaledLinear, SigmoidBeta, Table, Tabled
from unnoise.schedules.transforms import Shifted, ZeroTerminalSNR, first_entry, is_table

__all__ = [
    "EDM",
    "SCHEDULES",
    "VPSDE",
    "Cosine",
    "CosineContinuous",
    "Flow",
    "Level",
    "LinearBeta",
    "Posterior",
    "ScaledLinear",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "SigmoidBeta",
    "SubVP",
    "Table",
    "Tabled",
    "VarianceExploding",
    "VariancePreserving",
    "ZeroTerminalSNR",
    "first_entry",
    "is_table",
    "make_schedule",
    "over",
    "posterior",
    "times",
]

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
    """Makes the schedule of this name; `options` are its fields, and `shift` of Shifted. A table has `steps` entries.

    Raises UserError for an unknown name or option, for numbers that make no schedule, and for a shift, or zero terminal
    SNR, of a schedule that does not preserve the variance.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    check_steps(steps)
    kind = SCHEDULES[name]
    fields = inspect.signature(kind).parameters
    given = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in options.items()}
    shift: Any = given.pop("shift", 1.0)
    for key in given:
        if key not in fields:
            raise unknown(f"option of the schedule {name!r}", key, [*fields, "shift"])
    if "steps" in fields:
        given.setdefault("steps", steps)
    if missing := [key for key, field in fields.items() if field.default is field.empty and key not in given]:
        raise UserError(f"the schedule {name!r} needs {missing[0]!r}: set process.schedule_options.{missing[0]}")
    schedule = kind(**given)
    if shift == 1 and not zero_snr:
        return schedule
    if not isinstance(schedule, VariancePreserving):
        what = "zero terminal SNR" if zero_snr else "shift"
        raise UserError(f"{what} needs a variance-preserving schedule, which {name!r} is not: remove it")
    schedule = ZeroTerminalSNR(schedule) if zero_snr else schedule
    return schedule if shift == 1 else Shifted(schedule, shift)
