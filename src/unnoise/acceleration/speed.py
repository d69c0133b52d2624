"""The measured speed of number formats and memory layouts on this machine.

The operation is a 3x3 convolution, 128 to 128 channels, 32x32 pixels, batch 16: a typical one of a U-Net.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from unnoise.acceleration.placement import allow_tf32, find

RUN = 0.03  # seconds of a run of calls: long beside the wait for a GPU


@dataclass(frozen=True)
class Speed:
    """The speed of the convolution in a number format and a memory layout."""

    dtype: str
    layout: str
    tflops: float


def speeds() -> list[Speed]:
    """The measured speed of each number format and memory layout."""
    device = find("auto")
    allow_tf32(False)  # as --precision float32 computes
    return [
        measure(dtype, layout, device)
        for dtype, layout in (
            (torch.float32, torch.contiguous_format),
            (torch.float32, torch.channels_last),
            (torch.bfloat16, torch.channels_last),
        )
    ]


def measure(dtype: torch.dtype, layout: torch.memory_format, device: str, *, seconds: float = 0.4) -> Speed:
    """The speed of the convolution in a number format and a memory layout, measured for `seconds`."""
    batch, channels, size = 16, 128, 32
    conv: Any = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device)
    conv = conv.to(dtype=dtype, memory_format=layout)
    x = torch.randn(batch, channels, size, size, device=device).to(dtype=dtype, memory_format=layout)
    wait = waiting(device)
    with torch.inference_mode():
        conv(x)
        wait()
        best = fastest(lambda: conv(x), wait, seconds=seconds)
    work = 2 * batch * channels * channels * 9 * size * size
    name = {torch.channels_last: "channels_last"}.get(layout, "contiguous")
    return Speed(str(dtype).removeprefix("torch."), name, round(work / best / 1e12, 3))


def waiting(device: str) -> Callable[[], None]:
    """What waits until a device has finished its work: nothing on a CPU."""
    return (lambda: None) if device == "cpu" else lambda: torch.accelerator.synchronize(device)


def fastest(call: Callable[[], object], wait: Callable[[], object], *, seconds: float) -> float:
    """The seconds of a call, in the fastest of the runs that begin within `seconds`, of which there is at least one.

    Other programs can only make a run slower. The first call of an operation is the caller's: it may prepare things.

    A GPU works on after a call has returned, and `wait` waits for it, which takes time too. So a run has as many calls
    before it waits as last RUN seconds.
    """
    best, calls, end = math.inf, 1, time.perf_counter() + seconds
    while math.isinf(best) or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        spent = time.perf_counter() - start
        best = min(best, spent / calls)
        calls *= 1 if spent > RUN else 2
    return best
