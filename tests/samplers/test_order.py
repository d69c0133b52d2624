"""Laws of solvers: the order each claims, what it is exact for, and what it is when another name is taken away."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.methods import METHODS
from tests.helpers.worlds import Finite, Gaussian, Mixture, Oracle
from unnoise.config.request import Request
from unnoise.denoiser import PREDICTIONS, Denoiser, Diffusion, Estimate
from unnoise.noise import Seeds
from unnoise.samplers import (
    EXACT,
    RELEASED,
    SPACINGS,
    Evaluation,
    State,
    Step,
    ddim,
    ddpm,
    dpm_solver,
    dpm_solver_sde,
    dpm_solver_single,
    euler_ancestral,
    heun,
    last,
    plms,
    unipc,
    walk,
)
from unnoise.samplers.dpm_solver import MIDPOINT, Rule
from unnoise.samplers.timesteps import even, even_log_snr, from_entries, karras
from unnoise.schedules import (
    EDM,
    VPSDE,
    Cosine,
    CosineContinuous,
    Flow,
    Level,
    LinearBeta,
    Schedule,
    Sigmoid,
    SubVP,
    VarianceExploding,
    ZeroTerminalSNR,
)

SCHEDULES: list[Schedule] = [
    LinearBeta(), Cosine(), CosineContinuous(), Sigmoid(), ZeroTerminalSNR(LinearBeta()), VPSDE(), SubVP(), Flow(),
    EDM(), VarianceExploding(),
]  # fmt: skip
WORLD = Gaussian(0.2, 1.5)  # here the leading terms of no error vanish by chance between log(alpha / sigma) 0 and 2
# method: its step, the order it claims
SOLVERS: dict[str, tuple[Step, int]] = {
    name: (sampler.make(Request()), sampler.order) for name, sampler in METHODS.items() if not sampler.stochastic
} | {
    "dpm-solver-2m": (dpm_solver(2, predict_noise=True), 2),
    "dpm-solver-2m-taylor": (dpm_solver(2, predict_noise=True, rule=EXACT), 2),
    "dpm-solver-3m": (dpm_solver(3, predict_noise=True, rule=EXACT), 3),
    "dpm++2s-taylor": (dpm_solver_single(2, rule=EXACT), 2),
    "dpm++3s-taylor": (dpm_solver_single(3, rule=EXACT), 3),
    "dpm-solver-2-taylor": (dpm_solver_single(2, predict_noise=True, rule=EXACT), 2),
    "unipc-1": (unipc(1), 2),
    "unipc-1-bh1": (unipc(1, bh1=True), 2),
    "unipc-2-bh1": (unipc(2, bh1=True), 3),
    "unip-1": (unipc(1, corrects=False), 1),
    "unip-2": (unipc(2, corrects=False), 2),
    "unip-3": (unipc(3, corrects=False), 3),
    "plms-1": (plms(1), 1),
    "plms-2": (plms(2), 2),
}
every = pytest.mark.parametrize("name", METHODS)
every_in_time = pytest.mark.parametrize("name", [name for name in METHODS if name != "ncsn"])  # 100 calls a step


def silence(t: Tensor, draw: int = 0) -> Tensor:
    return torch.zeros(1, dtype=torch.float64)


def white(seed: int, shape: tuple[int, ...]) -> Callable[[Tensor, int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda t, draw=0: torch.randn(shape, generator=generator, dtype=torch.float64)


def make(name: str, steps: int = 50) -> Step:
    return METHODS[name].make(Request.of(steps=steps))


def from_a_path(
    step: Step, denoiser: Denoiser, path: Callable[[Tensor], Tensor], ratios: Tensor, before: int = 4
) -> Tensor:
    """The end of a walk over these log(alpha / sigma), even ones, that already knows `before` points of the path: what
    a multistep method is once it has started."""
    h, schedule = ratios[1] - ratios[0], denoiser.schedule
    earlier = [schedule.time(ratios[0] - j * h) for j in range(before, 0, -1)]
    trail = tuple(Evaluation(path(t), t, denoiser(path(t), t)) for t in earlier)
    times = schedule.time(ratios)
    state = State(path(times[0]), times[0], trail)
    for s in times[1:]:
        state = step(denoiser, state, s, silence)
    return state.x


# --- order ---


def errors(step: Step, schedule: Schedule, counts: tuple[int, ...], denoiser: Denoiser | None = None) -> list[float]:
    top, bottom = schedule.time(torch.tensor([0.0, 2.0], dtype=torch.float64))
    x = schedule(top).alpha * WORLD.mean + torch.ones(1, 1, dtype=torch.float64)

    def path(t: Tensor) -> Tensor:
        return WORLD.flow(x, schedule(top), schedule(t))

    return [
        (
            from_a_path(
                step, denoiser or WORLD.denoiser(schedule), path, torch.linspace(0, 2, count + 1, dtype=torch.float64)
            )
            - path(bottom)
        )
        .abs()
        .item()
        for count in counts
    ]


def fitted(found: list[float]) -> float:
    return math.log2(found[-2] / found[-1])


KIND = ("heun-midpoint",)  # on a Gaussian world, and there alone, its error has no term of the second order


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in KIND])
def test_the_order_that_a_solver_claims(name: str, schedule: Schedule) -> None:
    step, order = SOLVERS[name]
    assert fitted(errors(step, schedule, (32, 64))) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("schedule", [LinearBeta(), VPSDE(), EDM()], ids=["linear", "vp-sde", "edm"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["dpm++2m", "dpm-solver-2", "unipc", "plms", "heun"])
def test_the_order_whatever_the_network_predicts(name: str, prediction: str, schedule: Schedule) -> None:
    """Through a network, whose time input is float32 and whose output is that of the time in double."""
    (step, order), predicts = SOLVERS[name], PREDICTIONS[prediction](schedule, 1000)
    meant: list[Tensor] = []

    def time(told: Tensor) -> Tensor:
        read = schedule.time(-4 * told.double()) if prediction == "edm" else (told.double() + 1) / 1000
        assert torch.allclose(read, meant[-1], atol=1e-6)
        return meant[-1]

    diffusion = Diffusion(Oracle(WORLD, schedule, predicts, time), schedule, predicts)

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        meant.append(t)
        return diffusion(x, t)

    found = errors(step, schedule, (16, 32), Denoiser(schedule, estimate))
    assert fitted(found) == pytest.approx(order, abs=0.25)


def test_the_order_on_a_mixture() -> None:
    """Against a walk of 256 steps of order 3: no error has terms that vanish here."""
    schedule, world = VPSDE(), Mixture(std=0.6)
    start = torch.tensor([[0.3, -0.8], [-0.9, 0.4]], dtype=torch.float64)
    times = schedule.time(torch.linspace(-0.5, 1.5, 257, dtype=torch.float64))

    def end(step: Step, stride: int) -> Tensor:
        return last(walk(world.denoiser(schedule), start, times[::stride], step, silence))

    exact = end(dpm_solver_single(3), 1)
    for name in ("heun", "heun-midpoint", "heun-ralston", "dpm++2m", "dpm++2s", "plms"):
        step, order = SOLVERS[name]
        found = [(end(step, stride) - exact).norm().item() for stride in (8, 4)]
        assert fitted(found) == pytest.approx(order, abs=0.35), name


def test_a_doubling_of_the_steps_on_edms_grid() -> None:
    """The whole walk as it is run, from nothing, on karras' sigmas from 80 to 0.02: beginning with lower orders costs
    nothing there, for at high noise the estimate stands still."""
    schedule, world = EDM(), Gaussian(0.0, 0.5)
    expected = {
        "ddim": 2.0, "heun": 4.0, "dpm++2m": 4.0, "dpm++2m-taylor": 4.0, "dpm++3m-released": 3.9, "dpm++3m": 8.0,
        "unipc-1": 4.0, "unipc": 8.0, "unipc-3": 16.1,
    }  # fmt: skip
    for name, ratio in expected.items():
        found = []
        for steps in (96, 192):
            times = karras(0.02, 80)(schedule, steps + 1)[:-1]
            x = torch.full((1, 1), world.variance(schedule(times[0])).sqrt().item(), dtype=torch.float64)
            end = last(walk(world.denoiser(schedule), x, times, SOLVERS[name][0], silence))
            found.append((end - world.flow(x, schedule(times[0]), schedule(times[-1]))).abs().item())
        assert found[0] / found[1] == pytest.approx(ratio, rel=0.08), name


# --- exactness ---

EXACT_UP_TO = {  # of a picture (or noise) that is a polynomial in log(alpha / sigma), the degree that is no error
    "ddim": 0, "dpm++2m": 0, "dpm++2m-taylor": 1, "dpm++3m-released": 1, "dpm++3m": 2, "dpm++2s": 0,
    "dpm++2s-taylor": 1, "dpm++3s": 1, "dpm++3s-taylor": 2, "unipc-1": 0, "unip-3": 2, "unipc": 2, "unipc-3": 3,
}  # fmt: skip
EXACT_NOISE_UP_TO = {
    "dpm-solver-2m": 0, "dpm-solver-2m-taylor": 1, "dpm-solver-3m": 2, "dpm-solver-2": 0, "dpm-solver-2-taylor": 1,
    "dpm-solver-3": 1,
}  # fmt: skip


def polynomial(degree: int, schedule: Schedule, noise: bool) -> tuple[Denoiser, Callable[[Tensor], Tensor]]:
    """A denoiser whose picture (or noise) is (1 + l)^degree at every x, l = log(alpha / sigma), and the path through
    x = 0 at l = 0, integrated by parts."""

    def integral(ratio: Tensor) -> Tensor:  # of e^{+-l} (1 + l)^degree
        sign, total, factor = (-1.0 if noise else 1.0), torch.zeros_like(ratio), 1.0
        for k in range(degree + 1):
            total = total + factor * (1 + ratio) ** (degree - k) * sign ** (k + 1)
            factor *= -(degree - k)
        return total * torch.exp(sign * ratio)

    def path(t: Tensor) -> Tensor:
        level = schedule(t)
        by = integral(level.log_ratio) - integral(torch.zeros_like(level.log_ratio))
        return (-level.alpha * by if noise else level.sigma * by).reshape(1, 1)

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        level = schedule(t)
        f = ((1 + level.log_ratio) ** degree).expand_as(x)
        return Estimate((x - level.sigma * f) / level.alpha if noise else f)

    return Denoiser(schedule, estimate), path


def test_the_paths_of_polynomials_solve_the_flow() -> None:
    """d(x / sigma) / d(alpha / sigma) is the picture, d(x / alpha) / d(sigma / alpha) the noise: by differences."""
    schedule = VPSDE()
    for noise in (False, True):
        _, path = polynomial(3, schedule, noise)
        t = schedule.time(torch.tensor([0.4999, 0.5001], dtype=torch.float64))
        level, x = schedule(t), torch.stack([path(one).squeeze() for one in t])
        under, over = (level.alpha, level.sigma) if noise else (level.sigma, level.alpha)
        slope = (x / under).diff() / (over / under).diff()
        assert slope.item() == pytest.approx(1.5**3, rel=1e-6)


@pytest.mark.parametrize("schedule", [VPSDE(), SubVP(), EDM()], ids=str)
@pytest.mark.parametrize("name", [*EXACT_UP_TO, *EXACT_NOISE_UP_TO])
def test_what_a_solver_is_exact_for(name: str, schedule: Schedule) -> None:
    noise = name in EXACT_NOISE_UP_TO
    degree = (EXACT_NOISE_UP_TO if noise else EXACT_UP_TO)[name]
    ratios = torch.tensor([0.0, 0.3, 0.6, 0.9], dtype=torch.float64)
    for power in range(degree + 2):
        denoiser, path = polynomial(power, schedule, noise)
        end = path(schedule.time(ratios[-1]))
        off = (from_a_path(SOLVERS[name][0], denoiser, path, ratios) - end).abs() / end.abs()
        assert (off < 1e-10) == (power <= degree), (power, off)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "probability-flow"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_standing_picture_is_no_error(name: str, schedule: Schedule) -> None:
    """From t = 1, also where nothing of the picture is left there, over uneven steps: x = alpha c + sigma eps all the
    way."""
    point, eps = torch.tensor([[0.3, -0.7]], dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    denoiser = Finite(point).denoiser(schedule)
    times = torch.tensor([1.0, 0.8, 0.75, 0.4, 0.2, 0.0], dtype=torch.float64)
    for state in walk(denoiser, schedule(times[0]).mix(point, eps), times, SOLVERS[name][0], silence):
        level = schedule(state.t)
        assert torch.allclose(state.x, level.mix(point, eps), rtol=1e-9, atol=1e-9)


# --- one method under two names ---


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_order_one_has_many_names(schedule: Schedule) -> None:
    """DDIM, DPM-Solver of either kind, UniP-1, PLMS with one look, and Euler in EDM's coordinates, written out."""
    x, denoiser = torch.randn(3, 2, dtype=torch.float64), WORLD.denoiser(schedule)
    t, s = (torch.tensor(time, dtype=torch.float64) for time in (0.7, 0.6))
    at, to = schedule(t), schedule(s)
    slope = (x / at.alpha - denoiser(x, t).mean) / (at.sigma / at.alpha)
    by_hand = to.alpha * (x / at.alpha + (to.sigma / to.alpha - at.sigma / at.alpha) * slope)
    for step in (
        ddim(), dpm_solver(1), dpm_solver(1, predict_noise=True), dpm_solver_single(1), unipc(1, corrects=False),
        plms(1),
    ):  # fmt: skip
        assert torch.allclose(step(denoiser, State(x, t), s, silence).x, by_hand, rtol=1e-12, atol=1e-12)


def test_unipc_without_its_corrector_is_dpm_solver() -> None:
    """Bit for bit: order 2 with bh2 is the midpoint rule, order 3, once it has its three looks, the exact one."""
    schedule, x = VPSDE(), torch.randn(3, 2, dtype=torch.float64)
    denoiser = Mixture().denoiser(schedule)
    times = karras()(schedule, 9)
    ours, same = (list(walk(denoiser, x, times, step, silence)) for step in (unipc(2, corrects=False), dpm_solver(2)))
    assert torch.equal(ours[-1].x, same[-1].x)
    third, same_third = (
        step(denoiser, State(same[4].x, times[5], (*same[3].history, *same[4].history)), times[6], silence).x
        for step in (unipc(3, corrects=False), dpm_solver(3, rule=EXACT))
    )
    assert torch.allclose(third, same_third, rtol=1e-12)
    assert not torch.allclose(third, same[5].x, rtol=1e-4)


def test_stochastic_solvers_of_one_look_are_ancestral() -> None:
    """SDE-DPM-Solver++ begins with order 1, which is `ddpm()`; so is Euler ancestral, in its own words."""
    schedule, noise = SubVP(), Seeds((1, 2), (3, 4))
    x, denoiser = noise.start().double(), WORLD.denoiser(schedule)
    t, s = (torch.tensor(time, dtype=torch.float64) for time in (0.7, 0.6))
    expected = ddpm()(denoiser, State(x, t), s, noise).x
    assert torch.allclose(dpm_solver_sde()(denoiser, State(x, t), s, noise).x, expected, atol=1e-12)
    assert torch.allclose(euler_ancestral()(denoiser, State(x, t), s, noise).x, expected, atol=1e-12)
    at, to = (float(level.sigma / level.alpha) for level in (schedule(t), schedule(s)))
    up = math.sqrt(to**2 * (at**2 - to**2) / at**2)
    down = math.sqrt(to**2 - up**2)
    there = x / schedule(t).alpha
    by_hand = there + (there - denoiser(x, t).mean) / at * (down - at) + up * noise(s, 0)
    assert torch.allclose(expected, schedule(s).alpha * by_hand, atol=1e-12)


# --- stochastic walks ---


def response(step: Step, world: Gaussian, schedule: Schedule, times: Tensor, start: float) -> float:
    """The exact variance at the end of a linear walk, with all that it remembers: row 0 is what becomes of the start,
    and each other row of one noise alone; they are independent, so their squares add up."""
    rows = len(times) * 8
    keys: dict[tuple[float, int], int] = {}

    def one(t: Tensor, draw: int = 0) -> Tensor:
        row = keys.setdefault((t.item(), draw), len(keys) + 1)
        return torch.nn.functional.one_hot(torch.tensor(row), rows).double()[:, None]

    x = torch.zeros(rows, 1, dtype=torch.float64)
    x[0] = math.sqrt(start)
    return last(walk(world.denoiser(schedule), x, times, step, one)).square().sum().item()


LINEAR = [
    name
    for name, sampler in METHODS.items()
    if sampler.stochastic
    and name not in ("pc", "ddpm-learned", "ncsn", "ncsn-v2")  # NCSN: tests/samplers/test_langevin.py
]


@pytest.mark.parametrize("schedule", [LinearBeta(), SubVP(), VarianceExploding()], ids=str)
@pytest.mark.parametrize("name", LINEAR)
def test_a_stochastic_walk_ends_in_the_world(name: str, schedule: Schedule) -> None:
    world = Gaussian(0.0, 0.5)
    times = even_log_snr(-4.5, 6.0)(schedule, 120)
    start = world.variance(schedule(times[0])).item()
    found = response(make(name, 120), world, schedule, times, start)
    assert math.sqrt(found) == pytest.approx(0.5, rel=0.06)


@pytest.mark.parametrize("name", [name for name in LINEAR if METHODS[name].order])
def test_the_order_of_the_variance(name: str) -> None:
    """Halve the steps of a stochastic walk, and the error of the variance at its end falls with the order."""
    schedule, world = VPSDE(), Gaussian(0.0, 1.5)
    found = []
    for steps in (32, 64):
        times = schedule.time(torch.linspace(0, 2, steps + 1, dtype=torch.float64))
        begin, end = (world.variance(schedule(times[i])).item() for i in (0, -1))
        found.append(abs(response(make(name), world, schedule, times, begin) - end))
    assert fitted(found) == pytest.approx(METHODS[name].order, abs=0.25)


# --- robust ends, rows, calls: every name ---


def learned(denoiser: Denoiser) -> Denoiser:
    return Denoiser(denoiser.schedule, lambda x, t: Estimate(denoiser(x, t).mean, torch.full_like(x, 0.5)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("schedule", [ZeroTerminalSNR(LinearBeta()), SubVP(), EDM()], ids=str)
@every
def test_no_walk_divides_by_zero(name: str, schedule: Schedule, dtype: torch.dtype) -> None:
    seeds = Seeds((1, 2), (3,))
    for grid in (even, SPACINGS[METHODS[name].spacing](1000)):
        for steps in (1, 2, 6):
            times = grid(schedule, steps)
            x = (seeds.start() * schedule(times[0]).sigma.float()).to(dtype)
            end = last(walk(learned(Gaussian().denoiser(schedule)), x, times, make(name, steps), seeds))
            assert torch.isfinite(end).all()
            assert end.dtype == dtype


@pytest.mark.slow
@every_in_time
def test_a_thousand_steps(name: str) -> None:
    """On the table itself the picture is drawn from the world, and nothing overflows on the way."""
    schedule, seeds = LinearBeta(), Seeds((1, 2, 3, 4), (16,))
    walked = walk(learned(Gaussian().denoiser(schedule)), seeds.start(), even(schedule, 1000), make(name, 1000), seeds)
    end = last(walked)
    assert end.mean().item() == pytest.approx(0.2, abs=0.35)
    assert 0.3 < end.std().item() < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [ZeroTerminalSNR(LinearBeta()), Flow(), EDM(), Cosine()], ids=str)
@every_in_time
def test_a_thousand_steps_to_a_point(name: str, schedule: Schedule) -> None:
    """Where all pictures are one, the walk ends in it, to the bit, in bfloat16 too; no state on the way is infinite.

    In bfloat16 on the schedule that has the longest first step, and on the one that has the largest numbers.
    """
    times, noise = SPACINGS[METHODS[name].spacing](1000)(schedule, 1000), torch.tensor([[1.0, -1.0]])
    for dtype in (torch.float32, torch.bfloat16)[: 2 if isinstance(schedule, ZeroTerminalSNR | EDM) else 1]:
        point, half = torch.full((1, 2), 0.25, dtype=dtype), torch.full((1, 2), 0.5, dtype=dtype)
        x = (torch.tensor([[1.0, -2.0]]) * schedule(times[0]).sigma).to(dtype)
        denoiser = Denoiser(schedule, lambda x, t: Estimate(point, half))  # noqa: B023
        states = [state.x for state in walk(denoiser, x, times, make(name, 1000), lambda t, draw=0: noise)]
        assert torch.isfinite(torch.cat(states)).all()
        assert torch.equal(states[-1], point)


@every
def test_one_step_is_the_estimate(name: str) -> None:
    """From t = 1 to the picture there is nothing to go by but the estimate."""
    schedule, world = ZeroTerminalSNR(LinearBeta()), Gaussian()
    x, ends = torch.randn(3, 2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    end = last(walk(learned(world.denoiser(schedule)), x, ends, make(name, 1), lambda t, draw=0: torch.zeros(3, 2)))
    assert torch.allclose(end, torch.full_like(end, world.mean), atol=1e-6)


@every
def test_rows_may_be_at_different_times(name: str) -> None:
    """A batch whose rows walk on their own grids is the rows walked alone."""
    schedule, world = LinearBeta(), Gaussian()
    denoiser = learned(world.denoiser(schedule))
    grids = torch.stack([even(schedule, 6), karras()(schedule, 6), even_log_snr()(schedule, 6)], 1)
    seeds = Seeds((5, 6, 7), (2, 3, 3))
    start = seeds.start().double()
    together = last(walk(denoiser, start, grids, make(name, 6), seeds))
    for i in range(3):
        alone = last(walk(denoiser, start[i : i + 1], grids[:, i], make(name, 6), Seeds((5 + i,), (2, 3, 3))))
        assert torch.allclose(together[i], alone[0], atol=1e-9)


@pytest.mark.parametrize("name", ["ddim", "plms", "dpm++3m", "unipc-3"])
def test_a_walk_may_be_mapped_over_what_is_estimated(name: str) -> None:
    """torch.vmap over estimates, from one x: as walked one by one."""
    x = torch.randn(2, 5, dtype=torch.float64)
    means = torch.randn(3, 2, 5, dtype=torch.float64)
    times = even_log_snr()(LinearBeta(), 6)

    def walked(mean: Tensor) -> Tensor:
        return last(
            walk(Denoiser(LinearBeta(), lambda x_t, t: Estimate(mean)), x, times, make(name), lambda t, draw=0: x)
        )

    torch.testing.assert_close(torch.vmap(walked)(means), torch.stack([walked(mean) for mean in means]))


@every
def test_a_row_that_arrives_keeps_no_other_waiting(name: str) -> None:
    schedule, world = LinearBeta(), Gaussian()
    denoiser = learned(world.denoiser(schedule))
    x, zeros = torch.randn(2, 4, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
    t, s = torch.tensor([[0.1, 0.9], [0.0, 0.5]], dtype=torch.float64)
    both = make(name)(denoiser, State(x, t), s, lambda t, draw=0: zeros).x
    for i in range(2):
        alone = make(name)(denoiser, State(x[i : i + 1], t[i]), s[i], lambda t, draw=0: zeros[:1]).x
        assert torch.allclose(both[i], alone[0], atol=1e-12)


def test_a_look_is_not_bought_twice() -> None:
    """UniPC asks at each time once, and at the point it predicts: N calls in N steps, with the corrector or without."""
    schedule, world, asked = LinearBeta(), Gaussian(), []

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        asked.append(t.item())
        return Estimate(world.denoise(x, schedule(t)))

    times = even(schedule, 8)
    for corrects in (True, False):
        asked.clear()
        last(walk(Denoiser(schedule, estimate), torch.ones(1, 1), times, unipc(3, corrects=corrects), silence))
        assert asked == times[:-1].tolist()


@every
@pytest.mark.parametrize("schedule", [LinearBeta(), Flow(), EDM()], ids=["linear", "flow", "edm"])
def test_a_walk_is_its_steps_one_by_one(name: str, schedule: Schedule) -> None:
    """What is worked out for a whole grid at once is what a step works out alone, on a grid that is even in nothing."""
    times, start = torch.linspace(1, 0, 8, dtype=torch.float64) ** 1.5, white(1, (2, 3))(torch.ones(()))

    def noise(t: Tensor, draw: int = 0) -> Tensor:
        return start.flip(1) * (1 + draw)

    denoiser, step = learned(Gaussian(0.2, 1.5).denoiser(schedule)), make(name)
    state = State(start, times[0])
    for s, walked in zip(times[1:], walk(denoiser, state.x, times, step, noise)):
        state = step(denoiser, state, s, noise)
        assert torch.allclose(walked.x, state.x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["ddim", "plms", "dpm++2m", "dpm++3m", "dpm++2m-sde", "unipc-3"])
def test_a_walk_evaluates_the_schedule_once(name: str) -> None:
    """All weights of a walk of any length come from one table of levels."""
    asked = []

    class Counted(Schedule):
        def __call__(self, t: Tensor) -> Level:
            asked.append(t.shape)
            return Flow()(t)

        def time(self, log_ratio: Tensor) -> Tensor:
            return Flow().time(log_ratio)

    schedule, times, noise = Counted(), even(Flow(), 30), white(0, (2, 3))
    last(walk(Denoiser(schedule, lambda x, t: Estimate(x)), torch.ones(2, 3), times, make(name), noise))
    assert asked == [(31,)]


@every
def test_the_preview_and_the_end_are_the_newest_estimate(name: str) -> None:
    """The end of the trail is what was seen last, at the time that the step left (churn: a bit earlier) or came to."""
    times, noise = even(LinearBeta(), 6), white(0, (2, 3))
    states = walk(learned(Gaussian().denoiser(LinearBeta())), torch.ones(2, 3), times, make(name), noise)
    for (t, s), state in zip(pairwise(times.tolist()), states):
        seen = state.history[-1]
        assert s <= seen.t <= (1 if name == "heun-churn" else t)
        assert seen.mean.shape == state.x.shape
        assert len(state.history) <= 4
    assert torch.allclose(state.x, state.history[-1].mean)  # the step to t = 0 returns the estimate


def test_bad_choices_are_refused() -> None:
    for build in (dpm_solver, dpm_solver_single, unipc):
        with pytest.raises(ValueError, match="orders 1, 2 and 3"):
            build(4)
    with pytest.raises(ValueError, match="1 to 4 evaluations"):
        plms(5)
    with pytest.raises(ValueError, match="alpha"):
        heun(alpha=0)


def test_the_released_rule_is_not_the_corrected_one() -> None:
    """Two differences, half of the curvature: the difference between the two rules is that of the second derivative."""
    schedule = VPSDE()
    denoiser, path = polynomial(2, schedule, noise=False)
    ratios = torch.tensor([0.0, 0.3], dtype=torch.float64)
    released, corrected = (from_a_path(dpm_solver(3, rule=rule), denoiser, path, ratios) for rule in (RELEASED, EXACT))
    k = torch.tensor(-0.3, dtype=torch.float64)
    third = ((torch.expm1(k) / k - 1) / k - 0.5).item()  # phi_3
    second = 0.3**2 * 2  # h^2 f'' of (1 + l)^2
    alpha = schedule(schedule.time(ratios[1])).alpha.item()
    assert (released - corrected).item() == pytest.approx(alpha * third * second / 2, rel=1e-9)


# --- diffusers' schedulers, on grids where those are right ---

SHAPE = (2, 3, 4)


def toy(x: Tensor, t: Tensor | float) -> Tensor:
    """A network that predicts noise, told a table's entry: not linear in x, and different at every entry."""
    return torch.tanh(x * (1 + torch.as_tensor(t, dtype=torch.float64).to(x) / 500)) + 0.3 * torch.sin(3 * x)


def asked(schedule: Schedule, model: Callable[[Tensor, Tensor], Tensor] = toy) -> Denoiser:
    def estimate(x: Tensor, t: Tensor) -> Estimate:
        level = schedule(t).over(x)
        return Estimate((x - level.sigma * model(x, 1000 * t - 1)) / level.alpha)

    return Denoiser(schedule, estimate)


def start(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def compare(scheduler: Any, step: Step, steps: int, **how: Any) -> None:
    """Their walk and ours over the entries that they visit; every state on the way."""
    scheduler.set_timesteps(steps)
    times = from_entries(scheduler.timesteps, 1000)
    mine = walk(asked(LinearBeta()), start(), times, step, Seeds((0, 1), SHAPE[1:]))
    x = start()
    for at, (t, state) in enumerate(zip(scheduler.timesteps, mine)):
        noise = {"variance_noise": Seeds((0, 1), SHAPE[1:])(times[at + 1])} if how else {}
        x = scheduler.step(toy(x, t), t, x, **noise).prev_sample
        assert torch.allclose(x, state.x, atol=3e-4 * max(1.0, x.abs().max().item())), (at, (x - state.x).abs().max())


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize(
    ("order", "algorithm", "kind", "step"),
    [
        (1, "dpmsolver++", "midpoint", dpm_solver(1)),
        (2, "dpmsolver++", "midpoint", dpm_solver(2)),
        (2, "dpmsolver++", "heun", dpm_solver(2, rule=EXACT)),
        (3, "dpmsolver++", "heun", dpm_solver(3, rule=RELEASED)),
        (2, "dpmsolver", "midpoint", dpm_solver(2, predict_noise=True)),
        (2, "dpmsolver", "heun", dpm_solver(2, predict_noise=True, rule=EXACT)),
        (2, "sde-dpmsolver++", "midpoint", dpm_solver_sde()),
    ],
)
def test_dpm_solver_beside_diffusers(order: int, algorithm: str, kind: str, step: Step, spacing: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    zero = {} if algorithm != "dpmsolver" else {"final_sigmas_type": "sigma_min"}
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="linear", solver_order=order, algorithm_type=algorithm, solver_type=kind,
        timestep_spacing=spacing, lower_order_final=False, **zero,
    )  # fmt: skip
    if zero:  # DPM-Solver on noise does not go to t = 0 there: all but the last step
        scheduler.set_timesteps(12)
        times = from_entries(scheduler.timesteps, 1000)
        states = list(walk(asked(LinearBeta()), start(), times, step, silence))
        x = start()
        for at, t in enumerate(scheduler.timesteps[:-1]):
            x = scheduler.step(toy(x, t), t, x).prev_sample
            assert torch.allclose(x, states[at].x, atol=3e-4 * max(1.0, x.abs().max().item())), at
        return
    compare(scheduler, step, 12, **({"noise": True} if "sde" in algorithm else {}))


@pytest.mark.parametrize(("order", "kind"), [(1, "bh2"), (2, "bh1"), (2, "bh2"), (3, "bh2"), (3, "bh1")])
def test_unipc_beside_diffusers(order: int, kind: str) -> None:
    """Theirs corrects at the beginning of the next step: its states are our predictions. The walk is left before its
    end where theirs lowers order 3 there, and where its bh1 is not a number."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.UniPCMultistepScheduler(
        beta_schedule="linear", solver_order=order, solver_type=kind, timestep_spacing="trailing"
    )
    for steps in (2, 5, 16):
        scheduler.set_timesteps(steps)
        times = from_entries(scheduler.timesteps, 1000)
        states = list(walk(asked(LinearBeta()), start(), times, unipc(order, bh1=kind == "bh1"), silence))
        x = start()
        for at, t in enumerate(scheduler.timesteps[: steps - {3: 2}.get(order, kind == "bh1")]):
            x = scheduler.step(toy(x, t), t, x).prev_sample
            ours = states[at].x if at == steps - 1 else states[at].history[-1].x
            assert torch.allclose(x, ours, atol=1e-3 * max(1.0, x.abs().max().item())), at


@pytest.mark.parametrize(("order", "rule", "kind"), [(2, MIDPOINT, "midpoint"), (2, EXACT, "heun"), (3, EXACT, "heun")])
def test_single_steps_beside_diffusers(order: int, rule: Rule, kind: str) -> None:
    """Theirs looks ahead at points of its grid: on one that is even in log(alpha / sigma), ours are the same ones."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        beta_schedule="linear",
        solver_order=order,
        solver_type=kind,
        use_exponential_sigmas=True,
        lower_order_final=True,
    )
    scheduler.set_timesteps(4 * order)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return toy(x, 300.0)

    schedule = LinearBeta()
    times = schedule.time(-scheduler.sigmas[:-1].double().log())
    x = start()
    for t in scheduler.timesteps[: 2 * order]:
        x = scheduler.step(model(x, t), t, x).prev_sample
    step = dpm_solver_single(order, rule=rule)
    ours = last(walk(asked(schedule, model), start(), times[: 2 * order + 1 : order], step, silence))
    assert torch.allclose(x, ours, atol=1e-3 * max(1.0, x.abs().max().item()))


def test_plms_beside_diffusers() -> None:
    """Theirs begins with an improved Euler step, for one call more: it is made to go on after the plain one. The last
    step is not ours, which returns the estimate."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.PNDMScheduler(beta_schedule="linear", skip_prk_steps=True, timestep_spacing="leading")
    scheduler.set_timesteps(10)
    entries = torch.cat([scheduler.timesteps[:1], scheduler.timesteps[2:]])
    times = from_entries(entries, 1000)
    states = list(walk(asked(LinearBeta()), start(), times, plms(), silence))
    x = start()
    for at, t in enumerate(entries[:-1]):
        x = scheduler.step(toy(x, t), t, x).prev_sample
        scheduler.counter = max(scheduler.counter, 2)
        assert torch.allclose(x, states[at].x, atol=3e-4 * max(1.0, x.abs().max().item())), at


@pytest.mark.parametrize("ancestral", [False, True])
def test_euler_beside_diffusers(ancestral: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs holds x / alpha."""
    diffusers = pytest.importorskip("diffusers")
    kind = diffusers.EulerAncestralDiscreteScheduler if ancestral else diffusers.EulerDiscreteScheduler
    scheduler = kind(beta_schedule="linear", timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    schedule, seeds = LinearBeta(), Seeds((0, 1), SHAPE[1:])
    times = from_entries(scheduler.timesteps, 1000)
    drawn = iter([seeds(s) for s in times[1:]])
    if ancestral:
        module = "diffusers.schedulers.scheduling_euler_ancestral_discrete"
        monkeypatch.setattr(f"{module}.randn_tensor", lambda *args, **kwargs: next(drawn))
    x = start() / schedule(times[0]).alpha.float()
    for t in scheduler.timesteps:
        x = scheduler.step(toy(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    step = METHODS["euler-ancestral" if ancestral else "euler"].make(Request())
    ours = last(walk(asked(schedule), start(), times, step, seeds))
    assert torch.allclose(x, ours, atol=1e-3 * max(1.0, x.abs().max().item()))
