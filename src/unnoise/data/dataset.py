"""Data sets: pictures as the input of a network, (C, size, size) float32 in [-1, 1], where byte k is k / 127.5 - 1.

A row is a pure function of (seed, epoch, index), which determine its crop, its flip, and which of several captions it
has. A set that fits into memory is decoded once, at the start, and stays there as bytes; a batch is then one gather. In
a larger set, a picture that cannot be read later is replaced by another one, which is a function of (seed, index).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unnoise.config.data import DataConfig
from unnoise.data.control_images import control_images
from unnoise.data.decode import decode
from unnoise.data.fingerprint import fingerprint
from unnoise.data.random import CAPTION, CROP, FLIP, REPLACE, bits, uniform
from unnoise.data.scan import crop, dark_notes, scan, too_many, transparent_notes
from unnoise.data.source import Broken, Source, Unreadable, reason
from unnoise.errors import UserError, unknown

TRIES = 8  # pictures tried instead of one that cannot be read


class Batch(NamedTuple):
    """Some rows of a data set, as tensors."""

    x: Tensor  # (B, C, H, W) float32 in [-1, 1]; or bytes, if asked for
    label: Tensor | None  # (B,) int64, rows of Dataset.classes
    caption: tuple[str, ...] | None
    index: tuple[int, ...]  # type: ignore[assignment]  # rows of the data set; hides tuple.index, which is not needed
    control: Tensor | None = None  # (B, 3, H, W) float32 in [0, 1], or bytes: control images, if config.control is set
    value: Tensor | None = None  # (B, K) float64: the numbers of config.values; NaN if missing


def scaled(batch: Batch) -> Batch:
    """The batch with bytes scaled to float32, on the device where they lie: x to [-1, 1], control images to [0, 1]."""
    x, control = batch.x, batch.control
    if x.dtype == torch.uint8:
        # (2 k - 255) / 255: whole numbers until the one division, so k / 127.5 - 1 correctly rounded
        x = x.to(torch.float32).mul_(2.0).sub_(255.0).div_(255.0)
    if control is not None and control.dtype == torch.uint8:
        control = control.to(torch.float32).div_(255.0)
    return batch._replace(x=x, control=control)


class Dataset:
    """The readable pictures of a source, in its order.

    The constructor finds the broken ones, and raises UserError if more than the fraction `config.max_broken` are, or if
    fewer than two pictures are left.
    """

    def __init__(self, source: Source, config: DataConfig, controls: Source | None = None) -> None:
        """`controls` is the source of control images if `config.control` names a folder or file."""
        if config.channels not in (1, 3) or config.size < 1:
            raise UserError(
                f"data of {config.channels} channels and size {config.size}; give channels 1 or 3, and a size"
            )
        self.source = source
        self.config = config
        controls = controls or source.control_columns.get(config.control)
        self._values = _value_columns(source, config)
        self.classes = source.classes
        self.captions = source.captions is not None
        self.shape = (config.channels, config.size, config.size)
        found = scan(source, config)
        self.broken = found.broken
        self.checked = found.checked + len(source.refused)  # number of pictures opened at the start; all, if they fit
        self.sizes = found.sizes  # (n, 2) widths and heights as stored, of the good ones among them
        self.modes = found.modes  # how often each mode occurs, by Pillow's name for it
        # for the user: how the files are interpreted
        self.notes = (*source.notes, *transparent_notes(found, config), *dark_notes(found))
        self._pixels, self._good = found.pixels, found.good
        known = fingerprint(source, config, controls)
        self.fingerprint, self.fingerprint_parts = known.digest, known.parts
        self._unreadable: dict[int, str] = {}  # rows that could not be read after the start: the reason of each
        self._control_of = control_images(source, config, controls) if config.control else None
        self._control_pixels = self._cache_controls()

    def __len__(self) -> int:
        return len(self._good)

    @property
    def cached(self) -> bool:
        """Whether all pictures are in memory, decoded."""
        return self._pixels is not None

    @property
    def replaced(self) -> tuple[Broken, ...]:
        """The pictures that could not be read after the start and were replaced, in the order of the set."""
        return tuple(Broken(self.name(row), why) for row, why in sorted(self._unreadable.items()))

    def labels(self) -> NDArray[np.int64] | None:
        """(N,) rows of `classes`, for the whole set; None if there are no classes."""
        return None if self.source.labels is None else self.source.labels[self._good]

    def values(self) -> NDArray[np.float64]:
        """(N, K): the numbers that `config.values` names, for the whole set; NaN if missing."""
        return self._values[self._good]

    def name(self, row: int) -> str:
        """The path of a picture within its source."""
        return self.source.names[int(self._good[row])]

    def caption(self, row: int) -> str:
        """The caption of a picture, of several the one at seed 0 and epoch 0; empty if it has none."""
        found = self._all_captions(row)
        return found[0] if len(found) == 1 else self._captions(np.array([row]), np.zeros(1, np.int64), 0)[0]

    def every_caption(self) -> Iterator[str]:
        """All captions of all pictures; an empty one for a picture that has none."""
        return itertools.chain.from_iterable(map(self._all_captions, range(len(self))))

    def _all_captions(self, row: int) -> tuple[str, ...]:
        index, source = int(self._good[row]), self.source
        more = () if source.more_captions is None else source.more_captions[index]
        return ("" if source.captions is None else source.captions[index], *more)

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """A picture's bytes, (C, h, w), before cropping: the shorter side is `size`. Raises Unreadable, OSError."""
        if self._pixels is not None:
            return np.asarray(self._pixels[row])
        return decode(self.source.read(int(self._good[row])), self.config).pixels

    def control_image(self, row: int) -> NDArray[np.uint8]:
        """The control image of a picture, (3, h, w), before cropping. Raises UserError if it cannot be read."""
        if self._control_of is None:
            raise ValueError("this data set has no control images; set control")
        index = int(self._good[row])
        return self._control_of(index, decode(self.source.read(index), self.config).pixels)

    def batch(
        self, indices: Sequence[int], *, seed: int = 0, epoch: int | Sequence[int] = 0, as_bytes: bool = False
    ) -> Batch:
        """The pictures at `indices`, cropped and flipped by (seed, epoch, index); `epoch` is a number, or one per row.

        With `as_bytes` they are a quarter of the size, to be copied to a device and `scaled` there.
        `Batch.index` differs from `indices` for pictures that could not be read and were replaced. Raises IndexError
        for an index outside the set, and UserError with the paths if too many pictures could not be read.
        """
        rows = np.asarray(indices, np.int64).reshape(-1)
        epochs = np.broadcast_to(np.asarray(epoch, np.int64), rows.shape)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"indices run from {rows.min()} to {rows.max()}; the set has {len(self)} pictures")
        if isinstance(self._pixels, Tensor):
            pixels = self._pixels.index_select(0, torch.from_numpy(rows))
        else:
            pixels, rows = self._gather(rows, epochs, seed)
        control = self._controls(rows, self._crop_positions(rows, epochs, seed))
        if self.config.flip:
            mirrored = torch.from_numpy(bits(FLIP, seed, epochs, rows) >> np.uint64(63) == 1)
            for flipped in (pixels,) if control is None else (pixels, control):
                flipped[mirrored] = flipped[mirrored].flip(-1)
        sources = self._good[rows]
        labels, captions = self.source.labels, self.source.captions
        found = Batch(
            pixels,
            None if labels is None else torch.from_numpy(labels[sources]),
            None if captions is None else self._captions(rows, epochs, seed),
            tuple(rows.tolist()),
            control,
            torch.from_numpy(self._values[sources]) if self.config.values else None,
        )
        return found if as_bytes else scaled(found)

    def _captions(self, rows: NDArray[np.int64], epochs: NDArray[np.int64], seed: int) -> tuple[str, ...]:
        """A caption of each row. One of n is used once in any n epochs in a row; the first of them is random."""
        found = list(map(self._all_captions, rows.tolist()))
        counts = np.array([len(captions) for captions in found], np.uint64)
        chosen = (bits(CAPTION, seed, rows) % counts + epochs.astype(np.uint64)) % counts
        return tuple(captions[which] for captions, which in zip(found, chosen.tolist()))

    def _crop_positions(self, rows: NDArray[np.int64], epochs: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        """Positions of crops in [0, 1], as the argument of scan.crop."""
        return uniform(CROP, seed, epochs, rows) if self.config.crop == "random" else np.full(len(rows), 0.5)

    def _controls(self, rows: NDArray[np.int64], positions: NDArray[np.float64]) -> Tensor | None:
        """Bytes (B, 3, size, size) of the rows' control images, cropped like their pictures."""
        if self._control_of is None:
            return None
        if isinstance(self._control_pixels, Tensor):
            return self._control_pixels.index_select(0, torch.from_numpy(rows))
        out = np.empty((len(rows), 3, *self.shape[1:]), np.uint8)
        for i, row in enumerate(rows.tolist()):
            out[i] = crop(
                self.control_image(row) if self._control_pixels is None else self._control_pixels[row],
                float(positions[i]),
            )
        return torch.from_numpy(out)

    def _cache_controls(self) -> Tensor | list[NDArray[np.uint8]] | None:
        """All control images, in the form of the cached pictures; None if there are none, or if they do not fit too."""
        if (
            self._control_of is None
            or self._pixels is None
            or len(self) * 3 * self.config.size**2 > self.config.cache_bytes
        ):
            return None
        controls = map(self.control_image, range(len(self)))
        if isinstance(self._pixels, Tensor):
            return torch.from_numpy(np.stack([crop(pixels, 0.5) for pixels in controls]))
        return list(controls)

    def _gather(
        self, rows: NDArray[np.int64], epochs: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Bytes (B, C, size, size) of pictures read one by one, and the rows that they come from."""
        found = [self._readable(int(row), seed) for row in rows]
        rows = np.array([row for row, _ in found], np.int64)
        positions = self._crop_positions(rows, epochs, seed)
        out = np.empty((len(rows), *self.shape), np.uint8)
        for i, (_, pixels) in enumerate(found):
            out[i] = crop(pixels, float(positions[i]))
        return torch.from_numpy(out), rows

    def _readable(self, row: int, seed: int) -> tuple[int, NDArray[np.uint8]]:
        """A row and its picture, or the row and picture that replace it if it cannot be read."""
        used = row
        for attempt in range(TRIES):
            try:
                return used, self.pixels(used)
            except (OSError, Unreadable) as error:
                self._unreadable[used] = reason(error)
            if len(self._unreadable) > max(1.0, self.config.max_broken * len(self)):
                raise too_many(self.replaced, len(self._unreadable) / len(self), self.source, self.config)
            used = int(bits(REPLACE, seed, row, attempt)[0] % np.uint64(len(self)))
        raise too_many(self.replaced, len(self._unreadable) / len(self), self.source, self.config)


def _value_columns(source: Source, config: DataConfig) -> NDArray[np.float64]:
    """The numbers that `config.values` names, (N, K), for all pictures of the source.

    Raises UserError for a name that the source lacks, and for one given twice.
    """
    for name in config.values:
        if not source.values:
            raise UserError(
                f"data.values: the pictures in {source.where} have no numbers, so no {name!r}: add them to its "
                f'metadata.jsonl, as {{"file_name": "a.png", "{name}": 3.5}}, or as a column of its table'
            )
        if name not in source.values:
            raise unknown(f"number of the pictures in {source.where}", name, source.values)
    if len(set(config.values)) < len(config.values):
        raise UserError(f"data.values names a number twice: {', '.join(config.values)}")
    columns = [source.values[name] for name in config.values]
    return np.stack(columns, axis=1) if columns else np.zeros((len(source.names), 0))
