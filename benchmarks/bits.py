"""Speed of the variational bound: all pairs of a picture and a step in full batches, against one step at a time.

The second is the loop of improved-diffusion's `calc_bpd_loop`, written anew: for each t, from T down, all pictures of a
batch, and for each t all of its values, the decoder's too. Both keep at most `BATCH` pairs in memory, and each samples
its own noise. The loop runs on the network as torch computes it ("plain"); ours is placed as `unnoise evaluate` places
it. To separate the two effects, the loop is timed on the placed network too: the remaining gain is that of full batches
for few pictures. The mean of a data set needs less: a tenth of the steps of each picture give an unbiased estimate.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.memory import own_peak
from benchmarks.timing import in_turn
from unnoise.acceleration.placement import best, place
from unnoise.conditions import Cond
from unnoise.config import presets
from unnoise.config.networks import UNetConfig
from unnoise.denoiser import Denoiser, Diffusion, make_diffusion
from unnoise.likelihood.bound import (
    Bound,
    last,
    noise_of,
    prior_term,
    rotating,
    table,
    whole_bound,
)
from unnoise.likelihood.decoder import tanh_log_likelihood
from unnoise.noise import Seeds

BATCH = 64
SHAPE = (1, 28, 28)


def network() -> Diffusion:
    """The network of the preset fashion with random weights."""
    config = presets.fashion()
    assert isinstance(config.net, UNetConfig)
    return make_diffusion(peers.our_network(config.net), config.process).eval()


def pictures(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator) / 127.5 - 1, torch.arange(count) % 10


def ours(diffusion: Diffusion, x: Tensor, label: Tensor, steps: int, times: int = 0) -> Bound:
    """The bound; with `times` > 0 an estimate of its mean, from so many steps of each picture."""
    every, weights = table(diffusion.schedule, steps), rotating(len(x), steps, times or steps, 0)

    def given(rows: Tensor) -> Denoiser:
        return diffusion.given(Cond(label[rows]))

    return last(whole_bound(given, x, every, noise_of(0, SHAPE), batch=BATCH, asked=weights))


@torch.no_grad()
def one_at_a_time(diffusion: Diffusion, x: Tensor, label: Tensor, steps: int) -> Tensor:
    """Bits per dimension of each picture: parts of at most BATCH pictures, and every t in turn."""
    return torch.cat([_loop(diffusion, x[i : i + BATCH], label[i : i + BATCH], steps) for i in range(0, len(x), BATCH)])


def _loop(diffusion: Diffusion, x: Tensor, label: Tensor, steps: int) -> Tensor:
    level = diffusion.schedule(torch.arange(steps + 1, dtype=torch.float64) / steps)
    alpha2 = level.alpha.square()
    betas = 1 - alpha2[1:] / alpha2[:-1]
    variance = betas * (1 - alpha2[:-1]) / (1 - alpha2[1:])
    tables = {
        "alpha": level.alpha[1:],
        "sigma": level.sigma[1:],
        "on_x": betas * level.alpha[:-1] / (1 - alpha2[1:]),
        "on_x_t": (1 - alpha2[:-1]) * (1 - betas).sqrt() / (1 - alpha2[1:]),
        "log_variance": torch.cat([variance[1:2], variance[1:]]).log(),
    }
    denoiser = diffusion.given(Cond(label))
    terms = []
    for k in range(steps - 1, -1, -1):
        t = torch.full((len(x),), k)

        def at(name: str, t: Tensor = t) -> Tensor:
            return tables[name][t].float().reshape(-1, 1, 1, 1).expand_as(x)

        eps = torch.randn_like(x)
        x_t = at("alpha") * x + at("sigma") * eps
        mean = denoiser(x_t, (t.double() + 1) / steps).mean.clamp(-1, 1)
        true, predicted = at("on_x") * x + at("on_x_t") * x_t, at("on_x") * mean + at("on_x_t") * x_t
        log_true = log_predicted = at("log_variance")
        difference = (true - predicted).square() * (-log_predicted).exp()
        kl = (-1 + log_predicted - log_true + (log_true - log_predicted).exp() + difference) / 2
        decoder = -tanh_log_likelihood(x, predicted, log_predicted)
        kl, decoder = (each.flatten(1).mean(1) / math.log(2) for each in (kl, decoder))
        terms.append(torch.where(t == 0, decoder, kl))
        (mean - x).square().flatten(1).mean(1)  # the loop computes both squared errors: of the picture and of the noise
        ((x_t - at("alpha") * mean) / at("sigma") - eps).square().flatten(1).mean(1)
    return torch.stack(terms, 1).double().sum(1) + prior_term(x, diffusion.schedule.at(1.0))


def peak(steps: int) -> None:
    """Prints, in a child process, the peak resident set in MiB for the bound of eight pictures."""
    diffusion = place(network(), best("cpu"))
    x, label = pictures(8)
    ours(diffusion, x, label, 10)
    ours(diffusion, x, label, steps)
    print(own_peak())


def run(*, quick: bool, clock: str) -> dict[str, Any]:
    steps, rounds = (100, 3) if quick else (1000, 1)
    placement = best("cpu")
    plain, placed = network(), place(network(), placement)
    rows = []
    for count in (1, 8) if quick else (1, 8, 100):
        x, label = pictures(count)
        variants: dict[str, Callable[[], object]] = {
            "unnoise": partial(ours, placed, x, label, steps),
            "unnoise, a tenth of the steps": partial(ours, placed, x, label, steps, steps // 10),
            "one t at a time, plain network": partial(one_at_a_time, plain, x, label, steps),
            "one t at a time, our network": partial(one_at_a_time, placed, x, label, steps),
        }
        found = in_turn(variants, rounds=rounds, warm=0, clock=clock)
        first = found["unnoise"]
        row: dict[str, Any] = {"pictures": count, "steps": steps}
        row |= {f"{name}, s": seconds for name, seconds in found.items()}
        row |= {f"{name} / unnoise": found[name] / first for name in list(variants)[1:]}
        rows.append(row)
    x, label = pictures(2)
    mine, other = ours(placed, x, label, steps).total, one_at_a_time(plain, x, label, steps)
    return {
        "title": "bits per dimension: the bound with the network of the preset fashion",
        "rows": rows,
        "notes": {
            "dtype": f"{placement.dtype}; plain torch.float32",
            "target": f"one t at a time, plain network / unnoise at least 2, with at most {BATCH} pairs at once",
            f"milliseconds of {BATCH} pairs": where(placed),
            "peak MiB of a process by steps": {str(n): child(n) for n in ((100, 400) if quick else (100, 1000))},
            "relative difference of the values (noise differs)": ((mine - other).abs() / other).max().item(),
        },
    }


def where(diffusion: Diffusion) -> dict[str, float]:
    """Milliseconds spent in each part for BATCH pairs; and in the network for one pair at a time."""
    x, label = pictures(BATCH)
    t = (torch.arange(BATCH, dtype=torch.float64) + 1) / BATCH
    denoiser, one = diffusion.given(Cond(label)), diffusion.given(Cond(label[:1]))
    seeds = Seeds(tuple(range(BATCH)), SHAPE)
    every = table(diffusion.schedule, BATCH)

    def free(rows: Tensor) -> Any:
        return type(denoiser)(diffusion.schedule, lambda x_t, t: type(estimate)(estimate.mean[: len(x_t)]))

    with torch.no_grad():
        estimate = denoiser(x, t)

        def network_once() -> object:
            with torch.no_grad():
                return denoiser(x, t)

        def network_in_turn() -> object:
            with torch.no_grad():
                return [one(x[:1], t[:1]) for _ in range(BATCH)]

        found = in_turn(
            {
                "network": network_once,
                "network, a pair at a time": network_in_turn,
                "noise by its key": lambda: seeds(t),
                "noise in bulk": lambda: torch.randn(BATCH, *SHAPE),
                "all but network and noise": lambda: last(
                    whole_bound(free, x[:1], every, lambda rows, t: x, batch=BATCH)
                ),
            },
            rounds=5,
        )
    return {name: 1e3 * seconds for name, seconds in found.items()}


def child(steps: int) -> float:
    code = f"from benchmarks import bits; bits.peak({steps})"
    root = Path(__file__).parent.parent
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    return float(out.split()[-1])
