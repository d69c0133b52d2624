"""Langevin dynamics: variances by recursion, the published settings, and what a corrector does to an exact marginal."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.helpers.methods import METHODS
from tests.helpers.worlds import Gaussian
from unnoise.config.request import Request
from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Seeds
from unnoise.samplers import (
    State,
    Step,
    absolute,
    ddim,
    fraction,
    langevin,
    last,
    ncsn,
    ncsn_v2,
    predictor_corrector,
    reverse_diffusion,
    snr,
    walk,
)
from unnoise.samplers.timesteps import even
from unnoise.schedules import Cosine, LinearBeta, Schedule, SubVP, VarianceExploding, ZeroTerminalSNR


def white(seed: int, shape: tuple[int, ...]) -> Callable[[Tensor, int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda t, draw=0: torch.randn(shape, generator=generator, dtype=torch.float64)


def variance(step: Step, world: Gaussian, schedule: Schedule, times: Tensor, start: float, noises: int) -> float:
    """The exact variance at the end: row 0 is what becomes of the start, each other row of one of the noises alone."""
    keys: dict[tuple[float, int], int] = {}

    def one(t: Tensor, draw: int = 0) -> Tensor:
        row = keys.setdefault((t.item(), draw), len(keys) + 1)
        return torch.nn.functional.one_hot(torch.tensor(row), noises + 1).double()[:, None]

    x = torch.zeros(noises + 1, 1, dtype=torch.float64)
    x[0] = math.sqrt(start)
    found = last(walk(world.denoiser(schedule), x, times, step, one)).square().sum().item()
    assert len(keys) == noises  # each noise is its own
    return found


@pytest.mark.parametrize(
    ("step", "levels", "sigma_max", "expected"),
    [
        (ncsn(), 10, 1.0, 0.0928923),  # the code's step
        (langevin(absolute(2e-5, 0.01, half=True), 100, denoise=False), 10, 1.0, 0.0955914),  # the paper's text
        (langevin(fraction(0.062), 5, denoise=False), 232, 50.0, 0.1025937),  # NCSNv2
    ],
)
def test_annealed_langevin_on_gaussian_data(step: Step, levels: int, sigma_max: float, expected: float) -> None:
    """Data of standard deviation 0.3, a uniform start of variance 1/12; the ideal would be 0.3^2 + 0.01^2 = 0.0901.

    Computed independently of this program, by V <- (1 - c sigma^2 / v)^2 V + 2 c sigma^2 with v = 0.3^2 + sigma^2.
    """
    schedule = VarianceExploding(levels, 0.01, sigma_max)
    times, inner = even(schedule, levels), 5 if levels == 232 else 100
    found = variance(step, Gaussian(0, 0.3), schedule, times, 1 / 12, levels * inner)
    assert found == pytest.approx(expected, abs=6e-8)


def test_the_published_settings_are_shares() -> None:
    ones = torch.ones(1, 1)
    assert absolute(2e-5, 0.01)(ones, ones, 1.0) == pytest.approx(0.2)
    assert absolute(2e-5, 0.01, half=True)(ones, ones, 1.0) == pytest.approx(0.1)
    assert absolute(6.2e-6, 0.01)(ones, ones, 1.0) == pytest.approx(0.062)
    # score_sde's own words for both: 2 r^2, with r = 0.316 and 0.176
    assert pytest.approx(0.2, rel=0.01) == 2 * 0.316**2
    assert pytest.approx(0.062, rel=0.01) == 2 * 0.176**2


@pytest.mark.parametrize(("name", "levels", "sigma_max"), [("ncsn", 10, 1.0), ("ncsn-v2", 232, 50.0)])
def test_ncsn_by_name_for_pictures_in_our_range(name: str, levels: int, sigma_max: float) -> None:
    """Pictures p in [0, 1] are ours in [-1, 1] as x = 2 p - 1, their noise is twice as strong, and the walks are one.

    The shares of both stay, and both end without noise, in the estimate at the last level.
    """
    steps, seeds = METHODS[name].make(Request.of(steps=levels)), Seeds((1, 2), (5,))
    ends = []
    for scale, world in ((1.0, Gaussian(0.6, 0.15)), (2.0, Gaussian(0.2, 0.3))):
        schedule = VarianceExploding(levels, 0.01 * scale, sigma_max * scale)
        x = scale * (0.5 + sigma_max * seeds.start().double()) - (scale - 1)
        *_, before, end = walk(world.denoiser(schedule), x, even(schedule, levels), steps, seeds)
        assert torch.equal(end.x, end.history[-1].mean)
        ends.append(end.x)
    assert torch.allclose(2 * ends[0] - 1, ends[1], atol=1e-9)
    assert before.t == pytest.approx(1 / levels)


def test_denoising_is_one_more_look() -> None:
    """NCSNv2 ends with x + sigma^2 score, the estimate; NCSN with the noise of its last level."""
    schedule, world, asked = VarianceExploding(4, 0.1, 1.0), Gaussian(), []

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        asked.append(t.item())
        return Estimate(world.denoise(x, schedule(t)))

    seeds, denoiser = Seeds((1,), (5,)), Denoiser(schedule, estimate)
    with_, without = (
        list(walk(denoiser, seeds.start(), even(schedule, 4), langevin(fraction(0.1), 3, denoise=how), seeds))
        for how in (True, False)
    )
    assert asked == [t for t in (1.0, 0.75, 0.5, 0.25) for _ in range(3)] + [0.25] + asked[13:]
    assert len(asked) == 13 + 12
    assert torch.equal(with_[-1].x, world.denoise(without[-1].x, schedule.at(0.25)))
    assert with_[-1].history[-1].mean is not without[-1].history[-1].mean
    assert len(list(walk(denoiser, seeds.start(), even(schedule, 1), ncsn_v2(), seeds))) == 1


@pytest.mark.parametrize("c", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("schedule", [VarianceExploding(), LinearBeta(), SubVP()], ids=str)
def test_unadjusted_langevin_has_its_own_law(schedule: Schedule, c: float) -> None:
    """V' = (1 - step / v)^2 V + 2 step, and after many steps v / (1 - step / 2v): also where alpha is not 1."""
    world, t = Gaussian(0.0, 0.5), 0.6
    at = schedule.at(t)
    v, size = world.variance(at).item(), c * at.sigma.item() ** 2
    ends = torch.tensor([t, 0.3], dtype=torch.float64)
    grow = (schedule.at(0.3).alpha / at.alpha).item() ** 2
    one = variance(langevin(fraction(c), 1), world, schedule, ends, 1.7, 1) / grow
    assert one == pytest.approx((1 - size / v) ** 2 * 1.7 + 2 * size, rel=1e-9)
    many = variance(langevin(fraction(c), 400), world, schedule, ends, 1.7, 400) / grow
    assert many == pytest.approx(v / (1 - size / (2 * v)), rel=1e-6)


@pytest.mark.parametrize("schedule", [VarianceExploding(), Cosine()], ids=str)
@pytest.mark.parametrize("batch", [False, True])
def test_a_corrector_leaves_an_exact_marginal(schedule: Schedule, batch: bool) -> None:
    """In many dimensions the step is 2 r^2 v (alpha_t / alpha_s)^2, and V goes to (1 - step / v)^2 v + 2 step."""
    world, shape, r = Gaussian(0.0, 0.5), (8, 20_000), 0.2
    t, s = torch.tensor([0.6, 0.59], dtype=torch.float64)
    at = schedule(t)
    v = world.variance(at).item()
    x = white(0, shape)(t, 0)
    x = math.sqrt(v) * x / x.std()

    def stay(denoiser: Denoiser, state: State, s: Tensor, noise: object) -> State:
        return state

    step = predictor_corrector(stay, snr(r, batch=batch), 2)
    found = step(world.denoiser(schedule), State(x, t), s, white(1, shape)).x.var().item()
    share = 2 * r**2 * (at.alpha / schedule(s).alpha).item() ** 2  # of v
    expected = v
    for _ in range(2):
        expected = (1 - share) ** 2 * expected + 2 * share * v
    assert found == pytest.approx(expected, rel=0.006)
    assert abs(expected / v - 1) < 0.02


def test_the_corrector_has_noise_of_its_own() -> None:
    """Noise is keyed by (t, draw), and the predictor's is the first on arriving at t: used again by the corrector it
    would push twice the same way, and the walk end at 0.68."""
    schedule, world, shape = LinearBeta(), Gaussian(0.0, 0.5), (1, 100, 100)
    seeds = Seeds((3,), shape)
    found = last(
        walk(world.denoiser(schedule), seeds.start(), even(schedule, 50), METHODS["pc"].make(Request()), seeds)
    )
    assert found.std().item() == pytest.approx(0.503, abs=0.02)


def test_a_corrector_repairs_what_a_predictor_left() -> None:
    """A few steps of DDIM leave too little spread; ten corrections a step bring most of it back."""
    schedule, world, shape = VarianceExploding(), Gaussian(0.0, 0.5), (4, 4000)
    times = schedule.time(torch.tensor([-3.0, -1.0, 0.5, 1.5], dtype=torch.float64))
    x = world.variance(schedule(times[0])).sqrt() * white(0, shape)(times[0], 0)
    exact = world.variance(schedule(times[-1])).sqrt().item()
    off = []
    for step in (ddim(), predictor_corrector(ddim(), snr(0.3), 10, predictor_first=True)):
        off.append(last(walk(world.denoiser(schedule), x, times, step, white(1, shape))).std().item() - exact)
    assert off[0] < -0.1
    assert abs(off[1]) < 0.03


def test_a_picture_does_not_depend_on_its_batch_mates() -> None:
    """With the norms of each row; with those of the batch, as in the authors' code, it does."""
    schedule, world = LinearBeta(), Gaussian()
    both, alone = Seeds((1, 2), (30,)), Seeds((1,), (30,))

    def first(seeds: Seeds, batch: bool) -> Tensor:
        step = predictor_corrector(reverse_diffusion(), snr(0.1, batch=batch))
        return last(walk(world.denoiser(schedule), seeds.start(), even(schedule, 5), step, seeds))[0]

    assert torch.allclose(first(both, False), first(alone, False), atol=1e-6)
    assert not torch.allclose(first(both, True), first(alone, True), atol=1e-6)


def test_the_batch_mode_is_the_authors_formula() -> None:
    """step = 2 alpha (r mean ||z|| / mean ||score||)^2; x + step score + sqrt(2 step) z."""
    schedule, world, r = LinearBeta(), Gaussian(), 0.16
    t, s = torch.tensor([0.4, 0.399], dtype=torch.float64)
    x, z = white(0, (3, 7))(t, 0), white(1, (3, 7))(t, 0)
    at = schedule(t)
    score = at.score(x, world.denoise(x, at))
    beta = schedule.betas()[399].item()
    size = 2 * (1 - beta) * (r * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2
    expected = x + size * score + (2 * size).sqrt() * z

    def stay(denoiser: Denoiser, state: State, s: Tensor, noise: object) -> State:
        return state

    step = predictor_corrector(stay, snr(r, batch=True))
    found = step(world.denoiser(schedule), State(x, t), s, lambda t, draw: z).x
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("predictor_first", [False, True])
def test_calls_and_order(predictor_first: bool) -> None:
    """N (M + 1) calls as in the code, the predictor last; predictor first, the picture is not corrected."""
    schedule, world, asked = LinearBeta(), Gaussian(), []

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        asked.append(round(t.item(), 6))
        return Estimate(world.denoise(x, schedule(t)))

    step = predictor_corrector(ddim(), snr(0.1), 2, predictor_first=predictor_first)
    seeds = Seeds((1,), (6,))
    end = list(walk(Denoiser(schedule, estimate), seeds.start(), even(schedule, 2), step, seeds))[-1]
    assert asked == ([1.0, 0.5, 0.5, 0.5] if predictor_first else [1.0, 1.0, 1.0, 0.5, 0.5, 0.5])
    assert torch.allclose(end.x, end.history[-1].mean)


def test_ends() -> None:
    """Nothing is corrected where nothing is left of the picture, nor where the pull is nothing."""
    schedule = ZeroTerminalSNR(LinearBeta())
    x, t, s = torch.ones(2, 3), torch.tensor(1.0).double(), torch.tensor(0.9).double()
    still = Denoiser(schedule, lambda x, t: Estimate(torch.zeros_like(x)))
    step = predictor_corrector(ddim(), snr(0.2))
    assert torch.equal(
        step(still, State(x, t), s, white(0, (2, 3))).x, ddim()(still, State(x, t), s, white(0, (2, 3))).x
    )
    zero = torch.zeros(2, 3)
    assert torch.equal(snr(0.2)(zero, torch.ones(2, 3), 1.0), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="at least one"):
        langevin(fraction(0.1), 0)(still, State(x, t), s, white(0, (2, 3)))
