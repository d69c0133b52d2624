"""From a request to pictures, step by step: the one path for Python, the command line, the page and the server.

    for frame in generate(model, request): ...      # stop reading to cancel

A picture depends on its seed, its condition and the settings; not on how many are sampled beside it, nor on previews.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.conditions import Cond
from unnoise.config.request import Request
from unnoise.data import degrade
from unnoise.denoiser import Denoiser, Estimate
from unnoise.generate.job import Job, Placed, Start, prepare
from unnoise.io.pictures import Pictures
from unnoise.model import Model
from unnoise.samplers import State, walk


@dataclass(frozen=True)
class Frame:
    """One step of the answer: where the walk is, for one batch of the pictures."""

    rows: slice  # which of the request's pictures
    step: int  # 1 to steps
    steps: int
    pictures: Tensor | None  # (B, C, H, W) float32: the result at the last step, a preview or None before it
    calls: int = 0  # of the denoiser so far, for these pictures

    @property
    def done(self) -> bool:
        """Whether these pictures are finished."""
        return self.step == self.steps


def frames(job: Job) -> Iterator[Frame]:
    """Run a job batch by batch, and yield after each step. Inpainted pictures end exactly on the known pixels."""
    request, steps = job.request, len(job.times) - 1
    shown = {round(steps * (i + 1) / (request.previews + 1)) for i in range(request.previews)}
    for first in range(0, len(request.seeds), request.batch):
        rows = slice(first, min(first + request.batch, len(request.seeds)))
        denoiser, calls = counted(job.denoiser(rows))
        states = walk(denoiser, job.first(rows), job.times, job.step, job.noise(rows))
        for at, state in enumerate(states, start=1):
            pictures = None
            if at == steps:
                pictures = finished(job, rows, state)
            elif at in shown:
                pictures = job.placed.decode(state.history[-1].mean).cpu()
            yield Frame(rows, at, steps, pictures, calls[0])


def finished(job: Job, rows: slice, state: State) -> Tensor:
    """The pictures (B, C, H, W) of a walk's last state, on the CPU."""
    pictures = job.placed.decode(state.x).cpu()
    if job.model.card.process.concat == "masked" and job.cond.concat is not None:
        return degrade.paste(pictures, job.cond.concat[rows].cpu())
    return pictures


def counted(denoiser: Denoiser) -> tuple[Denoiser, list[int]]:
    """The denoiser, and a list whose one number grows by one with every call: the cost of a walk."""
    calls = [0]

    def estimate(x_t: Tensor, t: Tensor) -> Estimate:
        calls[0] += 1
        return denoiser(x_t, t)

    return Denoiser(denoiser.schedule, estimate), calls


def generate(
    model: Model | Placed, request: Request, start: Start | None = None, cond: Cond | None = None
) -> Iterator[Frame]:
    """`prepare` and `frames` in one call. Raises UserError before the first frame; see `prepare` for the arguments."""
    return frames(prepare(model, request, start=start, cond=cond))


def collect(job: Job) -> Tensor:
    """All finished pictures of a job, (B, C, H, W) float32; latents of a latent model."""
    return torch.cat([frame.pictures for frame in frames(job) if frame.done and frame.pictures is not None])


def sample(model: Model | Placed, request: Request, start: Start | None = None, cond: Cond | None = None) -> Pictures:
    """All pictures of a request at once, as bytes, or the latents of a latent model. Raises UserError."""
    job = prepare(model, request, start=start, cond=cond)
    pictures = collect(job)
    return Pictures(pictures if job.model.latent_only else to_bytes(pictures), request.seeds, job.labels())
