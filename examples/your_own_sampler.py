"""A sampler is one pure function. This is the midpoint rule, and the proof that it has order 2."""

import math

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser, Estimate
from unnoise.noise import Noise
from unnoise.samplers import State, ddim, last, walk
from unnoise.schedules import CosineContinuous, over


def midpoint(denoiser: Denoiser, state: State, s: Tensor, noise: Noise) -> State:
    """DDIM halfway in log(alpha / sigma), and then the whole way with the noise that is found there."""
    at, to = denoiser.schedule(state.t), denoiser.schedule(s)
    half = ddim()(denoiser, state, denoiser.schedule.time((at.log_ratio + to.log_ratio) / 2), noise)
    eps = denoiser.schedule(half.t).eps(half.x, denoiser(half.x, half.t).mean)
    grow = to.alpha / at.alpha
    return State(over(grow, state.x) * state.x + over(to.sigma - grow * at.sigma, state.x) * eps, s, half.history)


schedule = CosineContinuous()  # with x ~ N(0, 1) the best estimate is alpha x_t, and the exact flow stands still
world = Denoiser(schedule, lambda x_t, t: Estimate(over(schedule(t).alpha, x_t) * x_t))
errors = []
for steps in (64, 128):
    times = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
    errors.append((last(walk(world, torch.ones(1, 1).double(), times, midpoint, lambda t, draw: t)) - 1).abs().item())
print(f"order {math.log2(errors[0] / errors[1]):.2f}")
