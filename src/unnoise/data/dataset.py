"""Pictures as a network wants them: (C, size, size), float32 in [-1, 1], where byte k is k / 127.5 - 1.

A row is a pure function of (seed, epoch, index): its crop and its flip are drawn from these alone. What fits is decoded
once, at the start, and kept as bytes; a batch is then one gather. In a set that does not fit, a picture that turns out
broken, or breaks, is replaced by another, a function of (seed, index).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unnoise.config.data import DataConfig
from unnoise.data.control_images import drawer
from unnoise.data.decode import decode
from unnoise.data.fingerprint import fingerprint
from unnoise.data.random import CROP, FLIP, REPLACE, bits, uniform
from unnoise.data.scan import crop, scan, too_many
from unnoise.data.source import Broken, Source, Unreadable, reason
from unnoise.errors import UserError, unknown

TRIES = 8  # pictures tried in place of one that broke


class Batch(NamedTuple):
    """Rows of a data set."""

    x: Tensor  # (B, C, H, W) float32 in [-1, 1]
    label: Tensor | None  # (B,) int64, rows of Dataset.classes
    caption: tuple[str, ...] | None
    index: tuple[int, ...]  # type: ignore[assignment]  # places in the data set; hides tuple.index, which none needs
    control: Tensor | None = None  # (B, 3, H, W) float32 in [0, 1]: drawings, where they were asked for
    value: Tensor | None = None  # (B, K) float64: the numbers asked for, as they are told; NaN where they are not


class Dataset:
    """The readable pictures of a source, in its order. Opening one finds the broken ones, and raises UserError where
    more than `config.max_broken` are, or fewer than two pictures are left."""

    def __init__(self, source: Source, config: DataConfig, drawings: Source | None = None) -> None:
        """`drawings` are the folder that `config.control` names, where it names one."""
        if config.channels not in (1, 3) or config.size < 1:
            raise UserError(
                f"data of {config.channels} channels and size {config.size}; give channels 1 or 3, and a size"
            )
        self.source = source
        self.config = config
        self._told = _asked_values(source, config)
        self.classes = source.classes
        self.captions = source.captions is not None
        self.shape = (config.channels, config.size, config.size)
        found = scan(source, config)
        self.broken = found.broken
        self.checked = found.checked + len(source.refused)  # pictures looked at before the start; all, where they fit
        self.sizes = found.sizes  # (n, 2) widths and heights as stored, of the good ones among them
        self.modes = found.modes  # Pillow's names for what was stored, and how often
        self._kept, self._good = found.kept, found.good
        self.fingerprint = fingerprint(source, config, drawings)
        self._late: dict[int, str] = {}  # rows that broke after the start, and why
        self._draw = drawer(source, config, drawings) if config.control else None
        self._drawn = self._keep_drawings()

    def __len__(self) -> int:
        return len(self._good)

    @property
    def cached(self) -> bool:
        """Whether every picture is kept decoded."""
        return self._kept is not None

    @property
    def replaced(self) -> tuple[Broken, ...]:
        """Pictures found broken after the start and replaced, in the order of the set."""
        return tuple(Broken(self.name(row), why) for row, why in sorted(self._late.items()))

    def labels(self) -> NDArray[np.int64] | None:
        """(N,) rows of `classes`, of the whole set."""
        return None if self.source.labels is None else self.source.labels[self._good]

    def values(self) -> NDArray[np.float64]:
        """(N, K): the numbers that `config.values` names, of the whole set; NaN where one is not told."""
        return self._told[self._good]

    def name(self, row: int) -> str:
        """The path of a picture within its source."""
        return self.source.names[int(self._good[row])]

    def caption(self, row: int) -> str:
        """What is said of a picture; nothing where nothing is."""
        return "" if self.source.captions is None else self.source.captions[int(self._good[row])]

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """A picture's bytes, (C, h, w), before cropping: the shorter side is `size`. Raises Unreadable, OSError."""
        if self._kept is not None:
            return np.asarray(self._kept[row])
        return decode(self.source.read(int(self._good[row])), self.config).pixels

    def drawing(self, row: int) -> NDArray[np.uint8]:
        """What is drawn beside a picture, (3, h, w), before cropping. Raises UserError where that cannot be read."""
        if self._draw is None:
            raise ValueError("no drawings were asked for; set control")
        place = int(self._good[row])
        return self._draw(place, decode(self.source.read(place), self.config).pixels)

    def batch(self, indices: Sequence[int], *, seed: int = 0, epoch: int | Sequence[int] = 0) -> Batch:
        """The pictures at `indices`, cropped and flipped as (seed, epoch, index) says; `epoch` may be one a row.

        `Batch.index` differs from `indices` where a picture broke and was replaced. Raises IndexError; UserError
        naming the files where too many broke.
        """
        rows = np.asarray(indices, np.int64).reshape(-1)
        epochs = np.broadcast_to(np.asarray(epoch, np.int64), rows.shape)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"indices run from {rows.min()} to {rows.max()}; the set has {len(self)} pictures")
        if isinstance(self._kept, Tensor):
            pixels = self._kept.index_select(0, torch.from_numpy(rows))
        else:
            pixels, rows = self._gather(rows, epochs, seed)
        control = self._controls(rows, self._shares(rows, epochs, seed))
        if self.config.flip:
            mirrored = torch.from_numpy(bits(FLIP, seed, epochs, rows) >> np.uint64(63) == 1)
            for flipped in (pixels,) if control is None else (pixels, control):
                flipped[mirrored] = flipped[mirrored].flip(-1)
        # (2 k - 255) / 255: whole numbers until the one division, so k / 127.5 - 1 correctly rounded
        x = pixels.to(torch.float32).mul_(2.0).sub_(255.0).div_(255.0)
        places = self._good[rows]
        labels, captions = self.source.labels, self.source.captions
        return Batch(
            x,
            None if labels is None else torch.from_numpy(labels[places]),
            None if captions is None else tuple(captions[i] for i in places),
            tuple(rows.tolist()),
            None if control is None else control.to(torch.float32).div_(255.0),
            torch.from_numpy(self._told[places]) if self.config.values else None,
        )

    def _shares(self, rows: NDArray[np.int64], epochs: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        """Where crops lie, in [0, 1]: see scan.crop."""
        return uniform(CROP, seed, epochs, rows) if self.config.crop == "random" else np.full(len(rows), 0.5)

    def _controls(self, rows: NDArray[np.int64], shares: NDArray[np.float64]) -> Tensor | None:
        """Bytes (B, 3, size, size) of what is drawn beside the rows, cut as they are."""
        if self._draw is None:
            return None
        if isinstance(self._drawn, Tensor):
            return self._drawn.index_select(0, torch.from_numpy(rows))
        out = np.empty((len(rows), 3, *self.shape[1:]), np.uint8)
        for i, row in enumerate(rows.tolist()):
            out[i] = crop(self.drawing(row) if self._drawn is None else self._drawn[row], float(shares[i]))
        return torch.from_numpy(out)

    def _keep_drawings(self) -> Tensor | list[NDArray[np.uint8]] | None:
        """All of them, in the form the pictures are kept in; None where not all of both fit, or none were asked for."""
        if self._draw is None or self._kept is None or len(self) * 3 * self.config.size**2 > self.config.cache_bytes:
            return None
        drawn = map(self.drawing, range(len(self)))
        if isinstance(self._kept, Tensor):
            return torch.from_numpy(np.stack([crop(pixels, 0.5) for pixels in drawn]))
        return list(drawn)

    def _gather(
        self, rows: NDArray[np.int64], epochs: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Bytes (B, C, size, size) of pictures taken one by one, and the rows that they are of."""
        found = [self._standing(int(row), seed) for row in rows]
        rows = np.array([row for row, _ in found], np.int64)
        shares = self._shares(rows, epochs, seed)
        out = np.empty((len(rows), *self.shape), np.uint8)
        for i, (_, pixels) in enumerate(found):
            out[i] = crop(pixels, float(shares[i]))
        return torch.from_numpy(out), rows

    def _standing(self, row: int, seed: int) -> tuple[int, NDArray[np.uint8]]:
        """The picture of a row, or else of one that stands in for it."""
        stand_in = row
        for attempt in range(TRIES):
            try:
                return stand_in, self.pixels(stand_in)
            except (OSError, Unreadable) as error:
                self._late[stand_in] = reason(error)
            if len(self._late) > max(1.0, self.config.max_broken * len(self)):
                raise too_many(self.replaced, len(self._late) / len(self), self.source, self.config)
            stand_in = int(bits(REPLACE, seed, row, attempt)[0] % np.uint64(len(self)))
        raise too_many(self.replaced, len(self._late) / len(self), self.source, self.config)


def _asked_values(source: Source, config: DataConfig) -> NDArray[np.float64]:
    """The numbers that `config.values` names, (N, K), of all pictures of the source. Raises UserError for a name that
    is not there, and one given twice."""
    for name in config.values:
        if not source.values:
            raise UserError(
                f"no numbers are told of the pictures in {source.where}, so no {name!r}: write them into its "
                f'metadata.jsonl, as {{"file_name": "a.png", "{name}": 3.5}}, or into a column of its table'
            )
        if name not in source.values:
            raise unknown(f"number told of the pictures in {source.where}", name, source.values)
    if len(set(config.values)) < len(config.values):
        raise UserError(f"data.values names a number twice: {', '.join(config.values)}")
    columns = [source.values[name] for name in config.values]
    return np.stack(columns, axis=1) if columns else np.zeros((len(source.names), 0))
