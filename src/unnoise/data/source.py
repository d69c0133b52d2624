"""A source: pictures that can be told apart by name and read one by one, wherever they lie.

Folders, archives, arrays, IDX files and parquet tables all become this one value; nothing above it asks which it was.
What a file claims about its own size is checked here before a byte is allocated for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from unnoise.errors import UserError

T = TypeVar("T")

FILE_BYTES = 256 * 2**20  # an encoded picture larger than this is not read
ARRAY_BYTES = 16 * 2**30  # a compressed array larger than this is not unpacked; .npy files are mapped, not unpacked
MEMBERS = 5_000_000  # files in one archive
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # what unpacks to more than both is a bomb: real pictures hardly compress


class Broken(NamedTuple):
    """A picture that cannot be used, and why, in words for a person."""

    path: str
    why: str


class Unreadable(Exception):
    """One picture cannot be read; the message says why. It costs that picture, never the training."""


def reason(error: Unreadable | OSError) -> str:
    """Why, in words; the path is told beside it."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


@dataclass(frozen=True)
class Source:
    """Pictures in a fixed order. `read(i)` gives the encoded file, or pixels (H, W) or (H, W, C) uint8; it may be
    called from several threads at once, and raises OSError or Unreadable where picture i cannot be had."""

    where: str  # for messages
    names: tuple[str, ...]  # relative, with "/", in natural order
    sizes: NDArray[np.int64]  # bytes of each as stored
    read: Callable[[int], bytes | NDArray[np.uint8]]
    array: NDArray[np.uint8] | None = None  # all of them, (N, H, W) or (N, H, W, C), where they are one array
    classes: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None  # (N,) rows of `classes`
    captions: tuple[str, ...] | None = None
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)  # (N,) each; NaN where it is not told
    controls: Mapping[str, Callable[[int], NDArray[np.uint8]]] = field(
        default_factory=dict
    )  # drawings of each, as `read`
    refused: tuple[Broken, ...] = ()  # seen, and not even tried
    notes: tuple[str, ...] = ()  # what a person should know about how this was understood

    def only(self, mask: NDArray[np.bool_]) -> Source:
        """The pictures where `mask` (N,) is true."""
        rows = np.flatnonzero(mask)
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            sizes=self.sizes[rows],
            read=_renumbered(self.read, rows),
            array=None if self.array is None else self.array[rows],
            labels=None if self.labels is None else self.labels[rows],
            captions=None if self.captions is None else tuple(self.captions[row] for row in rows),
            values={name: column[rows] for name, column in self.values.items()},
            controls={name: _renumbered(draw, rows) for name, draw in self.controls.items()},
            refused=(),
        )


def _renumbered(read: Callable[[int], T], rows: NDArray[np.intp]) -> Callable[[int], T]:
    return lambda i: read(int(rows[i]))


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether so many bytes out of so few look like an attack (deflate reaches 1,032 to one, xz 7,000)."""
    return unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * max(packed, 1)


def number_classes(labels: NDArray[np.generic], where: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and rows. Whole numbers from 0 keep their meaning (3 is row 3, named "3"); words are sorted.

    Raises UserError for labels that are neither.
    """
    if labels.dtype.kind in "iu":
        values = labels.astype(np.int64)
        if values.size and (values.min() < 0 or values.max() >= 100_000):
            raise UserError(f"labels in {where} run from {values.min()} to {values.max()}; give whole numbers from 0")
        return tuple(str(k) for k in range(int(values.max()) + 1 if values.size else 0)), values
    if labels.dtype.kind in "US":
        names, rows = np.unique(labels.astype(str), return_inverse=True)
        return tuple(str(name) for name in names), rows.astype(np.int64)
    raise UserError(f"labels in {where} are of type {labels.dtype}; give whole numbers from 0, or words")


def numbers(told: Mapping[str, Sequence[object]], where: str) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """The columns that hold numbers, as float64 with NaN for what is no finite number; and notes on what was not.

    True is 1, false 0. A column with no number at all is none of them.
    """
    found, notes = {}, []
    for name, column in told.items():
        values = np.array([_number(value) for value in column], np.float64)
        if not np.isfinite(values).any():
            continue
        odd = sum(value is not None and not np.isfinite(number) for value, number in zip(column, values))
        if odd:
            notes.append(f"{name} is no number for {odd} of {len(values)} pictures in {where}: not told there")
        found[name] = values
    return found, notes


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | Decimal) else math.nan
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan
