"""A training step of the same network: batch 32, seconds a step; and with --curves the loss over 200 steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.timing import in_turn
from unnoise.denoiser import Diffusion
from unnoise.objectives import simple
from unnoise.schedules import LinearBeta
from unnoise.settings import Fit
from unnoise.training.learner import Learner
from unnoise.training.loop import Rows, fit

BATCH = 32
HOW = Fit(images=10**9, batch=BATCH, warmup=0, lr=1e-4)


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
    from unnoise.training.course import compute_dtype  # what a training takes by itself here

    diffusion = Diffusion(net, LinearBeta())
    learner = Learner(net, HOW, dtype=compute_dtype(HOW, torch.device("cpu")))

    def batches() -> Iterator[Pictures]:
        step = 0
        while True:
            x, _, _ = data(step)
            yield Pictures(x.contiguous(memory_format=torch.channels_last), tuple(range(BATCH)))
            step += 1

    def loss(batch: Pictures, rows: Rows) -> Tensor:
        step = rows.places[0] // BATCH
        _, entries, noise = data(step)
        t = (entries.double() + 1) / 1000
        return diffusion.loss(batch.x, t, noise=noise.contiguous(memory_format=torch.channels_last), weight=simple)

    ticks = fit(net, batches(), loss, HOW, learner=learner)
    return lambda: next(ticks).loss


def theirs(net: Any, *, tuned: bool) -> Callable[[], float]:
    """The loop of diffusers' train_unconditional.py: Adam, clipping, its own average of the weights."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    if tuned:
        net = net.to(memory_format=torch.channels_last)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=HOW.lr, **({"fused": True} if tuned else {}))
    scheduler = DDPMScheduler()
    average = EMAModel(net.parameters(), decay=0.9999, foreach=tuned)
    step = 0

    def one() -> float:
        nonlocal step
        x, entries, noise = data(step)
        step += 1
        if tuned:
            x, noise = (a.contiguous(memory_format=torch.channels_last) for a in (x, noise))
        noisy = scheduler.add_noise(x, noise, entries)
        with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            out = net(noisy, entries).sample
        loss = F.mse_loss(out.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(net.parameters())
        return loss.item()

    return one


def contenders() -> dict[str, Callable[[], float]]:
    net = peers.our_network()
    reference = peers.their_network(net)
    return {
        "unnoise": ours(copy.deepcopy(net)),
        "diffusers": theirs(copy.deepcopy(reference), tuned=False),
        "diffusers tuned": theirs(copy.deepcopy(reference), tuned=True),
    }


def run(*, quick: bool) -> dict[str, Any]:
    found = in_turn(contenders(), rounds=3 if quick else 7)
    row: dict[str, Any] = {"batch": BATCH, **{f"{name} ms a step": 1e3 * s for name, s in found.items()}}
    row |= {f"x {name}": s / found["unnoise"] for name, s in found.items() if name != "unnoise"}
    return {"title": "a training step, 35.7M U-Net at 32x32", "rows": [row]}


def curves(steps: int = 200) -> dict[str, Any]:
    """Mean losses of ten steps each: the same weights, pictures, times and noise for all."""
    rows = []
    ways = contenders()
    kept: dict[str, list[float]] = {name: [] for name in ways}
    for step in range(steps):
        for name, one in ways.items():
            kept[name].append(one())
        if step % 10 == 9:
            rows.append({"steps": step + 1, **{name: sum(values[-10:]) / 10 for name, values in kept.items()}})
    return {"title": f"loss over {steps} steps", "rows": rows, "fit": replace(HOW).__class__.__name__}
