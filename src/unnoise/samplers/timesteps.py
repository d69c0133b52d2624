"""Timestep spacings: the times of a walk. Every grid is (N + 1,) float64, falls strictly, and ends at 0.

The same word means different grids in different programs; here each name has one meaning. Table entry i (0-based, the
time input of a discretely trained network) sits at t = (i + 1) / T, and after the entry 0 comes t = 0, the picture.

A network that was trained at t = k/T alone has learned nothing below t = 1/T: there no grid has a time. Its last step
goes from 1/T, or above, to the picture. `least` is that time for a schedule that is a curve; a table has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise.errors import UserError, unknown
from unnoise.schedules import Schedule, first_entry

Spacing = Callable[[Schedule, int], Tensor]
"""(schedule, number of steps) -> times."""


def even(schedule: Schedule, steps: int, *, least: float = 0.0) -> Tensor:
    """Even in t, from 1 to 0: `trailing` without its rounding.

    Raises UserError for more steps than fit above the least time that the network was trained at.
    """
    least = max(least, first_entry(schedule))
    if least > 0:
        _within(steps, round(1 / least))
    return torch.linspace(1, 0, _positive(steps) + 1, dtype=torch.float64)


# --- entries of a table ---


def from_entries(entries: Tensor, table: int) -> Tensor:
    """Returns the times of these falling table entries, and then 0, the picture. Raises UserError for others."""
    if len(entries) and not 0 <= entries[-1] <= entries[0] <= table - 1:
        raise UserError(
            f"these steps ask for entry {entries[0].item():g} of a table of {table}, whose last one is {table - 1}: "
            "use fewer steps"
        )
    return torch.cat([(entries.double() + 1) / table, torch.zeros(1, dtype=torch.float64)])


def leading(table: int = 1000, *, offset: int = 0, skip_first: bool = False) -> Spacing:
    """Entries 0, T//N, 2 (T//N), ...: exactly N of them. "leading" in diffusers; DDIM's uniform where N divides T.

    `offset` is added to each, `steps_offset` in diffusers. `skip_first`: those of N + 1 steps but the entry 0, as in
    diffusers' DPM-Solver and UniPC.
    """

    def grid(schedule: Schedule, steps: int) -> Tensor:
        many = _within(steps + skip_first, table)
        entries = torch.arange(many)[int(skip_first) :] * (table // many) + offset
        return from_entries(entries.flip(0), table)

    return grid


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
        places = np.arange(table, 0, -table / _within(steps, table))[:steps]  # as in diffusers: ties round alike
        return from_entries(torch.from_numpy(places).round() - 1, table)

    return grid


def linspace(table: int = 1000, *, rounded: bool = True, skip_first: bool = False) -> Spacing:
    """Entries round(linspace(0, T - 1, N)): both ends of the table. "linspace" in diffusers' DDIM and DDPM.

    Not `rounded`, times between the entries, where sigma / alpha is linear between theirs: diffusers' Euler and Heun.
    `skip_first`: those of N + 1 steps but the entry 0, as in diffusers' DPM-Solver and UniPC.
    """

    def grid(schedule: Schedule, steps: int) -> Tensor:
        many = _within(steps + skip_first, table)
        entries = torch.from_numpy(np.linspace(0, table - 1, many)[int(skip_first) :]).flip(0)  # ties round as there
        if rounded:
            return from_entries(entries.round(), table)
        times = from_entries(entries, table)
        if first_entry(schedule) == 0:  # a curve, of flow matching: its noise is linear in t
            return times
        below, above = (
            torch.exp(-schedule((each + 1) / table).log_ratio) for each in (entries.floor(), entries.ceil())
        )
        ratio = torch.lerp(below, above, entries - entries.floor())
        between = torch.isfinite(above) & (entries != entries.floor())
        times[:-1] = torch.where(between, schedule.time(-ratio.log()), times[:-1])
        return times

    return grid


# --- levels of noise ---


def even_log_snr(low: float = -5.1, high: float = 5.1, *, least: float = 0.0) -> Spacing:
    """Even in log(alpha / sigma) between the two ends, or the schedule's own where it is less, then the picture."""

    def grid(schedule: Schedule, steps: int) -> Tensor:
        start = max(low, schedule.at(1.0).log_ratio.item())
        end = min(high if high > start else start + 1, _last_log_ratio(schedule, least))
        ratios = torch.linspace(start, end, _several(steps, schedule, least), dtype=torch.float64)
        return _to_picture(schedule, ratios, least)

    return grid


def karras(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, *, least: float = 0.0) -> Spacing:
    """Even in (sigma / alpha)^(1/rho) from `sigma_max`, or the schedule's own where it is less, to `sigma_min`.

    Eq. 5 of Karras et al. 2022. On a table it ends at the first entry where that has more noise than `sigma_min`.
    """

    def grid(schedule: Schedule, steps: int) -> Tensor:
        top = min(sigma_max, math.exp(-schedule.at(1.0).log_ratio.item()))
        low = sigma_min if sigma_min < top else top / math.e
        bottom = max(low, math.exp(-_last_log_ratio(schedule, least)))
        many = _several(steps, schedule, least)
        roots = torch.linspace(top ** (1 / rho), bottom ** (1 / rho), many, dtype=torch.float64)
        return _to_picture(schedule, -rho * roots.log(), least)

    return grid


def between(levels: Callable[[float, float], Spacing], entries: Spacing) -> Spacing:
    """Returns the spacing `levels(sigma_min, sigma_max)` whose ends are the last and the first level of `entries`.

    diffusers' `use_karras_sigmas` and `use_exponential_sigmas`.
    """

    def grid(schedule: Schedule, steps: int) -> Tensor:
        ends = torch.exp(-schedule(entries(schedule, max(steps, 2))[[0, -2]]).log_ratio)
        return levels(ends[1].item(), ends[0].item())(schedule, steps)

    return grid


def _last_log_ratio(schedule: Schedule, least: float) -> float:
    """log(alpha / sigma) at the least time above the picture; inf for a curve without one."""
    return schedule.at(max(least, first_entry(schedule))).log_ratio.item()


def _to_picture(schedule: Schedule, log_ratios: Tensor, least: float) -> Tensor:
    """The times of these levels, then 0."""
    times = schedule.time(log_ratios).clamp(min=max(least, first_entry(schedule)))  # the last one, up to rounding
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


# --- numbers of steps ---


def _positive(steps: int) -> int:
    if steps < 1:
        raise UserError(f"at least one step is needed, not {steps}")
    return steps


def _several(steps: int, schedule: Schedule, least: float) -> int:
    """The number of steps; a table of one entry has one."""
    if max(least, first_entry(schedule)) == 1:
        return _within(steps, 1)
    return _positive(steps)


def _within(steps: int, table: int) -> int:
    if _positive(steps) > table:
        raise UserError(
            f"{steps} steps do not fit a network of {table} steps: use 1 to {table}, or the spacing log-snr, whose "
            "times lie between them"
        )
    return steps


# --- names ---


def _exponential(sigma_min: float, sigma_max: float, *, least: float = 0.0) -> Spacing:
    return even_log_snr(-math.log(sigma_max), -math.log(sigma_min), least=least)


def _between_entries(
    levels: Callable[..., Spacing], table: int, least: float, *, entries: str, offset: int = 0, **ends: float
) -> Spacing:
    """The spacing `levels` between the ends of the `entries`, a name; `ends` replace one of them or both."""
    known = {"leading": leading(table, offset=offset), "trailing": trailing(table), "linspace": linspace(table)}
    if entries not in known:
        raise unknown("spacing of entries", entries, known)
    return between(
        lambda low, high: levels(**{"sigma_min": low, "sigma_max": high} | ends, least=least), known[entries]
    )


def _log_snr(table: int, least: float, **options: Any) -> Spacing:
    return _between_entries(_exponential, table, least, **options) if options else even_log_snr(least=least)


def _karras(table: int, least: float, **options: Any) -> Spacing:
    if "entries" in options:
        return _between_entries(karras, table, least, **options)
    return karras(least=least, **options)


SPACINGS: dict[str, Callable[..., Spacing]] = {  # (T, the least time if the schedule is a curve, **options)
    "even": lambda table, least=0.0: partial(even, least=least),
    "leading": lambda table, least=0.0, **options: leading(table, **options),
    "trailing": lambda table, least=0.0: trailing(table),
    "linspace": lambda table, least=0.0, **options: linspace(table, **options),
    "ddim-uniform": lambda table, least=0.0: ddim_uniform(table),
    "ddim-quadratic": lambda table, least=0.0: ddim_quadratic(table),
    "log-snr": lambda table, least=0.0, **options: _log_snr(table, least, **options),
    "karras": lambda table, least=0.0, **options: _karras(table, least, **options),
}
