"""Our walks beside diffusers' schedulers: the same pictures where those are right, else the closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.worlds import Gaussian
from unnoise import nn as networks
from unnoise.conditions import NOTHING
from unnoise.config.networks import UNetConfig
from unnoise.denoiser import Denoiser, Diffusion, edm
from unnoise.noise import Seeds
from unnoise.samplers import Step, ddim, ddpm, heun, large, last, small, walk
from unnoise.samplers.timesteps import Spacing, even, from_entries, karras, leading, linspace, trailing
from unnoise.schedules import EDM, Cosine, LinearBeta, ScaledLinear, Schedule

diffusers = pytest.importorskip("diffusers")

SHAPE = (1, 8, 8)
SEEDS = Seeds((3, 4, 5), SHAPE)


def network() -> networks.UNet:
    """A network with random weights everywhere: not linear, and its output depends on its time input."""
    config = UNetConfig(
        size=8, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, True), groups=4
    )
    net = networks.UNet(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.15
    return net


@torch.no_grad()
def theirs(scheduler: Any, steps: int, model: Callable[[Tensor, Tensor], Tensor], x: Tensor, **how: Any) -> Tensor:
    """diffusers' own loop."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x, **how).prev_sample
    return x


def ours(diffusion: Diffusion, grid: Spacing, steps: int, step: Step, x: Tensor) -> Tensor:
    times = grid(diffusion.schedule, steps)
    return last(walk(diffusion.given(NOTHING), x, times, step, SEEDS))


def options(schedule: Schedule) -> dict[str, Any]:
    match schedule:
        case LinearBeta():
            return {"beta_schedule": "linear"}
        case ScaledLinear(begin=begin, end=end):
            return {"beta_schedule": "scaled_linear", "beta_start": begin, "beta_end": end}
        case _:
            return {"beta_schedule": "squaredcos_cap_v2"}


@pytest.mark.parametrize("schedule", [LinearBeta(), ScaledLinear(1000, 0.00085, 0.012), Cosine()], ids=str)
@pytest.mark.parametrize("steps", [10, 30])
def test_ddim_on_leading_entries(schedule: Schedule, steps: int) -> None:
    net = network()
    scheduler = diffusers.DDIMScheduler(**options(schedule), clip_sample=False, timestep_spacing="leading")
    x = SEEDS.start()

    def model(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t.float().expand(len(x)), NOTHING)

    a, b = theirs(scheduler, steps, model, x), ours(Diffusion(net, schedule), leading(), steps, ddim(), x)
    assert (a - b).abs().max() <= 1e-4 * max(1.0, b.abs().max().item())


@pytest.mark.parametrize(("name", "variance"), [("fixed_small", small), ("fixed_large", large)])
def test_ancestral_steps(name: str, variance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net, schedule, steps = network(), LinearBeta(), 50
    scheduler = diffusers.DDPMScheduler(clip_sample=False, variance_type=name, timestep_spacing="leading")
    times = leading()(schedule, steps)
    drawn = iter([SEEDS(s) for s in times[1:-1]])
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: next(drawn))

    def model(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t.float().expand(len(x)), NOTHING)

    a = theirs(scheduler, steps, model, SEEDS.start())
    b = ours(Diffusion(net, schedule), leading(), steps, ddpm(variance), SEEDS.start())
    assert (a - b).abs().max() <= 1e-4 * max(1.0, b.abs().max().item())


def test_heun_on_table_entries() -> None:
    """diffusers' Heun works on x / alpha; its entries are the linspace ones."""
    net, schedule, steps = network(), LinearBeta(), 12
    scheduler = diffusers.HeunDiscreteScheduler(
        beta_schedule="linear", beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    entries = scheduler.timesteps[::2].round()  # each appears twice but the first and last: N steps, 2N - 1 calls
    times = from_entries(entries, 1000)
    assert (scheduler.timesteps[::2] == entries).all()

    def model(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t.float().expand(len(x)), NOTHING)

    x = SEEDS.start()
    start = schedule(times[0])
    scaled = x / start.alpha.float()  # theirs holds x / alpha
    a = theirs(scheduler, steps, model, scaled)
    b = last(walk(Diffusion(net, schedule).given(NOTHING), x, times, heun(), SEEDS))
    assert (a - b).abs().max() <= 1e-4 * max(1.0, b.abs().max().item())


def test_edm_on_karras_sigmas() -> None:
    """EDM's preconditioning and grid with Euler steps, which are DDIM's."""
    net, schedule, steps = network(), EDM(), 18
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80, sigma_data=0.5, rho=7)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t.float().expand(len(x)), NOTHING)

    x = SEEDS.start() * 80
    a = theirs(scheduler, steps, model, x.clone())
    b = ours(Diffusion(net, schedule, edm()), karras(), steps, ddim(), x)
    assert (a - b).abs().max() <= 1e-4 * max(1.0, b.abs().max().item())


# --- where diffusers steps to another time than the one it visits next ---


def spread(end: Tensor) -> float:
    return (end[1] - end[0]).item()


def closed_form(world: Gaussian, schedule: Schedule, times: Tensor) -> float:
    """The product over steps of sqrt(v_s / v_t) cos(phi_t - phi_s): see the law in tests/samplers/test_samplers.py."""
    levels = [schedule(t) for t in times]
    product = 1.0
    for at, to in pairwise(levels):
        turn = torch.atan2(at.sigma, world.std * at.alpha) - torch.atan2(to.sigma, world.std * to.alpha)
        product *= ((world.variance(to) / world.variance(at)).sqrt() * torch.cos(turn)).item()
    return product


@pytest.mark.parametrize(
    ("spacing", "grid", "steps"),
    [("linspace", linspace(), 10), ("linspace", linspace(), 50), ("trailing", trailing(), 13)],
)
def test_ddim_steps_to_the_time_that_comes_next(spacing: str, grid: Spacing, steps: int) -> None:
    """On a Gaussian world the end is known exactly. Ours is there; diffusers' DDIM, which steps by T // N from
    wherever it is, is not."""
    schedule, world = LinearBeta(), Gaussian(0.0, 0.5)
    denoiser: Denoiser = world.denoiser(schedule)
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    times = grid(schedule, steps)
    truth = closed_form(world, schedule, times)
    assert spread(last(walk(denoiser, x, times, ddim(), SEEDS))) == pytest.approx(truth, abs=1e-12)

    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing=spacing)

    def model(x: Tensor, t: Tensor) -> Tensor:
        at = (t.double() + 1) / 1000
        return schedule(at).eps(x, denoiser(x, at).mean)

    off = abs(spread(theirs(scheduler, steps, model, x)) - truth)
    assert off > 1e-4, f"diffusers agrees now (off by {off:.2g}): take this case into the parity tests"


def test_the_even_grid_is_right_for_any_number_of_steps() -> None:
    schedule, world = LinearBeta(), Gaussian(0.0, 0.5)
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for steps in (7, 13, 30, 999):
        times = even(schedule, steps)
        found = spread(last(walk(world.denoiser(schedule), x, times, ddim(), SEEDS)))
        assert found == pytest.approx(closed_form(world, schedule, times), abs=1e-12)
        assert math.isfinite(found)
