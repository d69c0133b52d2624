"""The numbers that multiply pictures in a step: pure functions of a few levels, worked out for a whole walk at once.

A sampler says them as a formula, levels -> numbers, in float64. Where all rows are at one time they are plain floats.
A walk tells its step the times that it visits (`along`): the first step that asks a formula has it worked out for
every place of the grid, and all of it is remembered by value, so that any later batch or walk pays for a look-up. A
short formula, or one that changes from step to step, is said in plain numbers (`OneStep`). Where rows are at times of
their own the numbers are tensors, ready to multiply x.
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


@dataclass(frozen=True)
class OneStep:
    """A formula said in plain numbers, of one row: [(alpha, sigma), ...] at the times of the step -> numbers.

    For formulas that are another one at every step, as a method's first ones, or so short that a grid of tensors costs
    more: each step is worked out when it is taken.
    """

    step: Callable[..., Sequence[float]]

    def __call__(self, levels: Level, *how: Any) -> Sequence[Tensor]:
        looks, *rows = levels.alpha.shape
        numbers = torch.stack([levels.alpha, levels.sigma], -1).reshape(looks, -1, 2).transpose(0, 1).tolist()
        found = torch.tensor([self.step(row, *how) for row in numbers], dtype=torch.float64)
        return found.T.reshape(-1, *rows).unbind()


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
    def numbers(self) -> dict[float, tuple[float, float]]:
        """(alpha, sigma) at each time."""
        return dict(zip(self.times, zip(self.levels.alpha.tolist(), self.levels.sigma.tolist())))

    @cached_property
    def _known(self) -> dict[tuple[Formula, tuple[float, ...], tuple[Any, ...]], Sequence[float]]:
        return {}

    def weights(self, formula: Formula, at: tuple[float, ...], how: tuple[Any, ...]) -> Sequence[float] | None:
        """What `formula` says of the levels at these times; None where one of them is not on the grid."""
        key = (formula, at, how)
        if key not in self._known:
            try:
                if isinstance(formula, OneStep):
                    self._known[key] = formula.step([self.numbers[t] for t in at], *how)
                else:
                    self._work_out(formula, at, how)
            except KeyError:
                return None
        return self._known[key]

    def _work_out(self, formula: Formula, at: tuple[float, ...], how: tuple[Any, ...]) -> None:
        """What it says of all places of the grid that lie to each other as these do."""
        places = [self.places[t] for t in at]
        shape = [place - min(places) for place in places]
        spans = [slice(offset, offset + len(self.times) - max(shape)) for offset in shape]
        every = formula(Level(*(torch.stack([each[span] for span in spans]) for each in self.levels)), *how)
        found = torch.stack([*every], 1).tolist()
        alike = zip(*(self.times[span] for span in spans))
        self._known.update({(formula, t, how): each for t, each in zip(alike, found)})


def along(schedule: Schedule, times: Tensor) -> Schedule:
    """The schedule for a walk over `times`, (N + 1,). Where rows walk on times of their own, (N + 1, B), as it is."""
    return _along(schedule, tuple(times.tolist())) if times.ndim == 1 else schedule


@lru_cache(maxsize=64)
def _along(schedule: Schedule, times: tuple[float, ...]) -> Along:
    return Along(schedule, times)


def weights(formula: Formula, schedule: Schedule, x: Tensor, times: Sequence[Tensor], *how: Any) -> Sequence[Weight]:
    """What `formula` says of the levels at `times`, each () or (B,), ready to multiply x (B, ...)."""
    for t in times:
        if t.ndim:
            break
    else:
        at = tuple([t.item() for t in times])
        found = schedule.weights(formula, at, how) if isinstance(schedule, Along) else None
        return _remembered(formula, schedule, at, how) if found is None else found
    shape = max((t.shape for t in times), key=len)
    levels = schedule(torch.stack([t.expand(shape) for t in times]))
    return [over(weight, x) for weight in formula(levels, *how)]


@lru_cache(maxsize=8192)
def _remembered(formula: Formula, schedule: Schedule, times: tuple[float, ...], how: tuple[Any, ...]) -> list[float]:
    return [weight.item() for weight in formula(schedule(torch.tensor(times, dtype=torch.float64)), *how)]


def combine(weights: Iterable[Weight], pictures: Iterable[Tensor]) -> Tensor:
    """The sum of the pictures, each times its weight."""
    both = zip(weights, pictures, strict=True)
    weight, picture = next(both)
    total = weight * picture
    add = Tensor.add if torch._C._are_functorch_transforms_active() else Tensor.add_  # vmap: into a batch of them
    for weight, picture in both:
        total = add(total, picture, alpha=weight) if isinstance(weight, float) else total + weight * picture
    return total


def pick(levels: Level, place: int) -> Level:
    """The level at one of the times."""
    return Level(levels.alpha[place], levels.sigma[place])


def forget() -> None:
    """Work everything out again: to measure what that costs."""
    _along.cache_clear()
    _remembered.cache_clear()
