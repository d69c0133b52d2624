"""The one loop. A sampler is a pure step; `walk` applies it from time to time and yields every state on the way.

Progress bars, previews, cancelling, and a server that batches requests at different times all read this generator, or
call `advance`, its body. Times are explicit and may differ from row to row; the last one is 0, where the state is the
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Noise
from unnoise.samplers.state import State
from unnoise.schedules import Level, Schedule
from unnoise.schedules.level import Number

Step = Callable[[Denoiser, State, Tensor, Noise], State]
"""(denoiser, state, the next time s < t, noise) -> the state at s. Pure: everything it needs is an argument."""


def walk(denoiser: Denoiser, x: Tensor, times: Tensor, step: Step, noise: Noise) -> Iterator[State]:
    """Yields the states after each step, `len(times) - 1` of them. Stop reading to stop the walk.

    `times` is (N + 1,) or (N + 1, B), falling, float64; `x` is the state at times[0]. No gradients are recorded.
    """
    if times.ndim == 1:
        denoiser = Denoiser(Tabulated.at_times(denoiser.schedule, times), denoiser.estimate)
    state = State(x, times[0])
    unrecorded = torch.no_grad()  # one for all steps: it is left before each state is handed out
    for s in times[1:]:
        with unrecorded:
            state = step(denoiser, state, s, noise)
        yield state


def advance(denoiser: Denoiser, state: State, s: Tensor, step: Step, noise: Noise) -> State:
    """Takes one step to the times `s`, () or (B,), without recording gradients.

    The rows of a state may come from several walks (`State.cat`), each with a time and a history of its own, and leave
    it again (`state[rows]`).
    """
    with torch.no_grad():
        return step(denoiser, state, s, noise)


def last(states: Iterator[State]) -> Tensor:
    """The picture at the end of a walk."""
    for state in states:
        x = state.x
    return x


@dataclass(frozen=True)
class Tabulated(Schedule):
    """A schedule that looks up its levels at the times of one walk, as plain floats."""

    schedule: Schedule
    table: dict[float, Level[Number]]

    @staticmethod
    def at_times(schedule: Schedule, times: Tensor) -> Tabulated:
        """Computes the levels at `times` (N + 1,) at once."""
        found = schedule(times)
        return Tabulated(schedule, dict(zip(times.tolist(), map(Level, found.alpha.tolist(), found.sigma.tolist()))))

    def __call__(self, t: Tensor) -> Level:
        return self.schedule(t)

    def time(self, log_ratio: Tensor) -> Tensor:
        return self.schedule.time(log_ratio)

    def levels(self, *times: Tensor) -> list[Level[Number]]:
        try:
            return [self.table[t.item()] for t in times]
        except KeyError:  # a time between two of the walk: its level is needed more than once
            for t in times:
                if t.item() not in self.table:
                    self.table[t.item()] = self.schedule.levels(t)[0]
            return [self.table[t.item()] for t in times]
        except RuntimeError:  # times of each row's own are no numbers
            return self.schedule.levels(*times)
