"""Sampling on a device that is not the CPU: the same numbers as on the CPU, and a host that does not wait.

The device is pretended (tests/helpers/pretend_device.py). It has no float64, as MPS, and waits are counted, as on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.methods import METHODS
from tests.helpers.networks import NETWORKS, PLAIN, full_condition, random_network
from tests.helpers.pretend_device import DEVICE, PretendDevice, host
from tests.helpers.random_weights import randomised
from unnoise.acceleration.placement import Placement, place
from unnoise.config.cards import ModelCard, NoisyClassifierCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import DiTConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.denoiser import Denoiser, Diffusion, Estimate, make_diffusion
from unnoise.generate import inversion
from unnoise.generate import job as jobs
from unnoise.generate.frames import collect
from unnoise.generate.interpolation import between, between_pictures, shared
from unnoise.generate.job import Placed
from unnoise.guidance import autoguidance, chain, classifier_free
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.model import Model
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.noise import Seeds, normal
from unnoise.samplers import SPACINGS, State, walk

LEARNED = DiffusionConfig(learned_variance=True)
ROWS = 2


def there(channels_last: bool) -> Placement:
    return Placement(DEVICE, torch.float32, channels_last=channels_last)


CPU = Placement("cpu", torch.float32)


@cache
def diffusion_of(learned: bool) -> Diffusion:
    one_level = replace(PLAIN, channels=(8,), attention=(False,))
    config = replace(one_level, out_channels=6) if learned else one_level
    process = LEARNED if learned else DiffusionConfig()
    return make_diffusion(random_network(config), process).eval().requires_grad_(False)


@cache
def placed(learned: bool, placement: Placement) -> Diffusion:
    return place(diffusion_of(learned), placement)


# --- samplers ---

NAMES = [name for name in METHODS if name != "ncsn"]  # whose step is that of ncsn-v2, 100 times instead of 5


def walked(
    name: str, placement: Placement, device: PretendDevice | None = None, *, by_row: bool = False
) -> tuple[Tensor, int]:
    """The picture at the end of a walk, and the number of network calls; waits before the walk are not counted."""
    sampler, steps = METHODS[name], 3 if METHODS[name].calls < 4 else 2
    diffusion = placed(name == "ddpm-learned", placement)
    noise, calls = Seeds(tuple(range(ROWS)), (3, 8, 8), placement.device), 0

    def counted(x_t: Tensor, t: Tensor) -> Estimate:
        nonlocal calls
        calls += 1
        return diffusion(x_t, t)

    times = SPACINGS[sampler.spacing](1000)(diffusion.schedule, steps)
    if by_row:  # rows of a joined state: each at a time of its own
        times = torch.stack([times, times * 0.9], dim=1)
    denoiser, x = Denoiser(diffusion.schedule, counted), noise.start()
    if device is not None:
        device.seen.clear()
    for state in walk(denoiser, x, times, sampler.make(Request.of(steps=steps)), noise):
        x = state.x
    return host(x), calls


@pytest.mark.parametrize("name", NAMES)
def test_a_walk_is_the_same_as_on_the_cpu_and_never_waits(name: str) -> None:
    """Also where noise is added: it is computed on the CPU while the device works, and sent through pinned memory."""
    right, calls = walked(name, CPU)
    with PretendDevice() as device:
        found, _ = walked(name, there(True), device)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert device.waits == {}, calls


@pytest.mark.parametrize("name", NAMES)
def test_rows_at_different_times_are_the_same_without_float64(name: str) -> None:
    right, _ = walked(name, CPU, by_row=True)
    with PretendDevice(doubles=False) as device:
        found, _ = walked(name, there(False), device, by_row=True)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert device.waits == {}


def test_states_are_joined_and_cut_on_the_device() -> None:
    def joined(placement: Placement) -> Tensor:
        diffusion, step = placed(False, placement), METHODS["dpm++3m"].make(Request.of())
        denoiser = Denoiser(diffusion.schedule, lambda x_t, t: diffusion(x_t, t))
        noise = Seeds((0, 1), (3, 8, 8), placement.device)
        times = torch.tensor([0.9, 0.7, 0.5, 0.3], dtype=torch.float64)
        early = State(noise.start(), times[0])
        for s in times[1:3]:
            early = step(denoiser, early, s, noise)
        both = State.cat([early, State(noise.start(), times[0])])
        both = step(denoiser, both, torch.tensor([0.3, 0.3, 0.7, 0.7], dtype=torch.float64), noise_of_four(placement))
        return host(step(denoiser, both[torch.tensor([3, 0])], torch.tensor([0.5, 0.1], dtype=torch.float64), noise).x)

    def noise_of_four(placement: Placement) -> Seeds:
        return Seeds((0, 1, 2, 3), (3, 8, 8), placement.device)

    right = joined(CPU)
    with PretendDevice(doubles=False):
        found = joined(there(False))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


# --- conditions and guidance ---


@dataclass(frozen=True)
class Case:
    config: UNetConfig | DiTConfig
    request: dict[str, Any]


NULL_ONLY = {"guidance": 3.0, "guidance_rescale": 0.7}
CASES = {
    "classes, with rescaled guidance": Case(replace(PLAIN, classes=3), NULL_ONLY),
    "guidance in an interval": Case(replace(PLAIN, classes=3), {"guidance": 3.0, "guidance_interval": (0.1, 5.0)}),
    "a dynamic threshold": Case(replace(PLAIN, classes=3), {"guidance": 3.0, "dynamic_threshold": 0.99}),
    "values": Case(replace(PLAIN, classes=3, values=2), NULL_ONLY),
    "dit": Case(DiTConfig(size=8, width=16, depth=2, heads=2, classes=3), {"guidance": 2.0}),
    "ddpm with previews": Case(replace(PLAIN, classes=3), {"guidance": 2.0, "sampler": "ddpm", "previews": 1}),
}


def model_of(config: UNetConfig | DiTConfig) -> Model:
    values = tuple(ValueRange(name) for name in "ab"[: getattr(config, "values", 0)])
    card = ModelCard(net=config, size=(8, 8), classes=tuple("wxyz"[: config.classes]), values=values)
    return Model(make_diffusion(random_network(config), DiffusionConfig()).eval().requires_grad_(False), card)


def both(make: Callable[[Placement], Tensor], *, device: PretendDevice | None = None) -> None:
    """The numbers of `make` on the pretended device are those on the CPU."""
    right = make(CPU)
    with device or PretendDevice(doubles=False):
        found = host(make(there(True)))
    torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_the_same_as_on_the_cpu(name: str) -> None:
    """The host waits once for each preview and once for the pictures."""
    case = CASES[name]
    model, request = model_of(case.config), Request.of(seeds=(1, 2), steps=2, **case.request)
    device = PretendDevice(doubles=False)

    def drawn(placement: Placement) -> Tensor:
        job = jobs.prepare(Placed(model, placement), request)
        job.placed.diffusion  # noqa: B018 (the network is copied here, which waits)
        device.seen.clear()
        return collect(job)

    both(drawn, device=device)
    assert sum(device.waits.values()) == 1 + request.previews, device.waits


@pytest.mark.parametrize("name", NETWORKS)
def test_every_condition_is_the_same_as_on_the_cpu(name: str) -> None:
    """Guided by all conditions that a network has, from another set of them, in one batch and in a chain."""
    config = NETWORKS[name]
    diffusion = make_diffusion(random_network(config), DiffusionConfig()).eval().requires_grad_(False)
    cond, other = full_condition(config), full_condition(config, "the other")
    device = PretendDevice(doubles=False)

    def guided(placement: Placement) -> Tensor:
        placed = place(diffusion, placement)
        x, scale = normal((4, 3, 8, 8), "x").to(placement.device), torch.tensor([1.0, 2.0, 3.0, 0.0])
        device.seen.clear()
        mine, poor = cond.to(placement.device), other.to(placement.device)
        means = []
        for denoiser in (
            classifier_free(placed, mine, poor, 3.0, rescale=0.5),
            classifier_free(placed, mine, poor, scale),
            chain(placed, (poor, mine, mine), (2.0, scale)),
            autoguidance(placed.given(mine), placed.given(poor), 2.0),
        ):
            means.append(denoiser(x, torch.tensor(0.5, dtype=torch.float64)).mean)
        return torch.cat(means)

    both(guided, device=device)
    assert device.waits == {}


def test_a_noisy_classifier_guides_as_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(PLAIN, classes=3)
    card = NoisyClassifierCard(net=config, process=DiffusionConfig(), classes=tuple("wxy"))
    model = model_of(PLAIN)
    request = Request.of(seeds=(1, 2), labels=("w", "y"), steps=2, classifier="a classifier")

    def drawn(placement: Placement) -> Tensor:
        net = randomised(EncoderClassifier(config)).eval().requires_grad_(False)
        monkeypatch.setattr(jobs.noisy_classifier, "load", lambda path: NoisyClassifier(net, card))
        return collect(jobs.prepare(Placed(model, placement), request))

    both(drawn)


# --- edits ---


@pytest.mark.parametrize("convention", ["exact", "own", "target"])
def test_inversion_is_the_same_as_on_the_cpu(convention: str) -> None:
    model, x = model_of(replace(PLAIN, classes=3)), normal((2, 3, 8, 8), "pictures").clamp(-1, 1)

    def noise(placement: Placement) -> Tensor:
        request = Request.of(seeds=(0, 1), labels=("w", "x"), steps=2)
        job = inversion.prepare_inversion(Placed(model, placement), request)
        found = inversion.invert(job, x, convention=convention)
        back = collect(job.starting(inversion.from_noise(job, found.noise)))
        return torch.cat([found.noise, back])

    right = noise(CPU)
    with PretendDevice(doubles=False):
        found = host(noise(there(True)))
    torch.testing.assert_close(found, right, rtol=1e-2, atol=2e-3)  # the iteration ends within its tolerance


def test_interpolation_is_the_same_as_on_the_cpu() -> None:
    model = model_of(PLAIN)
    a, b = normal((2, 3, 8, 8), "ends").clamp(-1, 1)

    def drawn(placement: Placement) -> Tensor:
        job = jobs.prepare(Placed(model, placement), Request.of(seeds=(0, 0, 0), steps=2, sampler="ddpm"))
        starts = (between(job, (1, 2), 3), between_pictures(model, a, b, 3), shared(job, 0.5))
        return torch.cat([collect(job.starting(start)) for start in starts])

    both(drawn)
