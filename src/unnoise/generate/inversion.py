"""Pictures to their noise and back, on a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.acceleration.placement import best, place
from unnoise.codec import to_bytes
from unnoise.conditions import Cond
from unnoise.config.request import Request
from unnoise.editing import exact, own_level, residual, target_level
from unnoise.editing.inversion import silence
from unnoise.errors import UserError, unknown
from unnoise.generate.frames import Start, deviation, generate, guide_of, guided_denoiser, steered, times_of
from unnoise.model import Model
from unnoise.samplers import State, Step, walk

CONVENTIONS: dict[str, Callable[[], Step]] = {"own": own_level, "target": target_level, "exact": exact}


class Inversion(NamedTuple):
    """The noise of pictures."""

    noise: Tensor  # x_T, (B, C, H, W), float32
    residual: Tensor  # (B,): the most by which a step up is not undone by DDIM's step down, root mean square
    deviation: float  # of the noise, against the prior's: 1 where the model finds the pictures likely


def invert(model: Model, x: Tensor, cond: Cond, how: Request, *, convention: str = "exact") -> Inversion:
    """The noise from which DDIM draws the pictures `x` (B, C, H, W) in [-1, 1], in `how.steps` steps on `how.grid`.

    `cond` says what each is told, `how.guidance` how strongly. The estimate is not clipped, for that cannot be undone.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention of inversion", convention, CONVENTIONS)
    if not len(x):
        raise UserError("no pictures to invert: give at least one")
    model = steered(model, how.classifier)
    if how.guidance != 1:
        model.conditioner.null(1)  # refused here where there is nothing to guide away from
    up = CONVENTIONS[convention]()
    placement = best(how.device, how.precision)
    diffusion = place(model.diffusion, placement)
    times = times_of(model, how)
    how = replace(how, clip=False, dynamic_threshold=None)
    guide = guide_of(how, placement)
    noises, misses = [], []
    for first in range(0, len(x), how.batch):
        rows = slice(first, min(first + how.batch, len(x)))
        denoiser = guided_denoiser(
            diffusion, model.conditioner, cond[rows], rows.stop - rows.start, how, placement, guide
        )
        before = State(model.codec.encode(x[rows]).to(placement.device), times[-1])
        worst = torch.zeros(len(before.x))
        for after in walk(denoiser, before.x, times.flip(0), up, silence):
            with torch.no_grad():
                worst = torch.maximum(worst, residual(denoiser, before, after).float().cpu())
            before = after
        noises.append(before.x.cpu())
        misses.append(worst)
    noise, prior = torch.cat(noises), deviation(model.diffusion.schedule(times[0]))
    return Inversion(noise, torch.cat(misses), noise.std().item() / prior)


def from_noise(model: Model, noise: Tensor, how: Request) -> Start:
    """To draw from this noise, as `invert` found it: with the sampler ddim and the same steps and grid."""
    return Start(noise, times_of(model, how)[0].item())


class Reconstruction(NamedTuple):
    """What is left of pictures after the way to noise and back. Table 2 of Song et al. 2020."""

    convention: str
    steps: int
    guidance: float
    error: float  # mean squared error a number, of pictures in [0, 1]: the unit of the paper's table
    spread: float  # standard error of that, over pictures
    residual: float  # the most by which a step was not undone
    deviation: float  # of the noise, against the prior's
    pictures: Tensor  # (B, C, H, W) bytes: those that came back


def reconstruct(model: Model, x: Tensor, cond: Cond, how: Request, *, convention: str = "exact") -> Reconstruction:
    """Invert the pictures `x` (B, C, H, W) in [-1, 1] and draw them again, both told `cond`, a row a picture."""
    how = replace(how, seeds=tuple(range(len(x))), sampler="ddim", eta=0.0, clip=False)
    found = invert(model, x, cond, how, convention=convention)
    frames = generate(model, how, from_noise(model, found.noise, how), cond)
    back = torch.cat([frame.pictures for frame in frames if frame.done and frame.pictures is not None])
    errors = ((back - x).double() / 2).square().flatten(1).mean(1)
    spread = errors.std().item() / math.sqrt(len(errors)) if len(errors) > 1 else math.nan
    worst = found.residual.max().item()
    return Reconstruction(
        convention, how.steps, how.guidance, errors.mean().item(), spread, worst, found.deviation, to_bytes(back)
    )
