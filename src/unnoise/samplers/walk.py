"""The one loop. A sampler is a pure step; `walk` takes it from time to time and yields every state on the way.

Progress bars, previews, cancelling, and a server that batches requests at different times are all a reader of this
generator. Times are explicit and may differ from row to row; the last one is 0, where the state is the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Noise
from unnoise.samplers.weights import along


class Evaluation(NamedTuple):
    """Where the denoiser was asked, x (B, ...) at time t, () or (B,), and what it said."""

    x: Tensor
    t: Tensor
    estimate: Estimate

    @property
    def mean(self) -> Tensor:
        """E[x | x_t]."""
        return self.estimate.mean


@dataclass(frozen=True)
class State:
    """The whole memory of a sampler: x (B, ...) at time t, () or (B,), and what it saw last, the newest at the end.

    A step that remembers nothing leaves the one thing that it saw; multistep methods keep as many as their order.
    """

    x: Tensor
    t: Tensor
    history: tuple[Evaluation, ...] = ()


Step = Callable[[Denoiser, State, Tensor, Noise], State]
"""(denoiser, state, the next time s < t, noise) -> the state at s. Pure: what it needs is handed in."""


def walk(denoiser: Denoiser, x: Tensor, times: Tensor, step: Step, noise: Noise) -> Iterator[State]:
    """The states after each step, `len(times) - 1` of them. Stop reading to stop the walk.

    `times` is (N + 1,) or (N + 1, B), falling, float64; `x` is the state at times[0]. No gradients are kept.
    """
    denoiser = Denoiser(along(denoiser.schedule, times), denoiser.estimate)
    state = State(x, times[0])
    unrecorded = torch.no_grad()  # one for all steps: it is left before each state is handed out
    for s in times[1:]:
        with unrecorded:
            state = step(denoiser, state, s, noise)
        yield state


def last(states: Iterator[State]) -> Tensor:
    """The picture at the end of a walk."""
    for state in states:
        x = state.x
    return x
