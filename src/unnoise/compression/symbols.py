"""Symbols to bytes and back: a range coder with an adaptive law of the error's level.

A stream has two kinds of symbols: the level of the estimate's error, in half octaves, at each step, and the number of a
candidate for each piece.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unnoise.compression import channel
from unnoise.errors import UserError

SPARE = 6  # draw: bits of candidates beyond the divergence, so that a draw of the channel is nearly always among them
START, LOWEST = -4, -60  # of the mean squared error's level, in half octaves: where it begins, and the least
JUMPS = 4  # half octaves that the error's level may move in a step, down or up
FIRST_COUNTS = (1, 1, 2, 6, 24, 4, 1, 1, 1)  # of the jumps -4..4, before any occurred


@dataclass(frozen=True)
class Plan:
    """The settings that sender and receiver have in common. `last` is the time where the lossy part ends."""

    seed: int = 0
    bits: int = 16  # of a search: 2^bits candidates for each piece
    pick: str = "nearest"  # or draw: channel.py
    last: float = 1e-3

    @property
    def nats(self) -> float:
        """The divergence that a piece carries."""
        return (self.bits - SPARE if self.pick == "draw" else self.bits) * math.log(2)

    @property
    def spare(self) -> float | None:
        return SPARE if self.pick == "draw" else None


class Ended(Exception):
    """Raised where the stream is cut off."""


def coding() -> Any:
    """Imports the package constriction. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("constriction").stream
    except ImportError:
        raise UserError(
            "coding a picture needs the package constriction, which is not installed. Run: pip install 'unnoise[coder]'"
        ) from None


class _Levels:
    """The law of the error's level: jumps from the level before, by how often each occurred."""

    def __init__(self) -> None:
        self.counts = np.array(FIRST_COUNTS, dtype=np.float64)
        self.at = START

    def chances(self) -> NDArray[np.float64]:
        return np.asarray(self.counts / self.counts.sum())

    def jumped(self, jump: int) -> int:
        self.counts[jump + JUMPS] += 4
        self.at += jump
        return self.at


class SymbolWriter:
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
        """Returns the fewest bytes from which all symbols can be read."""
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


class SymbolReader:
    """Reads symbols; where the data are cut off, only as long as the missing bits do not matter.

    The missing bits are replaced by all zeros and by all ones: a symbol that is equal in both cases is equal in every
    case, since the symbols of a range coder are in the order of its numbers.
    """

    def __init__(self, plan: Plan, data: bytes, whole: bool) -> None:
        self.stream, self.plan, self.levels, self.bits = coding(), plan, _Levels(), 0.0
        fills = (0,) if whole else (0, 0xFF)
        self.decoders = [self.stream.queue.RangeDecoder(_words(data, fill)) for fill in fills]

    def get(self, law: Any) -> int:
        try:
            found = {int(decoder.decode(law)) for decoder in self.decoders}
        except AssertionError:  # raised by constriction for data that no encoder wrote
            raise Ended from None
        if len(found) > 1:
            raise Ended
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
    """Returns the bytes as the coder's words of 32 bits, padded with `fill`."""
    padded = data + bytes([fill]) * (-len(data) % 4 + 8)
    return np.frombuffer(padded, dtype=">u4").astype(np.uint32)
