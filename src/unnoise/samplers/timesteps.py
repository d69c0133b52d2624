"""Timestep spacings: the times of a walk. Every grid is (N + 1,) float64, falls strictly, and ends at 0.

The same word means different grids in different programs; here each name has one meaning. Table entry i (0-based, the
time input of a discretely trained network) sits at t = (i + 1) / T, and after the entry 0 comes t = 0, the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unnoise.errors import UserError
from unnoise.schedules import Schedule

Spacing = Callable[[Schedule, int], Tensor]
"""(schedule, number of steps) -> times."""


def even(schedule: Schedule, steps: int) -> Tensor:
    """Even in t, from 1 to 0: `trailing` without its rounding."""
    return torch.linspace(1, 0, _positive(steps) + 1, dtype=torch.float64)


def from_entries(entries: Tensor, table: int) -> Tensor:
    """Returns the times of these falling table entries, and then 0, the picture."""
    return torch.cat([(entries.double() + 1) / table, torch.zeros(1, dtype=torch.float64)])


def leading(table: int = 1000) -> Spacing:
    """Entries 0, T//N, 2 (T//N), ...: exactly N of them. "leading" in diffusers; DDIM's uniform where N divides T."""
    return lambda schedule, steps: from_entries(torch.arange(_within(steps, table)).flip(0) * (table // steps), table)


def ddim_uniform(table: int = 1000) -> Spacing:
    """The DDIM authors' uniform entries: every (T // N)-th from 0. More than N steps where N does not divide T."""
    return lambda schedule, steps: from_entries(torch.arange(0, table, table // _within(steps, table)).flip(0), table)


def ddim_quadratic(table: int = 1000) -> Spacing:
    """The DDIM authors' quadratic entries, int(linspace(0, sqrt(0.8 T), N)^2), each visited once: at most N steps."""

    def grid(schedule: Schedule, steps: int) -> Tensor:
        roots = torch.linspace(0, (0.8 * table) ** 0.5, _within(steps, table), dtype=torch.float64)
        entries = torch.unique((roots.square() + 1e-9).floor())  # the root's square need not reach its integer
        return from_entries(entries.flip(0), table)

    return grid


def trailing(table: int = 1000) -> Spacing:
    """Entries round(T - i T/N) - 1 for i = 0..N-1: starts at the last one. Lin et al. 2023."""

    def grid(schedule: Schedule, steps: int) -> Tensor:
        places = table - torch.arange(_within(steps, table), dtype=torch.float64) * table / steps
        return from_entries(places.round() - 1, table)

    return grid


def linspace(table: int = 1000) -> Spacing:
    """Entries round(linspace(0, T - 1, N)): both ends of the table. "linspace" in diffusers' DDIM and DDPM."""

    def grid(schedule: Schedule, steps: int) -> Tensor:
        return from_entries(
            torch.linspace(0, table - 1, _within(steps, table), dtype=torch.float64).round().flip(0), table
        )

    return grid


def even_log_snr(low: float = -5.1, high: float = 5.1) -> Spacing:
    """Even in log(alpha / sigma) between the two ends, or the schedule's own where it is less, then the picture."""

    def grid(schedule: Schedule, steps: int) -> Tensor:
        start = max(low, schedule.at(1.0).log_ratio.item())
        ratios = torch.linspace(start, max(high, start + 1), _positive(steps), dtype=torch.float64)
        return _to_picture(schedule.time(ratios))

    return grid


def karras(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Spacing:
    """Even in (sigma / alpha)^(1/rho) from `sigma_max`, or the schedule's own where it is less, to `sigma_min`.

    Eq. 5 of Karras et al. 2022.
    """

    def grid(schedule: Schedule, steps: int) -> Tensor:
        top = min(sigma_max, torch.exp(-schedule.at(1.0).log_ratio).item())
        roots = torch.linspace(top ** (1 / rho), sigma_min ** (1 / rho), _positive(steps), dtype=torch.float64)
        return _to_picture(schedule.time(-rho * roots.log()))

    return grid


def _to_picture(times: Tensor) -> Tensor:
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def _positive(steps: int) -> int:
    if steps < 1:
        raise UserError(f"at least one step is needed, not {steps}")
    return steps


def _within(steps: int, table: int) -> int:
    if not 1 <= steps <= table:
        raise UserError(f"{steps} steps do not fit a table of {table}: use 1 to {table} steps, or the spacing 'even'")
    return steps


SPACINGS: dict[str, Callable[[int], Spacing]] = {
    "even": lambda table: even,
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "ddim-uniform": ddim_uniform,
    "ddim-quadratic": ddim_quadratic,
    "log-snr": lambda table: even_log_snr(),
    "karras": lambda table: karras(),
}
