"""The numbers that multiply pictures in a step: pure functions of a few levels, worked out once.

A sampler says them as a formula, levels -> numbers, in float64. Where all rows are at one time they are plain floats,
remembered by value: a second batch, or a second walk over the same times, pays for a look-up. Where rows are at times
of their own they are tensors, ready to multiply x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unnoise.schedules import Level, Schedule, over

Formula = Callable[..., Sequence[Tensor]]
"""(levels, *how) -> numbers: `levels` has the times of the step along its first axis, `how` is hashable."""
Weight = float | Tensor


def weights(formula: Formula, schedule: Schedule, x: Tensor, times: Sequence[Tensor], *how: Any) -> Sequence[Weight]:
    """What `formula` says of the levels at `times`, each () or (B,), ready to multiply x (B, ...)."""
    if all(t.ndim == 0 for t in times):
        return _remembered(formula, schedule, tuple(t.item() for t in times), how)
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
    _remembered.cache_clear()
