"""Pictures to their noise and back, on a model: DDIM inversion.

    found = invert(job, x)                                       # the noise that DDIM samples these pictures from
    pictures = collect(job.starting(from_noise(job, found.noise)))

Song et al. 2020, sec. 4.3. The steps themselves are in editing/inversion.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.conditions import Cond
from unnoise.config.request import Request
from unnoise.editing import exact, own_level, residual, target_level
from unnoise.editing.inversion import silence
from unnoise.errors import UserError, unknown
from unnoise.generate.frames import collect
from unnoise.generate.job import Job, Placed, Start, deviation, prepare
from unnoise.model import Model
from unnoise.samplers import State, Step, walk

CONVENTIONS: dict[str, Callable[[int], Step]] = {  # of a network of T steps
    "own": lambda steps: own_level(1 / steps),
    "target": lambda steps: target_level(),
    "exact": lambda steps: exact(),
}


class Inversion(NamedTuple):
    """The noise of pictures."""

    noise: Tensor  # x_T, (B, C, H, W), float32
    residual: Tensor  # (B,): the largest error with which DDIM's step undoes a step of the inversion, RMS
    deviation: float  # standard deviation of the noise over the prior's: 1 where the model finds the pictures likely


def prepare_inversion(model: Model | Placed, request: Request, cond: Cond | None = None) -> Job:
    """The job of inverting a picture per seed, and of sampling it again: DDIM without noise, clipping or threshold.

    A clipped estimate cannot be inverted. Raises UserError as `prepare`.
    """
    settings = request.but(sampler="ddim", eta=0.0, clip=False, dynamic_threshold=None)
    return prepare(model, settings, cond=cond)


def invert(job: Job, x: Tensor, *, convention: str = "exact") -> Inversion:
    """The noise from which DDIM samples the pictures `x` (B, C, H, W) in [-1, 1], one per seed of the job.

    `convention` is where the noise is evaluated: "exact" solves each step, "own" and "target" are approximations at the
    current and at the next time. Raises UserError for another one, and for another number of pictures.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention of inversion", convention, CONVENTIONS)
    if not len(x):
        raise UserError("no pictures to invert: give at least one")
    if len(x) != len(job.request.seeds):
        raise ValueError(f"{len(x)} pictures for {len(job.request.seeds)} seeds")
    step, batch, noises, errors = CONVENTIONS[convention](job.model.diffusion.steps), job.request.batch, [], []
    for first in range(0, len(x), batch):
        noise, error = _inverted(job, x, slice(first, min(first + batch, len(x))), step)
        noises.append(noise)
        errors.append(error)
    noise, prior = torch.cat(noises), deviation(job.model.diffusion.schedule(job.times[0]))
    return Inversion(noise, torch.cat(errors), noise.std().item() / prior)


def _inverted(job: Job, x: Tensor, rows: slice, step: Step) -> tuple[Tensor, Tensor]:
    """The noise of one batch, and the largest error (B,) of its steps."""
    denoiser = job.denoiser(rows)
    before = State(job.placed.codec.encode(x[rows]).to(job.placed.placement.device), job.times[-1])
    worst = torch.zeros(len(before.x))
    for after in walk(denoiser, before.x, job.times.flip(0), step, silence):
        with torch.no_grad():
            worst = torch.maximum(worst, residual(denoiser, before, after).float().cpu())
        before = after
    return before.x.cpu(), worst


def from_noise(job: Job, noise: Tensor) -> Start:
    """Where sampling from this noise starts, as `invert` found it."""
    return Start(noise, job.times[0].item())


class Reconstruction(NamedTuple):
    """What inversion and sampling make of pictures. Table 2 of Song et al. 2020."""

    convention: str
    steps: int
    guidance: float
    error: float  # mean squared error per value, of pictures in [0, 1]: the unit of the paper's table
    standard_error: float  # of `error`, over pictures
    residual: float  # the largest error with which a step was undone
    deviation: float  # standard deviation of the noise over the prior's
    pictures: Tensor  # (B, C, H, W) bytes: the reconstructions


def reconstruct(
    model: Model | Placed, x: Tensor, cond: Cond, request: Request, *, convention: str = "exact"
) -> Reconstruction:
    """Invert the pictures `x` (B, C, H, W) in [-1, 1] and sample them again, both under `cond`, a row per picture."""
    job = prepare_inversion(model, replace(request, seeds=tuple(range(len(x)))), cond)
    found = invert(job, x, convention=convention)
    back = collect(job.starting(from_noise(job, found.noise)))
    errors = ((back - x).double() / 2).square().flatten(1).mean(1)
    spread = errors.std().item() / math.sqrt(len(errors)) if len(errors) > 1 else math.nan
    worst = found.residual.max().item()
    return Reconstruction(
        convention, request.sampling.steps, request.guidance.scale, errors.mean().item(), spread, worst,
        found.deviation,
        to_bytes(back),
    )  # fmt: skip
