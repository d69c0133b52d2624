"""Between two pictures, and many pictures that share the first part of a walk: each gives a `Start` for a job."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.config.request import check_seed
from unnoise.editing import linear, plane, preserving, strip
from unnoise.errors import UserError
from unnoise.generate.job import Job, Start, deviation
from unnoise.model import Model
from unnoise.noise import Seeds
from unnoise.samplers import walk


def between(job: Job, seeds: Sequence[int], across: int, down: int = 1) -> Start:
    """Noise from one seed to the next by slerp: a strip for two seeds, a plane (`down` lines) for four corners.

    Raises UserError for other numbers of seeds, and for a seed that is not a whole number from 0 to 2^63 - 1.
    """
    for seed in seeds:
        check_seed(seed)
    t = job.times[0]
    noise = Seeds(tuple(seeds), job.model.x_shape).start() * deviation(job.model.diffusion.schedule(t))
    if len(noise) == 2 and down == 1:
        return Start(strip(noise[0], noise[1], across), t.item())
    if len(noise) == 4:
        return Start(plane(list(noise), down, across), t.item())
    raise UserError(f"{len(noise)} seeds to interpolate: give two for a strip, or four for the corners of a plane")


def between_pictures(
    model: Model, a: Tensor, b: Tensor, count: int, *, t: float = 0.5, seed: int = 0, keep_variance: bool = True
) -> Start:
    """Two pictures, each noised to time t with noise of its own, and mixed: coarse content is mixed, fine is sampled.

    `a`, `b`: (C, H, W) in [-1, 1]. Ho et al. 2020, sec. 4.4, mix linearly (`keep_variance` off), which leaves too
    little noise in the middle.
    """
    level = model.diffusion.schedule.at(t)
    x, y = (model.codec.encode(picture[None]) for picture in (a, b))
    first, second = Seeds((seed, seed + 1), tuple(x.shape[1:])).start()
    noisy = level.mix(x, first[None]), level.mix(y, second[None])
    mix = preserving(level, x, y) if keep_variance else linear
    return Start(strip(noisy[0][0], noisy[1][0], count, mix), t)


def shared(job: Job, t: float) -> Start:
    """The first seed's state at time t, for every seed of the job: the pictures share what is settled by then.

    Use a sampler that adds noise: ddpm, or ddim with eta. Fig. 7 and App. D of Ho et al. 2020.
    """
    count, first = len(job.request.seeds), slice(0, 1)
    x, begin = job.first(first), job.times[0].item()
    t = min(t, begin)
    if t < begin:
        times = torch.cat([job.times[job.times > t + 1e-9], torch.tensor([t], dtype=torch.float64)])
        for state in walk(job.denoiser(first), x, times, job.step, job.noise(first)):
            x = state.x
    return Start(x.cpu().expand(count, *x.shape[1:]), t)
