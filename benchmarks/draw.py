"""Drawing with the CIFAR-10 network of DDPM: seconds of a DDIM step, and how far bfloat16 is from float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.timing import in_turn
from unnoise.acceleration.placement import best, place
from unnoise.conditions import NOTHING
from unnoise.denoiser import Diffusion
from unnoise.noise import Seeds
from unnoise.samplers import ddim, last, walk
from unnoise.samplers.times import leading
from unnoise.schedules import LinearBeta

STEPS = 4


def ours(diffusion: Diffusion, steps: int) -> Callable[[Tensor], Tensor]:
    times = leading()(diffusion.schedule, steps)

    def draw(x: Tensor) -> Tensor:
        denoiser = diffusion.given(NOTHING)
        return last(walk(denoiser, x, times, ddim(), Seeds((0,), (3, 32, 32))))

    return draw


def theirs(net: Any, steps: int, *, inference: bool) -> Callable[[Tensor], Tensor]:
    """The loop of diffusers' DDIMPipeline; by default it runs under no_grad."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False)
    dtype = next(net.parameters()).dtype

    def draw(x: Tensor) -> Tensor:
        with torch.inference_mode() if inference else torch.no_grad():
            x = x.to(dtype)
            if inference:
                x = x.contiguous(memory_format=torch.channels_last)
            scheduler.set_timesteps(steps)
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t).sample, t, x, eta=0.0).prev_sample
        return x.float()

    return draw


def run(*, quick: bool) -> dict[str, Any]:
    net = peers.our_network()
    reference = peers.their_network(net)
    diffusion = place(Diffusion(net, LinearBeta()).eval(), best())
    flops = peers.our_cost(net)
    lucid = peers.lucidrains(flops)
    ways: dict[str, Callable[[Tensor], object]] = {
        "unnoise": ours(diffusion, STEPS),
        "diffusers": theirs(reference, STEPS, inference=False),
        "diffusers tuned": theirs(peers.tuned(reference), STEPS, inference=True),
    }
    if lucid is not None:
        ways["denoising-diffusion-pytorch"] = lambda x: lucid.sample(batch_size=len(x))
    rows = []
    for batch in (1, 16) if quick else (1, 16, 64):
        x = peers.start(batch)
        rounds = {1: 15, 16: 7, 64: 3}[batch] // (2 if quick else 1)
        found = in_turn({name: (lambda way=way: way(x)) for name, way in ways.items()}, rounds=max(3, rounds))
        rows.append({"batch": batch, **{f"{name} ms a step": 1e3 * s / STEPS for name, s in found.items()},
                     **{f"x {name}": s / found["unnoise"] for name, s in found.items() if name != "unnoise"}})  # fmt: skip
    return {"title": "drawing, DDIM, 35.7M U-Net at 32x32", "rows": rows, "gflops a picture": flops / 1e9,
            "error": errors(net, reference, 10)}  # fmt: skip


@torch.no_grad()
def errors(net: Any, reference: Any, steps: int) -> dict[str, float]:
    """Mean absolute difference to the float32 pictures, in grey levels of 256, of ours and of diffusers tuned."""
    x = peers.start(16)
    exact = theirs(reference, steps, inference=False)(x)
    ours_exact = ours(Diffusion(net, LinearBeta()).eval(), steps)(x)
    placed = ours(place(Diffusion(net, LinearBeta()).eval(), best()), steps)(x)
    tuned = theirs(peers.tuned(reference), steps, inference=True)(x)
    scale = 127.5 / exact.abs().max()  # random weights draw no pictures: measured on their own range

    def off(a: Tensor) -> float:
        return (scale * (a - exact).abs().mean()).item()

    return {"unnoise float32": off(ours_exact), "unnoise": off(placed), "diffusers tuned": off(tuned)}
