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
from unnoise.formats import scheduler_classes, scheduler_spacings
from unnoise.formats.scheduler_classes import DEFAULTS, FLOW_MATCHING, KNOWN, choose, is_flow
from unnoise.formats.settings import check_values, unsupported, whole
from unnoise.schedules import (
    Cosine,
    LinearBeta,
    ScaledLinear,
    Shifted,
    SigmoidBeta,
    VariancePreserving,
    make_schedule,
)

ENDS = {"begin": 1e-4, "end": 0.02}  # defaults of the schedules of betas
PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"ddpm": "fixed_small", "ddpm-large": "fixed_large", "ddpm-learned": "learned_range"}
SUPPORTED: dict[str, tuple[Any, ...]] = {  # of settings that the process or the times of a walk depend on
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "clip_sample": (True, False),
    "rescale_betas_zero_snr": (True, False),
    "use_karras_sigmas": (True, False, None),
    "use_flow_sigmas": (True, False, None),
    "timestep_type": ("discrete",),
}


class Scheduler(NamedTuple):
    """The contents of a scheduler_config.json: the process, and the default sampler of its model."""

    process: DiffusionConfig
    sampler: str
    spacing: str
    spacing_options: dict[str, bool | int | float | str]
    clip: bool  # whether estimates are clipped to [-1, 1]
    notes: list[str]  # what is different here, each beginning with the file


def from_config(given: Mapping[str, Any], where: str) -> Scheduler:
    """The process and the sampler of a scheduler_config.json; `where` begins every error message and every note.

    Raises UserError for a class that is not supported, for a setting that no class has, and for a value of the process
    or of the times that has no equivalent. A setting of sampling that is not applied here is a note.
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
        elif not key.startswith("_") and key not in KNOWN:
            raise UserError(f"{where}: {unknown(f'setting of {kind}', key, data)}")
    check_values(data, SUPPORTED, where)
    process = _flow(data, where) if is_flow(kind, data) else _process(data, kind, where)
    sampler, notes = choose(kind, data)
    clip = data.get("clip_sample", False) and data["clip_sample_range"] == 1
    return Scheduler(process, sampler, *_spacing(kind, data), clip, [f"{where}: {note}" for note in notes])


def _spacing(kind: str, data: Mapping[str, Any]) -> tuple[str, dict[str, bool | int | float | str]]:
    """The name and the options of the spacing of the times."""
    if is_flow(kind, data):
        return ("linspace", {"rounded": False}) if kind in FLOW_MATCHING else ("even", {})
    return scheduler_spacings.from_config(kind, data)


def _process(data: Mapping[str, Any], kind: str, where: str) -> DiffusionConfig:
    """The process of a table of betas."""
    supported: dict[str, tuple[Any, ...]] = {"prediction_type": tuple(PREDICTS)}
    if kind == "DDPMScheduler":
        supported["variance_type"] = tuple(scheduler_classes.VARIANCES)
    elif "variance_type" in data:  # solvers, which use the mean alone
        supported["variance_type"] = (None, "learned", "learned_range")
    check_values(data, supported, where)
    steps, schedule, options = _schedule(data, where)
    return DiffusionConfig(
        schedule=schedule,
        steps=steps,
        schedule_options=options,
        zero_snr=data.get("rescale_betas_zero_snr", False),
        predicts=PREDICTS[data["prediction_type"]],
        learned_variance=data.get("variance_type") in ("learned", "learned_range"),
    )


def _flow(data: Mapping[str, Any], where: str) -> DiffusionConfig:
    """The process of flow matching: x_t = (1 - t) x + t eps, a prediction of eps - x, and the time t T."""
    check_values(data, {"prediction_type": ("flow_prediction",)}, where)
    return DiffusionConfig(schedule="flow", steps=_steps(data, where), predicts="flow", time_input="scaled")


def _steps(data: Mapping[str, Any], where: str) -> int:
    return whole(data, "num_train_timesteps", where, most=10**6)


def _schedule(data: Mapping[str, Any], where: str) -> tuple[int, str, dict[str, Any]]:
    """The number of steps, and the name and the options of the schedule."""
    steps = _steps(data, where)
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


def to_config(
    process: DiffusionConfig, sampler: str, *, clip: bool, spacing: str = "auto", offset: int = 0
) -> dict[str, Any]:
    """The scheduler_config.json of a process with `sampler` (ddim, ddpm, ddpm-large, ddpm-learned).

    A `spacing` that diffusers does not have is written as trailing, which is even where the steps divide the table;
    `offset` is that of leading.
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
    if process.predicts not in names or process.time_input != "entry":
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
        "timestep_spacing": spacing if spacing in SUPPORTED["timestep_spacing"] else "trailing",
        "steps_offset": offset if spacing == "leading" else 0,
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
