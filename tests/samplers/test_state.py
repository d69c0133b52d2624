"""Laws of states: rows of several walks advance together as each would alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.methods import METHODS
from tests.helpers.worlds import Gaussian
from unnoise.config.renamed import REMOVED_SAMPLERS
from unnoise.config.request import Request
from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Seeds
from unnoise.samplers import SAMPLERS, Evaluation, State, Step, advance, ddim, find, find_spacing, unipc, walk
from unnoise.samplers.timesteps import even, even_log_snr, karras
from unnoise.schedules import LinearBeta

SCHEDULE = LinearBeta()
SHAPE = (2, 3, 3)


def denoiser(calls: list[int] | None = None) -> Denoiser:
    """Nonlinear in x, with a variance; appends the rows of each call to `calls`."""

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        if calls is not None:
            calls.append(len(x))
        mean = Gaussian().denoise(x, SCHEDULE(t))
        return Estimate(torch.tanh(mean), torch.sigmoid(x))

    return Denoiser(SCHEDULE, estimate)


def times_of(row: int) -> Tensor:
    """A grid for each row, of 6, 7 and 8 steps."""
    return (even, karras(), even_log_snr())[row](SCHEDULE, 6 + row)


def alone(step: Step, row: int, steps: int) -> list[State]:
    """The first states of one row's walk, with the start."""
    seeds, times = Seeds((row,), SHAPE), times_of(row)
    state = State(seeds.start().double(), times[0])
    states = [state]
    for s in times[1 : steps + 1]:
        state = advance(denoiser(), state, s, step, seeds)
        states.append(state)
    return states


def assert_same(a: State, b: State, accuracy: float) -> None:
    assert torch.allclose(a.x, b.x, rtol=accuracy, atol=accuracy)
    assert torch.equal(a.t.expand(len(a.x)), b.t.expand(len(b.x)))
    assert len(a.history) == len(b.history)
    for one, other in zip(a.history, b.history):
        assert torch.allclose(one.mean, other.mean, rtol=accuracy, atol=accuracy)
        assert torch.allclose(one.t.expand(len(a.x)), other.t.expand(len(b.x)), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "ncsn"])  # 100 calls a step
def test_joined_rows_advance_as_each_alone(name: str) -> None:
    """Three walks that have come to step 4, to step 1 and to no step yet: two steps together are each one's own."""
    step = METHODS[name].make(Request.of(steps=7))
    accuracy = 1e-6 if name == "heun-churn" else 1e-11  # inverting a table magnifies rounding
    ages = (4, 1, 0)
    walks = [alone(step, row, age + 2) for row, age in enumerate(ages)]
    state = State.cat([states[age] for states, age in zip(walks, ages)])
    assert state.t.shape == (3,)
    for ahead in (1, 2):
        s = torch.stack([times_of(row)[age + ahead] for row, age in enumerate(ages)])
        state = advance(denoiser(), state, s, step, Seeds((0, 1, 2), SHAPE))
        for row, age in enumerate(ages):
            mine, own = state[torch.tensor([row])], walks[row][age + ahead]
            if own.t > 0:
                assert_same(mine, own, accuracy)
            else:  # what a row that has arrived remembers is of no use
                assert torch.allclose(mine.x, own.x, rtol=accuracy, atol=accuracy)


def batch(name: str, steps: int = 4) -> State:
    seeds, times = Seeds((5, 6, 7, 8), SHAPE), even(SCHEDULE, 9)
    states = walk(denoiser(), seeds.start(), times, METHODS[name].make(Request.of(steps=9)), seeds)
    return [next(states) for _ in range(steps)][-1]


@pytest.mark.parametrize("name", ["ddim", "ddpm-learned", "dpm++3m", "unipc-3", "plms"])
def test_what_is_cut_and_joined_again_is_what_it_was(name: str) -> None:
    state = batch(name)
    again = State.cat([state[:1], state[torch.tensor([1, 2])], state[torch.tensor([False, False, False, True])]])
    assert torch.equal(again.x, state.x)
    assert again.t.ndim == 0  # rows at one time share it, and the numbers of their steps
    assert again.t == state.t
    assert len(again.history) == len(state.history)
    for one, other in zip(again.history, state.history):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.t, other.t)
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.estimate.variance_fraction, other.estimate.variance_fraction)


def test_rows_that_leave_take_their_own_history() -> None:
    """Joined with a longer history and cut again, a row has the evaluations that it had, and one time."""
    long, short = batch("plms"), batch("plms", 1)
    joined = State.cat([long, short])
    assert joined.t.shape == (8,)
    assert [int(each.t.isnan().sum()) for each in joined.history] == [4, 4, 4, 0]
    back = joined[4:]
    assert back.t.ndim == 0
    assert len(back.history) == 1
    assert torch.equal(back.history[0].mean, short.history[0].mean)
    assert len(joined[:4].history) == 4


def test_a_joined_row_that_has_no_evaluation_gets_one() -> None:
    """UniPC evaluates ahead: rows that have that evaluation keep theirs, a row that begins gets a new one, in one
    further call."""
    calls: list[int] = []
    states = [alone(unipc(3), 0, 3)[-1], alone(unipc(3), 1, 0)[-1]]
    joined, s = State.cat(states), torch.stack([times_of(0)[4], times_of(1)[1]])
    ahead = advance(denoiser(calls), joined, s, unipc(3), Seeds((0, 1), SHAPE))
    assert calls == [2, 2]
    advance(denoiser(calls), ahead, torch.stack([times_of(0)[5], times_of(1)[2]]), unipc(3), Seeds((0, 1), SHAPE))
    assert calls == [2, 2, 2]


def test_states_without_history_or_variance_join() -> None:
    x, t = torch.zeros(1, 2), torch.tensor(0.5, dtype=torch.float64)
    joined = State.cat([State(x, t), State(x + 1, t, (Evaluation(x, t, Estimate(x)),))])
    assert joined.t.ndim == 0
    assert joined.history[0].t.isnan().tolist() == [True, False]
    assert joined.history[0].estimate.variance_fraction is None
    assert State.cat([State(x, t), State(x, t)]).history == ()


def test_advance_records_no_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)
    half, end = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    weighted = Denoiser(SCHEDULE, lambda x, t: Estimate(x * weight))
    state = advance(weighted, State(torch.ones(1, 1), half), end, ddim(), Seeds((0,), (1,)))
    assert not state.x.requires_grad


def test_earlier_names() -> None:
    """An earlier name with an equal is accepted; a method without a name is refused with the closest one."""
    assert find("unipc-2") is SAMPLERS["unipc"]
    assert torch.equal(find_spacing("even-log-snr", 1000)(SCHEDULE, 5), find_spacing("log-snr", 1000)(SCHEDULE, 5))
    for name, closest in (("heun-midpoint", "heun"), ("dpm++3m-released", "dpm++3m"), ("ncsn", "langevin")):
        with pytest.raises(ValueError, match=rf"use '{closest}'".replace("+", r"\+")):
            find(name)


def test_every_removed_name_has_a_closest_one_that_exists() -> None:
    assert set(REMOVED_SAMPLERS) == set(METHODS) - set(SAMPLERS)
    assert set(REMOVED_SAMPLERS.values()) <= set(SAMPLERS)
