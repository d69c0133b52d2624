"""Averages of the weights against their closed form: which picture counts in which average, and how much."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unnoise.config.training import Fit
from unnoise.training.train_state import TrainState


def averaged(config: Fit, weights: list[float]) -> float:
    """The average after steps at which the network's one weight has these values; its updates change nothing."""
    net = nn.Linear(1, 1, bias=False)
    state = TrainState(net, config)
    for weight in weights:
        net.weight.data.fill_(weight)
        net.weight.grad = torch.zeros_like(net.weight)
        state.update(0.0, 0.0)
        state.step += 1
    return state.averages[config.ema[0]][0].item()


@pytest.mark.parametrize("ramp", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_a_ramp_counts_this_batch(steps: int, batch: int, ramp: float) -> None:
    """After step n the half-life is ramp times the pictures up to and with this batch, n B.

    So step n keeps 2^(-1 / (ramp n)) of the average, whatever the batch, and after N steps the first weights have the
    part 2^(-(H_N - 1) / ramp), where H_N = 1 + 1/2 + ... + 1/N.
    """
    config = Fit(batch=batch, lr=1.0, ema=(10**12,), ema_rampup=ramp)
    harmonic = sum(1 / n for n in range(1, steps + 1))
    first = averaged(config, [1.0] + [0.0] * (steps - 1))
    assert first == pytest.approx(2 ** (-(harmonic - 1) / ramp), rel=1e-5)
    last = averaged(config, [0.0] * (steps - 1) + [1.0])
    assert last == pytest.approx(1.0 if steps == 1 else 1 - 2 ** (-1 / (ramp * steps)), rel=1e-5)


def test_a_ramp_ends_at_the_half_life() -> None:
    """With ramp 1/2 and batches of 4 the half-life of 20 pictures is reached in step 10, and later steps have it."""
    config = Fit(batch=4, lr=1.0, ema=(20,), ema_rampup=0.5)
    kept = [1 - averaged(config, [0.0] * (n - 1) + [1.0]) for n in range(2, 15)]
    expected = [2 ** (-4 / min(20, 0.5 * 4 * n)) for n in range(2, 15)]
    assert kept == pytest.approx(expected, rel=1e-5)
    assert math.isclose(kept[-1], kept[-2], rel_tol=1e-6)
