"""The times of diffusers' schedulers, as a spacing of ours and its options.

A file has `timestep_spacing` and `steps_offset`, and perhaps sigmas that are spaced otherwise between the ends of those
entries. Three families read the same words differently (diffusers 0.42, `set_timesteps`):

    DDPM, DDIM, PNDM            N entries, rounded
    Euler, Euler ancestral, Heun, LMS      N entries; between them for linspace, where sigma is linear in the entry
    DPM-Solver, UniPC, DEIS     the entries of N + 1 steps but 0; sigmas between the ends of the whole table
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BETWEEN_ENTRIES = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
)
SKIP_FIRST = (
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
)
LEVELS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "log-snr", "use_lu_lambdas": "log-snr"}


def from_config(kind: str, data: Mapping[str, Any]) -> tuple[str, dict[str, bool | int | float | str]]:
    """The name of the spacing and its options, for the class `kind` and all its settings, defaults included."""
    entries, offset = data.get("timestep_spacing", "linspace"), data.get("steps_offset", 0)  # singlestep has neither
    options: dict[str, bool | int | float | str] = {"offset": offset} if entries == "leading" and offset else {}
    for setting, name in LEVELS.items():
        if data.get(setting):
            ends = {end: data[end] for end in ("sigma_min", "sigma_max") if data.get(end) is not None}
            whole = kind in SKIP_FIRST
            return name, ({"entries": "linspace"} if whole else {"entries": entries} | options) | ends
    if kind in SKIP_FIRST and entries != "trailing":
        options["skip_first"] = True
    if kind in BETWEEN_ENTRIES and entries == "linspace":
        options["rounded"] = False
    return entries, options
