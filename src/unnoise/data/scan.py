"""Scans a source once before training: broken pictures, sizes, and the decoded pixels if they fit into memory.

All pictures are decoded and stay in memory as bytes if they fit into `cache_bytes`. Of a larger set an evenly spread
sample is decoded, to estimate the fraction of broken pictures; every empty file counts as broken too.
"""

from __future__ import annotations

import concurrent.futures
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unnoise.config.data import DataConfig
from unnoise.data.decode import Picture, decode
from unnoise.data.source import Broken, Source, Unreadable, reason
from unnoise.errors import UserError

SAMPLE = 2_000  # pictures decoded if not all fit: 20 of them are broken if 1 % of the set is
SHOWN = 5  # broken pictures listed in a message
DARK = 0.5  # of white: pictures without a brighter value have a note


class Scan(NamedTuple):
    """The result of a scan."""

    # the good pictures: (N, C, size, size), or (C, h, w) each; None if not all of them fit
    pixels: Tensor | list[NDArray[np.uint8]] | None
    good: NDArray[np.int64]  # (N,) indices of good pictures in the source
    broken: tuple[Broken, ...]
    checked: int  # number of pictures decoded
    sizes: NDArray[np.int64]  # (n, 2) widths and heights as stored, of the pictures that were decoded
    modes: dict[str, int]  # how often each mode occurs, by Pillow's name for it
    brightest: dict[str, float]  # the largest value in the pictures of each mode, as a fraction of white
    transparent: int = 0  # how many of the pictures that were decoded have transparent pixels


def scan(source: Source, config: DataConfig) -> Scan:
    """Decodes all pictures, or a sample. Raises UserError if too many are broken, or fewer than two are left."""
    count = len(source.names)
    if source.array is not None and (stored := _as_stored(source.array, config)) is not None:
        height, width = source.array.shape[1:3]
        sizes, mode = np.tile([[width, height]], (count, 1)), _mode(source.array)
        brightest = {mode: float(source.array.max(initial=0)) / 255}
        result = Scan(stored, np.arange(count), (), count, sizes, {mode: count}, brightest)
        _check_enough(result, 0.0, source, config)
        return result
    fits = count * config.channels * config.size**2 <= config.cache_bytes
    rows = np.arange(count) if fits else np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))
    broken = {int(i): "empty (0 bytes)" for i in np.flatnonzero(source.sizes == 0)}
    empty = len(broken) / max(count, 1)
    decoded = _decode_all(source, config, rows.tolist(), cache=fits)
    broken |= decoded.failed
    result = Scan(
        _stacked(decoded.pixels, config),
        np.setdiff1d(np.arange(count), np.array(sorted(broken), np.int64)),
        (*source.refused, *(Broken(source.names[i], why) for i, why in sorted(broken.items()))),
        len(rows),
        np.array(decoded.sizes, np.int64).reshape(-1, 2),
        dict(decoded.modes),
        decoded.brightest,
        transparent=decoded.transparent.total(),
    )
    refused = len(source.refused)
    failed = (len(decoded.failed) + refused) / max(len(rows) + refused, 1)
    _check_enough(result, max(empty, failed), source, config)
    return result


class _Decoded(NamedTuple):
    pixels: list[NDArray[np.uint8]] | None  # None if they do not fit
    failed: dict[int, str]  # row -> reason
    sizes: list[tuple[int, int]]
    modes: Counter[str]
    brightest: dict[str, float]
    transparent: Counter[str]  # mode -> pictures with transparent pixels


def _decode_all(source: Source, config: DataConfig, rows: Sequence[int], *, cache: bool) -> _Decoded:
    cached: list[NDArray[np.uint8]] | None = [] if cache else None
    found = _Decoded(None, {}, [], Counter(), {}, Counter())
    used = 0
    for row, picture in zip(rows, _decoded(source, config, rows)):
        if isinstance(picture, str):
            found.failed[row] = picture
            continue
        found.sizes.append(picture.size)
        found.modes[picture.mode] += 1
        found.brightest[picture.mode] = max(found.brightest.get(picture.mode, 0.0), picture.brightest)
        found.transparent[picture.mode] += picture.transparent
        if cached is not None:
            cached.append(crop(picture.pixels, 0.5) if config.crop == "center" else picture.pixels)
            used += cached[-1].nbytes
            if used > config.cache_bytes:  # random crops need the whole of long pictures
                cached = None
    return found._replace(pixels=cached)


def crop(pixels: NDArray[np.uint8], position: float) -> NDArray[np.uint8]:
    """A square of (C, h, w). `position` in [0, 1] is from the left or top end to the other; 0.5 is the exact centre."""
    side = min(pixels.shape[1:])
    free = max(pixels.shape[1:]) - side
    at = free // 2 if position == 0.5 else min(int(position * (free + 1)), free)
    cut = pixels[:, at : at + side] if pixels.shape[1] > side else pixels[:, :, at : at + side]
    return np.ascontiguousarray(cut)


def too_many(broken: tuple[Broken, ...], fraction: float, source: Source, config: DataConfig) -> UserError:
    """An error for too many broken pictures: how many, which ones with their reasons, and what to do."""
    return UserError(
        f"{fraction:.2%} of the pictures in {source.where} are broken, more than max_broken = {config.max_broken:.2%}:"
        f"{listed(broken)}\nremove or replace them, or raise max_broken"
    )


def listed(broken: Sequence[Broken]) -> str:
    """Lines to append to a message: the first SHOWN broken pictures with their reasons. Empty if there are none."""
    lines = "".join(f"\n  {path}: {why}" for path, why in broken[:SHOWN])
    return lines + (f"\n  ... and {len(broken) - SHOWN:,} more" if len(broken) > SHOWN else "")


def dark_notes(found: Scan) -> list[str]:
    """A note for each mode in which no value is above DARK of white, as where 12 bits are stored in 16."""
    notes = []
    for mode, brightest in found.brightest.items():
        if 0 < brightest < DARK:
            white = 65535 if mode.startswith("I") else 255
            notes.append(
                f"in the {found.modes[mode]:,} pictures stored as {mode} the largest value is "
                f"{round(brightest * white):,} of {white:,}, so that they are read as dark: if that is not meant, "
                f"multiply their values by {int(1 / brightest)} and save them again"
            )
    return notes


def transparent_notes(found: Scan, config: DataConfig) -> list[str]:
    """A note about pictures with transparent pixels, if there are any."""
    opened = f" of the {found.checked:,} that were opened" if found.pixels is None else ""
    behind = ",".join(map(str, config.background))
    about = f"composited over data.background={behind}" + (" (white)" if config.background == (255, 255, 255) else "")
    if not found.transparent:
        return []
    return [f"{found.transparent:,} pictures{opened} have transparent pixels, which are {about}"]


def _decoded(source: Source, config: DataConfig, rows: Sequence[int]) -> Iterator[Picture | str]:
    """Each picture, or the reason why it cannot be read, in the order of `rows` for any number of workers."""

    def one(row: int) -> Picture | str:
        try:
            return decode(source.read(row), config)
        except (Unreadable, OSError) as error:
            return reason(error)

    if config.workers == 0:
        yield from map(one, rows)
        return
    with concurrent.futures.ThreadPoolExecutor(config.workers, thread_name_prefix="unnoise-scan") as pool:
        yield from pool.map(one, rows)


def _as_stored(array: NDArray[np.uint8], config: DataConfig) -> Tensor | None:
    """The array as (N, C, size, size) if it has these sizes already and needs no decoding; None otherwise."""
    stored = array.shape[3] if array.ndim == 4 else 1
    fits = len(array) * config.channels * config.size**2 <= config.cache_bytes
    if array.shape[1:3] != (config.size, config.size) or stored not in (1, config.channels) or not fits:
        return None
    if stored == 1:
        return torch.from_numpy(np.repeat(array[:, None], config.channels, axis=1))
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def _mode(array: NDArray[np.uint8]) -> str:
    return "L" if array.ndim == 3 else {3: "RGB", 4: "RGBA"}[array.shape[3]]


def _stacked(pixels: list[NDArray[np.uint8]] | None, config: DataConfig) -> Tensor | list[NDArray[np.uint8]] | None:
    shape = (config.channels, config.size, config.size)
    if pixels and all(picture.shape == shape for picture in pixels):
        return torch.from_numpy(np.stack(pixels))
    return pixels


def _check_enough(result: Scan, fraction: float, source: Source, config: DataConfig) -> None:
    if fraction > config.max_broken:
        raise too_many(result.broken, fraction, source, config)
    if len(result.good) < 2:
        count = len(result.good)
        raise UserError(
            f"{source.where} has {count} readable picture{'s' if count != 1 else ''}; give at least 2"
            f"{listed(result.broken)}"
        )
