"""Bits per dimension of real pictures: `unnoise evaluate --metrics bpd,ode-bpd`.

    bpd         the variational bound: the length of a lossless code, with its parts and the rate-distortion curve
    ode-bpd     the density of the probability flow: an estimate, not a bound, for dequantised pictures

No pictures are sampled and no features are computed. The value is the mean over pictures, with its standard error. A
model with classes is conditioned on each picture's class, unless the request names one label or the pictures have
other classes than the model.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise import data
from unnoise.acceleration.placement import allow_tf32, best, place
from unnoise.conditions import Cond
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.denoiser import Denoiser, Diffusion
from unnoise.errors import UserError, unknown
from unnoise.evaluation.conditions import conditions_of_real, has_values
from unnoise.evaluation.progress import Progress
from unnoise.likelihood.bound import (
    VARIANCES,
    Bound,
    Given,
    Steps,
    chain,
    mean_and_error,
    noise_of,
    rotating,
    table,
    whole_bound,
)
from unnoise.likelihood.endpoints import even_chain, last_time
from unnoise.likelihood.ode import bits as flow_bits
from unnoise.likelihood.rate_distortion import curve
from unnoise.model import Model
from unnoise.samplers.timesteps import trailing
from unnoise.schedules import is_table
from unnoise.training.distributed import Processes

BITS = {"bpd": "bits/dim, bound", "ode-bpd": "bits/dim, flow"}
"""The metrics of this module, which need real pictures only, and their names in a report."""


class RealBatch(NamedTuple):
    """The real pictures (N, C, H, W) of this process, and their conditions."""

    x: Tensor
    cond: Cond
    first: int  # the place of the first picture among those of all processes


def measure(
    name: str, model: Model, config: EvaluateConfig, request: Request, pictures: Dataset, processes: Processes
) -> Generator[Progress, None, dict[str, Any]]:
    """Returns the entry of the metric `name` of BITS. Raises UserError where it cannot be measured."""
    real = _real_batch(model, config, request, pictures, processes)
    entry = {"id": name, "name": BITS[name], "better": "down", "classes": real.cond.label is not None}
    entry["captions"] = model.text is not None and bool(
        request.prompt.prompts or (pictures.captions and not request.prompt.labels)
    )
    entry["numbers"] = has_values(model, pictures)
    found = yield from (_bound if name == "bpd" else _flow)(model, config, request, real, processes)
    return entry | found


def check(names: Sequence[str], model: Model, config: EvaluateConfig) -> None:
    """Raises UserError for settings of these metrics that are out of range."""
    if config.bits_count < 1:
        raise UserError(f"--bits-count {config.bits_count} is too small: use 1 or more, for example 100")
    if config.bits_repeats < 1:
        raise UserError(f"--bits-repeats {config.bits_repeats} is too small: use 1 or more dequantisations per picture")
    if "bpd" in names:
        variance_of(model, config)


def variance_of(model: Model, config: EvaluateConfig) -> str:
    """The variance that the bound is computed with: "small", "large" or "learned".

    Raises UserError for a variance that the model does not have, and where `bits_times` is out of range.
    """
    length = config.bits_steps or model.diffusion.steps
    if config.bits_times and not 2 <= config.bits_times <= length:
        raise UserError(
            f"--bits-times {config.bits_times} is out of range: for a bound of {length} steps use 2 to {length}, or 0 "
            "for all"
        )
    name = config.bits_variance
    if name == "auto":
        return "learned" if model.diffusion.learned_variance else "small"
    if name not in VARIANCES:
        raise unknown("variance", name, ("auto", *VARIANCES))
    if name == "learned" and not model.diffusion.learned_variance:
        raise UserError("this model did not learn a variance: use --bits-variance small or large")
    return name


def _real_batch(
    model: Model, config: EvaluateConfig, request: Request, pictures: Dataset, processes: Processes
) -> RealBatch:
    rows = data.order(0, 0, len(pictures))[: config.bits_count].tolist()
    mine = list(processes.split(rows))
    first = len(rows) * processes.rank // processes.world
    if not mine:
        raise UserError(f"{len(rows)} pictures are too few for {processes.world} processes: raise --bits-count")
    batch, count = pictures.batch(mine), len(mine)
    if not request.prompt.labels and not request.prompt.prompts:
        return RealBatch(batch.x, conditions_of_real(model, pictures, batch), first)
    label = model.conditioner.label_rows(request.prompt.labels * count or ("none",) * count)
    captions = request.prompt.prompts * count or ("",) * count
    value = batch.value if has_values(model, pictures) else None
    return RealBatch(batch.x, model.conditioner.from_labels(label, captions, value), first)


def _bound(
    model: Model, config: EvaluateConfig, request: Request, real: RealBatch, processes: Processes
) -> Generator[Progress, None, dict[str, Any]]:
    placement = best(request.device, request.precision)
    diffusion = place(model.diffusion, placement)
    cond, x = real.cond.to(placement.device), real.x.to(placement.device)
    steps = _chain(model, config.bits_steps)
    seed = config.seed + real.first
    weights = torch.ones(len(x), len(steps))  # of each picture's steps
    if config.bits_times:
        weights = rotating(len(x), len(steps), config.bits_times, seed)
    found = None
    for at in whole_bound(
        _given(diffusion, cond),
        x,
        steps,
        noise_of(seed, model.x_shape, placement.device),
        variance=VARIANCES[variance_of(model, config)],
        clip=request.sampling.clip and model.card.clip,
        batch=request.batch,
        asked=weights,
    ):
        yield Progress("bpd", at.done, at.total)
        found = at.found
    assert found is not None
    prior, terms, errors, weights = (
        processes.gather(each.to(placement.device)).cpu() for each in (found.prior, found.terms, found.errors, weights)
    )
    whole = replace(found, prior=prior, terms=terms, errors=errors, asked=weights)
    return _bound_entry(whole, weights) | {"precision": placement.precision}


def _bound_entry(bound: Bound, weights: Tensor) -> dict[str, Any]:
    """The values, parts and curve of a bound whose `weights` (N, K) are 0 for steps that were not evaluated."""
    value, error = mean_and_error(bound.total)
    rates = curve(bound)
    there = ~rates.rmse.isnan()  # of the steps of an estimate, those evaluated for some picture
    return {
        "value": value,
        "error": error,
        "n": len(bound.total),
        "parts": {
            name: dict(zip(("value", "error"), mean_and_error(part)))
            for name, part in (("L_T", bound.prior), ("L_t", bound.middle), ("L_0", bound.decoder))
        },
        "clip": bound.clipped,
        "variance": bound.variance,
        "steps": len(bound.t),
        "times": (weights > 0).sum(1).double().mean().item(),
        "estimate": bool((weights == 0).any()),
        "curve": {
            "t": _digits(rates.t[there]),
            "way": _digits((torch.arange(len(rates.t)) / len(rates.t))[there]),  # the fraction of the steps done
            "bits": _digits(bound.terms.mean(0)[there]),
            "rate": _digits(rates.rate[there]),
            "rmse": _digits(rates.rmse[there]),
        },
    }


def _chain(model: Model, steps: int) -> Steps:
    """The `steps` steps of the bound; 0 for the model's own."""
    schedule, total = model.diffusion.schedule, model.diffusion.steps
    if not is_table(schedule):
        return even_chain(schedule, last_time(schedule, total, model.card.process), steps or total)
    return chain(schedule, trailing(total)(schedule, steps)) if steps else table(schedule, total)


def _flow(
    model: Model, config: EvaluateConfig, request: Request, real: RealBatch, processes: Processes
) -> Generator[Progress, None, dict[str, Any]]:
    placement = best(request.device, "float32")  # derivatives are needed: no packed weights, no bfloat16
    allow_tf32(False)
    diffusion = copy.deepcopy(model.diffusion).eval().requires_grad_(False).to(placement.device)
    cond, x = real.cond.to(placement.device), real.x.to(placement.device)
    begin = last_time(diffusion.schedule, diffusion.steps, model.card.process)
    each = torch.zeros(2, len(x), config.bits_repeats, dtype=torch.float64)  # bits; evaluations of the network
    done = 0
    for part in flow_bits(
        _given(diffusion, cond),
        x,
        seed=config.seed,
        first=real.first,
        repeats=config.bits_repeats,
        trace=config.bits_trace == "exact",
        begin=begin,
        batch=request.batch,
    ):
        each[:, part.row, part.repeat] = torch.stack([part.bits.cpu(), part.evaluations.cpu().double()])
        done += len(part.row)
        yield Progress("ode-bpd", done, len(x) * config.bits_repeats)
    whole, calls = (processes.gather(kind.mean(1).to(placement.device)).cpu() for kind in each)
    value, error = mean_and_error(whole)  # over pictures: repeats of one are not independent
    return {
        "value": value,
        "error": error,
        "n": len(whole),
        "precision": placement.precision,
        "begin": begin,
        "repeats": config.bits_repeats,
        "trace": config.bits_trace,
        "evaluations": calls.mean().item(),
    }


def _given(diffusion: Diffusion, cond: Cond) -> Given:
    def given(rows: Tensor) -> Denoiser:
        return diffusion.given(cond[rows])

    return given


def _digits(values: Tensor) -> list[float]:
    """The values to six significant digits, enough for a plot."""
    return [float(f"{value:.6g}") for value in values.tolist()]
