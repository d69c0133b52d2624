"""diffusers' scheduler settings: the betas and the prediction are our process, the rest is how somebody drew.

What a setting means is the classes' own documentation and code (diffusers 0.42); one that is not in a file has the
class's default. Their betas are as they stand for any number of steps, ours are for 1,000 and scaled by 1000 / T.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from unnoise.config.diffusion import DiffusionConfig
from unnoise.errors import UserError, unknown
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
CLIPPED = ("DDPMScheduler", "DDIMScheduler")  # the others leave estimates as they are, whatever a file says
WITHOUT_EFFECT = {  # old, or another class's
    *("tensor_format", "timestep_values", "variance_type", "set_alpha_to_one", "skip_prk_steps"),
}

ENDS = {"begin": 1e-4, "end": 0.02}  # of our schedules of betas where nothing is said
PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SAMPLERS = {  # variance_type: our sampler
    "fixed_small": "ddpm",
    "fixed_small_log": "ddpm",
    "fixed_large": "ddpm-large",
    "fixed_large_log": "ddpm-large",
    "learned_range": "ddpm-learned",
}
DRAWN = {"DDIMScheduler": "ddim", "PNDMScheduler": "plms", "EulerDiscreteScheduler": "euler"}
VARIANCES = {"ddpm": "fixed_small", "ddpm-large": "fixed_large", "ddpm-learned": "learned_range"}


class Said(NamedTuple):
    """What a scheduler_config.json says: the process, and how its model is drawn where nobody says otherwise."""

    process: DiffusionConfig
    sampler: str
    spacing: str
    clip: bool  # estimates to [-1, 1]


def from_config(given: Mapping[str, Any], where: str) -> Said:
    """Our words for their scheduler_config.json.

    Raises UserError for a setting or a value that we cannot say; `where` begins it. Settings that only say how to draw
    (timestep_spacing, steps_offset, thresholding, set_alpha_to_one) are checked and then up to each request; Euler's
    spacing is kept, for our own Euler likes another.
    """
    kind = given.get("_class_name", "DDPMScheduler")
    if kind not in DEFAULTS:
        raise UserError(f"{where}: {unknown('scheduler', kind, DEFAULTS)}; save the pipeline with one of these")
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
    if variance not in SAMPLERS:
        raise _not_ours(where, "variance_type", variance, " or ".join(SAMPLERS))
    process = DiffusionConfig(
        schedule=schedule,
        steps=steps,
        schedule_options=options,
        zero_snr=data["rescale_betas_zero_snr"],
        predicts=PREDICTS[data["prediction_type"]],
        learned_variance=variance == "learned_range",
    )
    sampler = DRAWN.get(kind, SAMPLERS[variance])
    spacing = "auto" if sampler != "euler" else "karras" if data["use_karras_sigmas"] else data["timestep_spacing"]
    return Said(process, sampler, spacing, data["clip_sample"] and kind in CLIPPED)


def _check(data: Mapping[str, Any], where: str) -> None:
    understood: dict[str, tuple[Any, ...]] = {
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
        understood["clip_sample_range"] = (1.0,)
    for key, values in understood.items():
        if key in data and data[key] not in values:
            raise _not_ours(where, key, data[key], " or ".join(map(repr, values)))


def _schedule(data: Mapping[str, Any], where: str) -> tuple[int, str, dict[str, Any]]:
    """The number of steps, and the name and the options of the schedule."""
    steps = data["num_train_timesteps"]
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= 10**6:
        raise _not_ours(where, "num_train_timesteps", steps, "a whole number from 1 to 1,000,000")
    betas = data["trained_betas"]
    if betas is not None:
        if not isinstance(betas, list) or not all(_is_share(beta) for beta in betas):
            raise UserError(f"{where}: trained_betas is no list of numbers between 0 and 1, the ends left out")
        if len(betas) != steps:
            raise UserError(f"{where}: {len(betas)} trained_betas for num_train_timesteps {steps}: they are one number")
        return steps, "table", {"values": tuple(map(float, betas))}
    name = data["beta_schedule"]
    if name == "squaredcos_cap_v2":
        return steps, "cosine", {}
    if name not in ("linear", "scaled_linear", "sigmoid"):
        valid = "linear or scaled_linear or squaredcos_cap_v2 or sigmoid"
        raise _not_ours(where, "beta_schedule", name, valid)
    for key in ("beta_start", "beta_end"):
        if not _is_share(data[key]):
            raise _not_ours(where, key, data[key], "a number between 0 and 1")
    scale = 1.0 if name == "sigmoid" else steps / 1000
    ends = {"begin": data["beta_start"] * scale, "end": data["beta_end"] * scale}
    options = {key: value for key, value in ends.items() if value != ENDS[key]}
    ours = {"linear": "linear", "scaled_linear": "scaled-linear", "sigmoid": "sigmoid-beta"}
    return steps, ours[name], options


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _not_ours(where: str, key: str, value: object, understood: str) -> UserError:
    return UserError(f"{where}: {key} is {repr(value)[:80]}: only {understood} is understood")


def to_config(process: DiffusionConfig, sampler: str, *, clip: bool) -> dict[str, Any]:
    """Their scheduler_config.json of our process, drawn by `sampler` (ddim, ddpm, ddpm-large, ddpm-learned).

    A schedule that they have no name for is written as its table of betas; one that leaves nothing of the picture has
    a last beta of one, which diffusers draws from and `from_config` does not take back. Raises UserError for what they
    cannot say.
    """
    if sampler not in (*VARIANCES, "ddim"):
        raise UserError(f"a diffusers folder is drawn by ddim, {', '.join(VARIANCES)}; {sampler!r} is none of them")
    if process.learned_variance != (sampler == "ddpm-learned"):
        learned = "learned its variance" if process.learned_variance else "did not learn a variance"
        right = "ddpm-learned" if process.learned_variance else "ddim"
        raise UserError(f"a network that {learned} cannot be drawn by {sampler!r} in diffusers: take {right}")
    names = {ours: name for name, ours in PREDICTS.items()}
    if process.predicts not in names:
        raise UserError(f"diffusers' DDPM and DDIM know predictions of {', '.join(names)}, not {process.predicts!r}")
    kind = "DDIMScheduler" if sampler == "ddim" else "DDPMScheduler"
    drawn = {} if sampler == "ddim" else {"variance_type": VARIANCES[sampler]}
    said = {
        "num_train_timesteps": process.steps,
        "prediction_type": names[process.predicts],
        "clip_sample": clip,
        "rescale_betas_zero_snr": process.zero_snr,
    }
    return {"_class_name": kind} | DEFAULTS[kind] | drawn | said | _betas(process, kind)


def _betas(process: DiffusionConfig, kind: str) -> dict[str, Any]:
    schedule = make_schedule(process.schedule, process.schedule_options, steps=process.steps)
    if not isinstance(schedule, VariancePreserving):
        raise UserError(
            f"diffusers' DDPM and DDIM keep alpha^2 + sigma^2 = 1; the schedule {process.schedule!r} does not: "
            "a model trained on it cannot be written as a diffusers folder"
        )
    if process.zero_snr and isinstance(schedule, Shifted):
        raise UserError(
            "diffusers has no schedule that is both shifted and of zero terminal SNR: export it as unnoise's"
        )
    scale = 1000 / process.steps
    match schedule:
        case LinearBeta(steps=process.steps):
            return {"beta_start": scale * schedule.begin, "beta_end": scale * schedule.end}
        case ScaledLinear(steps=process.steps):
            ends = {"beta_start": scale * schedule.begin, "beta_end": scale * schedule.end}
            return ends | {"beta_schedule": "scaled_linear"}
        case SigmoidBeta(steps=process.steps) if kind == "DDPMScheduler":  # DDIM's does not know it
            ends = {"beta_start": schedule.begin, "beta_end": schedule.end}
            return ends | {"beta_schedule": "sigmoid"}
        case Cosine(steps=process.steps, offset=0.008, max_beta=0.999):
            return {"beta_schedule": "squaredcos_cap_v2"}
    times = torch.arange(process.steps + 1, dtype=torch.float64) / process.steps
    betas = -torch.expm1(schedule.log_alpha2(times).diff())
    return {"trained_betas": betas.tolist()}
