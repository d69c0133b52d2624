"""Laws of the bound's terms: the decoder is a distribution, golden floors, the identity for Gaussian data."""

from __future__ import annotations

import math

import pytest
import torch

from tests.helpers.worlds import Gaussian
from unnoise.denoiser import Estimate
from unnoise.likelihood import bound_term, discretized_log_likelihood
from unnoise.schedules import LinearBeta, over, posterior

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.0, 0.1234, 0.999, 2.0])
@pytest.mark.parametrize("log_variance", [-12.0, -9.8, -4.0, 0.0])
def test_the_decoder_is_a_distribution(mean: float, log_variance: float) -> None:
    values = discretized_log_likelihood(
        LEVELS, torch.tensor(mean, dtype=torch.float64), torch.tensor(log_variance, dtype=torch.float64)
    )
    assert values.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert torch.isfinite(values).all()


def test_what_a_perfect_mean_still_costs() -> None:
    """The decoder's floor, 1.305378 bits where the first variance is that of the second step, in the middle levels."""
    schedule = LinearBeta()
    floor = posterior(schedule.at(0.002), schedule.at(0.001)).small
    x = LEVELS[1:-1]
    bits = -discretized_log_likelihood(x, x, floor.log()).mean() / math.log(2)
    assert bits.item() == pytest.approx(1.305378, abs=2e-6)
    beta = schedule.betas()[0]
    bits = -discretized_log_likelihood(x, x, beta.log()).mean() / math.log(2)
    assert bits.item() == pytest.approx(1.712846, abs=2e-6)


def test_a_term_is_the_divergence_of_two_gaussians() -> None:
    schedule = LinearBeta()
    generator = torch.Generator().manual_seed(0)
    x, x_t, mean, spread = torch.rand(4, 3, 2, 5, 5, generator=generator, dtype=torch.float64)[:, :, :, :, 0]
    t = torch.tensor([0.002, 0.5, 1.0], dtype=torch.float64)
    at, to = schedule(t), schedule(t - 0.001)
    kernel = posterior(at, to)
    true = torch.distributions.Normal(
        over(kernel.x_coef, x) * x + over(kernel.x_t_coef, x) * x_t, over(kernel.small, x).sqrt().expand_as(x)
    )
    deviation = torch.exp((spread * over(kernel.large.log(), x) + (1 - spread) * over(kernel.small.log(), x)) / 2)
    ours = torch.distributions.Normal(over(kernel.x_coef, x) * mean + over(kernel.x_t_coef, x) * x_t, deviation)
    expected = torch.distributions.kl_divergence(true, ours).flatten(1).mean(1) / math.log(2)
    found = bound_term(x, Estimate(mean, spread), t, schedule, 1000)
    assert torch.allclose(found, expected, rtol=1e-8)


def test_the_first_term_is_the_decoder() -> None:
    schedule = LinearBeta()
    x = LEVELS[100:200].reshape(1, 1, 10, 10)
    t = torch.tensor([0.001], dtype=torch.float64)
    found = bound_term(x, Estimate(x), t, schedule, 1000)
    assert found.item() == pytest.approx(1.305378, abs=2e-6)


def test_the_mismatch_of_the_large_variance() -> None:
    """Perfect mean, forward variances: 0.486419 bits over all steps from the second on."""
    schedule = LinearBeta()
    t = torch.arange(2, 1001, dtype=torch.float64) / 1000
    x = torch.zeros(999, 1, dtype=torch.float64)
    found = bound_term(x, Estimate(x, torch.ones_like(x)), t, schedule, 1000)
    assert found.sum().item() == pytest.approx(0.486419, abs=1e-6)


def test_rate_is_shannons_on_gaussian_data() -> None:
    """Gaussian data, the exact denoiser, posterior variances: what is sent above t exceeds Shannon's rate for the
    distortion at t by the published excess: 0.658372, 0.0900713, 0.00265236 bits at t = 1, 10, 100."""
    schedule, world, steps = LinearBeta(), Gaussian(0.0, 0.5), 1000
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    level = schedule(t)
    # E of each term, in closed form: E (x - mean)^2 is what the estimate leaves open
    open_ = world.std**2 * level.sigma**2 / world.variance(level)
    x = torch.zeros(steps, 1, dtype=torch.float64)
    terms = bound_term(x, Estimate(open_.sqrt()[:, None]), t, schedule, steps)  # squared error = what is left open
    last = level.alpha[-1] ** 2 * world.std**2
    prior = (last + level.sigma[-1] ** 2 - 1 - math.log(level.sigma[-1] ** 2)) / 2 / math.log(2)
    for k, excess in ((1, 0.658372), (10, 0.0900713), (100, 0.00265236)):
        rate = prior + terms[k:].sum()
        shannon = torch.log2(world.std**2 / open_[k - 1]) / 2
        assert (rate - shannon).item() == pytest.approx(excess, abs=3e-5)
