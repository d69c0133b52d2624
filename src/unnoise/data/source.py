"""Sources: pictures that are read one by one and identified by name, whatever they are stored in.

Folders, archives, arrays, IDX files and parquet tables all become a `Source`; the code above does not depend on which
it was. The limits here hold for the sizes that a file claims, before any memory is allocated for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from unnoise.errors import UserError
from unnoise.io.picture_files import FILE_BYTES as FILE_BYTES

T = TypeVar("T")

ARRAY_BYTES = 16 * 2**30  # a compressed array larger than this is not decompressed; .npy files are mapped
MEMBERS = 5_000_000  # files in one archive
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # data that expands beyond both is a bomb: real pictures hardly compress


class Broken(NamedTuple):
    """A picture that cannot be used: its path and the reason, as text for a message."""

    path: str
    why: str


class Unreadable(Exception):
    """One picture cannot be read; the message is the reason. Only that picture is skipped, the training goes on."""


def reason(error: Exception) -> str:
    """The reason as text, without the path."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


@dataclass(frozen=True)
class Source:
    """Pictures in a fixed order, with their classes, captions and numbers.

    `read(i)` returns the encoded file, or pixels (H, W) or (H, W, C) uint8. It may be called from several threads at
    once, and raises OSError or Unreadable if picture i cannot be read.
    """

    where: str  # for messages
    names: tuple[str, ...]  # relative, with "/", in natural order
    sizes: NDArray[np.int64]  # bytes of each picture as stored
    read: Callable[[int], bytes | NDArray[np.uint8]]
    array: NDArray[np.uint8] | None = None  # all pictures, (N, H, W) or (N, H, W, C), if they are one array
    classes: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None  # (N,) rows of `classes`
    captions: tuple[str, ...] | None = None
    more_captions: tuple[tuple[str, ...], ...] | None = (
        None  # of each picture besides the first; None: no picture has more
    )
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)  # (N,) each; NaN if missing
    # kind -> the control image of picture i, as pixels like those of `read`
    controls: Mapping[str, Callable[[int], NDArray[np.uint8]]] = field(default_factory=dict)
    # column of the metadata -> the control images that it names, under the names of their pictures
    control_columns: Mapping[str, Source] = field(default_factory=dict)
    refused: tuple[Broken, ...] = ()  # found, but refused without reading
    notes: tuple[str, ...] = ()  # remarks for the user about how the files were interpreted
    file: Callable[[int], Path] | None = None  # the file that holds picture i; None for pictures that are not in files

    def only(self, mask: NDArray[np.bool_]) -> Source:
        """The source of the pictures whose entry in `mask` (N,) is true."""
        rows = np.flatnonzero(mask)
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            sizes=self.sizes[rows],
            read=_renumbered(self.read, rows),
            array=None if self.array is None else self.array[rows],
            labels=None if self.labels is None else self.labels[rows],
            captions=None if self.captions is None else tuple(self.captions[row] for row in rows),
            more_captions=None if self.more_captions is None else tuple(self.more_captions[row] for row in rows),
            values={name: column[rows] for name, column in self.values.items()},
            controls={name: _renumbered(draw, rows) for name, draw in self.controls.items()},
            refused=(),
            file=None if self.file is None else _renumbered(self.file, rows),
        )


def _renumbered(read: Callable[[int], T], rows: NDArray[np.intp]) -> Callable[[int], T]:
    return lambda i: read(int(rows[i]))


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether decompression from `packed` to `unpacked` bytes looks like an attack.

    Deflate reaches a ratio of 1,032, xz one of 7,000.
    """
    return unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * max(packed, 1)


def number_classes(labels: NDArray[np.generic], where: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, and the row of each label among them (N,).

    Whole numbers from 0 are rows themselves (3 is row 3, named "3"); the names of text labels are sorted. Raises
    UserError for labels of any other type.
    """
    if labels.dtype.kind in "iu":
        values = labels.astype(np.int64)
        if values.size and (values.min() < 0 or values.max() >= 100_000):
            raise UserError(f"labels in {where} run from {values.min()} to {values.max()}; give whole numbers from 0")
        return tuple(str(k) for k in range(int(values.max()) + 1 if values.size else 0)), values
    if labels.dtype.kind in "US":
        names, rows = np.unique(labels.astype(str), return_inverse=True)
        return tuple(str(name) for name in names), rows.astype(np.int64)
    raise UserError(f"labels in {where} are of type {labels.dtype}; give whole numbers from 0, or text")


def numbers(columns: Mapping[str, Sequence[object]], where: str) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """The numeric columns as float64, with NaN for everything that is not a finite number, and notes about those.

    True is 1, false is 0. A column without any number is left out.
    """
    found, notes = {}, []
    for name, column in columns.items():
        values = np.array([_number(value) for value in column], np.float64)
        if not np.isfinite(values).any():
            continue
        odd = sum(value is not None and not np.isfinite(number) for value, number in zip(column, values))
        if odd:
            notes.append(f"{name} is no number for {odd} of {len(values)} pictures in {where}: treated as missing")
        found[name] = values
    return found, notes


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | Decimal) else math.nan
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan
