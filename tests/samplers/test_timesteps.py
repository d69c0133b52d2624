"""No spacing evaluates a network at a time that it was not trained at; the last step goes from there to the picture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.helpers.methods import METHODS
from tests.helpers.worlds import Gaussian
from unnoise.config.request import Request
from unnoise.denoiser import Denoiser, Estimate
from unnoise.errors import UserError
from unnoise.samplers import SPACINGS, find_spacing, last, walk
from unnoise.schedules import (
    VPSDE,
    Cosine,
    LinearBeta,
    ScaledLinear,
    Schedule,
    Shifted,
    Sigmoid,
    Table,
    VarianceExploding,
    ZeroTerminalSNR,
    first_entry,
)

T = 200
TRAINED_ON_STEPS: list[Schedule] = [
    LinearBeta(T), Cosine(T), ZeroTerminalSNR(ScaledLinear(T, 0.00085, 0.012)), Shifted(Cosine(T), 0.25),
    Table((0.02,) * T), VPSDE(), Sigmoid(), VarianceExploding(T),
]  # fmt: skip


def white(t: Tensor, draw: int = 0) -> Tensor:
    return torch.randn((2, 3), generator=torch.Generator().manual_seed(draw), dtype=torch.float64)


def clocks(name: str, spacing: str, schedule: Schedule, steps: int) -> list[float]:
    """The network's time inputs k - 1 in a walk of this sampler."""
    exact, seen = Gaussian().denoiser(schedule), list[float]()

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        seen.append(t.item() * T - 1)
        return Estimate(exact(x_t, t).mean, torch.full_like(x_t, 0.5))

    times = find_spacing(spacing, T, 1 / T)(schedule, steps)
    assert times[-1] == 0
    x = white(times[0]) * schedule(times[0]).sigma
    end = last(walk(Denoiser(schedule, estimate), x, times, METHODS[name].make(Request.of(steps=steps)), white))
    assert torch.isfinite(end).all()
    return seen


@pytest.mark.parametrize("schedule", TRAINED_ON_STEPS, ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_no_sampler_asks_outside_of_the_table(spacing: str, schedule: Schedule) -> None:
    """Every sampler's evaluations, those between two times too, lie at entries 0 to T - 1, or between two of them."""
    for name in METHODS:
        if name in ("ncsn", "ncsn-v2"):  # langevin's times, at 100 calls a step
            continue
        seen = clocks(name, spacing, schedule, 5)
        assert min(seen) > -1e-9, name
        assert max(seen) < T - 1 + 1e-9, name


@pytest.mark.parametrize("spacing", ["karras", "log-snr"])
def test_the_last_evaluation_is_at_the_first_entry(spacing: str) -> None:
    """Where the spacing's own end has less noise than the table's, and not above it."""
    for schedule in (LinearBeta(), ScaledLinear(1000, 0.00085, 0.012), Cosine(), ZeroTerminalSNR(LinearBeta())):
        for steps in (2, 30, 1500):
            times = find_spacing(spacing, 1000)(schedule, steps)
            own = 0.002 if spacing == "karras" else math.exp(-5.1)
            first = math.exp(-schedule.at(0.001).log_ratio.item())
            assert math.exp(-schedule.at(times[-2].item()).log_ratio.item()) == pytest.approx(max(own, first), rel=1e-9)
            assert len(times) == steps + 1
            assert (times.diff() < 0).all()


def test_a_curve_that_was_trained_at_all_times_has_no_such_end() -> None:
    for spacing, sigma in (("karras", 0.002), ("log-snr", math.exp(-5.1))):
        t = find_spacing(spacing, 1000)(VPSDE(), 20)[-2].item()
        assert math.exp(-VPSDE().at(t).log_ratio.item()) == pytest.approx(sigma, rel=1e-9)
        assert find_spacing(spacing, 1000, 0.001)(VPSDE(), 20)[-2].item() == pytest.approx(0.001, rel=1e-12)
    assert first_entry(VPSDE()) == 0
    assert first_entry(Shifted(ZeroTerminalSNR(LinearBeta(50)), 0.5)) == 1 / 50


def test_more_steps_than_entries_are_refused() -> None:
    """Even times of 2,000 steps lie below the first of 1,000 entries."""
    for schedule, least in ((LinearBeta(), 0.0), (ZeroTerminalSNR(LinearBeta()), 0.0), (VPSDE(), 0.001)):
        for spacing in ("even", "leading", "trailing", "linspace", "ddim-uniform"):
            with pytest.raises(UserError, match="2000 steps do not fit a network of 1000 steps: use 1 to 1000"):
                find_spacing(spacing, 1000, least)(schedule, 2000)
        assert find_spacing("even", 1000, least)(schedule, 1000)[-2].item() == pytest.approx(0.001)
    assert len(find_spacing("even", 1000)(VPSDE(), 2000)) == 2001
    with pytest.raises(UserError, match="use 1 to 1,"):
        find_spacing("karras", 1)(LinearBeta(1), 2)
