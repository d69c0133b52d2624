"""The reverse SDE: what each discretisation does to a variance, by the papers' own recursions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.helpers.worlds import Gaussian
from unnoise.denoiser import Denoiser
from unnoise.samplers import State, Step, ddpm, euler_maruyama, large, probability_flow, reverse_diffusion
from unnoise.samplers.timesteps import even
from unnoise.schedules import VPSDE, Flow, LinearBeta, Schedule, SubVP, VarianceExploding, ZeroTerminalSNR

WORLD = Gaussian(0.0, 0.5)


def moved(step: Step, schedule: Schedule, t: float, s: float) -> tuple[float, float]:
    """By what a step multiplies x, and the standard deviation of what it adds: on a world of mean 0."""

    def at(x: float, z: float) -> float:
        noise, start = torch.full((1, 1), z, dtype=torch.float64), torch.full((1, 1), x, dtype=torch.float64)
        times = (torch.tensor(time, dtype=torch.float64) for time in (t, s))
        here, there = times
        return step(WORLD.denoiser(schedule), State(start, here), there, lambda s, draw=0: noise).x.item()

    return at(1, 0) - at(0, 0), at(0, 1) - at(0, 0)


@pytest.mark.parametrize("k", [2, 400, 1000])
def test_reverse_diffusion_is_the_chain_backwards(k: int) -> None:
    """Variance preserving: x <- 2 x - sqrt(1 - beta) x + beta score + sqrt(beta) z, at an entry of the table."""
    schedule = LinearBeta()
    beta = schedule.betas()[k - 1].item()
    v = WORLD.variance(schedule.at(k / 1000)).item()
    gain, noise = moved(reverse_diffusion(), schedule, k / 1000, (k - 1) / 1000)
    assert gain == pytest.approx(2 - math.sqrt(1 - beta) - beta / v, rel=1e-9)
    assert noise == pytest.approx(math.sqrt(beta), rel=1e-9)
    gain, noise = moved(probability_flow(), schedule, k / 1000, (k - 1) / 1000)
    assert gain == pytest.approx(2 - math.sqrt(1 - beta) - beta / v / 2, rel=1e-9)
    assert noise == 0


def test_exploding_reverse_diffusion() -> None:
    """x <- x + (sigma_i^2 - sigma_{i-1}^2) score + sqrt(sigma_i^2 - sigma_{i-1}^2) z; Euler-Maruyama is the same."""
    schedule = VarianceExploding()
    t, s = 0.7, 0.65
    step = schedule.at(t).sigma.item() ** 2 - schedule.at(s).sigma.item() ** 2
    v = WORLD.variance(schedule.at(t)).item()
    for method in (reverse_diffusion(), euler_maruyama()):
        gain, noise = moved(method, schedule, t, s)
        assert gain == pytest.approx(1 - step / v, rel=1e-9)
        assert noise == pytest.approx(math.sqrt(step), rel=1e-9)


def test_euler_maruyama_is_eulers_step_of_the_sde() -> None:
    """V <- (1 + beta d / 2 - beta d / v)^2 V + beta d, with beta(t) = 0.1 + 19.9 t over a small step d."""
    schedule, t, d = VPSDE(), 0.4, 1e-4
    beta = 0.1 + 19.9 * (t - d / 2)
    v = WORLD.variance(schedule.at(t)).item()
    gain, noise = moved(euler_maruyama(), schedule, t, t - d)
    assert gain == pytest.approx(1 + beta * d / 2 - beta * d / v, abs=1e-8)
    assert noise**2 == pytest.approx(beta * d, rel=1e-6)


def test_the_recursion_of_the_variance_over_a_whole_walk() -> None:
    """The same over 1,000 steps from the prior, with the integral of beta over each: what the sampler does to V."""
    schedule, value, expected = VPSDE(), 1.0, 1.0
    for t, s in pairwise(even(schedule, 1000)[:-1].tolist()):
        gain, noise = moved(euler_maruyama(), schedule, t, s)
        value = gain**2 * value + noise**2
        step = 0.1 * (t - s) + 19.9 * (t**2 - s**2) / 2
        v = WORLD.variance(schedule.at(t)).item()
        expected = (1 + step / 2 - step / v) ** 2 * expected + step
    assert value == pytest.approx(expected, rel=1e-4)
    assert math.sqrt(value) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("schedule", [VPSDE(), SubVP(), VarianceExploding(), LinearBeta()], ids=str)
def test_f_and_g_are_those_of_the_forward_process(schedule: Schedule) -> None:
    """g^2 = d sigma^2 / dt - 2 f sigma^2, f = d log(alpha) / dt: on a point at 0, where score = -x / sigma^2, the gain
    of a small step is 1 - f d - g^2 d / sigma^2; for sub-VP g^2 is beta (1 - alpha^4)."""
    t, d = 0.5004, 1e-5  # within one entry of a table
    before, at = schedule.at(t - d), schedule.at(t)
    f = (at.alpha.log() - before.alpha.log()).item() / d
    g2 = ((at.sigma.square() - before.sigma.square()) / d).item() - 2 * f * at.sigma.item() ** 2
    if isinstance(schedule, SubVP):
        assert g2 == pytest.approx((0.1 + 19.9 * t) * (1 - at.alpha.item() ** 4), rel=1e-3)
    v = WORLD.variance(at).item()
    for step, share in ((reverse_diffusion(), 1), (euler_maruyama(), 1), (probability_flow(), 0.5)):
        gain, noise = moved(step, schedule, t, t - d)
        assert (gain - 1) / d == pytest.approx(-f - share * g2 / v, rel=2e-3)
        assert noise**2 / d == pytest.approx(g2 if share == 1 else 0, rel=2e-3)


def test_reverse_diffusion_is_ancestral_sampling_to_first_order() -> None:
    """`ddpm(large)` has the same noise; the means differ in the second order of the step."""
    schedule, differences = VPSDE(), []
    for d in (1e-3, 1e-4):
        ours, noise = moved(reverse_diffusion(), schedule, 0.5, 0.5 - d)
        theirs, same = moved(ddpm(large), schedule, 0.5, 0.5 - d)
        assert noise == pytest.approx(same, rel=1e-12)
        differences.append(abs(ours - theirs))
    assert differences[0] / differences[1] == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("step", [reverse_diffusion(), euler_maruyama(), probability_flow()])
def test_the_ends(step: Step) -> None:
    """At s = 0 the estimate, without noise; from pure noise, a finite step."""
    x, loud = torch.randn(3, 2, dtype=torch.float64), torch.full((3, 2), 1e9, dtype=torch.float64)
    zero, one, half = (torch.tensor(time, dtype=torch.float64) for time in (0.0, 1.0, 0.5))

    def end(denoiser: Denoiser, t: Tensor, s: Tensor, z: Tensor) -> Tensor:
        return step(denoiser, State(x, t), s, lambda s, draw=0: z).x

    for schedule in (ZeroTerminalSNR(LinearBeta()), Flow()):
        denoiser = WORLD.denoiser(schedule)
        assert torch.allclose(end(denoiser, half, zero, loud), denoiser(x, half).mean)
        assert end(denoiser, one, half, 0 * loud).abs().max() < 10
