"""Between two pictures; and many pictures that share the first part of a walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unnoise.acceleration.placement import best, place
from unnoise.config.request import Request
from unnoise.editing import linear, plane, preserving, strip
from unnoise.errors import UserError
from unnoise.generate.conditions import full_condition
from unnoise.generate.frames import Start, deviation, guide_of, guided_denoiser, steered, times_of
from unnoise.model import Model
from unnoise.noise import Seeds
from unnoise.samplers import find, walk

# --- between ---


def between(model: Model, how: Request, seeds: Sequence[int], across: int, down: int = 1) -> Start:
    """Noise from one seed to the next by slerp: a strip for two seeds, a plane (`down` lines) for four corners.

    Raises UserError for other numbers of seeds.
    """
    begin, scale = _begin(model, how)
    noise = Seeds(tuple(seeds), model.x_shape).start() * scale
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
    noise = Seeds(request.seeds[:1], model.x_shape, placement.device)
    begin, scale = _begin(model, request)
    t, x = min(t, begin), noise.start() * scale
    if t < begin:
        diffusion = place(model.diffusion, placement)
        cond, guide = full_condition(model, request)[:1], guide_of(request, placement)
        denoiser = guided_denoiser(diffusion, model.conditioner, cond, 1, request, placement, guide)
        times = torch.cat([whole[whole > t + 1e-9], torch.tensor([t], dtype=torch.float64)])
        step = find(model.card.sampler if request.sampler == "auto" else request.sampler).make(request)
        for state in walk(denoiser, x, times, step, noise):
            x = state.x
    return Start(x.cpu().expand(len(request.seeds), *x.shape[1:]), t)


def _begin(model: Model, how: Request) -> tuple[float, float]:
    """Where walks begin, and the deviation of the noise there."""
    t = times_of(model, how)[0]
    return t.item(), deviation(model.diffusion.schedule(t))
