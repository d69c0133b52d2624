"""Laws of schedules: clean at 0, falling, invertible; tables exact at k/T; published values."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import pytest
import torch

from tests.helpers.worlds import Gaussian
from unnoise.errors import UserError
from unnoise.schedules import (
    EDM,
    SCHEDULES,
    VPSDE,
    Cosine,
    CosineContinuous,
    Flow,
    LinearBeta,
    ScaledLinear,
    Schedule,
    Shifted,
    Sigmoid,
    SigmoidBeta,
    SubVP,
    Table,
    Tabled,
    VarianceExploding,
    ZeroTerminalSNR,
    make_schedule,
    posterior,
)

ALL: list[Schedule] = [
    LinearBeta(),
    LinearBeta(steps=100),
    ScaledLinear(begin=0.00085, end=0.012),
    Cosine(),
    Cosine(steps=4000),
    SigmoidBeta(),
    Table((0.1, 0.2, 0.3, 0.05)),
    CosineContinuous(),
    CosineContinuous(offset=0.008),
    Sigmoid(),
    ZeroTerminalSNR(LinearBeta()),
    ZeroTerminalSNR(Sigmoid(-3, 2)),
    Shifted(Cosine(), 0.25),
    Shifted(CosineContinuous(), 4.0),
    Flow(),
    EDM(),
    VarianceExploding(),
    VPSDE(),
    SubVP(),
]
everywhere = pytest.mark.parametrize("schedule", ALL, ids=str)


@everywhere
def test_begins_clean(schedule: Schedule) -> None:
    level = schedule.at(0.0)
    assert level.alpha == 1
    assert level.sigma == 0
    assert level.log_ratio == math.inf


@everywhere
def test_log_ratio_falls_strictly(schedule: Schedule) -> None:
    ratios = schedule(torch.linspace(0, 1, 3001, dtype=torch.float64)).log_ratio
    assert (ratios.diff() < 0).all()


@everywhere
def test_time_inverts(schedule: Schedule) -> None:
    t = torch.linspace(0, 0.999, 777, dtype=torch.float64)
    assert torch.allclose(schedule.time(schedule(t).log_ratio), t, atol=1e-9, rtol=0)


@everywhere
def test_levels_do_not_depend_on_shape(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 12, dtype=torch.float64)
    square = schedule(t.reshape(3, 4))
    assert torch.equal(square.alpha.flatten(), schedule(t).alpha)
    assert torch.equal(square.sigma[1, 2], schedule(t[6]).sigma)


@pytest.mark.parametrize("schedule", [s for s in ALL if isinstance(s, Tabled)], ids=str)
def test_table_is_the_product_of_its_betas(schedule: Tabled) -> None:
    betas = schedule.betas()
    steps = len(betas)
    kept = 1.0
    for k in range(1, steps + 1):
        kept *= 1 - betas[k - 1].item()
        level = schedule.at(k / steps)
        assert level.alpha.item() ** 2 == pytest.approx(kept, rel=1e-12)
        assert level.sigma.item() ** 2 == pytest.approx(1 - kept, rel=1e-9)


def test_between_entries_log_alpha_is_linear() -> None:
    low, middle, high = (LinearBeta().at(k / 1000).alpha.log() for k in (500, 500.25, 501))
    assert middle.item() == pytest.approx((0.75 * low + 0.25 * high).item(), rel=1e-12)


def test_published_values_of_the_linear_schedule() -> None:
    schedule = LinearBeta()
    assert schedule.at(1.0).alpha.item() ** 2 == pytest.approx(4.035829765e-5, rel=1e-9)
    assert schedule.at(801 / 1000).alpha.item() == pytest.approx(0.03882681, abs=1e-8)
    assert schedule.at(901 / 1000).alpha.item() == pytest.approx(0.01643912, abs=1e-8)


def test_other_lengths_rescale_the_ends() -> None:
    betas = LinearBeta(steps=250).betas()
    assert betas[0] == pytest.approx(4e-4)
    assert betas[-1] == pytest.approx(0.08)


def test_published_values_of_the_cosine_schedule() -> None:
    assert Cosine().at(1.0).alpha.item() ** 2 == pytest.approx(2.4e-9, rel=0.02)
    assert Cosine(4000).at(1.0).alpha.item() ** 2 == pytest.approx(1.5e-10, rel=0.03)
    assert math.sqrt(Cosine().betas()[0].item()) == pytest.approx(0.006425, abs=1e-6)
    assert (Cosine().betas() == 0.999).sum() == 1  # only the last one meets the clip


def test_the_discretised_cosine_follows_the_continuous_one() -> None:
    t = torch.linspace(0, 0.99, 100, dtype=torch.float64)
    assert torch.allclose(Cosine().log_alpha2(t), CosineContinuous(0.008).log_alpha2(t), atol=2e-5)


def test_sigmoid_is_the_papers_curve() -> None:
    # alpha^2 = (sigmoid(e/tau) - sigmoid((t (e - s) + s)/tau)) / (sigmoid(e/tau) - sigmoid(s/tau)), at a point by hand
    def squash(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    expected = (squash(3) - squash(0.3 * 6 - 3)) / (squash(3) - squash(-3))
    assert Sigmoid().at(0.3).alpha.item() ** 2 == pytest.approx(expected, rel=1e-12)


def test_exploding_levels_are_geometric() -> None:
    schedule = VarianceExploding()
    sigmas = schedule(torch.arange(1, 1001, dtype=torch.float64) / 1000).sigma
    assert sigmas[0].item() == pytest.approx(0.01, rel=1e-9)
    assert sigmas[-1].item() == pytest.approx(50, rel=1e-9)
    assert torch.allclose(sigmas[1:] / sigmas[:-1], (sigmas[1] / sigmas[0]).expand(999), rtol=1e-9)


def test_published_values_of_the_sdes() -> None:
    """alpha^2(1), sigma / alpha at both ends of sampling, and LinearBeta as the table of VPSDE."""
    schedule, sub = VPSDE(), SubVP()
    assert schedule.at(1.0).alpha.item() ** 2 == pytest.approx(4.3186e-5, rel=1e-4)
    for t, expected in ((1.0, 152.17), (1e-3, 0.010486), (1e-5, 0.0010005)):
        assert torch.exp(-schedule.at(t).log_ratio).item() == pytest.approx(expected, rel=1e-4)
    for t in (0.001, 0.3, 1.0):
        assert schedule.at(t).alpha.log().item() == pytest.approx(-(t**2) * 19.9 / 4 - 0.1 * t / 2, rel=1e-12)
        assert sub.at(t).alpha == schedule.at(t).alpha
        assert sub.at(t).sigma.item() == pytest.approx(schedule.at(t).sigma.item() ** 2, rel=1e-9)
    assert LinearBeta().at(0.5).alpha.item() == pytest.approx(schedule.at(0.5).alpha.item(), rel=0.01)


def test_zero_terminal_snr_ends_at_zero_and_keeps_the_first_entry() -> None:
    base = LinearBeta()
    schedule = ZeroTerminalSNR(base)
    assert schedule.at(1.0).alpha == 0
    assert schedule.at(1.0).sigma == 1
    assert schedule.at(1 / 1000).alpha.item() == pytest.approx(base.at(1 / 1000).alpha.item(), rel=1e-12)
    # algorithm 1 of the paper, at one entry
    first, last, k = (base.at(t).alpha.item() for t in (0.001, 1.0, 0.4))
    assert schedule.at(0.4).alpha.item() == pytest.approx((k - last) * first / (first - last), rel=1e-12)


def test_a_shift_multiplies_the_noise() -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    for name in ("cosine", "linear", "sigmoid"):
        base, shifted = make_schedule(name, {})(t), make_schedule(name, {"shift": 0.25})(t)
        assert torch.allclose(shifted.sigma / shifted.alpha, base.sigma / base.alpha / 4, rtol=1e-9)
    both = make_schedule("linear", {"shift": 3.0}, zero_snr=True)
    assert both.at(1.0).alpha == 0
    assert make_schedule("cosine", {"shift": 1.0}) == Cosine()


@pytest.mark.parametrize(("name", "shift", "message"), [("flow", 2.0, "shift needs"), ("cosine", -1.0, "above 0")])
def test_an_undefined_shift_is_an_error(name: str, shift: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_schedule(name, {"shift": shift})


def test_a_shift_is_the_noise_that_a_mean_of_pixels_leaves() -> None:
    generator, t = torch.Generator().manual_seed(0), torch.tensor(0.6, dtype=torch.float64)
    eps = torch.randn((4000, 1, 8, 8), dtype=torch.float64, generator=generator)
    large, small = make_schedule("cosine", {})(t), make_schedule("cosine", {"shift": 0.25})(t)
    seen = torch.nn.functional.avg_pool2d(large.mix(torch.ones_like(eps), eps), 4)
    assert (seen.std() / seen.mean()).item() == pytest.approx((small.sigma / small.alpha).item(), rel=0.02)


def test_posterior_is_bayes_on_a_grid() -> None:
    """q(x_s | x_t, x) from two Gaussians multiplied by brute force."""
    schedule, x, x_t = LinearBeta(), 0.4, -0.3
    at, to = schedule.at(0.31), schedule.at(0.3)
    grid = torch.linspace(-3, 3, 600_001, dtype=torch.float64)
    grow = at.alpha / to.alpha
    forward = at.sigma**2 - grow**2 * to.sigma**2
    log_density = -((grid - to.alpha * x) ** 2) / (2 * to.sigma**2) - (x_t - grow * grid) ** 2 / (2 * forward)
    share = torch.softmax(log_density, 0)
    mean = (share * grid).sum()
    variance = (share * (grid - mean) ** 2).sum()
    kernel = posterior(at, to)
    assert (kernel.x_coef * x + kernel.x_t_coef * x_t).item() == pytest.approx(mean.item(), rel=1e-9)
    assert kernel.small.item() == pytest.approx(variance.item(), rel=1e-7)
    assert kernel.large.item() == pytest.approx(forward.item(), rel=1e-9)


@everywhere
def test_the_score_is_the_gradient_of_the_log_density(schedule: Schedule) -> None:
    """Gaussian data: x_t ~ N(alpha m, v), so the score is -(x_t - alpha m) / v."""
    world, level = Gaussian(0.2, 0.5), schedule.at(0.4)
    x_t = torch.linspace(-2, 2, 7, dtype=torch.float64)[None]
    mean = world.denoise(x_t, level)
    expected = -(x_t - level.alpha * world.mean) / world.variance(level)
    assert torch.allclose(level.score(x_t, mean), expected, rtol=1e-9)
    assert torch.allclose(level.mix(mean, level.eps(x_t, mean)), x_t)


@everywhere
def test_posterior_keeps_the_marginal(schedule: Schedule) -> None:
    """Draw x_s from the posterior at the true picture: its mean and variance are those of q(x_s | x)."""
    at, to = schedule.at(0.8), schedule.at(0.55)
    kernel = posterior(at, to)
    assert (kernel.x_coef + kernel.x_t_coef * at.alpha).item() == pytest.approx(to.alpha.item(), rel=1e-9)
    total = kernel.x_t_coef**2 * at.sigma**2 + kernel.small
    assert total.item() == pytest.approx(to.sigma.item() ** 2, rel=1e-9)


@everywhere
def test_posterior_has_no_holes_at_the_ends(schedule: Schedule) -> None:
    for t, s in ((1.0, 0.999), (1.0, 0.0), (1e-3, 0.0)):
        kernel = posterior(schedule.at(t), schedule.at(s))
        assert all(torch.isfinite(value) for value in kernel), (t, s)
    whole = posterior(schedule.at(0.5), schedule.at(0.0))
    assert whole.x_coef == 1
    assert whole.x_t_coef == 0
    assert whole.small == 0


def test_names_make_schedules() -> None:
    for name in SCHEDULES:
        made = make_schedule(name, {"values": [0.1, 0.2]} if name == "table" else {}, steps=50)
        assert made.at(0.0).alpha == 1
    assert make_schedule("linear", {"end": 0.03}, steps=100) == LinearBeta(100, end=0.03)
    assert make_schedule("linear", {}, zero_snr=True).at(1.0).alpha == 0


def test_unknown_names_list_the_valid_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'linear'"):
        make_schedule("liner", {})
    with pytest.raises(UserError, match="did you mean 'begin'"):
        make_schedule("linear", {"begn": 1})
    with pytest.raises(UserError, match="variance-preserving"):
        make_schedule("flow", {}, zero_snr=True)
    with pytest.raises(UserError, match="'table' needs 'values'"):
        make_schedule("table", {})


EXTREMES = [-math.inf, -1.0, 0.0, 1e-320, 1e-9, 0.3, 1.0, 2.0, 1e4, 1e200, math.inf, math.nan]
BY_NUMBERS: list[tuple[type[Schedule], str]] = [
    (kind, field.name)
    for kind in dict.fromkeys(SCHEDULES.values())
    for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    if field.name not in ("steps", "values")
]


def laws_hold(schedule: Schedule) -> None:
    test_begins_clean(schedule)
    ratios = schedule(torch.linspace(0, 1, 1001, dtype=torch.float64)).log_ratio
    assert (ratios.diff() < 0).all()
    assert not ratios[1:-1].isinf().any()
    assert torch.isfinite(schedule.time(ratios)).all()


def made(make: Callable[[], Schedule]) -> Schedule | str:
    """The schedule, or the sentence that refuses it."""
    try:
        return make()
    except UserError as error:
        return str(error)


@pytest.mark.parametrize(("kind", "name"), BY_NUMBERS)
@pytest.mark.parametrize("value", EXTREMES)
def test_a_schedule_is_refused_where_it_is_made_or_obeys_the_laws(
    kind: type[Schedule], name: str, value: float
) -> None:
    """Every number of every schedule, one at a time at its extremes: the error names it, or the log-SNR falls."""
    found = made(lambda: kind(**{name: value}))
    if isinstance(found, str):
        assert name in found
    else:
        laws_hold(found)


@pytest.mark.parametrize("steps", [-1, 0, 1, 2, 3, 20, 21, 50, 10**9])
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "table"])
def test_few_steps_are_refused_or_make_a_schedule(name: str, steps: int) -> None:
    """Betas that scale by 1000 / T are above 1 for T from 2 to 20: said where the schedule is made, with the cure."""
    found = made(lambda: make_schedule(name, {}, steps=steps))
    scaled = name in ("linear", "scaled-linear", "quadratic") and 2 <= steps <= 20
    if steps in (-1, 0, 10**9) or scaled or (name == "variance-exploding" and steps == 1):
        assert isinstance(found, str)
        assert "steps" in found
    else:
        assert isinstance(found, Schedule)
        laws_hold(found)


def test_the_cure_of_few_steps_cures() -> None:
    for end in (0.02, 0.03, 0.012):
        with pytest.raises(UserError, match="set steps to") as error:
            make_schedule("linear", {"end": end}, steps=10)
        cure = int(re.search(r"set steps to (\d+)", str(error.value))[1])  # type: ignore[index]
        laws_hold(make_schedule("linear", {"end": end}, steps=cure))
        with pytest.raises(UserError):
            make_schedule("linear", {"end": end}, steps=cure - 1)


@pytest.mark.parametrize("values", [(), (0.1, 1.0), (0.1, 0.0), (-0.1,), (0.1, math.nan), (0.5, 1e-30), ("a",)])
def test_a_table_of_anything_but_betas_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="above 0 and below 1"):
        Table(values)


def test_transforms_check_their_numbers() -> None:
    with pytest.raises(UserError, match="at least two steps"):
        ZeroTerminalSNR(LinearBeta(1))
    for shift in (0.0, math.inf, math.nan, 1e200):
        with pytest.raises(UserError, match="shift"):
            Shifted(Cosine(), shift)
