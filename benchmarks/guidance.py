"""The cost of guidance: a DDIM step of the small class-conditional fashion network, with and without guidance.

Both estimates are one batch of twice the rows, so guidance costs at most as much as twice the pictures; a limited
interval costs in proportion to the steps inside it. A classifier adds its own forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.bits import network
from benchmarks.timing import in_turn, milliseconds
from unnoise.acceleration.placement import best, place, prepare
from unnoise.conditions import Cond
from unnoise.config import presets
from unnoise.config.cards import NoisyClassifierCard
from unnoise.denoiser import Denoiser, Diffusion
from unnoise.guidance import classifier, classifier_free, guidance_interval
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.noise import Seeds
from unnoise.recipes.noisy_classifier import init_network
from unnoise.samplers import ddim, last, walk
from unnoise.samplers.timesteps import even

STEPS, SHAPE = 8, (1, 28, 28)


def guides(diffusion: Diffusion, batch: int) -> dict[str, Denoiser]:
    """The same question, unguided and guided in each way; the interval holds half of the steps."""
    label = torch.arange(batch) % 10
    cond, null = Cond(label), Cond(torch.full((batch,), 10))
    times = even(diffusion.schedule, STEPS)[:-1]
    low, high = (torch.exp(-diffusion.schedule(times[place]).log_ratio).item() for place in (5, 2))
    config = presets.fashion_noisy_classifier()
    net = init_network(config).eval().requires_grad_(False)
    guide = NoisyClassifier(prepare(net, best("cpu")), NoisyClassifierCard(config.net, config.process))
    told = diffusion.given(cond)
    free = classifier_free(diffusion, cond, null, 2.0)
    return {
        "unguided": told,
        "classifier-free": free,
        "half of the steps": guidance_interval(free, told, low * 0.999, high * 1.001),
        "by a classifier": classifier(diffusion.given(null), guide.log_prob(label), 2.0),
    }


def draw(denoiser: Denoiser, x: Tensor) -> Tensor:
    times = even(denoiser.schedule, STEPS)
    return last(walk(denoiser, x, times, ddim(), Seeds((0,), SHAPE)))


def run(*, quick: bool, clock: str) -> dict[str, Any]:
    how = best("cpu")
    diffusion = place(network(), how)
    rows, costs = [], {}
    for batch, rounds in ((1, 7), (16, 3)) if quick else ((1, 41), (16, 15)):
        x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
        ways: dict[str, Callable[[], object]] = {
            name: partial(draw, denoiser, x) for name, denoiser in guides(diffusion, batch).items()
        }
        rows.append({"batch": batch, **milliseconds(in_turn(ways, rounds=rounds, clock=clock), STEPS)})
        costs[f"batch {batch}"] = overhead(diffusion, batch, rounds, clock)
    return {
        "title": f"guidance: a DDIM step of the small fashion network, {how.dtype}",
        "rows": rows,
        "notes": {
            "targets": "classifier-free / unguided at most 1.9 at batch 1, 2.0 at batch 16; half of the steps 1.5",
            "guided, against the network alone on as many rows": costs,
        },
    }


def overhead(diffusion: Diffusion, batch: int, rounds: int, clock: str) -> float:
    """How many times the time of the network alone, on a batch of twice the rows, a guided estimate takes."""
    label, t = torch.arange(batch) % 10, torch.tensor(0.5, dtype=torch.float64)
    cond, null = Cond(label), Cond(torch.full((batch,), 10))
    guided, x = classifier_free(diffusion, cond, null, 2.0), torch.randn(batch, *SHAPE)
    both, twice = null.cat(cond), torch.cat([x, x]).to(next(diffusion.net.parameters()).dtype)
    time = torch.full((2 * batch,), 500.0)

    def alone() -> object:
        with torch.no_grad():
            return diffusion.net(twice, time, both)

    def whole() -> object:
        with torch.no_grad():
            return guided(x, t)

    found = in_turn({"alone": alone, "whole": whole}, rounds=4 * rounds, clock=clock)
    return found["whole"] / found["alone"]
