"""diffusers is the judge of its scheduler files: the process is the same, and so are pictures where the method is.

Where a class or an option has no equal here, the model loads and a note states it; what has no effect is silent.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.random_weights import randomised
from unnoise.conditions import NOTHING
from unnoise.config.networks import UNetConfig
from unnoise.config.request import Request
from unnoise.denoiser import Diffusion, make_diffusion
from unnoise.errors import UserError
from unnoise.formats import schedulers
from unnoise.formats.scheduler_classes import DEFAULTS, FLOW_MATCHING
from unnoise.nn import UNet
from unnoise.noise import Seeds
from unnoise.samplers import SAMPLERS, find_spacing, last, walk
from unnoise.samplers.timesteps import from_entries

theirs = pytest.importorskip("diffusers")

SHAPE = (1, 8, 8)
SEEDS = Seeds((3, 4), SHAPE)
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
each_class = pytest.mark.parametrize("kind", DEFAULTS)


def read(kind: str, **settings: Any) -> schedulers.Scheduler:
    return schedulers.from_config({"_class_name": kind} | settings, "there")


def made(kind: str, **settings: Any) -> Any:
    return getattr(theirs, kind)(**settings)


# --- classes and their settings ---


@each_class
def test_missing_settings_have_the_defaults_of_the_class(kind: str) -> None:
    own = {name: each.default for name, each in inspect.signature(getattr(theirs, kind)).parameters.items()}
    assert own == DEFAULTS[kind]


@each_class
@pytest.mark.parametrize("settings", [{}, STABLE_DIFFUSION, {"beta_schedule": "squaredcos_cap_v2"}], ids=str)
def test_the_process_is_that_of_the_class(kind: str, settings: dict[str, Any]) -> None:
    settings = {key: value for key, value in settings.items() if key in DEFAULTS[kind]}
    found = read(kind, **settings)
    schedule = make_diffusion(network(), found.process).schedule
    if kind in FLOW_MATCHING:
        sigma = made(kind).sigmas[:-1] if kind.endswith("HeunDiscreteScheduler") else made(kind).sigmas
        at = schedule(sigma.double())
        torch.testing.assert_close(at.sigma, sigma.double())
        torch.testing.assert_close(at.alpha, 1 - sigma.double())
        return
    alphas = made(kind, **settings).alphas_cumprod.double()
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(schedule(times).alpha.square(), alphas, atol=2e-6, rtol=1e-3)  # theirs is float32


@each_class
def test_settings_of_other_classes_have_no_effect(kind: str) -> None:
    """Files collect them when the scheduler of a pipeline is replaced: diffusers ignores them, whatever their value."""
    others = {name: "nonsense" for settings in DEFAULTS.values() for name in settings if name not in DEFAULTS[kind]}
    assert read(kind, **others, tensor_format="pt") == read(kind)


@each_class
def test_settings_that_no_class_has_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match=r"there: no setting of .* 'num_train_timestep'"):
        read(kind, num_train_timestep=1000)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("MyScheduler", {}, "no scheduler 'MyScheduler'"),
        (["DDIMScheduler"], {}, "no scheduler"),
        ("DDIMScheduler", {"beta_end": math.nan}, "there: beta_end is nan"),
        ("EulerDiscreteScheduler", {"beta_end": 1.0}, "there: beta_end is 1.0"),
        ("UniPCMultistepScheduler", {"beta_start": -0.1}, "there: beta_start is -0.1"),
        ("HeunDiscreteScheduler", {"num_train_timesteps": 0}, "there: num_train_timesteps is 0"),
        ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 0}, "there: num_train_timesteps is 0"),
        ("HeunDiscreteScheduler", {"beta_schedule": "exp"}, "there: beta_schedule is 'exp'"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "there: timestep_type is 'continuous'"),
        ("DDPMScheduler", {"variance_type": "learned"}, "there: variance_type is 'learned'"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "there: prediction_type is 'epsilon'"),
        ("DDIMScheduler", {"prediction_type": ["epsilon"]}, "there: prediction_type is"),
    ],
    ids=str,
)
def test_a_process_without_an_equal_is_refused_by_name(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(kind, **settings)
    assert message in str(error.value)


SILENT: list[tuple[str, dict[str, Any], str]] = [  # class, settings, sampler
    ("DDPMScheduler", {}, "ddpm"),
    ("DDPMScheduler", {"variance_type": "fixed_large"}, "ddpm-large"),
    ("DDPMScheduler", {"variance_type": "learned_range"}, "ddpm-learned"),
    ("DDIMScheduler", {"clip_sample": False, "clip_sample_range": 2.0}, "ddim"),
    ("EulerDiscreteScheduler", {}, "euler"),
    ("EulerAncestralDiscreteScheduler", {"use_karras_sigmas": True}, "euler-ancestral"),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, "heun"),
    ("UniPCMultistepScheduler", {"solver_type": "midpoint"}, "unipc"),  # read as bh2 in diffusers too
    ("DPMSolverMultistepScheduler", {}, "dpm++2m"),
    ("DPMSolverMultistepScheduler", {"solver_order": 1}, "ddim"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "dpm++2m-sde"),
    ("FlowMatchEulerDiscreteScheduler", {}, "euler"),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, "unipc"),
]  # fmt: skip
STATED: list[tuple[str, dict[str, Any], str, str]] = [  # class, settings, sampler, part of the note
    ("DDIMScheduler", {"set_alpha_to_one": False}, "ddim", "set_alpha_to_one False"),
    ("DDIMScheduler", {"clip_sample_range": 2.0}, "ddim", "clip_sample_range 2.0"),
    ("DDPMScheduler", {"thresholding": True}, "ddpm", "thresholding True"),
    ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}, "euler", "final_sigmas_type 'sigma_min'"),
    ("EulerDiscreteScheduler", {"use_beta_sigmas": True}, "euler", "use_beta_sigmas True"),
    ("UniPCMultistepScheduler", {"disable_corrector": [0]}, "unipc", "disable_corrector [0]"),
    ("UniPCMultistepScheduler", {"solver_order": 3}, "unipc-3", "lower_order_final True"),
    ("UniPCMultistepScheduler", {"solver_type": "bh1"}, "unipc", "solver_type 'bh1'"),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpm++3m", "solver_order 3"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "dpm++2m", "algorithm_type 'dpmsolver'"),
    ("DPMSolverMultistepScheduler", {"solver_type": "heun"}, "dpm++2m", "solver_type 'heun'"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler", "shift 3.0"),
    ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}, "euler", "use_karras_sigmas True"),
    *(
        (kind, {}, sampler, f"{kind} is replaced by the sampler {sampler}")
        for kind, sampler in (
            ("PNDMScheduler", "plms"),
            ("LMSDiscreteScheduler", "plms"),
            ("DEISMultistepScheduler", "dpm++2m"),
            ("KDPM2DiscreteScheduler", "dpm++2s"),
            ("KDPM2AncestralDiscreteScheduler", "euler-ancestral"),
            ("DPMSolverSinglestepScheduler", "dpm++2s"),
            ("LCMScheduler", "ddim"),
            ("TCDScheduler", "ddim"),
        )
    ),
]


@pytest.mark.parametrize(("kind", "settings", "sampler"), SILENT, ids=str)
def test_what_has_an_equal_loads_silently(kind: str, settings: dict[str, Any], sampler: str) -> None:
    found = read(kind, **settings)
    assert (found.sampler, found.notes) == (sampler, [])
    assert sampler in SAMPLERS


@pytest.mark.parametrize(("kind", "settings", "sampler", "note"), STATED, ids=str)
def test_what_has_no_equal_is_stated_in_a_note(kind: str, settings: dict[str, Any], sampler: str, note: str) -> None:
    found = read(kind, **settings)
    assert found.sampler == sampler
    (line,) = found.notes
    assert line.startswith("there: ")
    assert note in line


# --- pictures ---


def network() -> UNet:
    config = UNetConfig(
        size=8, in_channels=1, out_channels=1, channels=(8, 16), blocks=1, attention=(False, True), groups=4
    )
    return randomised(UNet(config)).eval()


@torch.no_grad()
def pictures_there(scheduler: Any, net: UNet, x: Tensor, steps: int) -> Tensor:
    """diffusers' own loop, from noise of unit variance."""
    scheduler.set_timesteps(steps)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        out = net(scheduler.scale_model_input(x, t), t.float().expand(len(x)), NOTHING)
        x = scheduler.step(out, t, x).prev_sample
    return x


@torch.no_grad()
def pictures_here(diffusion: Diffusion, sampler: str, times: Tensor, x: Tensor) -> Tensor:
    return last(walk(diffusion.given(NOTHING), x, times, SAMPLERS[sampler].make(Request()), SEEDS))


SAME: list[tuple[str, dict[str, Any]]] = [
    ("DDIMScheduler", {"clip_sample": False}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("HeunDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("UniPCMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"solver_order": 1}),
]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("kind", "settings"), SAME, ids=str)
def test_the_sampler_of_a_class_generates_its_pictures(
    kind: str, settings: dict[str, Any], prediction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On diffusers' times, with its noise where a step adds some."""
    settings = STABLE_DIFFUSION | settings | {"prediction_type": prediction}
    scheduler, found, net = made(kind, **settings), read(kind, **settings), network()
    scheduler.set_timesteps(10)
    doubled = kind == "HeunDiscreteScheduler"  # each time but the first stands twice there
    times = from_entries(scheduler.timesteps[::2] if doubled else scheduler.timesteps, 1000)
    noise = iter([SEEDS(s) for s in times[1:]])
    module = inspect.getmodule(type(scheduler))
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(noise))
    diffusion = make_diffusion(net, found.process)
    start = SEEDS.start()
    if scheduler.init_noise_sigma == 1:
        x_there, x_here = start, start
    else:  # x / alpha there; theirs starts with the sigma of the first time, or a little more
        level = diffusion.schedule(times[0])
        x_there, x_here = start, start * float(scheduler.init_noise_sigma) * level.alpha.float()
    there = pictures_there(scheduler, net, x_there, 10)
    here = pictures_here(diffusion, found.sampler, times, x_here)
    assert there.std() > 0.1
    assert (here - there).abs().max() < 2e-3 * there.abs().max()  # theirs keeps sigmas in float32


def test_flow_matching_generates_the_pictures_of_diffusers() -> None:
    net, steps = network(), 8
    scheduler, found = made("FlowMatchEulerDiscreteScheduler"), read("FlowMatchEulerDiscreteScheduler")
    scheduler.set_timesteps(steps)
    times = torch.cat([scheduler.timesteps.double() / 1000, torch.zeros(1, dtype=torch.float64)])
    x, start = SEEDS.start(), SEEDS.start()
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t.expand(len(x)), NOTHING), t, x).prev_sample
    diffusion = make_diffusion(net, found.process)
    own = find_spacing(found.spacing, 1000, options=found.spacing_options)(diffusion.schedule, steps)
    torch.testing.assert_close(own, times, atol=1e-6, rtol=0)
    here = pictures_here(diffusion, found.sampler, times, start)
    assert (here - x).abs().max() < 1e-4 * x.abs().max()
