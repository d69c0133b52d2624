"""Inversion: the three conventions against their closed forms, exact there and back, and a stated residual."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.worlds import Gaussian, Mixture
from unnoise.denoiser import Denoiser, Estimate
from unnoise.editing import exact, own_level, residual, target_level
from unnoise.editing.inversion import silence
from unnoise.samplers import State, Step, ddim, last, walk
from unnoise.samplers.timesteps import even, leading
from unnoise.schedules import (
    EDM,
    CosineContinuous,
    Flow,
    LinearBeta,
    Schedule,
    Sigmoid,
    VarianceExploding,
    ZeroTerminalSNR,
)

# Song et al.'s uniform steps, data N(0, 0.25), linear betas: the deviation after there and back, minus one
GOLDEN = {
    "own": {10: -0.440, 20: -0.248, 50: -0.107, 100: -0.0553, 200: -0.0283, 500: -0.0116, 1000: -0.0060},
    "target": {10: -0.272, 20: -0.135, 50: -0.0536, 100: -0.0267, 200: -0.0133, 500: -0.0053, 1000: -0.0027},
}


def there_and_back(denoiser: Denoiser, x: Tensor, times: Tensor, up: Step) -> Tensor:
    noise = last(walk(denoiser, x, times.flip(0), up, silence))
    return last(walk(denoiser, noise, times, ddim(), silence))


@pytest.mark.parametrize("steps", [10, 20, 50, 100, 200, 500, 1000])
@pytest.mark.parametrize("name", ["own", "target"])
def test_the_error_of_a_round_trip_is_the_known_one(name: str, steps: int) -> None:
    schedule = LinearBeta()
    times, world = leading(1000)(schedule, steps), Gaussian(0.0, 0.5)
    up = {"own": own_level(), "target": target_level()}[name]
    back = there_and_back(world.denoiser(schedule), torch.ones(1, 1, dtype=torch.float64), times, up)
    assert back.item() - 1 == pytest.approx(GOLDEN[name][steps], abs=6e-4 if steps <= 50 else 1e-4)


@pytest.mark.parametrize("name", ["own", "target"])
def test_the_error_is_of_first_order(name: str) -> None:
    world, schedule = Gaussian(0.0, 0.5), CosineContinuous()
    up = {"own": own_level(1e-9), "target": target_level()}[name]
    errors = []
    for steps in (200, 400, 800):
        times = torch.linspace(0.9, 0, steps + 1, dtype=torch.float64)
        back = there_and_back(world.denoiser(schedule), torch.ones(1, 1, dtype=torch.float64), times, up)
        errors.append(abs(back.item() - 1))
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    "schedule",
    [
        LinearBeta(),
        EDM(),
        VarianceExploding(),
        CosineContinuous(),  # it ends with alpha = 6e-17, the last three with 0
        Flow(),
        Sigmoid(),
        ZeroTerminalSNR(LinearBeta()),
    ],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("steps", [3, 10])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "float"])
def test_exact_there_and_back_is_the_identity(schedule: Schedule, steps: int, dtype: torch.dtype) -> None:
    """From t = 1, too: what is left of the picture there, or nothing, the noise is what leads to x_s."""
    generator = torch.Generator().manual_seed(0)
    world = Gaussian(0.2, 0.5)
    x = world.draw((5, 1, 2, 2), generator).to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    back = there_and_back(world.denoiser(schedule), x, even(schedule, steps), exact(tolerance, 100))
    assert (back - x).abs().max() < (1e-9 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "float"])
def test_where_nothing_is_left_of_the_picture_the_noise_is_what_leads_back(dtype: torch.dtype) -> None:
    """At alpha = 0 the estimate is the data's mean, whatever x_1 is: x_1 = (x_s - alpha_s mean) / sigma_s."""
    world, schedule = Gaussian(0.2, 0.5), Flow()
    s, t = torch.tensor([0.25, 0.75]).double(), torch.ones(2).double()
    x_s = torch.tensor([[0.5, -1.0], [2.0, 0.1]], dtype=dtype)
    found = exact(1e-12 if dtype == torch.float64 else 1e-6)(world.denoiser(schedule), State(x_s, s), t, silence).x
    assert torch.allclose(found, (x_s - (1 - s[:, None].to(dtype)) * 0.2) / s[:, None].to(dtype), rtol=0, atol=1e-5)


def test_exact_finds_its_way_through_a_curved_world() -> None:
    generator = torch.Generator().manual_seed(1)
    world, schedule = Mixture(), LinearBeta()
    means = torch.tensor(world.means, dtype=torch.float64)
    x = means[torch.tensor([0, 1, 2, 1])] + 0.2 * torch.randn(4, 2, generator=generator, dtype=torch.float64)
    denoiser, times = world.denoiser(schedule), leading(1000)(schedule, 40)
    errors = {
        name: (there_and_back(denoiser, x, times, up) - x).abs().max().item()
        for name, up in {"own": own_level(), "target": target_level(), "exact": exact(1e-11, 200)}.items()
    }
    assert errors["exact"] < 1e-8
    assert min(errors["own"], errors["target"]) > 0.01


def test_the_residual_is_what_a_step_back_misses() -> None:
    world, schedule = Gaussian(0.0, 0.5), CosineContinuous()
    denoiser, s, t = world.denoiser(schedule), torch.tensor(0.2).double(), torch.tensor(0.6).double()
    before = State(torch.tensor([[1.0], [2.0]], dtype=torch.float64), s)
    solved = exact(1e-12, 50)(denoiser, before, t, silence)
    assert residual(denoiser, before, solved).max() < 1e-11
    crude = own_level()(denoiser, before, t, silence)
    back = ddim()(denoiser, State(crude.x, t), s, silence).x
    assert torch.allclose(residual(denoiser, before, crude), (back - before.x).abs()[:, 0])
    assert residual(denoiser, before, crude).min() > 0.01


def test_without_a_fixed_point_the_best_try_is_kept() -> None:
    """A denoiser that jumps: eps points away from zero on either side, and no x_t leads to x_s = 0.1."""
    schedule = Flow()
    jump = Denoiser(schedule, lambda x, t: Estimate(x + 0.9 * torch.sign(x - 0.2)))
    before = State(torch.full((1, 1), 0.1, dtype=torch.float64), torch.tensor(0.2).double())
    t = torch.tensor(0.6).double()
    few, many = (exact(1e-9, most)(jump, before, t, silence) for most in (1, 30))
    assert residual(jump, before, many) <= residual(jump, before, few)
    assert torch.isfinite(many.x).all()


def test_rows_walk_alone() -> None:
    """The best try, and when to stop, are a row's own."""
    world, schedule = Gaussian(0.0, 0.5), LinearBeta()
    denoiser = world.denoiser(schedule)
    x = torch.tensor([[0.3], [30.0]], dtype=torch.float64)
    s = torch.tensor([0.1, 0.3], dtype=torch.float64)
    t = torch.tensor([0.5, 0.9], dtype=torch.float64)
    both = exact(1e-12, 60)(denoiser, State(x, s), t, silence).x
    alone = torch.cat([exact(1e-12, 60)(denoiser, State(x[i : i + 1], s[i]), t[i], silence).x for i in range(2)])
    assert torch.allclose(both, alone, rtol=1e-8)
