"""Conversion between diffusers' scheduler settings and a DiffusionConfig, both ways.

The betas and the prediction define the process; the other settings describe sampling. Their meaning follows the
documentation and code of the classes (diffusers 0.42), and a missing one has the class's default. diffusers' betas are
used as they are for any number of steps; unnoise's are for 1,000 steps and scaled by 1000 / T.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from unnoise.config.diffusion import DiffusionConfig
from unnoise.errors import UserError, unknown
from unnoise.formats.settings import unsupported
from unnoise.schedules import (
    Cosine,
    LinearBeta,
    ScaledLinear,
    Shifted,
    SigmoidBeta,
    VariancePreserving,
    make_schedule,
)

COMMON: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": COMMON | {"variance_type": "fixed_small"},
    "DDIMScheduler": COMMON | {"set_alpha_to_one": True},
    "PNDMScheduler": COMMON | {"clip_sample": False, "skip_prk_steps": False, "set_alpha_to_one": False},
    "EulerDiscreteScheduler": COMMON
    | {
        "clip_sample": False,
        "timestep_spacing": "linspace",
        "interpolation_type": "linear",
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "sigma_min": None,
        "sigma_max": None,
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
}
CLIPPED = ("DDPMScheduler", "DDIMScheduler")  # the others never clip estimates, whatever a file has
WITHOUT_EFFECT = {  # settings of old versions, or of another class
    *("tensor_format", "timestep_values", "variance_type", "set_alpha_to_one", "skip_prk_steps"),
}

ENDS = {"begin": 1e-4, "end": 0.02}  # defaults of the schedules of betas
PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SAMPLERS = {  # variance_type: sampler
    "fixed_small": "ddpm",
    "fixed_small_log": "ddpm",
    "fixed_large": "ddpm-large",
    "fixed_large_log": "ddpm-large",
    "learned_range": "ddpm-learned",
}
SAMPLER_OF = {"DDIMScheduler": "ddim", "PNDMScheduler": "plms", "EulerDiscreteScheduler": "euler"}
VARIANCES = {"ddpm": "fixed_small", "ddpm-large": "fixed_large", "ddpm-learned": "learned_range"}


class Scheduler(NamedTuple):
    """The contents of a scheduler_config.json: the process, and the default sampler of its model."""

    process: DiffusionConfig
    sampler: str
    spacing: str
    clip: bool  # whether estimates are clipped to [-1, 1]


def from_config(given: Mapping[str, Any], where: str) -> Scheduler:
    """The process and the sampler of a scheduler_config.json; `where` begins every error message.

    Settings of sampling alone (timestep_spacing, steps_offset, thresholding, set_alpha_to_one) are checked and then
    left to each request, except the spacing of Euler, whose default in unnoise is another. Raises UserError for a
    setting or a value without an equivalent.
    """
    kind = given.get("_class_name", "DDPMScheduler")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise UserError(f"{where}: {unknown('scheduler', kind, DEFAULTS)}; save the pipeline with one of them")
    data = dict(DEFAULTS[kind])
    for key, value in given.items():
        if key == "predict_epsilon":  # diffusers before 0.8
            data["prediction_type"] = "epsilon" if value else "sample"
        elif key in data:
            data[key] = value
        elif not key.startswith("_") and key not in WITHOUT_EFFECT:
            raise UserError(f"{where}: {unknown(f'setting of {kind}', key, data)}")
    _check(data, where)
    steps, schedule, options = _schedule(data, where)
    variance = data.get("variance_type", "fixed_small")
    if not isinstance(variance, str) or variance not in SAMPLERS:
        raise unsupported(where, "variance_type", variance, " or ".join(SAMPLERS))
    process = DiffusionConfig(
        schedule=schedule,
        steps=steps,
        schedule_options=options,
        zero_snr=data["rescale_betas_zero_snr"],
        predicts=PREDICTS[data["prediction_type"]],
        learned_variance=variance == "learned_range",
    )
    sampler = SAMPLER_OF.get(kind, SAMPLERS[variance])
    spacing = "auto" if sampler != "euler" else "karras" if data["use_karras_sigmas"] else data["timestep_spacing"]
    return Scheduler(process, sampler, spacing, data["clip_sample"] and kind in CLIPPED)


def _check(data: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a value that is not supported."""
    supported: dict[str, tuple[Any, ...]] = {
        "prediction_type": tuple(PREDICTS),
        "timestep_spacing": ("leading", "linspace", "trailing"),
        "clip_sample": (True, False),
        "rescale_betas_zero_snr": (True, False),
        "thresholding": (True, False),
        "interpolation_type": ("linear",),
        "use_karras_sigmas": (True, False),
        "use_exponential_sigmas": (False,),
        "use_beta_sigmas": (False,),
        "timestep_type": ("discrete",),
        "final_sigmas_type": ("zero",),
    }
    if data["clip_sample"] is True:
        supported["clip_sample_range"] = (1.0,)
    for key, values in supported.items():
        if key in data and data[key] not in values:
            raise unsupported(where, key, data[key], " or ".join(map(repr, values)))


def _schedule(data: Mapping[str, Any], where: str) -> tuple[int, str, dict[str, Any]]:
    """The number of steps, and the name and the options of the schedule."""
    steps = data["num_train_timesteps"]
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= 10**6:
        raise unsupported(where, "num_train_timesteps", steps, "a whole number from 1 to 1,000,000")
    betas = data["trained_betas"]
    if betas is not None:
        if not isinstance(betas, list) or not all(_is_fraction(beta) for beta in betas):
            raise UserError(f"{where}: trained_betas has to be a list of numbers above 0 and below 1")
        if len(betas) != steps:
            raise UserError(
                f"{where}: {len(betas)} trained_betas for num_train_timesteps {steps}: both have to be the same"
            )
        return steps, "table", {"values": tuple(map(float, betas))}
    name = data["beta_schedule"]
    if name == "squaredcos_cap_v2":
        return steps, "cosine", {}
    if name not in ("linear", "scaled_linear", "sigmoid"):
        valid = "linear or scaled_linear or squaredcos_cap_v2 or sigmoid"
        raise unsupported(where, "beta_schedule", name, valid)
    for key in ("beta_start", "beta_end"):
        if not _is_fraction(data[key]):
            raise unsupported(where, key, data[key], "a number between 0 and 1")
    scale = 1.0 if name == "sigmoid" else steps / 1000
    ends = {"begin": data["beta_start"] * scale, "end": data["beta_end"] * scale}
    options = {key: value for key, value in ends.items() if value != ENDS[key]}
    schedules = {"linear": "linear", "scaled_linear": "scaled-linear", "sigmoid": "sigmoid-beta"}
    return steps, schedules[name], options


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def to_config(process: DiffusionConfig, sampler: str, *, clip: bool) -> dict[str, Any]:
    """The scheduler_config.json of a process with `sampler` (ddim, ddpm, ddpm-large, ddpm-learned).

    A schedule without a name in diffusers is written as a table of betas. With zero terminal SNR the last beta is one,
    which diffusers samples with and `from_config` refuses. Raises UserError for a process without an equivalent.
    """
    if sampler not in (*VARIANCES, "ddim"):
        raise UserError(f"a diffusers folder cannot have the sampler {sampler!r}: use ddim, {' or '.join(VARIANCES)}")
    if process.learned_variance != (sampler == "ddpm-learned"):
        learned = "learned its variance" if process.learned_variance else "did not learn a variance"
        right = "ddpm-learned" if process.learned_variance else "ddim"
        raise UserError(f"diffusers cannot use the sampler {sampler!r} with a network that {learned}: use {right}")
    names = {prediction: name for name, prediction in PREDICTS.items()}
    if process.predicts not in names:
        raise UserError(
            f"diffusers' DDPM and DDIM support the predictions {', '.join(names)}, not {process.predicts!r}"
        )
    kind = "DDIMScheduler" if sampler == "ddim" else "DDPMScheduler"
    variance = {} if sampler == "ddim" else {"variance_type": VARIANCES[sampler]}
    settings = {
        "num_train_timesteps": process.steps,
        "prediction_type": names[process.predicts],
        "clip_sample": clip,
        "rescale_betas_zero_snr": process.zero_snr,
    }
    return {"_class_name": kind} | DEFAULTS[kind] | variance | settings | _betas(process, kind)


def _betas(process: DiffusionConfig, kind: str) -> dict[str, Any]:
    schedule = make_schedule(process.schedule, process.schedule_options, steps=process.steps)
    if not isinstance(schedule, VariancePreserving):
        raise UserError(
            f"diffusers' DDPM and DDIM need alpha^2 + sigma^2 = 1, unlike the schedule {process.schedule!r}: a model "
            "trained with it cannot be exported"
        )
    if process.zero_snr and isinstance(schedule, Shifted):
        raise UserError(
            "diffusers has no schedule that is both shifted and of zero terminal SNR: this model cannot be exported"
        )
    scale = 1000 / process.steps
    match schedule:
        case LinearBeta(steps=process.steps):
            return {"beta_start": scale * schedule.begin, "beta_end": scale * schedule.end}
        case ScaledLinear(steps=process.steps):
            ends = {"beta_start": scale * schedule.begin, "beta_end": scale * schedule.end}
            return ends | {"beta_schedule": "scaled_linear"}
        case SigmoidBeta(steps=process.steps) if kind == "DDPMScheduler":  # DDIMScheduler does not have it
            ends = {"beta_start": schedule.begin, "beta_end": schedule.end}
            return ends | {"beta_schedule": "sigmoid"}
        case Cosine(steps=process.steps, offset=0.008, max_beta=0.999):
            return {"beta_schedule": "squaredcos_cap_v2"}
    times = torch.arange(process.steps + 1, dtype=torch.float64) / process.steps
    betas = -torch.expm1(schedule.log_alpha2(times).diff())
    return {"trained_betas": betas.tolist()}
