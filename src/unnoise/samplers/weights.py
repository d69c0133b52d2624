"""The numbers that multiply pictures in a step: pure functions of a few levels, worked out for a whole walk at once.

A sampler says them as a formula, levels -> numbers, in float64. Where all rows are at one time they are plain floats.
A walk tells its step the times that it visits (`along`): the first step that asks a formula has it worked out for
every place of the grid, and all of it is remembered by value, so that any later batch or walk pays for a look-up. Where
rows are at times of their own the numbers are tensors, ready to multiply x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from unnoise.schedules import Level, Schedule, over

Formula = Callable[..., Sequence[Tensor]]
"""(levels, *how) -> numbers, element by element: `levels` has the times of the step along its first axis, `how` is
hashable."""
Weight = float | Tensor


@dataclass(frozen=True, eq=False)
class Along(Schedule):
    """A schedule that knows the times of a walk. What is worked out for them is kept with it."""

    schedule: Schedule
    times: tuple[float, ...]

    def __call__(self, t: Tensor) -> Level:
        return self.schedule(t)

    def time(self, log_ratio: Tensor) -> Tensor:
        return self.schedule.time(log_ratio)

    @cached_property
    def places(self) -> dict[float, int]:
        """Where on the grid a time is."""
        return {t: place for place, t in enumerate(self.times)}

    @cached_property
    def levels(self) -> Level:
        return self.schedule(torch.tensor(self.times, dtype=torch.float64))

    @cached_property
    def _known(self) -> dict[tuple[Any, ...], list[list[float]]]:
        return {}

    def weights(self, formula: Formula, places: Sequence[int], how: tuple[Any, ...]) -> list[float]:
        """What `formula` says of the levels at these places, worked out for all places that lie to each other alike."""
        first = min(places)
        shape = tuple([place - first for place in places])
        key = (formula, shape, how)
        found = self._known.get(key)
        if found is None:
            spans = [slice(at, at + len(self.times) - max(shape)) for at in shape]
            every = formula(Level(*(torch.stack([each[span] for span in spans]) for each in self.levels)), *how)
            found = self._known[key] = torch.stack([*every], 1).tolist()
        return found[first]


def along(schedule: Schedule, times: Tensor) -> Schedule:
    """The schedule for a walk over `times`, (N + 1,). Where rows walk on times of their own, (N + 1, B), as it is."""
    return _along(schedule, tuple(times.tolist())) if times.ndim == 1 else schedule


@lru_cache(maxsize=64)
def _along(schedule: Schedule, times: tuple[float, ...]) -> Along:
    return Along(schedule, times)


def weights(formula: Formula, schedule: Schedule, x: Tensor, times: Sequence[Tensor], *how: Any) -> Sequence[Weight]:
    """What `formula` says of the levels at `times`, each () or (B,), ready to multiply x (B, ...)."""
    if not any(t.ndim for t in times):
        at = tuple([t.item() for t in times])
        if isinstance(schedule, Along):
            places = [schedule.places.get(t, -1) for t in at]
            if min(places) >= 0:
                return schedule.weights(formula, places, how)
        return _remembered(formula, schedule, at, how)
    shape = max((t.shape for t in times), key=len)
    levels = schedule(torch.stack([t.expand(shape) for t in times]))
    return [over(weight, x) for weight in formula(levels, *how)]


@lru_cache(maxsize=8192)
def _remembered(formula: Formula, schedule: Schedule, times: tuple[float, ...], how: tuple[Any, ...]) -> list[float]:
    return [weight.item() for weight in formula(schedule(torch.tensor(times, dtype=torch.float64)), *how)]


def combine(weights: Iterable[Weight], pictures: Iterable[Tensor]) -> Tensor:
    """The sum of the pictures, each times its weight."""
    first, *others = zip(weights, pictures, strict=True)
    total = first[0] * first[1]
    for weight, picture in others:
        total = total.add(picture, alpha=weight) if isinstance(weight, float) else total + weight * picture
    return total


def pick(levels: Level, place: int) -> Level:
    """The level at one of the times."""
    return Level(levels.alpha[place], levels.sigma[place])


def forget() -> None:
    """Work everything out again: to measure what that costs."""
    _along.cache_clear()
    _remembered.cache_clear()
