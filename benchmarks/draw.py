"""Drawing with the CIFAR-10 network of DDPM: seconds of a DDIM step, how far bfloat16 is from float32, where time goes.

`why` answers a target out of reach: the share of the convolutions in our step, and the ratio that would be reached if
all else took no time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.timing import in_turn, milliseconds
from unnoise.acceleration.placement import best, place
from unnoise.conditions import NOTHING
from unnoise.denoiser import Diffusion
from unnoise.noise import Seeds
from unnoise.samplers import ddim, last, walk
from unnoise.samplers.timesteps import leading
from unnoise.schedules import LinearBeta

STEPS = 2
TARGETS = (
    "diffusers tuned / unnoise at batch 1 and 16: 1.9 and 2.0 on AVX2 alone, ahead of OpenVINO in float32; "
    "1.6 and 1.45 with AVX512-BF16; 2.0 and 1.5 with AMX"
)


def ours(diffusion: Diffusion, steps: int) -> Callable[[Tensor], Tensor]:
    times = leading()(diffusion.schedule, steps)

    def draw(x: Tensor) -> Tensor:
        denoiser = diffusion.given(NOTHING)
        return last(walk(denoiser, x, times, ddim(), Seeds((0,), (3, 32, 32))))

    return draw


def theirs(net: Any, steps: int, how: peers.Tuning | None = None) -> Callable[[Tensor], Tensor]:
    """diffusers' network in its loop; by default in float32 under no_grad, tuned in inference mode."""
    dtype = next(net.parameters()).dtype
    draw = pipeline(lambda x, t: net(x, t).sample, steps)

    def cast(x: Tensor) -> Tensor:
        with torch.no_grad() if how is None else torch.inference_mode():
            x = x.to(dtype)
            return draw(x if how is None else x.contiguous(memory_format=how.memory_format)).float()

    return cast


def pipeline(predict: Callable[[Tensor, Tensor], Tensor], steps: int) -> Callable[[Tensor], Tensor]:
    """The loop of diffusers' DDIMPipeline."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False)

    def draw(x: Tensor) -> Tensor:
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            x = scheduler.step(predict(x, t), t, x, eta=0.0).prev_sample
        return x

    return draw


def converted(reference: Any, batch: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """OpenVINO's ways for this batch: float32, and bfloat16 where the processor has it; none where it is absent."""
    found = {}
    for dtype in (torch.float32,) if peers.SLOW else (torch.float32, torch.bfloat16):
        predict = peers.openvino(reference, batch, dtype)
        if predict is None:
            return {}
        found[f"OpenVINO {str(dtype).removeprefix('torch.')}"] = pipeline(predict, STEPS)
    return found


def run(*, quick: bool, clock: str, seconds: float) -> dict[str, Any]:
    net = peers.our_network(peers.CONFIG)
    reference = peers.their_network(net)
    diffusion = place(Diffusion(net, LinearBeta()).eval(), best("cpu"))
    how = peers.fastest(lambda how: partial(theirs(peers.tuned(reference, how), 1, how), peers.start(4)), clock)
    tuned = peers.tuned(reference, how)
    flops = peers.our_cost(net)
    lucid = peers.lucidrains(flops, STEPS)
    ways: dict[str, Callable[[Tensor], object]] = {
        "unnoise": ours(diffusion, STEPS),
        "diffusers": theirs(reference, STEPS),
        "diffusers tuned": theirs(tuned, STEPS, how),
    }
    if lucid is not None:
        ways["denoising-diffusion-pytorch"] = lambda x: lucid.sample(batch_size=len(x))
    rows = []
    batches = ((1, 5), (16, 3)) if quick else ((1, 21), (16, 7), (64, 3))
    for batch, rounds in batches[:2] if peers.SLOW else batches:
        x, here = peers.start(batch), ways | converted(reference, batch)
        found = in_turn(
            {name: partial(way, x) for name, way in here.items()},
            rounds=rounds,
            clock=clock,
            limit=seconds * (0.2 if batch == 1 else 0.4),  # the rest: tuning, converting, errors, profiles
        )
        rows.append({"batch": batch, **milliseconds(found, STEPS)})
    return {
        "title": f"drawing: a DDIM step of the 35.7M U-Net at 32x32, {flops / 1e9:.1f} GFLOP a picture",
        "rows": rows,
        "notes": {
            "diffusers tuned": f"{how} in inference mode, the fastest of {peers.tried()}",
            "OpenVINO": f"diffusers' network converted, static shapes, latency hint, {torch.get_num_threads()} threads",
            "targets": TARGETS,
            "grey levels of 256 off diffusers' float32 pictures": errors(
                net, reference, how, 4 if quick or peers.SLOW else 10
            ),
        },
        "profile": {"unnoise": shares(ways["unnoise"]), "diffusers tuned": shares(ways["diffusers tuned"])},
    }


KINDS = {
    "convolution": ("conv", "winograd"),
    "normalisation": ("group_norm", "GroupNorm"),
    "linear": ("linear", "addmm"),
    "attention": ("bmm", "softmax", "attention"),
    "activation": ("silu",),
    "copies, sums, joins": ("copy_", "cat", "add", "div", "mul", "to", "upsample", "contiguous", "clone"),
}


@torch.no_grad()
def shares(way: Callable[[Tensor], object], batch: int = 16) -> dict[str, float]:
    """Share of a draw's time by kind of operation, from torch's profiler."""
    x = peers.start(batch)
    way(x)
    with torch.profiler.profile() as profile:
        way(x)
    seconds = dict.fromkeys((*KINDS, "other"), 0.0)
    for event in profile.key_averages():
        kind = next((k for k, parts in KINDS.items() if any(part in event.key for part in parts)), "other")
        seconds[kind] += event.self_cpu_time_total
    return {kind: value / sum(seconds.values()) for kind, value in seconds.items()}


@torch.no_grad()
def errors(net: Any, reference: Any, how: peers.Tuning, steps: int) -> dict[str, float]:
    """Mean absolute difference to the float32 pictures, in grey levels of 256, of ours and of diffusers tuned."""
    x = peers.start(4)
    exact = theirs(reference, steps)(x)
    ours_exact = ours(Diffusion(net, LinearBeta()).eval(), steps)(x)
    placed = ours(place(Diffusion(net, LinearBeta()).eval(), best("cpu")), steps)(x)
    tuned = theirs(peers.tuned(reference, how), steps, how)(x)
    scale = 127.5 / exact.abs().max()  # random weights draw no pictures: measured on their own range

    def off(a: Tensor) -> float:
        return (scale * (a - exact).abs().mean()).item()

    return {"unnoise float32": off(ours_exact), "unnoise": off(placed), "diffusers tuned": off(tuned)}
