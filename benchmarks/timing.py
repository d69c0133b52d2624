"""Several ways to do one thing, timed in turn, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""cpu counts this process's own time: on a machine that others use too, with one thread, ratios hold where wall's do
not."""


def in_turn(
    ways: Mapping[str, Callable[[], object]], *, rounds: int, warm: int = 1, clock: str = "wall", limit: float = 60.0
) -> dict[str, float]:
    """Median seconds of each way. Each round runs every way once, in an order that turns.

    After the first round, one that would end later than `limit` seconds after the start is left out, so that a slow
    machine is done too.
    """
    now, first = CLOCKS[clock], time.perf_counter()
    for _ in range(warm):
        for run in ways.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names, rounds_begin = list(ways), time.perf_counter()
    for turn in range(rounds):
        at = time.perf_counter()
        if turn and at - first + (at - rounds_begin) / turn > limit:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = now()
            ways[name]()
            seconds[name].append(now() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def milliseconds(found: Mapping[str, float], per: int = 1) -> dict[str, float]:
    """A row of a table: milliseconds of each way, and how many times those of the first each of the others takes."""
    first, *others = found
    times = {f"{name}, ms": 1e3 * seconds / per for name, seconds in found.items()}
    return times | {f"{name} / {first}": found[name] / found[first] for name in others}
