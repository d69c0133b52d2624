"""Summaries of a data set before training: statistics, and sheets with some of its pictures."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unnoise.config.data import DataConfig
from unnoise.data.dataset import Dataset
from unnoise.data.decode import decode
from unnoise.data.fingerprint import stride
from unnoise.data.scan import crop
from unnoise.data.source import Source, Unreadable
from unnoise.io.images import grid

SAMPLE = 1_000  # pictures for the statistics of values, evenly spread
SIZED = 50  # pictures that are opened for their size
LISTED = 100  # broken pictures listed
GAP = 2  # pixels between the pictures of a sheet


def describe(dataset: Dataset) -> dict[str, object]:
    """Statistics for JSON: count, sizes as stored (pixels), classes, captions, numbers, broken pictures, fingerprint.

    `values` are mean, deviation and range of the channels, in [-1, 1].
    """
    source, labels = dataset.source, dataset.labels()
    counts = {} if labels is None else np.bincount(labels, minlength=len(dataset.classes)).tolist()
    captions = [text for text in dataset.every_caption() if text]
    sides = {"width": dataset.sizes[:, 0], "height": dataset.sizes[:, 1]}
    return {
        "where": source.where,
        "count": len(dataset),
        "shape": list(dataset.shape),
        "bytes": int(source.sizes.sum()),
        "sizes": {
            name: {"min": int(side.min()), "median": float(np.median(side)), "max": int(side.max())}
            for name, side in sides.items()
            if len(side)
        },
        "modes": dataset.modes,
        "classes": dict(zip(dataset.classes, counts)),
        "numbers": {name: _range(column) for name, column in source.values.items() if np.isfinite(column).any()},
        "captions": {"count": len(captions), "examples": captions[:3]},
        "broken": {"count": len(dataset.broken), "listed": [broken._asdict() for broken in dataset.broken[:LISTED]]},
        "replaced": len(dataset.replaced),
        "checked": dataset.checked,  # pictures decoded at the start
        "cached": dataset.cached,
        "values": _values(dataset),
        "notes": list(dataset.notes),
        "fingerprint": dataset.fingerprint,
        "fingerprint_reads": _fingerprint_reads(dataset),
    }


def _fingerprint_reads(dataset: Dataset) -> str:
    every = stride(dataset.source)
    return "all pictures" if every == 1 else f"1 picture in {every}, the ends and times of all files"


def stored_size(source: Source) -> int:
    """The median of the shorter sides of SIZED pictures, in pixels, evenly spread; 0 if none of them can be read."""
    sides = []
    for row in _spread(np.arange(len(source.names)), SIZED):
        with contextlib.suppress(OSError, Unreadable):
            sides.append(min(decode(source.read(row), DataConfig(size=1, channels=1)).size))
    return int(np.median(sides)) if sides else 0


def contact_sheet(dataset: Dataset, rows: int, columns: int) -> Image.Image:
    """A grid of pictures as the network receives them, cropped at the centre, not flipped.

    With classes, each of the first `rows` classes has a line; otherwise the pictures are spread over the whole set.
    Cells without a picture stay white.
    """
    cells = [np.full((dataset.config.size, dataset.config.size), 255, np.uint8)] * (rows * columns)
    for cell, row in _chosen(dataset, rows, columns):
        with contextlib.suppress(OSError, Unreadable):
            cells[cell] = crop(dataset.pixels(row), 0.5).transpose(1, 2, 0)
    return grid(cells, columns=columns, scale=1, gap=GAP).convert("L" if dataset.config.channels == 1 else "RGB")


def captioned_samples(dataset: Dataset, count: int) -> list[tuple[list[NDArray[np.uint8]], str]]:
    """At most `count` pictures spread over the set, cropped at the centre, each with its caption.

    A picture is a list of (size, size, C): itself, and its control image if the set has them. Broken pictures are left
    out.
    """
    found = []
    for row in _spread(np.arange(len(dataset)), count):
        try:
            pictures = [dataset.pixels(row), *([dataset.control_image(row)] if dataset.config.control else [])]
        except (OSError, Unreadable):
            continue
        found.append(([crop(pixels, 0.5).transpose(1, 2, 0) for pixels in pictures], dataset.caption(row)))
    return found


def _chosen(dataset: Dataset, rows: int, columns: int) -> list[tuple[int, int]]:
    """Pairs of a cell of the sheet and a row of the set."""
    labels = dataset.labels()
    if labels is None:
        return list(enumerate(_spread(np.arange(len(dataset)), rows * columns)))
    chosen = []
    for down in range(min(rows, len(dataset.classes))):
        of_class = _spread(np.flatnonzero(labels == down), columns)
        chosen += [(down * columns + across, row) for across, row in enumerate(of_class)]
    return chosen


def _spread(rows: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of the rows, evenly spread."""
    if len(rows) <= count:
        return [int(row) for row in rows]
    return [int(rows[i * len(rows) // count]) for i in range(count)]


def _range(column: NDArray[np.float64]) -> dict[str, float | int]:
    known = column[~np.isnan(column)]
    return {"count": len(known), "min": float(known.min()), "max": float(known.max())}


def _values(dataset: Dataset) -> dict[str, object]:
    total, squares, count, low, high = np.zeros(dataset.shape[0]), np.zeros(dataset.shape[0]), 0, 255, 0
    for row in _spread(np.arange(len(dataset)), SAMPLE):
        try:
            pixels = crop(dataset.pixels(row), 0.5).reshape(dataset.shape[0], -1)
        except (OSError, Unreadable):
            continue
        x = pixels.astype(np.float64) / 127.5 - 1
        total += x.sum(1)
        squares += (x**2).sum(1)
        count += x.shape[1]
        low, high = min(low, int(pixels.min())), max(high, int(pixels.max()))
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0.0))
    return {"mean": mean.tolist(), "std": std.tolist(), "min": low / 127.5 - 1, "max": high / 127.5 - 1}
