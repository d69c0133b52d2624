"""A training step of the same network at batch 32, on a slow machine 16; the loss over 100 steps of a narrow one."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.timing import in_turn, milliseconds
from unnoise.acceleration.placement import best, prepare
from unnoise.config.networks import UNetConfig
from unnoise.config.training import Fit
from unnoise.denoiser import Diffusion
from unnoise.losses import simple
from unnoise.schedules import LinearBeta
from unnoise.training.loop import fit
from unnoise.training.player import Player, SampleRNG
from unnoise.training.train_state import TrainState

BATCH = 16 if peers.SLOW else 32
HOW = Fit(images=10**9, batch=BATCH, warmup=0, lr=1e-4)
NARROW = UNetConfig(channels=(32, 64, 64, 64))  # for the curves: a sixteenth of the cost


class Pictures(NamedTuple):
    x: Tensor
    index: tuple[int, ...]


def data(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures with something to learn (smooth fields), entries and noise of a step: the same for every contender."""
    generator = torch.Generator().manual_seed(step)
    coarse = torch.randn(BATCH, 3, 4, 4, generator=generator)
    x = F.interpolate(coarse, size=32, mode="bilinear").clamp(-2, 2) / 2
    entries = torch.randint(0, 1000, (BATCH,), generator=generator)
    return x, entries, torch.randn(x.shape, generator=generator)


def ours(net: nn.Module) -> Callable[[], float]:
    placement = best("cpu")  # what a training takes by itself
    diffusion = Diffusion(prepare(net, placement), LinearBeta())

    def batches() -> Iterator[Pictures]:
        step = 0
        while True:
            x, _, _ = data(step)
            yield Pictures(x, tuple(range(BATCH)))
            step += 1

    def loss(batch: Pictures, rows: SampleRNG) -> Tensor:
        step = rows.places[0] // BATCH
        _, entries, noise = data(step)
        t = (entries.double() + 1) / 1000
        return diffusion.loss(batch.x, t, noise=noise, weight=simple)

    ticks = fit(Player(net, HOW, loss), batches(), states=TrainState(net, HOW, dtype=placement.dtype))
    return lambda: next(ticks).loss


def theirs(net: Any, how: peers.Tuning | None = None) -> Callable[[], float]:
    """The loop of diffusers' train_unconditional.py: Adam, clipping, its own average of the weights.

    Tuned by hand: autocast where the dtype is bfloat16, the memory format, fused Adam and grouped averages.
    """
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    tuned = how is not None
    if how is not None:
        net = net.to(memory_format=how.memory_format)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=HOW.lr, **({"fused": True} if tuned else {}))
    scheduler = DDPMScheduler()
    average = EMAModel(net.parameters(), decay=0.9999, foreach=tuned)
    step = 0

    def one() -> float:
        nonlocal step
        x, entries, noise = data(step)
        step += 1
        if how is not None:
            x, noise = (a.contiguous(memory_format=how.memory_format) for a in (x, noise))
        noisy = scheduler.add_noise(x, noise, entries)
        with torch.autocast("cpu", torch.bfloat16, enabled=how is not None and how.dtype == torch.bfloat16):
            out = net(noisy, entries).sample
        loss = F.mse_loss(out.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(net.parameters())
        return loss.item()

    return one


def contenders(config: UNetConfig, clock: str) -> tuple[dict[str, Callable[[], float]], peers.Tuning]:
    """A step of each, and how diffusers is tuned: the fastest way of a step of this network."""
    net = peers.our_network(config)
    reference = peers.their_network(net)
    how = peers.fastest(lambda how: theirs(copy.deepcopy(reference), how), clock)
    ways = {
        "unnoise": ours(copy.deepcopy(net)),
        "diffusers": theirs(copy.deepcopy(reference)),
        "diffusers tuned": theirs(copy.deepcopy(reference), how),
    }
    return ways, how


def run(*, quick: bool, clock: str, seconds: float) -> dict[str, Any]:
    ways, how = contenders(peers.CONFIG, clock)
    found = in_turn(ways, rounds=2 if quick else 7, clock=clock, limit=seconds * 0.6)  # the rest: tuning
    row: dict[str, Any] = {"batch": BATCH, **milliseconds(found)}
    return {
        "title": "a training step of the same network: forward, backward, clip, Adam, average",
        "rows": [row],
        "notes": {
            "diffusers tuned": f"{how}, fused Adam, the fastest of {peers.tried()}",
            "targets": "diffusers tuned / unnoise: 1.4 on every processor",
        },
    }


def curves(*, quick: bool, clock: str, seconds: float) -> dict[str, Any]:
    """Mean losses of every twenty steps: the same weights, pictures, times and noise for all.

    The steps end with the first twenty that are done after `seconds`.
    """
    steps, begin = 40 if quick or peers.SLOW else 100, time.perf_counter()
    ways, how = contenders(NARROW, clock)
    kept = {name: torch.tensor([0.0] * steps) for name in ways}
    for step in range(steps):
        if step and step % 20 == 0 and time.perf_counter() - begin > seconds:
            steps = step
            break
        for name, one in ways.items():
            kept[name][step] = one()
    rows: list[dict[str, Any]] = [
        {"steps": f"{at + 1}-{at + 20}", **{name: values[at : at + 20].mean().item() for name, values in kept.items()}}
        for at in range(0, steps, 20)
    ]
    kept = {name: values[:steps] for name, values in kept.items()}
    exact = kept["diffusers"]
    off = {name: ((values - exact).abs() / exact).mean().item() for name, values in kept.items() if name != "diffusers"}
    return {
        "title": f"the loss over {steps} steps, a U-Net of a quarter of the width",
        "rows": rows,
        "notes": {"diffusers tuned": str(how), "mean relative difference to diffusers in float32, a step": off},
    }
