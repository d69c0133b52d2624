"""diffusers' scheduler classes: their settings and defaults, and the sampler here that does the same steps.

A setting of a class that changes pictures and that is not applied here is stated in a note, and so is the default
sampler of a class whose steps no sampler here does. A setting of another class has no effect, as in diffusers: files
collect them when the scheduler of a pipeline is replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Data = Mapping[str, Any]

_TABLE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_NARROW = _TABLE | {"beta_start": 0.00085, "beta_end": 0.012}
_THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
_LINSPACE = {"timestep_spacing": "linspace", "steps_offset": 0}
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW = {"use_flow_sigmas": False, "flow_shift": 1.0, "use_dynamic_shifting": False, "time_shift_type": "exponential"}
_DDIM = _TABLE | _CLIP | _THRESHOLD | _LEADING | _ZERO_SNR
_SOLVER = _TABLE | _THRESHOLD | _SIGMAS | _FLOW | {"solver_order": 2, "lower_order_final": True}
_DPM = _SOLVER | {
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}
_CONSISTENCY = _DDIM | {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "original_inference_steps": 50,
    "set_alpha_to_one": True,
    "timestep_scaling": 10.0,
}
_KDPM2 = _NARROW | _SIGMAS | _LINSPACE

DEFAULTS: dict[str, dict[str, Any]] = {  # of diffusers 0.42
    "DDPMScheduler": _DDIM | {"variance_type": "fixed_small"},
    "DDIMScheduler": _DDIM | {"set_alpha_to_one": True},
    "PNDMScheduler": _TABLE | _LEADING | {"skip_prk_steps": False, "set_alpha_to_one": False},
    "EulerDiscreteScheduler": _TABLE
    | _SIGMAS
    | _LINSPACE
    | _ZERO_SNR
    | {"interpolation_type": "linear", "sigma_min": None, "sigma_max": None, "timestep_type": "discrete"}
    | {"final_sigmas_type": "zero"},
    "EulerAncestralDiscreteScheduler": _TABLE | _LINSPACE | _ZERO_SNR,
    "HeunDiscreteScheduler": _NARROW | _SIGMAS | _LINSPACE | _CLIP | {"clip_sample": False},
    "LMSDiscreteScheduler": _TABLE | _SIGMAS | _LINSPACE,
    "UniPCMultistepScheduler": _SOLVER
    | _LINSPACE
    | _ZERO_SNR
    | {"predict_x0": True, "solver_type": "bh2", "disable_corrector": [], "solver_p": None}
    | {"final_sigmas_type": "zero", "sigma_min": None, "sigma_max": None, "shift_terminal": None},
    "DPMSolverMultistepScheduler": _DPM | _LINSPACE | _ZERO_SNR | {"euler_at_final": False, "use_lu_lambdas": False},
    "DPMSolverSinglestepScheduler": _DPM | {"lower_order_final": False},
    "DEISMultistepScheduler": _SOLVER | _LINSPACE | {"algorithm_type": "deis", "solver_type": "logrho"},
    "KDPM2DiscreteScheduler": _KDPM2,
    "KDPM2AncestralDiscreteScheduler": _KDPM2,
    "LCMScheduler": _CONSISTENCY,
    "TCDScheduler": _CONSISTENCY,
    "FlowMatchEulerDiscreteScheduler": _SIGMAS
    | {"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False, "time_shift_type": "exponential"}
    | {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    | {"invert_sigmas": False, "shift_terminal": None, "stochastic_sampling": False},
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 1.0},
}
FLOW_MATCHING = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
OF_OTHERS = {  # settings of old versions, and of classes that are not read
    *("tensor_format", "timestep_values", "eta", "predictor_order", "corrector_order", "tau_func", "sigma_data"),
    *("sigma_schedule", "rho", "s_noise", "s_min", "s_max", "s_churn", "snr", "sampling_eps", "correct_steps"),
    *("noise_sampler_seed", "gamma", "clip_denoised", "min_beta", "solver_p", "use_noise_sampler"),
}
KNOWN = {name for settings in DEFAULTS.values() for name in settings} | OF_OTHERS

# --- samplers ---

VARIANCES = {  # variance_type of DDPMScheduler: sampler
    "fixed_small": "ddpm",
    "fixed_small_log": "ddpm",
    "fixed_large": "ddpm-large",
    "fixed_large_log": "ddpm-large",
    "learned_range": "ddpm-learned",
}


class Choice(NamedTuple):
    """The sampler of a class, and the settings whose values change pictures and are not applied."""

    sampler: str
    ignored: tuple[str, ...] = ()
    same: bool = True  # whether the sampler does the steps of the class


def _ddpm(data: Data) -> Choice:
    return Choice(VARIANCES[data["variance_type"]])


def _unipc(data: Data) -> Choice:
    order = data["solver_order"]
    ignored = [] if order in (2, 3) else ["solver_order"]
    ignored += ["solver_type"] if data["solver_type"] == "bh1" else []  # others are read as bh2
    ignored += [key for key, usual in (("predict_x0", True), ("disable_corrector", [])) if data[key] != usual]
    ignored += ["solver_p"] if data["solver_p"] is not None else []
    ignored += ["lower_order_final"] if order == 3 or not data["lower_order_final"] else []
    return Choice("unipc-3" if order == 3 else "unipc", tuple(ignored))


def _dpm_multistep(data: Data) -> Choice:
    order, algorithm, rule = data["solver_order"], data["algorithm_type"], data["solver_type"]
    if algorithm == "dpmsolver++" and order == 1:
        return Choice("ddim")
    stochastic = str(algorithm).startswith("sde-")
    ignored = ["algorithm_type"] if algorithm not in ("dpmsolver++", "sde-dpmsolver++") else []
    ignored += ["solver_order"] if order not in ((2,) if stochastic else (2, 3)) else []
    ignored += ["solver_type"] if rule == "heun" and order == 2 else []  # others are read as midpoint
    if stochastic:
        return Choice("dpm++2m-sde", tuple(ignored))
    if order == 3:  # here the exact weights (docs/samplers.md), and no lower order before the end
        return Choice("dpm++3m", (*ignored, "solver_order"))
    return Choice("dpm++2m", tuple(ignored))


def _always(sampler: str, *, same: bool = True) -> Callable[[Data], Choice]:
    return lambda data: Choice(sampler, same=same)


SAMPLERS: dict[str, Callable[[Data], Choice]] = {
    "DDPMScheduler": _ddpm,
    "DDIMScheduler": _always("ddim"),
    "PNDMScheduler": _always("plms", same=False),  # starts with two calls for its first step, or with 12
    "EulerDiscreteScheduler": _always("euler"),
    "EulerAncestralDiscreteScheduler": _always("euler-ancestral"),
    "HeunDiscreteScheduler": _always("heun"),
    "LMSDiscreteScheduler": _always("plms", same=False),
    "UniPCMultistepScheduler": _unipc,
    "DPMSolverMultistepScheduler": _dpm_multistep,
    "DPMSolverSinglestepScheduler": _always("dpm++2s", same=False),  # every other time is a point within a step
    "DEISMultistepScheduler": _always("dpm++2m", same=False),
    "KDPM2DiscreteScheduler": _always("dpm++2s", same=False),
    "KDPM2AncestralDiscreteScheduler": _always("euler-ancestral", same=False),
    "LCMScheduler": _always("ddim", same=False),
    "TCDScheduler": _always("ddim", same=False),
    "FlowMatchEulerDiscreteScheduler": _always("euler"),
    "FlowMatchHeunDiscreteScheduler": _always("heun", same=False),  # its slopes are in other variables
}
NEUTRAL: dict[str, tuple[Any, ...]] = {  # values that change no picture; others are not applied here
    "thresholding": (False,),
    "use_beta_sigmas": (False,),
    "interpolation_type": ("linear",),
    "final_sigmas_type": ("zero",),
    "set_alpha_to_one": (True,),
    "lambda_min_clipped": (-math.inf, None),
    "shift": (1.0,),
    "flow_shift": (1.0,),
    "use_dynamic_shifting": (False,),
    "shift_terminal": (None,),
    "invert_sigmas": (False,),
    "stochastic_sampling": (False,),
}


def is_flow(kind: str, data: Data) -> bool:
    """Whether the process of a class with these settings is flow matching."""
    return kind in FLOW_MATCHING or bool(data.get("use_flow_sigmas"))


def choose(kind: str, data: Data) -> tuple[str, list[str]]:
    """The sampler of a class with these settings, all of them, and notes on what is different here."""
    choice = SAMPLERS[kind](data)
    if not choice.same:
        return choice.sampler, [f"{kind} is replaced by the sampler {choice.sampler}, whose steps are not the same"]
    ignored = [*choice.ignored, *(key for key, values in NEUTRAL.items() if key in data and data[key] not in values)]
    if data.get("clip_sample") and data["clip_sample_range"] != 1:
        ignored.append("clip_sample_range")
    if is_flow(kind, data):
        ignored += [key for key in ("use_karras_sigmas", "use_exponential_sigmas") if data.get(key)]
    if not ignored:
        return choice.sampler, []
    given = ", ".join(f"{key} {data[key]!r}" for key in sorted(set(ignored)))
    return choice.sampler, [f"not applied by the sampler {choice.sampler}: {given}"]
