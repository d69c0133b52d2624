"""A picture as a stream of bits, coarse to fine: progressive coding that writes and reads.

    start      x_1 from the seed: sender and receiver draw the same noise, nothing is sent
    each step  both:     mean = E[x | x_t]
               sender:   how far off is it? |x - mean|^2, to the nearest half octave: a few tenths of a bit
               both:     s, so that the step from t costs what the next pieces carry:
                             (snr_s - snr_t) |x - mean|^2 / 2 nats = KL(q(x_s | x_t, x) || p(x_s | x_t))
               sender:   the numbers of the candidates that make q's noise of p's: channel.py
               both:     x_s = x_coef mean + x_t_coef x_t + sqrt(small) z

Algorithms 3 and 4 of Ho et al. 2020 with the channel really sent, and with steps as long as this picture allows: every
piece is worth one search, wherever the picture's bits lie in time. A step has one piece at first, later one for each
`SHARE` that were sent, so that large pictures take few steps.

No network computes a probability of the entropy coder. A receiver whose arithmetic differs in the last digit reads the
same candidates, and sees the same picture but for its last digits: the stream cannot fall apart.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unnoise.compression import channel
from unnoise.denoiser import Denoiser
from unnoise.errors import UserError
from unnoise.noise import Seeds
from unnoise.schedules import Posterior, over, posterior

SHARE = (
    16  # a step brings at most this part of what is there: the estimate that a step starts from is nearly the newest
)
SPARE = 6  # draw: bits of candidates beyond the divergence, so that a draw of the channel is nearly always among them
START, LOWEST = -4, -60  # of the mean squared error's level, in half octaves: where it begins, and the least
JUMPS = 4  # half octaves that the error's level may move in a step, down or up
FIRST_COUNTS = (1, 1, 2, 6, 24, 4, 1, 1, 1)  # of the jumps -4..4, before any was seen


@dataclass(frozen=True)
class Plan:
    """What sender and receiver agree on. `last` is the time where the lossy part ends: ends.py."""

    seed: int = 0
    bits: int = 16  # of a search: 2^bits candidates a piece
    pick: str = "nearest"  # or draw: channel.py
    last: float = 1e-3

    @property
    def nats(self) -> float:
        """The divergence that a piece is made to carry."""
        return (self.bits - SPARE if self.pick == "draw" else self.bits) * math.log(2)

    @property
    def spare(self) -> float | None:
        return SPARE if self.pick == "draw" else None


class Received(NamedTuple):
    """What the receiver has at one moment."""

    bits: float  # of the payload, until here
    pieces: int
    t: float
    mean: Tensor  # (1, C, H, W): the estimate of the picture
    nats: float  # KL(q || p) of the steps until here: known to the sender alone, the receiver says nan


class Message(NamedTuple):
    """What was sent: the payload, how many pieces it holds, and what a receiver has after each step."""

    payload: bytes
    pieces: int
    way: tuple[Received, ...]


# --- both sides ---


class _Side(Protocol):
    """Sender or receiver: the one makes the symbols, the other reads them. Everything else they do alike."""

    @property
    def bits(self) -> float: ...

    @property
    def nats(self) -> float: ...

    def pieces(self, most: int) -> int:
        """How many pieces this step has; 0: the stream is over."""

    def level(self, mean: Tensor) -> int:
        """The error of the estimate, in half octaves."""

    def noise(self, pieces: int, mean: Tensor, kernel: Posterior, key: channel.Key) -> Tensor:
        """(numbers,): the noise of this step."""


class _Ended(Exception):
    """The stream is cut off here."""


def _follow(denoiser: Denoiser, shape: tuple[int, ...], plan: Plan, side: _Side, device: str) -> Iterator[Received]:
    """The steps of a stream. The network sees one picture at a time, on one thread: the same numbers on both sides."""
    schedule = denoiser.schedule
    at = schedule.at(1.0)
    x = Seeds((plan.seed,), shape, device).start() * math.hypot(at.alpha.item(), at.sigma.item())
    t, end = torch.ones((), dtype=torch.float64), torch.tensor(plan.last, dtype=torch.float64)
    final = schedule(end)
    sent, numbers = 0, math.prod(shape)
    for step in range(10**9):
        with torch.no_grad(), one_thread():
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
        except _Ended:
            return
        z = noise.to(x).reshape(x.shape)
        x = over(kernel.x_coef, x) * mean + over(kernel.x_t_coef, x) * x + over(kernel.small.sqrt(), x) * z
        t, sent = s, sent + pieces


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside: sums are added up in one order, whatever the machine's load or settings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _noise(pieces: int, numbers: int, key: channel.Key, bits: int, index: Any) -> Tensor:
    """The candidates of all pieces, put together; `index(piece, its slice)` says which."""
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
        self.encoder = _Writer(plan)
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
        error = (self.x - mean).double().square().mean().item()
        return self.encoder.level(2 * math.log2(max(error, 2.0 ** (LOWEST / 2))))

    def noise(self, pieces: int, mean: Tensor, kernel: Posterior, key: channel.Key) -> Tensor:
        target = (self.x - mean).double().flatten().cpu() * (kernel.x_coef / kernel.small.sqrt())
        self.spent += target.square().sum().item() / 2
        target = channel.spread(target, key)
        pick = channel.PICKS[self.plan.pick]

        def index(k: int, part: slice) -> int:
            found = pick(target[part], (*key, k), self.plan.bits)
            self.encoder.index(found)
            return found

        return _noise(pieces, len(target), key, self.plan.bits, index)


def send(denoiser: Denoiser, x: Tensor, plan: Plan, budget: float) -> Message:
    """A picture `x` (1, ...) in at most about `budget` bits, or until nothing lossy is left to send."""
    side = _Sender(x, plan, budget)
    way = tuple(_follow(denoiser, tuple(x.shape[1:]), plan, side, str(x.device)))
    return Message(side.encoder.finish(), way[-1].pieces, way)


# --- receiving ---


class _Receiver:
    def __init__(self, payload: bytes, pieces: int, numbers: int, plan: Plan, whole: bool) -> None:
        self.decoder, self.total, self.numbers, self.plan = _Reader(plan, payload, whole), pieces, numbers, plan
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
    """The estimates, step by step; stop reading to stop. `whole` False: the payload is cut off somewhere.

    Of a payload that is cut off, exactly those symbols are read that do not depend on what is missing.
    """
    yield from _follow(denoiser, shape, plan, _Receiver(payload, pieces, math.prod(shape), plan, whole), device)


# --- symbols to bytes: a range coder ---


def coding() -> Any:
    """The package constriction. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("constriction").stream
    except ImportError:
        raise UserError(
            "coding a picture needs the package constriction, which is not installed. Run: pip install 'unnoise[coder]'"
        ) from None


class _Levels:
    """The law of the error's level: the first one free, then jumps, by how often each was seen."""

    def __init__(self) -> None:
        self.counts = np.array(FIRST_COUNTS, dtype=np.float64)
        self.at = START

    def chances(self) -> NDArray[np.float64]:
        return np.asarray(self.counts / self.counts.sum())

    def jumped(self, jump: int) -> int:
        self.counts[jump + JUMPS] += 4
        self.at += jump
        return self.at


class _Writer:
    def __init__(self, plan: Plan) -> None:
        self.stream, self.plan, self.levels, self.bits = coding(), plan, _Levels(), 0.0
        self.encoder = self.stream.queue.RangeEncoder()
        self.symbols: list[tuple[int, Any]] = []

    def put(self, symbol: int, law: Any, bits: float) -> None:
        self.encoder.encode(symbol, law)
        self.symbols.append((symbol, law))
        self.bits += bits

    def level(self, wanted: float) -> int:
        levels = self.levels
        jump = min(max(round(wanted - levels.at), -JUMPS), JUMPS)
        chances = levels.chances()
        law = self.stream.model.Categorical(chances, perfect=False)
        self.put(jump + JUMPS, law, -math.log2(chances[jump + JUMPS]))
        return levels.jumped(jump)

    def index(self, index: int) -> None:
        model, bits, spare = self.stream.model, self.plan.bits, self.plan.spare
        if spare is None:
            self.put(index, model.Uniform(2**bits), bits)
            return
        high, place = channel.octave(index)
        chances = np.array(channel.law(bits, spare))
        self.put(high, model.Categorical(chances, perfect=False), channel.cost(index, bits, spare))
        if 0 < high < bits:
            self.put(place, model.Uniform(2**high), 0.0)  # counted above

    def finish(self) -> bytes:
        """The fewest bytes from which all symbols are read again."""
        words = self.encoder.get_compressed()
        data: bytes = words.astype(">u4").tobytes()
        if not self.symbols:
            return b""
        while data and self._reads(data[:-1]):
            data = data[:-1]
        return data

    def _reads(self, data: bytes) -> bool:
        decoder = self.stream.queue.RangeDecoder(_words(data, 0))
        try:
            return all(decoder.decode(law) == symbol for symbol, law in self.symbols)
        except AssertionError:
            return False


class _Reader:
    """Reads symbols; where the data are cut off, only as long as the missing bits do not matter.

    The bits that are missing are taken to be all zeros and all ones: what is read the same in both cases is read so in
    every case, for a range coder's symbols follow the order of its numbers.
    """

    def __init__(self, plan: Plan, data: bytes, whole: bool) -> None:
        self.stream, self.plan, self.levels, self.bits = coding(), plan, _Levels(), 0.0
        fills = (0,) if whole else (0, 0xFF)
        self.decoders = [self.stream.queue.RangeDecoder(_words(data, fill)) for fill in fills]

    def get(self, law: Any) -> int:
        try:
            found = {int(decoder.decode(law)) for decoder in self.decoders}
        except AssertionError:  # what constriction says of data that no encoder wrote
            raise _Ended from None
        if len(found) > 1:
            raise _Ended
        return found.pop()

    def level(self) -> int:
        levels = self.levels
        chances = levels.chances()
        symbol = self.get(self.stream.model.Categorical(chances, perfect=False))
        self.bits += -math.log2(chances[symbol])
        return levels.jumped(symbol - JUMPS)

    def index(self) -> int:
        model, bits, spare = self.stream.model, self.plan.bits, self.plan.spare
        if spare is None:
            self.bits += bits
            return self.get(model.Uniform(2**bits))
        chances = np.array(channel.law(bits, spare))
        high = self.get(model.Categorical(chances, perfect=False))
        place = self.get(model.Uniform(2**high)) if 0 < high < bits else 0
        index = (1 << high) + place - 1
        self.bits += channel.cost(index, bits, spare)
        return index


def _words(data: bytes, fill: int) -> NDArray[np.uint32]:
    """Bytes as the coder's words of 32 bits, with `fill` in the place of those that are missing."""
    padded = data + bytes([fill]) * (-len(data) % 4 + 8)
    return np.frombuffer(padded, dtype=">u4").astype(np.uint32)
