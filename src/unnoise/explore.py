"""Pictures and their noise: to noise and back, between two pictures, many pictures from one.

    found = invert(model, x, cond, how)                      # the noise that DDIM draws these pictures from
    film = draw(model, how, between(model, how, seeds, 9))   # along the great circle between the noises of two seeds

What is drawn from goes into `generate` as a `Start`, so that labels, guidance and samplers mean what they always mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.acceleration.placement import best, place
from unnoise.codec import to_bytes
from unnoise.conditions import Cond
from unnoise.editing import exact, linear, own_level, plane, preserving, residual, strip, target_level
from unnoise.editing.inversion import silence
from unnoise.errors import UserError, unknown
from unnoise.generate import Start, all_told, deviation, generate, guide_of, steered, times_of, told
from unnoise.model import Model
from unnoise.noise import Seeds
from unnoise.samplers import State, Step, find, walk
from unnoise.settings import Request

CONVENTIONS: dict[str, Callable[[], Step]] = {"own": own_level, "target": target_level, "exact": exact}


class Inverted(NamedTuple):
    """The noise of pictures."""

    noise: Tensor  # x_T, (B, C, H, W), float32
    residual: Tensor  # (B,): the most by which a step up is not undone by DDIM's step down, root mean square
    deviation: float  # of the noise, against the prior's: 1 where the model finds the pictures likely


def invert(model: Model, x: Tensor, cond: Cond, how: Request, *, convention: str = "exact") -> Inverted:
    """The noise from which DDIM draws the pictures `x` (B, C, H, W) in [-1, 1], in `how.steps` steps on `how.grid`.

    `cond` says what each is told, `how.guidance` how strongly. The estimate is not clipped, for that cannot be undone.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention of inversion", convention, CONVENTIONS)
    if not len(x):
        raise UserError("no pictures to invert: give at least one")
    model = steered(model, how.classifier)
    if how.guidance != 1:
        model.reader.nothing(1)  # refused here where there is nothing to guide away from
    up = CONVENTIONS[convention]()
    placement = best(how.device, how.precision)
    diffusion = place(model.diffusion, placement)
    times = times_of(model, how)
    how = replace(how, clip=False, threshold=None)
    guide = guide_of(how, placement)
    noises, misses = [], []
    for first in range(0, len(x), how.batch):
        rows = slice(first, min(first + how.batch, len(x)))
        denoiser = told(diffusion, model.reader, cond[rows], rows.stop - rows.start, how, placement, guide)
        before = State(model.codec.encode(x[rows]).to(placement.device), times[-1])
        worst = torch.zeros(len(before.x))
        for after in walk(denoiser, before.x, times.flip(0), up, silence):
            with torch.no_grad():
                worst = torch.maximum(worst, residual(denoiser, before, after).float().cpu())
            before = after
        noises.append(before.x.cpu())
        misses.append(worst)
    noise, prior = torch.cat(noises), deviation(model.diffusion.schedule(times[0]))
    return Inverted(noise, torch.cat(misses), noise.std().item() / prior)


def from_noise(model: Model, noise: Tensor, how: Request) -> Start:
    """To draw from this noise, as `invert` found it: with the sampler ddim and the same steps and grid."""
    return Start(noise, times_of(model, how)[0].item())


class Survived(NamedTuple):
    """What is left of pictures after the way to noise and back. Table 2 of Song et al. 2020."""

    convention: str
    steps: int
    guidance: float
    error: float  # mean squared error a number, of pictures in [0, 1]: the unit of the paper's table
    spread: float  # standard error of that, over pictures
    residual: float  # the most by which a step was not undone
    deviation: float  # of the noise, against the prior's
    pictures: Tensor  # (B, C, H, W) bytes: those that came back


def reconstruct(model: Model, x: Tensor, cond: Cond, how: Request, *, convention: str = "exact") -> Survived:
    """Invert the pictures `x` (B, C, H, W) in [-1, 1] and draw them again, both told `cond`, a row a picture."""
    how = replace(how, seeds=tuple(range(len(x))), sampler="ddim", eta=0.0, clip=False)
    found = invert(model, x, cond, how, convention=convention)
    frames = generate(model, how, from_noise(model, found.noise, how), cond)
    back = torch.cat([frame.pictures for frame in frames if frame.done and frame.pictures is not None])
    errors = ((back - x).double() / 2).square().flatten(1).mean(1)
    spread = errors.std().item() / math.sqrt(len(errors)) if len(errors) > 1 else math.nan
    worst = found.residual.max().item()
    return Survived(
        convention, how.steps, how.guidance, errors.mean().item(), spread, worst, found.deviation, to_bytes(back)
    )


# --- between ---


def between(model: Model, how: Request, seeds: Sequence[int], across: int, down: int = 1) -> Start:
    """Noise from one seed to the next by slerp: a strip for two seeds, a plane (`down` lines) for four corners.

    Raises UserError for other numbers of seeds.
    """
    begin, scale = _begin(model, how)
    noise = Seeds(tuple(seeds), model.shape).start() * scale
    if len(noise) == 2 and down == 1:
        return Start(strip(noise[0], noise[1], across), begin)
    if len(noise) == 4:
        return Start(plane(list(noise), down, across), begin)
    raise UserError(f"{len(noise)} seeds to go between: two for a strip, or four for the corners of a plane")


def between_pictures(
    model: Model, a: Tensor, b: Tensor, count: int, *, t: float = 0.5, seed: int = 0, keep_variance: bool = True
) -> Start:
    """Noised to time t, each with noise of its own, and mixed: the coarse is mixed, the fine is drawn anew.

    `a`, `b`: (C, H, W) in [-1, 1]. Ho et al. 2020, sec. 4.4, mix linearly (`keep_variance` off), which leaves too
    little noise in the middle.
    """
    level = model.diffusion.schedule.at(t)
    x, y = (model.codec.encode(picture[None]) for picture in (a, b))
    first, second = Seeds((seed, seed + 1), tuple(x.shape[1:])).start()
    noisy = level.mix(x, first[None]), level.mix(y, second[None])
    way = preserving(level, x, y) if keep_variance else linear
    return Start(strip(noisy[0][0], noisy[1][0], count, way), t)


def shared(model: Model, request: Request, t: float) -> Start:
    """The first seed's state at time t, for every picture of the request: they have in common what is settled by then.

    Draw with a sampler that adds noise: ddpm, or ddim with eta. Fig. 7 and App. D of Ho et al. 2020.
    """
    model = steered(model, request.classifier)
    request = replace(request, clip=request.clip and model.card.clip)
    whole = times_of(model, request)
    placement = best(request.device, request.precision)
    noise = Seeds(request.seeds[:1], model.shape, placement.device)
    begin, scale = _begin(model, request)
    t, x = min(t, begin), noise.start() * scale
    if t < begin:
        diffusion = place(model.diffusion, placement)
        cond, guide = all_told(model, request)[:1], guide_of(request, placement)
        denoiser = told(diffusion, model.reader, cond, 1, request, placement, guide)
        times = torch.cat([whole[whole > t + 1e-9], torch.tensor([t], dtype=torch.float64)])
        step = find(model.card.sampler if request.sampler == "auto" else request.sampler).make(request)
        for state in walk(denoiser, x, times, step, noise):
            x = state.x
    return Start(x.cpu().expand(len(request.seeds), *x.shape[1:]), t)


def _begin(model: Model, how: Request) -> tuple[float, float]:
    """Where walks begin, and the deviation of the noise there."""
    t = times_of(model, how)[0]
    return t.item(), deviation(model.diffusion.schedule(t))
