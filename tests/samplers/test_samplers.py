"""Laws of samplers: exact kernels, orders of convergence, published tables; on worlds whose path is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.helpers.methods import METHODS
from tests.helpers.worlds import Finite, Gaussian, Mixture
from unnoise.config.request import Request
from unnoise.denoiser import Denoiser, Estimate
from unnoise.errors import UserError
from unnoise.guidance import clip_denoised
from unnoise.noise import Seeds
from unnoise.samplers import SPACINGS, State, Step, ddim, ddpm, heun, known, large, last, learned, small, walk
from unnoise.samplers.ddpm import Variance
from unnoise.samplers.timesteps import (
    ddim_quadratic,
    ddim_uniform,
    even,
    even_log_snr,
    from_entries,
    karras,
    leading,
    linspace,
    trailing,
)
from unnoise.schedules import (
    EDM,
    Cosine,
    CosineContinuous,
    Flow,
    LinearBeta,
    Schedule,
    Sigmoid,
    VarianceExploding,
    ZeroTerminalSNR,
    posterior,
)

SCHEDULES: list[Schedule] = [
    LinearBeta(), Cosine(), CosineContinuous(), Sigmoid(), ZeroTerminalSNR(LinearBeta()), Flow(), EDM(),
    VarianceExploding(),
]  # fmt: skip
STEPS: dict[str, Step] = {
    "ddim": ddim(),
    "ddim-half": ddim(0.5),
    "ddim-one": ddim(1.0),
    "sigma-hat": ddim(sigma_hat=True),
    "small": ddpm(small),
    "large": ddpm(large),
    "known": ddpm(known(0.25)),
    "heun": heun(),
    "heun-churn": heun(0.2),
}


def silence(t: Tensor, draw: int = 0) -> Tensor:
    return torch.zeros(1, dtype=torch.float64)


def white(seed: int, shape: tuple[int, ...]) -> Callable[[Tensor, int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda t, draw=0: torch.randn(shape, generator=generator, dtype=torch.float64)


def gain(step: Step, world: Gaussian, schedule: Schedule, times: Tensor) -> float:
    """By what a deterministic walk multiplies a deviation from the mean: walks are affine on a Gaussian world."""
    denoiser = world.denoiser(schedule)
    start = schedule(times[0])
    here = start.alpha * world.mean
    x = torch.stack([here, here + 1])[:, None]
    low, high = last(walk(denoiser, x, times, step, silence)).flatten().tolist()
    assert low == pytest.approx(world.mean, abs=1e-9)
    return high - low


def variances(step_noise: Callable[[int], float], step_gain: Callable[[int], float], start: float, n: int) -> float:
    value = start
    for i in range(n):
        value = step_gain(i) ** 2 * value + step_noise(i) ** 2
    return value


def spread(step: Step, world: Gaussian, schedule: Schedule, times: Tensor, start: float = 1.0) -> float:
    """The exact standard deviation at the end of a stochastic walk: the recursion V' = A^2 V + B^2, step by step.

    Each step is affine in its state and its noise; A and B are read off it.
    """
    denoiser = world.denoiser(schedule)
    variance = start**2
    for t, s in pairwise(times):
        here = schedule(t).alpha * world.mean

        def at(x: Tensor, z: float, t: Tensor = t, s: Tensor = s) -> float:
            noise = torch.full((1, 1), z, dtype=torch.float64)
            return step(denoiser, State(x.reshape(1, 1), t), s, lambda s, draw=0: noise).x.item()

        middle = at(here, 0)
        variance = (at(here + 1, 0) - middle) ** 2 * variance + (at(here, 1) - middle) ** 2
    return math.sqrt(variance)


# --- DDIM: published and closed forms ---


@pytest.mark.parametrize(("steps", "expected"), [(1, 0.0), (2, 0.5), (4, 0.728553), (8, 0.856232), (16, 0.925676)])
def test_ddim_shrinks_by_the_product_of_cosines(steps: int, expected: float) -> None:
    schedule = CosineContinuous()
    assert gain(ddim(), Gaussian(0, 1), schedule, even(schedule, steps)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_ddim_step_turns_by_an_angle(schedule: Schedule) -> None:
    """sqrt(v_s / v_t) cos(phi_t - phi_s), phi = atan(sigma / (std alpha)): any pair of times."""
    world = Gaussian()
    for t, s in ((0.9, 0.5), (0.5, 0.49), (0.3, 0.0), (1.0, 0.7)):
        at, to = schedule.at(t), schedule.at(s)
        phi_t, phi_s = (torch.atan2(level.sigma, world.std * level.alpha) for level in (at, to))
        turned = (world.variance(to) / world.variance(at)).sqrt() * torch.cos(phi_t - phi_s)
        times = torch.tensor([t, s], dtype=torch.float64)
        denoiser = world.denoiser(schedule)
        x = at.alpha * world.mean + torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        low, high = last(walk(denoiser, x, times, ddim(), silence)).flatten()
        assert (high - low).item() == pytest.approx(turned.item(), abs=1e-12)


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), Flow()], ids=str)
def test_one_noise_is_one_picture_in_any_number_of_steps(schedule: Schedule) -> None:
    """The consistency of sec. 5.2 of Song et al. 2020: how far the pictures of 10, 20 and 40 steps are from those of
    160, from the same noises. With eta 0, which makes a function of x_T, it is c (1/n - 1/160) for all but the few
    noises between two modes, hence the median; with eta 1 it hardly falls."""
    world, seeds = Mixture(), Seeds(tuple(range(256)), (2,))
    start = seeds.start().double()

    def end(steps: int, eta: float) -> Tensor:
        return last(walk(world.denoiser(schedule), start, even(schedule, steps), ddim(eta), seeds))

    same, other = ([(end(n, eta) - end(160, eta)).norm(dim=1) for n in (10, 20, 40)] for eta in (0.0, 1.0))
    medians = [each.median().item() for each in same]
    assert [wide / near for wide, near in pairwise(medians)] == pytest.approx([15 / 7, 7 / 3], rel=0.12)
    means = [each.mean().item() for each in other]
    assert min(means) > 0.75 * max(means)
    assert min(means) > 20 * same[-1].mean().item()


# Final standard deviations, Gaussian world of std 0.5, linear betas, x_T ~ N(0, 1); computed independently.
TABLE = {
    10: (0.37413, 0.33326, 0.58903, 0.42452, 0.37288),
    20: (0.43373, 0.39146, 0.54406, 0.46278, 0.42912),
    50: (0.47244, 0.44412, 0.51723, 0.48527, 0.46928),
    100: (0.48598, 0.46826, 0.50849, 0.49270, 0.48403),
    1000: (0.49850, 0.49611, 0.50075, 0.49875, 0.49611),
}


@pytest.mark.parametrize("steps", [10, 20, 50, 100])
def test_the_published_grid_of_eta_and_spacing(steps: int) -> None:
    schedule, world = LinearBeta(), Gaussian(0, 0.5)
    uniform, quadratic = ddim_uniform()(schedule, steps), ddim_quadratic()(schedule, steps)
    walks = (
        (ddim(), uniform),
        (ddim(1.0), uniform),
        (ddim(sigma_hat=True), uniform),
        (ddim(), quadratic),
        (ddim(1.0), quadratic),
    )
    found = [spread(step, world, schedule, times) for step, times in walks]
    assert found == pytest.approx(TABLE[steps], abs=6e-6)


@pytest.mark.slow
def test_the_published_grid_at_a_thousand_steps() -> None:
    schedule, world = LinearBeta(), Gaussian(0, 0.5)
    uniform = ddim_uniform()(schedule, 1000)
    found = [spread(step, world, schedule, uniform) for step in (ddim(), ddim(1.0), ddim(sigma_hat=True))]
    assert found == pytest.approx(TABLE[1000][:3], abs=6e-6)


# --- grids ---


def entries(times: Tensor, table: int = 1000) -> list[int]:
    assert times[-1] == 0
    return [round(t * table - 1) for t in times[:-1].tolist()][::-1]


def test_grids_are_the_published_lists() -> None:
    schedule = LinearBeta()
    assert entries(ddim_uniform()(schedule, 10)) == list(range(0, 1000, 100))
    assert entries(ddim_quadratic()(schedule, 10)) == [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]
    assert entries(ddim_quadratic()(schedule, 20)) == [
        0, 2, 8, 19, 35, 55, 79, 108, 141, 179, 221, 268, 319, 374, 434, 498, 567, 640, 718, 800,
    ]  # fmt: skip
    assert len(entries(ddim_quadratic()(schedule, 50))) == 49  # the authors' 50 hold one twice
    assert len(entries(ddim_quadratic()(schedule, 100))) == 96
    assert len(entries(ddim_uniform()(schedule, 30))) == 31
    assert len(entries(leading()(schedule, 30))) == 30
    assert entries(leading()(schedule, 10)) == list(range(0, 1000, 100))
    assert entries(linspace()(schedule, 10)) == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert entries(trailing()(schedule, 10)) == list(range(99, 1000, 100))
    assert entries(even(schedule, 10)) == list(range(99, 1000, 100))


def test_karras_sigmas_are_the_published_ones() -> None:
    sigmas = torch.exp(-EDM()(karras()(EDM(), 32)[:-1]).log_ratio)
    assert sigmas[0].item() == pytest.approx(80)
    assert sigmas[17].item() == pytest.approx(1.608571, abs=1e-6)
    assert sigmas[22].item() == pytest.approx(0.283044, abs=1e-6)
    assert sigmas[31].item() == pytest.approx(0.002)


def test_even_log_snr_is_even() -> None:
    ratios = CosineContinuous()(even_log_snr()(CosineContinuous(), 9)[:-1]).log_ratio
    assert torch.allclose(ratios.diff(), torch.full((8,), 10.2 / 8, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_every_grid_falls_strictly_to_the_picture(name: str, schedule: Schedule, steps: int) -> None:
    times = SPACINGS[name](1000)(schedule, steps)
    assert times.dtype == torch.float64
    assert times[-1] == 0
    assert 0 < times[0] <= 1
    assert (times.diff() < 0).all()
    if name not in ("ddim-uniform", "ddim-quadratic"):
        assert len(times) == steps + 1


def test_impossible_grids_are_refused() -> None:
    for make in (leading(), trailing(), linspace(), ddim_uniform(), ddim_quadratic(), even, karras(), even_log_snr()):
        with pytest.raises(UserError, match="step"):
            make(LinearBeta(), 0)
    with pytest.raises(UserError, match="use 1 to 1000"):
        leading()(LinearBeta(), 1001)


# --- kernels ---


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_eta_one_is_ancestral_with_the_small_variance(schedule: Schedule) -> None:
    world, noise = Gaussian(), white(0, (5, 3))
    x = torch.randn(5, 3, dtype=torch.float64)
    t, s = (torch.tensor(time, dtype=torch.float64) for time in (0.8, 0.6))
    fixed = noise(t, 0)
    a, b = (step(world.denoiser(schedule), State(x, t), s, lambda s, draw=0: fixed).x for step in (ddim(1.0), ddpm()))
    assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("eta", [0.2, 0.5, 1.0])
def test_eta_is_the_share_of_the_posteriors_deviation(eta: float) -> None:
    """The paper's sigma(eta), eq. 16, in its own letters: what multiplies z. And the rest of the noise is kept."""
    schedule, world = LinearBeta(), Finite(torch.tensor([[0.3]], dtype=torch.float64))
    t, s = (torch.tensor(time, dtype=torch.float64) for time in (0.5, 0.4))
    kept_t, kept_s = schedule(t).alpha.square(), schedule(s).alpha.square()
    sigma = eta * ((1 - kept_s) / (1 - kept_t)).sqrt() * (1 - kept_t / kept_s).sqrt()
    x = torch.tensor([[0.7]], dtype=torch.float64)

    def moved(z: float, x: Tensor = x) -> float:
        noise = torch.full((1, 1), z, dtype=torch.float64)
        return ddim(eta)(world.denoiser(schedule), State(x, t), s, lambda s, draw=0: noise).x.item()

    assert moved(1) - moved(0) == pytest.approx(sigma.item(), rel=1e-9)
    gain = moved(0, x + 1) - moved(0)
    assert gain == pytest.approx(((1 - kept_s - sigma**2) / (1 - kept_t)).sqrt().item(), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_known_variance_reproduces_every_marginal(schedule: Schedule) -> None:
    """Ancestral steps with the best variance are exact on Gaussian data: V stays alpha^2 s^2 + sigma^2 at every t."""
    world = Gaussian(0.2, 0.5)
    times = torch.tensor([1.0, 0.9, 0.5, 0.49, 0.1], dtype=torch.float64)
    start = world.variance(schedule(times[0])).sqrt().item()
    for n in range(2, 6):
        expected = world.variance(schedule(times[n - 1])).sqrt().item()
        found = spread(ddpm(known(0.25)), world, schedule, times[:n], start)
        assert found == pytest.approx(expected, rel=1e-9)


def test_the_large_variance_is_best_for_unit_data_and_the_small_for_a_point() -> None:
    at, to = LinearBeta().at(0.5), LinearBeta().at(0.499)
    kernel, estimate = posterior(at, to), Estimate(torch.zeros(1, 1, dtype=torch.float64))
    assert known(1.0)(kernel, at, estimate).item() == pytest.approx(large(kernel, at, estimate).item(), rel=1e-12)
    assert known(0.0)(kernel, at, estimate).item() == pytest.approx(small(kernel, at, estimate).item(), rel=1e-12)


def test_a_learned_variance_lies_between_in_the_logarithm() -> None:
    at, to = LinearBeta().at(0.002), LinearBeta().at(0.001)
    kernel = posterior(at, to)
    zeros = torch.zeros(1, 1, dtype=torch.float64)
    for share, expected in ((0.0, kernel.small), (1.0, kernel.large), (0.5, (kernel.small * kernel.large).sqrt())):
        assert learned(kernel, at, Estimate(zeros, zeros + share)).item() == pytest.approx(expected.item(), rel=1e-9)
    with pytest.raises(ValueError, match="did not learn"):
        learned(kernel, at, Estimate(zeros))


@pytest.mark.parametrize("variance", [small, large, known(0.25), learned])
def test_the_last_step_adds_no_noise(variance: Variance) -> None:
    schedule, world = LinearBeta(), Gaussian()
    exact = world.denoiser(schedule)
    denoiser = Denoiser(schedule, lambda x_t, t: Estimate(exact(x_t, t).mean, torch.full_like(x_t, 0.5)))
    x = torch.randn(3, 2, dtype=torch.float64)
    t, zero = torch.tensor(0.02, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    for step in (ddpm(variance), ddim(1.0), ddim(sigma_hat=True), heun()):
        end = step(denoiser, State(x, t), zero, lambda s, draw=0: torch.full_like(x, 1e9)).x
        assert torch.allclose(end, exact(x, t).mean)


# --- whole walks ---


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize(("step", "order"), [(ddim(), 1), (heun(), 2)], ids=["ddim", "heun"])
def test_order_of_convergence(step: Step, order: int, schedule: Schedule) -> None:
    """Error at the end of an interior stretch against the exact flow, fitted over halvings of the step."""
    world = Gaussian(0.2, 0.5)
    top, bottom = schedule.time(torch.tensor([-2.0, 2.0], dtype=torch.float64))  # log(alpha / sigma)
    x = schedule(top).alpha * world.mean + torch.ones(1, 1, dtype=torch.float64)
    exact = world.flow(x, schedule(top), schedule(bottom))
    errors = []
    for steps in (64, 128):
        ratios = torch.linspace(-2, 2, steps + 1, dtype=torch.float64)
        end = last(walk(world.denoiser(schedule), x, schedule.time(ratios), step, silence))
        errors.append((end - exact).abs().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", STEPS)
def test_a_long_walk_ends_in_the_world(name: str, schedule: Schedule) -> None:
    world = Gaussian(0.2, 0.5)
    times = even_log_snr(-5.0, 7.0)(schedule, 400)
    start = schedule(times[0])
    if name == "heun-churn":
        x = start.alpha * world.mean + world.variance(start).sqrt() * white(1, (40_000, 1))(times[0])
        end = last(walk(world.denoiser(schedule), x, times[::8], heun(0.05), white(2, (40_000, 1))))
        found = end.std().item()
        assert found == pytest.approx(0.5, rel=0.03)
    else:
        found = spread(STEPS[name], world, schedule, times, world.variance(start).sqrt().item())
        assert found == pytest.approx(0.5, rel=0.03)


def test_churn_lands_on_the_marginal_it_says() -> None:
    """Raising the noise on an exact marginal gives the exact marginal of the higher level: variance s^2 + ratio^2."""
    from unnoise.samplers.heun import _churned

    world, schedule = Gaussian(0, 0.5), LinearBeta()
    t = torch.tensor(0.3, dtype=torch.float64)
    at = schedule(t)
    base = at.alpha * 0
    zero = torch.zeros(1, 1, dtype=torch.float64)
    denoiser = world.denoiser(schedule)
    moved = _churned(denoiser, State(zero + base + 1, t), 0.3, (0, 99), 1.0, lambda s, draw: zero)
    noised = _churned(denoiser, State(zero, t), 0.3, (0, 99), 1.0, lambda s, draw: zero + 1)
    to = schedule(moved.t)
    assert (to.sigma / to.alpha).item() == pytest.approx(1.3 * (at.sigma / at.alpha).item())
    variance = moved.x.item() ** 2 * world.variance(at).item() + noised.x.item() ** 2
    assert variance == pytest.approx(world.variance(to).item(), rel=1e-9)
    untouched = _churned(denoiser, State(zero + 1, t), 0.3, (5.0, 99), 1.0, lambda s, draw: zero + 1)
    assert untouched.x.item() == 1
    assert untouched.t == t


def test_churn_raises_the_noise_by_at_most_the_root_of_two() -> None:
    """Algorithm 2 of Karras et al. 2022: gamma is min(S_churn / N, sqrt(2) - 1)."""
    schedule = EDM()
    for gamma, raised in ((0.3, 1.3), (10.0, math.sqrt(2))):
        calls: list[float] = []
        denoiser = Denoiser(schedule, lambda x_t, t, calls=calls: (calls.append(t.item()), Estimate(x_t))[1])
        t, s = (torch.tensor(time, dtype=torch.float64) for time in (0.2, 0.1))
        heun(gamma)(denoiser, State(torch.zeros(1, 1), t), s, silence)
        assert calls[0] / 0.2 == pytest.approx(raised, rel=1e-9)


def test_heun_churn_has_the_settings_of_the_paper() -> None:
    """Table 5 of Karras et al. 2022, ImageNet-64: S_churn 40, S_min 0.05, S_max 50, S_noise 1.003; here by its steps.

    The picture is 0, so the state after the churn is its noise: S_noise times the root of the added variance.
    """
    schedule, steps = EDM(), 256
    step = METHODS["heun-churn"].make(Request.of(steps=steps))

    def churned(sigma: float) -> tuple[float, float]:
        """sigma and x at the first evaluation of a step from (0, sigma), whose noise is 1."""
        seen: list[tuple[float, float]] = []

        def estimate(x_t: Tensor, t: Tensor) -> Estimate:
            seen.append((80 * t.item(), x_t.item()))
            return Estimate(torch.zeros_like(x_t))

        t, x = torch.tensor(sigma / 80, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        step(Denoiser(schedule, estimate), State(x, t), t / 2, lambda s, draw=0: torch.ones_like(x))
        return seen[0]

    for sigma in (0.0501, 1.0, 49.9):
        raised = (1 + 40 / steps) * sigma
        assert churned(sigma) == pytest.approx((raised, 1.003 * math.sqrt(raised**2 - sigma**2)), rel=1e-9)
    for sigma in (0.0499, 50.1):
        assert churned(sigma) == (pytest.approx(sigma), 0.0)


@pytest.mark.parametrize("name", STEPS)
def test_a_single_point_is_found_in_any_number_of_steps(name: str) -> None:
    point = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    for schedule in (LinearBeta(), Flow(), EDM()):
        for steps in (1, 3):
            times = even(schedule, steps)
            x = torch.randn(4, 2, dtype=torch.float64) * schedule(times[0]).sigma
            end = last(walk(Finite(point).denoiser(schedule), x, times, STEPS[name], white(0, (4, 2))))
            assert torch.allclose(end, point.expand(4, 2), atol=1e-9)


def test_a_finite_data_set_is_drawn_from_itself() -> None:
    points = torch.tensor([[1.0, 1.0], [-1.0, 0.5], [0.0, -1.0]], dtype=torch.float64)
    schedule = LinearBeta()
    x = white(3, (60, 2))(torch.tensor(1.0))
    end = last(walk(Finite(points).denoiser(schedule), x, even(schedule, 60), ddpm(), white(4, (60, 2))))
    distance = torch.cdist(end, points).min(1)
    assert distance.values.max() < 1e-3
    assert set(distance.indices.tolist()) == {0, 1, 2}


def test_a_mixture_keeps_its_weights() -> None:
    world, schedule = Mixture(), Cosine()
    x = white(5, (6000, 2))(torch.tensor(1.0))
    end = last(walk(world.denoiser(schedule), x, karras()(schedule, 40), heun(), silence))
    nearest = torch.cdist(end, torch.tensor(world.means, dtype=torch.float64)).argmin(1)
    shares = torch.bincount(nearest, minlength=3) / 6000
    assert torch.allclose(shares, torch.tensor(world.weights), atol=0.03)


def test_edm_sampling_is_the_papers_algorithm() -> None:
    """Algorithm 1 of Karras et al., written out again in sigma, against `heun` on the EDM schedule."""
    world, schedule = Gaussian(0.2, 0.5), EDM()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return world.mean + world.std**2 / (world.std**2 + sigma**2) * (x - world.mean)

    x = torch.randn(3, 2, dtype=torch.float64) * 80
    times = karras()(schedule, 18)
    ours = last(walk(world.denoiser(schedule), x, times, heun(), silence))
    sigmas = [80 * t for t in times.tolist()]
    for now, after in pairwise(sigmas):
        slope = (x - denoise(x, now)) / now
        moved = x + (after - now) * slope
        if after:
            slope = (slope + (moved - denoise(moved, after)) / after) / 2
            moved = x + (after - now) * slope
        x = moved
    assert torch.allclose(ours, x, atol=1e-10)


# --- robust ends, rows, purity ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", STEPS)
def test_no_walk_divides_by_zero(name: str, schedule: Schedule, dtype: torch.dtype) -> None:
    world = Gaussian()
    for grid in (even, karras()):
        for steps in (1, 2, 30):
            times = grid(schedule, steps)
            x = (torch.randn(2, 3) * schedule(times[0]).sigma.float()).to(dtype)
            end = last(walk(world.denoiser(schedule), x, times, STEPS[name], white(0, (2, 3))))
            assert torch.isfinite(end).all()
            assert end.dtype == dtype


@pytest.mark.parametrize("name", STEPS)
def test_rows_may_be_at_different_times(name: str) -> None:
    """A batch whose rows walk on their own grids is the rows walked alone."""
    schedule, world = LinearBeta(), Gaussian()
    grids = torch.stack([even(schedule, 6), karras()(schedule, 6), leading()(schedule, 6)], 1)
    seeds = Seeds((5, 6, 7), (2, 3, 3))
    together = last(walk(world.denoiser(schedule), seeds.start(), grids, STEPS[name], seeds))
    for i in range(3):
        own = Seeds((5 + i,), (2, 3, 3))
        alone = last(walk(world.denoiser(schedule), own.start(), grids[:, i], STEPS[name], own))
        assert torch.allclose(together[i], alone[0], atol=1e-5)


def test_a_row_that_has_arrived_waits_for_none() -> None:
    """Rows that end earlier are at s = 0 while others go on: no noise, no NaN for the one that arrives."""
    schedule, world = LinearBeta(), Gaussian()
    t, s = torch.tensor([0.1, 0.9], dtype=torch.float64), torch.tensor([0.0, 0.5], dtype=torch.float64)
    x = torch.randn(2, 4, dtype=torch.float64)
    for step in STEPS.values():
        end = step(world.denoiser(schedule), State(x, t), s, lambda s, draw=0: torch.full_like(x, 1.0)).x
        assert torch.isfinite(end).all()
    clean = ddpm(large)(world.denoiser(schedule), State(x, t), s, lambda s, draw=0: torch.full_like(x, 1e9)).x
    assert torch.allclose(clean[0], world.denoise(x, schedule(t))[0])


def test_a_walk_can_be_taken_up_again_at_any_state() -> None:
    schedule, world, seeds = LinearBeta(), Gaussian(), Seeds((1, 2), (1, 4, 4))
    times = even(schedule, 8)
    states = list(walk(world.denoiser(schedule), seeds.start(), times, ddpm(), seeds))
    assert len(states) == 8
    again = last(walk(world.denoiser(schedule), states[3].x, times[4:], ddpm(), seeds))
    assert torch.equal(again, states[-1].x)
    assert torch.equal(states[3].history[-1].mean, world.denoise(states[2].x, schedule(times[3])))


def test_a_walk_keeps_no_gradients_and_leaves_the_mode_alone() -> None:
    schedule, weight = LinearBeta(), torch.ones(1, requires_grad=True)
    denoiser = Denoiser(schedule, lambda x_t, t: Estimate(x_t * weight))
    for state in walk(denoiser, torch.ones(1, 1), even(schedule, 3), ddim(), silence):
        assert not state.x.requires_grad
        assert torch.is_grad_enabled()


def test_clipping_is_seen_by_the_noise() -> None:
    """The step from a clipped estimate uses the noise of the clipped estimate: x_s is on the line through both."""
    schedule = LinearBeta()
    denoiser = clip_denoised(Denoiser(schedule, lambda x_t, t: Estimate(torch.full_like(x_t, 3.0))))
    x, t, s = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor(0.6), torch.tensor(0.4)
    at, to = schedule(t), schedule(s)
    expected = to.alpha * 1.0 + to.sigma * (x - at.alpha * 1.0) / at.sigma
    assert torch.allclose(ddim()(denoiser, State(x, t.double()), s.double(), silence).x, expected)


def test_bad_choices_are_refused() -> None:
    for eta in (-0.1, 1.1):
        with pytest.raises(ValueError, match="eta"):
            ddim(eta)
    with pytest.raises(ValueError, match="gamma"):
        heun(-1)


def test_every_name_makes_a_step() -> None:
    schedule, world = LinearBeta(), Gaussian()
    exact = world.denoiser(schedule)
    denoiser = Denoiser(schedule, lambda x_t, t: Estimate(exact(x_t, t).mean, torch.full_like(x_t, 0.5)))
    calls = []
    counted = Denoiser(schedule, lambda x_t, t: (calls.append(1), denoiser(x_t, t))[1])
    for name, sampler in METHODS.items():
        calls.clear()
        times = SPACINGS[sampler.spacing](1000)(schedule, 10)
        noise = white(0, (2, 3))
        end = last(walk(counted, noise(times[0]), times, sampler.make(Request.of(steps=10)), noise))
        assert torch.isfinite(end).all(), name
        assert len(calls) == 9 * sampler.calls + sampler.last_calls, name


def test_entries_are_where_the_clock_says() -> None:
    assert from_entries(torch.tensor([999, 0]), 1000).tolist() == [1.0, 0.001, 0.0]
