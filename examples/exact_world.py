"""Walk from noise to data whose best denoiser is known: no network, no training, and the error can be read off."""

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Seeds
from unnoise.samplers import ddim, heun, last, walk
from unnoise.samplers.timesteps import karras
from unnoise.schedules import LinearBeta

MEAN, STD = 0.2, 0.5  # every number of our "pictures" is N(0.2, 0.5^2)
schedule = LinearBeta()


def best(x_t: Tensor, t: Tensor) -> Estimate:
    """E[x | x_t], in closed form."""
    level = schedule(t).over(x_t)
    gain = level.alpha * STD**2 / ((level.alpha * STD) ** 2 + level.sigma**2)
    return Estimate(MEAN + gain * (x_t - level.alpha * MEAN))


seeds = Seeds(tuple(range(64)), shape=(1, 16, 16))
for name, step in (("ddim", ddim()), ("heun", heun())):
    for steps in (5, 10, 20, 40):
        times = karras()(schedule, steps)
        x = last(walk(Denoiser(schedule, best), seeds.start(), times, step, seeds))
        print(f"{name:5} {steps:3} steps: mean {x.mean():.4f}, standard deviation {torch.std(x):.4f}")
