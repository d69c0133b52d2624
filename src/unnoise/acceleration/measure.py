"""Measures a diffusion's network on this machine: the time of a call, its memory and its error, by variant and batch.

    plain      the network as it was loaded, in float32: the reference of the errors
    float32    placed (placement.py)
    tf32       placed, on CUDA
    bfloat16   placed, on machines where it may be faster

The time is that of the fastest call, because other programs can only make a call slower. The plan follows what was
measured: a larger batch is left out, with the reason, if its time or memory, in proportion to the batch before, exceeds
what is left. The smallest batch is always measured.
"""

from __future__ import annotations

import copy
import gc
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from unnoise.acceleration import allocator, memory
from unnoise.acceleration.choices import Precision
from unnoise.acceleration.placement import PRECISIONS, allow_tf32, best, fast_bfloat16, place
from unnoise.acceleration.speed import fastest, waiting
from unnoise.conditions import Cond
from unnoise.denoiser import Diffusion
from unnoise.io.units import duration, human
from unnoise.nn import norm
from unnoise.noise import normal

PLAIN = "plain"
BATCHES = (1, 4, 16, 64, 256)
REPEATED = 1.0  # seconds in which the calls of a batch are repeated
LARGEST_ERROR = 0.05  # five times the usual error of bfloat16: beyond it, a precision is not chosen
T = 0.5  # the time of the calls: half-way between picture and noise


@dataclass(frozen=True)
class Measured:
    """A network call of a variant on a batch; with `left_out`, the reason why it was not measured."""

    variant: str
    batch: int
    seconds: float = math.nan
    memory: int | None = None  # bytes, peak: of the process on a CPU, of tensors on a GPU; None: not known
    error: float | None = None  # rms of the difference to plain / rms of plain; None without a plain call of this batch
    left_out: str = ""


def variants(device: str) -> tuple[str, ...]:
    """The variants to measure on a device: bfloat16 not on x86 without instructions for it, which emulates it.

    `exact` is slower than float32 where they differ, and is not measured.
    """
    x86 = device == "cpu" and platform.machine().lower() in ("x86_64", "amd64", "i686")
    left_out = {"exact": True, "tf32": not device.startswith("cuda"), "bfloat16": x86 and not fast_bfloat16(device)}
    return (PLAIN, *(name for name in PRECISIONS if not left_out.get(name)))


def measure(
    diffusion: Diffusion,
    condition: Callable[[int], Cond],
    shape: tuple[int, int, int],
    device: str,
    *,
    seconds: float,
    batches: Sequence[int] = BATCHES,
) -> Iterator[Measured]:
    """Yields a result for each variant and batch, on x_t (batch, *shape) with the condition of so many rows.

    A variant has an equal part of `seconds`, and what those before have left; placing it, for which operations may be
    compiled, does not count. The diffusion does not change.
    """
    norm.disable()  # the plain network has torch's own operations, in float32; placing sets both again
    allow_tf32(False)
    outputs: dict[int, Tensor] = {}
    names, left = variants(device), seconds
    for number, name in enumerate(names):
        if name == PLAIN:
            placed = diffusion if device == "cpu" else copy.deepcopy(diffusion).to(device)
        else:
            placed = place(diffusion, best(device, name))
        begin = time.perf_counter()
        end = begin + left / (len(names) - number)
        yield from _each_batch(_Variant(name, placed, condition, shape, device), batches, end, outputs)
        left = max(0.0, left - (time.perf_counter() - begin))
        del placed
        gc.collect()
        allocator.trim()


@dataclass(frozen=True)
class _Variant:
    name: str
    diffusion: Diffusion
    condition: Callable[[int], Cond]
    shape: tuple[int, int, int]
    device: str


def _each_batch(
    variant: _Variant, batches: Sequence[int], end: float, outputs: dict[int, Tensor]
) -> Iterator[Measured]:
    """The results of a variant. The outputs of the plain one are added to `outputs`, and those of others compared."""
    before, last, why = memory.used(variant.device), None, ""
    for batch in batches:
        if last is not None and not why:
            why = _too_much(last, batch, before, variant.device, end - time.perf_counter())
        if why:
            yield Measured(variant.name, batch, left_out=why)
            continue
        try:
            last = _one(variant, batch, end, outputs)
            yield last
        except (RuntimeError, MemoryError) as error:  # out of memory, or a dtype that the device does not have
            if variant.name == PLAIN and last is None:
                raise
            why = (str(error).strip().splitlines() or ["out of memory"])[0]
            yield Measured(variant.name, batch, left_out=why)


def _too_much(last: Measured, batch: int, before: int | None, device: str, left: float) -> str:
    """Why a batch is left out, from what the one before it has needed; "" if it is not."""
    ratio = batch / last.batch
    needed = 2 * ratio * last.seconds  # the first call, which is not counted, and one more
    if needed > left:
        return f"about {duration(needed)} for two calls, {duration(max(left, 0.0))} left"
    available = memory.available_memory(device)
    if available is not None and before is not None and last.memory is not None:
        bytes_ = int(ratio * (last.memory - before))
        if bytes_ > available:
            return f"about {human(bytes_)}B of memory, {human(available)}B available"
    return ""


@torch.inference_mode()
def _one(variant: _Variant, batch: int, end: float, outputs: dict[int, Tensor]) -> Measured:
    diffusion, device = variant.diffusion, variant.device
    x = normal((batch, *variant.shape), "bench").to(device)
    t = torch.tensor(T, dtype=torch.float64)
    denoiser = diffusion.given(variant.condition(batch).to(device))
    known = memory.reset_peak(device)
    mean = denoiser(x, t).mean
    left = end - time.perf_counter()
    seconds = fastest(lambda: denoiser(x, t), waiting(device), seconds=min(REPEATED, max(left, 0.0)))
    peak = memory.peak(device) if known else None
    level = diffusion.schedule(t)
    x, mean = x.cpu().double(), mean.cpu().double()
    out = diffusion.predicts.target(mean, level.eps(x, mean), level)  # the network's output, from its estimate
    if variant.name == PLAIN:
        outputs[batch] = out
        return Measured(variant.name, batch, seconds, peak)
    exact = outputs.get(batch)
    error = None if exact is None else ((out - exact).square().mean() / exact.square().mean()).sqrt().item()
    return Measured(variant.name, batch, seconds, peak, error)


def fastest_precision(found: Sequence[Measured]) -> Precision:
    """The precision with the shortest calls: the geometric mean over the batches that all have been measured in.

    A precision whose error exceeds LARGEST_ERROR, or is not a number, is not chosen; float32 is always accurate.
    """
    times: dict[Precision, Mapping[int, float]] = {}
    for name in get_args(Precision):
        rows = [row for row in found if row.variant == name and not row.left_out]
        accurate = name == "float32" or all(row.error is None or row.error <= LARGEST_ERROR for row in rows)
        if rows and accurate:
            times[name] = {row.batch: row.seconds for row in rows}
    common = set.intersection(*(set(each) for each in times.values())) if times else set()
    return min(times, key=lambda name: sum(math.log(times[name][batch]) for batch in common), default="float32")
