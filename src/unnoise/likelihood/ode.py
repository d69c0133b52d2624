"""Exact log densities by the probability flow: x is carried to noise, and the volume around it is watched.

    log p(x) = log N(y_end; 0, I) + integral of div v,    dy / dphi = v(y, phi)

Song et al. 2021, sec. 4.3, in coordinates that are the same for every schedule: y = x_t / sqrt(alpha^2 + sigma^2) and
the angle phi = atan(sigma / alpha). On the circle y = cos(phi) x + sin(phi) eps, whether the schedule preserves
variance, lets it explode or is straight, and the field is the velocity v = cos(phi) eps - sin(phi) x of Salimans & Ho
(2022): of the size of the picture at both ends, and so is the interval, from nearly 0 to at most pi / 2.

The solver is Dormand and Prince's pair of orders 5 and 4. Every row has its own steps, so that a picture's figure does
not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise import noise
from unnoise.denoiser import Denoiser
from unnoise.errors import UserError
from unnoise.likelihood.bound import Given
from unnoise.schedules import Level, over
from unnoise.transfer import send

# --- the field, and its divergence ---

Field = Callable[[Tensor], Tensor]
Divergence = Callable[[Field, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(field, y (B, ...), the rows (B,) of the pictures that these are) -> the field there, and its divergence (B,)."""


def exact(field: Field, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the trace of the Jacobian, one number of the picture at a time: for small pictures."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        v = field(y)
        flat = v.flatten(1)
        trace = torch.zeros_like(flat[:, 0])
        for i in range(flat.shape[1]):
            (grad,) = torch.autograd.grad(flat[:, i].sum(), y, retain_graph=True)
            trace = trace + grad.flatten(1)[:, i]
    return v.detach(), trace.detach()


def hutchinson(probes: Tensor) -> Divergence:
    """Hutchinson's estimator, probe . J probe, unbiased for random signs `probes` (N, ...), fixed over a solution."""

    def divergence(field: Field, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        probe = probes[send(rows, probes.device)].to(y)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            v = field(y)
            (grad,) = torch.autograd.grad(v, y, probe)
        return v.detach(), (grad * probe).flatten(1).sum(1)

    return divergence


def _velocity(given: Given, rows: Tensor, phi: Tensor) -> Field:
    """The field of some rows at their angles (B,)."""
    denoiser = given(rows)
    t = denoiser.schedule.time(phi.cos().log() - phi.sin().log())
    level = denoiser.schedule(t)
    norm = _norm(level)

    def field(y: Tensor) -> Tensor:
        mean = denoiser(over(norm, y) * y, t).mean
        return (over(level.alpha / norm, y) * y - mean) * over(norm / level.sigma, y)

    return field


def _norm(level: Level) -> Tensor:
    return torch.hypot(level.alpha, level.sigma)


# --- Dormand & Prince 1980 ---

NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # the answer, of order 5
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # less that of order 4


class Density(NamedTuple):
    """For each row: the log density, nats, float64; the end of the flow, near N(0, I); evaluations of the field."""

    log_prob: Tensor
    end: Tensor
    evaluations: Tensor


def log_density(
    given: Given,
    x: Tensor,
    divergence: Divergence,
    *,
    begin: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    most: int = 20_000,
) -> Density:
    """Computes log p of `x` (B, ...), as x_t at the time `begin`, a little above 0 where the field is not defined.

    Errors of a step are held below atol + rtol |y|, in the mean over a row's numbers; the log density's likewise.
    Raises UserError after `most` evaluations.
    """
    rows = torch.arange(len(x))
    schedule = given(rows).schedule
    first, final = (schedule.at(t) for t in (begin, 1.0))
    numbers = x[0].numel()
    y = (x / over(_norm(first), x)).clone()
    phi = torch.atan2(first.sigma, first.alpha).repeat(len(x))
    goal = torch.atan2(final.sigma, final.alpha)
    volume = torch.zeros(len(x), dtype=torch.float64)
    h = torch.minimum(phi / 2, (goal - phi) / 10)
    used = torch.ones(len(x), dtype=torch.int64)

    def rate(rows: Tensor, y: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        v, trace = divergence(_velocity(given, rows, phi), y, rows)
        return v, trace.cpu().double()

    def add(parts: list[Tensor], factors: tuple[float, ...]) -> Tensor:
        return sum((f * k for f, k in zip(factors, parts) if f), torch.zeros_like(parts[0]))

    live, slope = rows, rate(rows, y, phi)
    while len(live):
        place = send(live, y.device)
        at, here, step = y[place], phi[live], h[live]
        speeds, traces = [slope[0]], [slope[1]]
        for node, factors in zip(NODES[1:], STAGES):
            there = at + over(step, at) * add(speeds, factors)
            v, trace = rate(live, there, here + node * step)
            speeds.append(v)
            traces.append(trace)
        grown = step * add(traces, STAGES[-1])
        off = over(step, at) * add(speeds, ERROR) / (atol + rtol * torch.maximum(at.abs(), there.abs()))
        off_volume = step * add(traces, ERROR) / (numbers * atol + rtol * (volume[live] + grown).abs())
        ratio = torch.maximum(off.cpu().double().square().flatten(1).mean(1).sqrt(), off_volume.abs())
        good = ratio <= 1
        used[live] += 6
        y[place] = torch.where(over(good.double(), at).bool(), there, at)
        phi[live] = torch.where(good, torch.where(step == goal - here, goal, here + step), here)
        volume[live] += torch.where(good, grown, 0.0)
        longer = (0.9 * ratio.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
        h[live] = torch.minimum(step * longer, goal - phi[live])
        keep = over(good.double(), at).bool()
        slope = torch.where(keep, speeds[-1], speeds[0]), torch.where(good, traces[-1], traces[0])
        going = phi[live] < goal
        slope, live = (slope[0][send(going.nonzero()[:, 0], y.device)], slope[1][going]), live[going]
        if len(live) and int(used.max()) > most:
            raise UserError(
                f"the flow was not solved in {most} evaluations of the network: allow larger errors (rtol and atol), "
                "or compute in float32 or double"
            )
    normal = -(y.cpu().double().square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
    return Density(normal + volume - numbers * _norm(first).log(), y, used)


# --- bits of grey levels ---


def dequantized(x: Tensor, u: Tensor) -> Tensor:
    """Pictures k / 127.5 - 1 of 256 grey levels as points of a density on [-1, 1]: (k + u) / 128 - 1, u in [0, 1)."""
    return ((x + 1) * 127.5 + u) / 128 - 1


def bits_of(log_prob: Tensor, numbers: int) -> Tensor:
    """Returns bits per number: a grey level is 1/128 of [-1, 1] wide, which is the 7."""
    return -log_prob / (numbers * math.log(2)) + 7


class Bits(NamedTuple):
    """Bits per number of some pictures (B,) with one dequantisation each, and the evaluations of the network."""

    row: Tensor
    repeat: int
    bits: Tensor
    evaluations: Tensor


def bits(
    given: Given,
    x: Tensor,
    *,
    seed: int = 0,
    first: int = 0,
    repeats: int = 1,
    trace: bool = False,
    begin: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    batch: int = 64,
) -> Iterator[Bits]:
    """Yields the bits of pictures `x` (N, ...) of 256 grey levels, batch after batch, `repeats` times over.

    The dequantisation and the probe (signs) of a picture depend on its row, the repeat and `seed`; `first` is the
    row of x[0] in the data set. `trace` computes the exact divergence. The mean over
    dequantisations is an upper bound of -log2 of the mass of the grey level.
    """
    shape = x.shape[1:]
    for repeat in range(repeats):
        for start in range(0, len(x), batch):
            rows = torch.arange(start, min(start + batch, len(x)))
            keys = [(seed, row, repeat) for row in (first + rows).tolist()]
            u = torch.stack([noise.uniform(shape, *key, "dequantise") for key in keys]).to(x)
            sign = torch.stack([noise.uniform(shape, *key, "probe") for key in keys]) < 0.5
            divergence = exact if trace else hutchinson(1 - 2 * sign.to(x))

            def conditioned(some: Tensor, rows: Tensor = rows) -> Denoiser:
                return given(rows[some])

            found = log_density(conditioned, dequantized(x[rows], u), divergence, begin=begin, rtol=rtol, atol=atol)
            yield Bits(rows, repeat, bits_of(found.log_prob, shape.numel()), found.evaluations)
