"""Bits of pictures: the whole bound, pairs of a picture and a step in one batch, beside one step at a time.

The other way is that of improved-diffusion's `calc_bpd_loop`, written anew: for each t, from T down, all pictures at
hand at once; and for each t their whole set of figures, the decoder's too. Both ways keep at most `BATCH` pairs in
memory at once; noise is drawn by each in its own way. Its network is the same one as torch computes it ("plain"); ours
is placed as `unnoise evaluate` places it. To tell the two apart, the other way is timed on our placed network too: what
is gained there is a full batch where pictures are few. What a data set needs is its mean: there each picture may be
asked at a tenth of the steps, an estimate without bias.
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
    """The small fashion model's, with random weights."""
    config = presets.fashion()
    assert isinstance(config.net, UNetConfig)
    return make_diffusion(peers.our_network(config.net), config.process).eval()


def pictures(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator) / 127.5 - 1, torch.arange(count) % 10


def ours(diffusion: Diffusion, x: Tensor, label: Tensor, steps: int, times: int = 0) -> Bound:
    """The bound; at so many of its steps a picture, an estimate of the mean."""
    every, asked = table(diffusion.schedule, steps), rotating(len(x), steps, times or steps, 0)

    def given(rows: Tensor) -> Denoiser:
        return diffusion.given(Cond(label[rows]))

    return last(whole_bound(given, x, every, noise_of(0, SHAPE), batch=BATCH, asked=asked))


@torch.no_grad()
def one_at_a_time(diffusion: Diffusion, x: Tensor, label: Tensor, steps: int) -> Tensor:
    """Bits a number of each picture: parts of at most BATCH pictures, and every t in turn."""
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
        true, said = at("on_x") * x + at("on_x_t") * x_t, at("on_x") * mean + at("on_x_t") * x_t
        log_true = log_said = at("log_variance")
        kl = (-1 + log_said - log_true + (log_true - log_said).exp() + (true - said).square() * (-log_said).exp()) / 2
        decoder = -tanh_log_likelihood(x, said, log_said)
        kl, decoder = (each.flatten(1).mean(1) / math.log(2) for each in (kl, decoder))
        terms.append(torch.where(t == 0, decoder, kl))
        (mean - x).square().flatten(1).mean(1)  # its two squared errors: of the picture, and of the noise
        ((x_t - at("alpha") * mean) / at("sigma") - eps).square().flatten(1).mean(1)
    return torch.stack(terms, 1).double().sum(1) + prior_term(x, diffusion.schedule.at(1.0))


def peak(steps: int) -> None:
    """In a child: the peak resident set, in MiB, of the bound of eight pictures."""
    diffusion = place(network(), best("cpu"))
    x, label = pictures(8)
    ours(diffusion, x, label, 10)
    ours(diffusion, x, label, steps)
    print(own_peak())


def run(*, quick: bool, clock: str) -> dict[str, Any]:
    steps, rounds = (100, 3) if quick else (1000, 1)
    how = best("cpu")
    plain, placed = network(), place(network(), how)
    rows = []
    for count in (1, 8) if quick else (1, 8, 100):
        x, label = pictures(count)
        ways: dict[str, Callable[[], object]] = {
            "unnoise": partial(ours, placed, x, label, steps),
            "unnoise, a tenth of the steps": partial(ours, placed, x, label, steps, steps // 10),
            "one t at a time, plain network": partial(one_at_a_time, plain, x, label, steps),
            "one t at a time, our network": partial(one_at_a_time, placed, x, label, steps),
        }
        found = in_turn(ways, rounds=rounds, warm=0, clock=clock)
        first = found["unnoise"]
        row: dict[str, Any] = {"pictures": count, "steps": steps}
        row |= {f"{name}, s": seconds for name, seconds in found.items()}
        row |= {f"{name} / unnoise": found[name] / first for name in list(ways)[1:]}
        rows.append(row)
    x, label = pictures(2)
    mine, other = ours(placed, x, label, steps).total, one_at_a_time(plain, x, label, steps)
    return {
        "title": "bits of pictures: the bound with the small fashion network",
        "rows": rows,
        "notes": {
            "dtype": f"{how.dtype}; plain torch.float32",
            "target": f"one t at a time, plain network / unnoise at least 2, with at most {BATCH} pairs at once",
            f"milliseconds of {BATCH} pairs": where(placed),
            "peak MiB of a process by steps": {str(n): child(n) for n in ((100, 400) if quick else (100, 1000))},
            "relative difference of the figures (noise differs)": ((mine - other).abs() / other).max().item(),
        },
    }


def where(diffusion: Diffusion) -> dict[str, float]:
    """Milliseconds that go into each part, for BATCH pairs; and of the network one pair at a time."""
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
