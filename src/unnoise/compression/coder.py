"""Progressive coding: a picture as a stream of bits, coarse to fine.

    start      x_1 from the seed: sender and receiver have the same noise, nothing is sent
    each step  both:     mean = E[x | x_t]
               sender:   how far off is it? |x - mean|^2, to the nearest half octave: a few tenths of a bit
               both:     s, so that the step from t costs what the next pieces carry:
                             (snr_s - snr_t) |x - mean|^2 / 2 nats = KL(q(x_s | x_t, x) || p(x_s | x_t))
               sender:   the numbers of the candidates that make q's noise of p's: channel.py
               both:     x_s = x_coef mean + x_t_coef x_t + sqrt(small) z

Algorithms 3 and 4 of Ho et al. 2020 with an actual channel, and with steps as long as this picture allows: every piece
carries one search's bits, wherever they lie in time. A step has one piece at first, later one for each
`SHARE` that were sent, so that large pictures take few steps.

No network computes a probability of the entropy coder (symbols.py). A receiver whose arithmetic differs in the last
digit decodes the same candidates, and the same picture but for its last digits: no error spreads through the stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unnoise.compression import channel
from unnoise.compression.symbols import LOWEST, SPARE, Ended, Plan, SymbolReader, SymbolWriter
from unnoise.denoiser import Denoiser
from unnoise.noise import Seeds
from unnoise.schedules import Posterior, over, posterior

# on CUDA: the same kernels on both sides, whatever was measured or set before, and no TF32
REPEATABLE = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
SHARE = 16  # a step sends at most 1 / SHARE of the pieces sent before: so it starts from an estimate that is nearly new


class Received(NamedTuple):
    """The state of the receiver after a step."""

    bits: float  # of the payload, until here
    pieces: int
    t: float
    mean: Tensor  # (1, C, H, W): the estimate of the picture
    nats: float  # KL(q || p) of the steps until here: known to the sender alone; nan for the receiver


class Message(NamedTuple):
    """The payload, the number of its pieces, and the receiver's state after each step."""

    payload: bytes
    pieces: int
    way: tuple[Received, ...]


# --- both sides ---


class _Side(Protocol):
    """Sender or receiver: the one writes the symbols, the other reads them. Everything else is the same code."""

    @property
    def bits(self) -> float: ...

    @property
    def nats(self) -> float: ...

    def pieces(self, most: int) -> int:
        """Returns the number of pieces of this step; 0 at the end of the stream."""

    def level(self, mean: Tensor) -> int:
        """Returns the error of the estimate, in half octaves."""

    def noise(self, pieces: int, mean: Tensor, kernel: Posterior, key: channel.Key) -> Tensor:
        """Returns the noise of this step, (numbers,)."""


def _follow(denoiser: Denoiser, shape: tuple[int, ...], plan: Plan, side: _Side, device: str) -> Iterator[Received]:
    """The steps of a stream. The network has one picture at a time, on one thread: the same numbers on both sides."""
    schedule = denoiser.schedule
    at = schedule.at(1.0)
    x = Seeds((plan.seed,), shape, device).start() * math.hypot(at.alpha.item(), at.sigma.item())
    t, end = torch.ones((), dtype=torch.float64), torch.tensor(plan.last, dtype=torch.float64)
    final = schedule(end)
    sent, numbers = 0, math.prod(shape)
    for step in range(10**9):
        with torch.no_grad(), one_thread(), torch.backends.cudnn.flags(**REPEATABLE):
            mean = denoiser(x, t).mean
        yield Received(side.bits, sent, t.item(), mean, side.nats)
        if t.item() <= plan.last:
            return
        try:
            pieces = min(side.pieces(max(1, sent // SHARE)), numbers)
            if pieces == 0:
                return
            error = numbers * 2 ** (side.level(mean) / 2)
            snr = schedule(t).snr + 2 * pieces * plan.nats / error
            s = schedule.time(snr.log() / 2).clamp(plan.last, t.item() - 1e-9) if snr < final.snr else end
            kernel = posterior(schedule(t), schedule(s))
            noise = side.noise(pieces, mean, kernel, (plan.seed, step))
        except Ended:
            return
        z = noise.to(x).reshape(x.shape)
        x = over(kernel.x_coef, x) * mean + over(kernel.x_t_coef, x) * x + over(kernel.small.sqrt(), x) * z
        t, sent = s, sent + pieces


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute on one thread: sums have one order, whatever the machine's load or settings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _noise(pieces: int, numbers: int, key: channel.Key, bits: int, index: Any) -> Tensor:
    """The candidates of all pieces, joined; `index(piece, its slice)` is the number of each."""
    parts = torch.arange(numbers).tensor_split(pieces)
    chosen = [
        channel.candidate(index(k, slice(int(p[0]), int(p[-1]) + 1)), len(p), (*key, k), bits)
        for k, p in enumerate(parts)
    ]
    return channel.gather(torch.cat(chosen).double(), key)


# --- sending ---


class _Sender:
    def __init__(self, x: Tensor, plan: Plan, budget: float) -> None:
        self.x, self.plan, self.budget = x, plan, budget
        self.encoder = SymbolWriter(plan)
        self.spent, self.short = 0.0, False

    @property
    def nats(self) -> float:
        return self.spent

    @property
    def bits(self) -> float:
        return self.encoder.bits

    def pieces(self, most: int) -> int:
        each = self.plan.bits if self.plan.spare is None else self.plan.bits - SPARE + 1.0
        # a little over a bit for the level
        left = self.budget - self.bits - 1.5
        found = 0 if self.short else max(0, int(min(most, left / each)))
        self.short = found < most  # a short step is the last: the receiver knows it by the number of all pieces
        return found

    def level(self, mean: Tensor) -> int:
        error = (self.x - mean).cpu().double().square().mean().item()
        return self.encoder.level(2 * math.log2(max(error, 2.0 ** (LOWEST / 2))))

    def noise(self, pieces: int, mean: Tensor, kernel: Posterior, key: channel.Key) -> Tensor:
        target = (self.x - mean).cpu().double().flatten() * (kernel.x_coef / kernel.small.sqrt())
        self.spent += target.square().sum().item() / 2
        target = channel.spread(target, key)
        pick = channel.PICKS[self.plan.pick]

        def index(k: int, part: slice) -> int:
            found = pick(target[part], (*key, k), self.plan.bits)
            self.encoder.index(found)
            return found

        return _noise(pieces, len(target), key, self.plan.bits, index)


def send(denoiser: Denoiser, x: Tensor, plan: Plan, budget: float) -> Message:
    """Codes a picture `x` (1, ...) in at most about `budget` bits, or until the lossy part ends."""
    side = _Sender(x, plan, budget)
    way = tuple(_follow(denoiser, tuple(x.shape[1:]), plan, side, str(x.device)))
    return Message(side.encoder.finish(), way[-1].pieces, way)


# --- receiving ---


class _Receiver:
    def __init__(self, payload: bytes, pieces: int, numbers: int, plan: Plan, whole: bool) -> None:
        self.decoder, self.total, self.numbers, self.plan = SymbolReader(plan, payload, whole), pieces, numbers, plan
        self.sent = 0

    @property
    def nats(self) -> float:
        return math.nan

    @property
    def bits(self) -> float:
        return self.decoder.bits

    def pieces(self, most: int) -> int:
        found = min(most, self.total - self.sent)
        self.sent += found
        return found

    def level(self, mean: Tensor) -> int:
        return self.decoder.level()

    def noise(self, pieces: int, mean: Tensor, kernel: Posterior, key: channel.Key) -> Tensor:
        return _noise(pieces, self.numbers, key, self.plan.bits, lambda k, part: self.decoder.index())


def receive(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    plan: Plan,
    payload: bytes,
    pieces: int,
    *,
    whole: bool = True,
    device: str = "cpu",
) -> Iterator[Received]:
    """Yields the estimates, step by step; stop reading to stop. `whole` is False for a payload that is cut off.

    Of such a payload, exactly those symbols are decoded that do not depend on the missing bytes.
    """
    yield from _follow(denoiser, shape, plan, _Receiver(payload, pieces, math.prod(shape), plan, whole), device)
