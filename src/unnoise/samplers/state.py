"""The state of a walk: the pictures, their times, and the last evaluations of the denoiser.

States are cut and joined by rows. Each row of a joined state is at a time of its own, and has a history of its own
length: where it is shorter than another row's, the time of the missing evaluation is nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Estimate
from unnoise.schedules.level import where_rows
from unnoise.transfer import send


class Evaluation(NamedTuple):
    """One evaluation of the denoiser: x (B, ...) at time t, () or (B,), and the estimate that it returned."""

    x: Tensor
    t: Tensor
    estimate: Estimate

    @property
    def mean(self) -> Tensor:
        """E[x | x_t]."""
        return self.estimate.mean


@dataclass(frozen=True)
class State:
    """The whole memory of a sampler: x (B, ...) at time t, () or (B,), and its last evaluations, the newest at the end.

    One-step methods leave the one evaluation that they made, multistep methods as many as their order.
    """

    x: Tensor
    t: Tensor
    history: tuple[Evaluation, ...] = ()

    def __getitem__(self, rows: Tensor | slice) -> State:
        """The state of some rows: a slice, their places, or a mask. Rows that are all at one time share it again."""
        if isinstance(rows, Tensor) and rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]  # places on the CPU: a mask on a device would make the host wait
        there = send(rows, self.x.device) if isinstance(rows, Tensor) else rows
        history = [
            Evaluation(each.x[there], _cut_times(each.t, rows), _cut(each.estimate, there)) for each in self.history
        ]
        left = tuple(each for each in history if not bool(each.t.isnan().all()))
        return State(self.x[there], _cut_times(self.t, rows), left)

    @staticmethod
    def cat(states: Sequence[State]) -> State:
        """Joins states of one sampler along the rows. Times become (B,) where they differ."""
        depth = max(len(state.history) for state in states)
        history = tuple(_joined(states, age) for age in range(depth, 0, -1))
        sizes = [len(state.x) for state in states]
        return State(torch.cat([state.x for state in states]), _cat_times([s.t for s in states], sizes), history)


def merge(condition: bool | Tensor, then: Evaluation, otherwise: Evaluation) -> Evaluation:
    """The rows of `then` where the condition, one or (B,), holds, of `otherwise` where it does not."""
    if isinstance(condition, bool):
        return then if condition else otherwise
    a, b = then.estimate.variance_fraction, otherwise.estimate.variance_fraction
    fraction = None if a is None or b is None else where_rows(condition, a, b)
    estimate = Estimate(where_rows(condition, then.mean, otherwise.mean), fraction)
    return Evaluation(where_rows(condition, then.x, otherwise.x), torch.where(condition, then.t, otherwise.t), estimate)


def _cut(estimate: Estimate, rows: Tensor | slice) -> Estimate:
    fraction = estimate.variance_fraction
    return Estimate(estimate.mean[rows], None if fraction is None else fraction[rows])


def _cut_times(t: Tensor, rows: Tensor | slice) -> Tensor:
    if t.ndim == 0:
        return t
    t = t[rows]
    return t[0] if len(t) and bool((t == t[0]).all()) else t


def _cat_times(times: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    if all(t.ndim == 0 and bool(t == times[0]) for t in times):
        return times[0]
    return torch.cat([t.expand(size) for t, size in zip(times, sizes)])


def _joined(states: Sequence[State], age: int) -> Evaluation:
    """The evaluations of this age, 1 the newest, of all states; a state that has none gives zeros at the time nan."""
    there = [state.history[-age] if len(state.history) >= age else None for state in states]
    learned = any(each is not None and each.estimate.variance_fraction is not None for each in there)
    found = [each or _nothing(state.x, learned=learned) for each, state in zip(there, states)]
    fractions = [each.estimate.variance_fraction for each in found]
    return Evaluation(
        torch.cat([each.x for each in found]),
        _cat_times([each.t for each in found], [len(each.x) for each in found]),
        Estimate(
            torch.cat([each.mean for each in found]),
            torch.cat([each for each in fractions if each is not None]) if learned else None,
        ),
    )


def _nothing(x: Tensor, *, learned: bool) -> Evaluation:
    zeros, never = torch.zeros_like(x), torch.tensor(torch.nan, dtype=torch.float64)
    return Evaluation(zeros, never, Estimate(zeros, zeros if learned else None))
