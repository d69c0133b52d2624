"""Where a training computes: the placement of its configuration, on a GPU of its own in each of several processes."""

from __future__ import annotations

from dataclasses import replace

from unnoise.acceleration.placement import Placement, best
from unnoise.config.training import AnyConfig
from unnoise.training.distributed import Processes, own_device


def place(config: AnyConfig, processes: Processes) -> Placement:
    """Returns where this process computes. Raises UserError for a device that is not available, or that several
    processes would share."""
    placement = best(config.device, config.fit.precision)
    return replace(placement, device=own_device(placement.device, processes))
