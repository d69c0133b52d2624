"""What a sampler costs beside the network: a fraction of a step of the 35.7M U-Net, and beside diffusers' `step`.

The first is the time of a walk whose network returns a stored tensor of the pictures' shape, over that of the network
itself. In the second, both sides are given the same stored tensor, at batch 1: what is left is Python.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.timing import CLOCKS, in_turn
from unnoise.acceleration.placement import best, place
from unnoise.conditions import NOTHING
from unnoise.config.request import Request
from unnoise.denoiser import Denoiser, Diffusion, Estimate
from unnoise.samplers import SAMPLERS, Step, last, walk
from unnoise.samplers.timesteps import from_entries
from unnoise.schedules import LinearBeta

STEPS = 20
MOST_OF_A_STEP, MOST_OF_DIFFUSERS = 0.03, 0.5


def look_up(batch: int, shape: tuple[int, ...]) -> tuple[Tensor, Denoiser]:
    """A start, and a denoiser that returns a stored tensor."""
    generator = torch.Generator().manual_seed(0)
    x, mean = (torch.randn((batch, *shape), generator=generator) for _ in range(2))
    return x, Denoiser(LinearBeta(), lambda x_t, t: Estimate(mean))


def ours(step: Step, batch: int, shape: tuple[int, ...], entries: Tensor) -> Callable[[], Tensor]:
    x, denoiser = look_up(batch, shape)
    times = from_entries(entries, 1000)
    return lambda: last(walk(denoiser, x, times, step, lambda t, draw=0: x))


def theirs(scheduler: Any, batch: int, shape: tuple[int, ...]) -> Callable[[], Tensor]:
    x, denoiser = look_up(batch, shape)
    mean = denoiser(x, torch.zeros(())).mean
    noise = {"variance_noise": x} if "sde" in scheduler.config.get("algorithm_type", "") else {}

    def run() -> Tensor:
        scheduler.set_timesteps(STEPS)
        scheduler.is_scale_input_called = True  # a warning of Euler's
        now = x
        for t in scheduler.timesteps:
            now = scheduler.step(mean, t, now, **noise).prev_sample
        return now

    return run


def schedulers() -> dict[str, Any]:
    """Their schedulers by the name of our sampler, on the table that both walk."""
    import diffusers as d

    linear = {"beta_schedule": "linear"}
    return {
        "ddim": d.DDIMScheduler(**linear, clip_sample=False),
        "euler": d.EulerDiscreteScheduler(**linear),
        "plms": d.PNDMScheduler(**linear, skip_prk_steps=True),
        "dpm++2m": d.DPMSolverMultistepScheduler(**linear),
        "dpm++3m": d.DPMSolverMultistepScheduler(**linear, solver_order=3),
        "dpm++2m-sde": d.DPMSolverMultistepScheduler(**linear, algorithm_type="sde-dpmsolver++"),
        "unipc": d.UniPCMultistepScheduler(**linear),
        "unipc-3": d.UniPCMultistepScheduler(**linear, solver_order=3),
    }


def beside_diffusers(rounds: int, clock: str) -> list[dict[str, Any]]:
    """Microseconds of a step at batch 1, and their ratio."""
    rows, entries = [], torch.linspace(999, 49, STEPS, dtype=torch.float64).round()
    for name, scheduler in schedulers().items():
        both = {
            "diffusers": theirs(scheduler, 1, (3, 32, 32)),
            "ours": ours(SAMPLERS[name].make(Request()), 1, (3, 32, 32), entries),
        }
        micro = {side: 1e6 * seconds / STEPS for side, seconds in pairs(both, rounds, clock).items()}
        rows.append(
            {
                "solver": name,
                "diffusers, us": micro["diffusers"],
                "ours, us": micro["ours"],
                "ours / diffusers": micro["ours"] / micro["diffusers"],
            }
        )
    return rows


def pairs(runs: dict[str, Callable[[], object]], rounds: int, clock: str) -> dict[str, float]:
    """Median seconds of each, always in this order: A B A B."""
    now, seconds = CLOCKS[clock], {name: [] for name in runs}
    for at in range(rounds + 1):
        for name, run in runs.items():
            begin = now()
            run()
            if at:
                seconds[name].append(now() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def shares(rounds: int, clock: str, batch: int = 16) -> list[dict[str, Any]]:
    """Each sampler's own time a step, as a fraction of the time of the network calls that it makes there."""
    net = peers.our_network(peers.CONFIG)
    diffusion = place(Diffusion(net, LinearBeta()).eval(), best("cpu"))
    x, t = peers.start(batch), torch.tensor(0.5, dtype=torch.float64)
    call = in_turn({"net": lambda: diffusion(x, t, NOTHING)}, rounds=max(2, rounds // 4), clock=clock)["net"]
    rows, entries = [], torch.linspace(999, 49, STEPS, dtype=torch.float64).round()
    for name, sampler in SAMPLERS.items():
        if name == "ddpm-learned":
            continue
        own = in_turn({name: ours(sampler.make(Request()), batch, (3, 32, 32), entries)}, rounds=rounds, clock=clock)[
            name
        ]
        calls = (STEPS - 1) * sampler.calls + sampler.last_calls
        rows.append({"solver": name, "own time a step, ms": 1e3 * own / STEPS, "share": own / (calls * call)})
    rows.sort(key=lambda row: -row["share"])
    return [*rows[:5], {"solver": "the network, a call", "own time a step, ms": 1e3 * call, "share": 1.0}]


def run(*, quick: bool, clock: str) -> dict[str, Any]:
    rounds = 7 if quick else 31
    large = shares(rounds, clock)
    return {
        "title": "solvers: a step's own time at batch 1, beside diffusers' scheduler.step",
        "rows": beside_diffusers(rounds, clock),
        "notes": {
            "targets": f"at most {MOST_OF_DIFFUSERS} of diffusers; {MOST_OF_A_STEP:.0%} of a step",
            "largest shares of a step of the 35.7M U-Net, batch 16": {
                row["solver"]: row["share"] for row in large[:-1]
            },
            "a call of it, ms": large[-1]["own time a step, ms"],
        },
    }
