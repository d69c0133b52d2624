"""How many bits a model needs for pictures that are there: what `unnoise evaluate --metrics bits` says.

    bits        the variational bound: a lossless code length, with its parts and the rate-distortion curve
    ode-bits    the density of the probability flow, an estimate without bound for dequantised pictures

Nothing is drawn and no features are taken. The mean is over pictures, its standard error too. A model with classes is
told what each picture is of, unless one label is asked for or the pictures' classes are not the model's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise import data
from unnoise.acceleration.placement import best, place
from unnoise.conditions import Cond
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.request import Request
from unnoise.data import Dataset
from unnoise.denoiser import Denoiser, Diffusion
from unnoise.errors import UserError, unknown
from unnoise.evaluation.conditions import numbered, told_of
from unnoise.likelihood.bound import (
    VARIANCES,
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

BITS = {"bits": "bits/dim, bound", "ode-bits": "bits/dim, flow"}
"""Measures that need pictures and no drawing, and their names for people."""


class At(NamedTuple):
    """How far it is: pairs of a picture and a step (bits), pictures (ode-bits)."""

    stage: str
    done: int
    total: int


class Told(NamedTuple):
    """Pictures (N, C, H, W) of this process, and what the model is told of them."""

    x: Tensor
    cond: Cond
    first: int  # the place of the first of them among all


def measure(
    name: str, model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset, processes: Processes
) -> Generator[At, None, dict[str, Any]]:
    """The entry of one of BITS in a report. Raises UserError where it cannot be had."""
    told = _told(model, ask, how, pictures, processes)
    entry = {"id": name, "name": BITS[name], "better": "down", "classes": told.cond.label is not None}
    entry["captions"] = model.text is not None and bool(how.prompts or (pictures.captions and not how.labels))
    entry["numbers"] = numbered(model, pictures)
    found = yield from (_bound if name == "bits" else _flow)(model, ask, how, told, processes)
    return entry | found


def check(names: Sequence[str], model: Model, ask: EvaluateConfig) -> None:
    """Raises UserError where what is asked of these measures cannot be counted."""
    if ask.bits_count < 1:
        raise UserError(f"--bits-count {ask.bits_count}: bits are counted of one picture or more, for example 100")
    if ask.bits_repeats < 1:
        raise UserError(f"--bits-repeats {ask.bits_repeats}: a picture is dequantised once or more")
    if "bits" in names:
        variance_of(model, ask)


def variance_of(model: Model, ask: EvaluateConfig) -> str:
    """The variance that the bound is computed with. Raises UserError for one that the model does not have, and for too
    few or too many times."""
    length = ask.bits_steps or model.diffusion.steps
    if ask.bits_times and not 2 <= ask.bits_times <= length:
        raise UserError(f"--bits-times {ask.bits_times}: a bound of {length} steps is asked at 2 to {length}; 0: all")
    name = ask.bits_variance
    if name == "auto":
        return "learned" if model.diffusion.learned_variance else "small"
    if name not in VARIANCES:
        raise unknown("variance", name, ("auto", *VARIANCES))
    if name == "learned" and not model.diffusion.learned_variance:
        raise UserError("this model did not learn a variance: take --bits-variance small or large")
    return name


def _told(model: Model, ask: EvaluateConfig, how: Request, pictures: Dataset, processes: Processes) -> Told:
    rows = data.order(0, 0, len(pictures))[: ask.bits_count].tolist()
    mine = list(processes.split(rows))
    first = len(rows) * processes.rank // processes.world
    if not mine:
        raise UserError(f"{len(rows)} pictures cannot be shared by {processes.world} processes: raise --bits-count")
    batch, count = pictures.batch(mine), len(mine)
    if how.labels or how.prompts:
        label = model.conditioner.label_rows(how.labels * count or ("none",) * count)
        captions = how.prompts * count or ("",) * count
        return Told(
            batch.x,
            model.conditioner.from_labels(label, captions, batch.value if numbered(model, pictures) else None),
            first,
        )
    return Told(batch.x, told_of(model, pictures, batch), first)


def _bound(
    model: Model, ask: EvaluateConfig, how: Request, told: Told, processes: Processes
) -> Generator[At, None, dict[str, Any]]:
    variance = variance_of(model, ask)
    placement = best(how.device, how.precision)
    diffusion = place(model.diffusion, placement)
    cond, x = told.cond.to(placement.device), told.x.to(placement.device)
    steps = _chain(model, ask.bits_steps)
    seed = ask.seed + told.first
    asked = rotating(len(x), len(steps), ask.bits_times, seed) if ask.bits_times else torch.ones(len(x), len(steps))
    found = None
    for at in whole_bound(
        _given(diffusion, cond),
        x,
        steps,
        noise_of(seed, model.x_shape, placement.device),
        variance=VARIANCES[variance],
        clip=how.clip and model.card.clip,
        batch=how.batch,
        asked=asked,
    ):
        yield At("bits", at.done, at.total)
        found = at.found
    assert found is not None
    prior, bits, errors, asked = (
        processes.gather(each.to(placement.device)).cpu() for each in (found.prior, found.terms, found.errors, asked)
    )
    whole = replace(found, prior=prior, terms=bits, errors=errors, asked=asked)
    value, error = mean_and_error(whole.total)
    shown = curve(whole)
    there = ~shown.rmse.isnan()  # of the steps of an estimate, those that some picture was asked at
    return {
        "value": value,
        "error": error,
        "n": len(whole.total),
        "parts": {
            name: dict(zip(("value", "error"), mean_and_error(part)))
            for name, part in (("L_T", whole.prior), ("L_t", whole.middle), ("L_0", whole.decoder))
        },
        "precision": placement.precision,
        "clip": whole.clipped,
        "variance": whole.variance,
        "steps": len(whole.t),
        "times": (asked > 0).sum(1).double().mean().item(),
        "estimate": bool((asked == 0).any()),
        "curve": {
            "t": _digits(shown.t[there]),
            "way": _digits((torch.arange(len(shown.t)) / len(shown.t))[there]),  # the share of the steps that are done
            "bits": _digits(whole.terms.mean(0)[there]),
            "rate": _digits(shown.rate[there]),
            "rmse": _digits(shown.rmse[there]),
        },
    }


def _chain(model: Model, steps: int) -> Steps:
    """The steps of the bound: the model's own, or so many."""
    schedule, total = model.diffusion.schedule, model.diffusion.steps
    if not is_table(schedule):
        return even_chain(schedule, last_time(schedule, total, model.card.process), steps or total)
    return chain(schedule, trailing(total)(schedule, steps)) if steps else table(schedule, total)


def _flow(
    model: Model, ask: EvaluateConfig, how: Request, told: Told, processes: Processes
) -> Generator[At, None, dict[str, Any]]:
    placement = best(how.device, "float32")  # its derivatives are needed: no packed weights, no bfloat16
    diffusion = copy.deepcopy(model.diffusion).eval().requires_grad_(False).to(placement.device)
    cond, x = told.cond.to(placement.device), told.x.to(placement.device)
    begin = last_time(diffusion.schedule, diffusion.steps, model.card.process)
    each = torch.zeros(2, len(x), ask.bits_repeats, dtype=torch.float64)  # bits, and evaluations
    done = 0
    for part in flow_bits(
        _given(diffusion, cond),
        x,
        seed=ask.seed,
        first=told.first,
        repeats=ask.bits_repeats,
        trace=ask.bits_trace == "exact",
        begin=begin,
        batch=how.batch,
    ):
        each[:, part.row, part.repeat] = torch.stack([part.bits.cpu(), part.evaluations.cpu().double()])
        done += len(part.row)
        yield At("ode-bits", done, len(x) * ask.bits_repeats)
    whole, calls = (processes.gather(kind.mean(1).to(placement.device)).cpu() for kind in each)
    value, error = mean_and_error(whole)  # over pictures: their repeats are no further pictures
    return {
        "value": value,
        "error": error,
        "n": len(whole),
        "precision": placement.precision,
        "begin": begin,
        "repeats": ask.bits_repeats,
        "trace": ask.bits_trace,
        "evaluations": calls.mean().item(),
    }


def _given(diffusion: Diffusion, cond: Cond) -> Given:
    def given(rows: Tensor) -> Denoiser:
        return diffusion.given(cond[rows])

    return given


def _digits(values: Tensor) -> list[float]:
    """As many as a figure needs."""
    return [float(f"{value:.6g}") for value in values.tolist()]


# --- in words ---


def said(entry: dict[str, Any]) -> str:
    """What must be said beside the figure."""
    known = [what for what in ("classes", "captions", "numbers") if entry.get(what)]
    told = f"told their {' and '.join(known)}" if known else "told nothing"
    if entry["id"] == "ode-bits":
        return (
            f"Flow: {pictures(entry['n'])}, {_dequantised(entry['repeats'])}, {told}, from t = {entry['begin']:g}, "
            f"divergence {TRACES[entry['trace']]}; {entry['evaluations']:.0f} evaluations each."
        )
    prior, middle, decoder = (entry["parts"][part] for part in ("L_T", "L_t", "L_0"))
    return (
        f"Bound: L_T {prior['value']:.3g}, sum of L_t-1 {_pair(middle)}, L_0 {_pair(decoder)} bits/dim; "
        f"{entry['steps']} steps, variance {entry['variance']}, estimates {'' if entry['clip'] else 'not '}clipped, "
        f"{pictures(entry['n'])}, {told}, in {entry['precision']}{_of_times(entry)}."
    )


TRACES = {"hutchinson": "by a probe", "exact": "exact"}


def _dequantised(repeats: int) -> str:
    return "dequantised once" if repeats == 1 else f"the mean of {repeats} dequantisations"


def rows(curve: Mapping[str, Sequence[float]], count: int = 10) -> list[tuple[str, str, str]]:
    """Time, bits sent so far, RMSE, of an entry's curve: where the error falls to the next of `count` even ratios."""
    ways = list(zip(curve["t"], curve["rate"], curve["rmse"], strict=True))
    first, last = ways[0][2], min(error for _, _, error in ways)
    steps = [first * (last / first) ** (k / (count - 1)) for k in range(count)] if last > 0 else [first, 0.0]
    places = [next(i for i, way in enumerate(ways) if way[2] <= step * (1 + 1e-9)) for step in steps]
    found = [ways[i] for i in dict.fromkeys(places)]
    return [(f"{t:.3g}", f"{rate:.3g}", f"{error:.3g}") for t, rate, error in found]


ROWS = ("t", "bits/dim sent", "RMSE, grey levels")


def pictures(n: int, kind: str = "") -> str:
    return f"{n:,} {kind}picture{'' if n == 1 else 's'}"


def give_or_take(entry: Mapping[str, Any]) -> str:
    """± the standard error of a figure, where there is one: of a single picture there is none."""
    return f" ± {entry['error']:.1g}" if math.isfinite(entry.get("error", math.nan)) else ""


def _of_times(entry: dict[str, Any]) -> str:
    return f", each asked at {entry['times']:g} of the steps: an estimate of the mean" if entry["estimate"] else ""


def _pair(part: dict[str, float]) -> str:
    return f"{part['value']:.4g}{give_or_take(part)}"
