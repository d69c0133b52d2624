"""The last time of a reverse chain before the picture: the least noise that the network learned, or that is visible.

    on a table of betas     t = 1/T, and steps of 1/T down to it: the table's own (bound.table)
    on a curve              sigma / alpha = LEAST, and steps even in log-SNR; t = 1/T where no smaller time was learned

On a curve, T scales the network's time input and determines no level: at EDM's 1/T there is a noise of ten grey
levels, at the straight line's an eighth of one. The last step, to the picture, has the variance (sigma / alpha)^2, what
x_1 leaves open where any picture is as likely; that of the step before, as on a table, would be far less than the
error, for steps even in log-SNR are short.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from unnoise.config.diffusion import DiffusionConfig
from unnoise.denoiser import make_prediction
from unnoise.likelihood.bound import Steps, chain
from unnoise.losses import ON_STEPS
from unnoise.schedules import Schedule, is_table

LEAST = 0.004  # half a grey level. Below, a code has digits that no grey level needs: 0.03 bits here, 0.2 at 0.002
MOST = 5.1  # of log(sigma / alpha), where a chain begins if its schedule goes so far: beyond lie 1e-5 bits


def last_time(schedule: Schedule, steps: int, process: DiffusionConfig) -> float:
    """Returns the last time before the picture, for a network of T `steps` that was trained with this `process`."""
    if is_table(schedule):
        return 1 / steps
    visible = schedule.time(torch.tensor(-math.log(LEAST), dtype=torch.float64)).item()
    clock = make_prediction(process, schedule).c_noise  # None: it counts steps
    return max(visible, 1 / steps) if clock is None and process.time_sampler in ON_STEPS else visible


def even_chain(schedule: Schedule, last: float, steps: int) -> Steps:
    """Returns `steps` steps, even in log-SNR down to the time `last`, and from there to the picture."""
    begin = max(schedule.at(1.0).log_ratio.item(), -MOST)
    ratios = torch.linspace(begin, schedule.at(last).log_ratio.item(), steps, dtype=torch.float64)
    found = chain(schedule, torch.cat([schedule.time(ratios), torch.zeros(1, dtype=torch.float64)]))
    return replace(found, small=torch.where(found.ends, 1 / found.at.snr, found.small))
