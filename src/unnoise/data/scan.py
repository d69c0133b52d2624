"""What is in a source, found out once before anything starts: the broken pictures, the sizes, the pixels that fit.

All pictures are decoded and kept as bytes where they fit into `cache_bytes`; of a larger set, a sample spread evenly
is decoded, to know the share of broken ones, and every empty file counts.
"""

from __future__ import annotations

import concurrent.futures
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unnoise.config.data import DataConfig
from unnoise.data.decode import Picture, decode
from unnoise.data.source import Broken, Source, Unreadable, reason
from unnoise.errors import UserError

SAMPLE = 2_000  # pictures decoded where not all can be kept: a share of 1 % is seen as 20 pictures
SHOWN = 5  # broken pictures listed in a message


class Scan(NamedTuple):
    """What a look at the pictures found."""

    kept: (
        Tensor | list[NDArray[np.uint8]] | None
    )  # the good ones: (N, C, size, size), or (C, h, w) each; None: not all fit
    good: NDArray[np.int64]  # (N,) places in the source
    broken: tuple[Broken, ...]
    checked: int  # pictures decoded
    sizes: NDArray[np.int64]  # (checked and good, 2) widths and heights as stored
    modes: dict[str, int]  # Pillow's names for what was stored, and how often


def scan(source: Source, config: DataConfig) -> Scan:
    """Raises UserError where too many pictures are broken, or fewer than two are left."""
    count = len(source.names)
    if source.array is not None and (stored := _as_stored(source.array, config)) is not None:
        height, width = source.array.shape[1:3]
        found = Scan(
            stored, np.arange(count), (), count, np.tile([[width, height]], (count, 1)), {_mode(source.array): count}
        )
        _enough(found, 0.0, source, config)
        return found
    fits = count * config.channels * config.size**2 <= config.cache_bytes
    places = np.arange(count) if fits else np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))
    kept: list[NDArray[np.uint8]] | None = [] if fits else None
    broken = {int(i): "empty (0 bytes)" for i in np.flatnonzero(source.sizes == 0)}
    share = len(broken) / max(count, 1)
    failed = held = 0
    sizes: list[tuple[int, int]] = []
    modes: Counter[str] = Counter()
    for place, picture in zip(places.tolist(), _decoded(source, config, places.tolist())):
        if isinstance(picture, str):
            broken[place] = picture
            failed += 1
            continue
        sizes.append(picture.size)
        modes[picture.mode] += 1
        if kept is not None:
            kept.append(crop(picture.pixels, 0.5) if config.crop == "center" else picture.pixels)
            held += kept[-1].nbytes
            if held > config.cache_bytes:  # long sides, kept for random crops
                kept = None
    found = Scan(
        _stacked(kept, config),
        np.setdiff1d(np.arange(count), np.array(sorted(broken), np.int64)),
        (*source.refused, *(Broken(source.names[i], why) for i, why in sorted(broken.items()))),
        len(places),
        np.array(sizes, np.int64).reshape(-1, 2),
        dict(modes),
    )
    refused = len(source.refused)
    share = max(share, (failed + refused) / max(len(places) + refused, 1))
    _enough(found, share, source, config)
    return found


def crop(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """The square of (C, h, w) that has `share` in [0, 1] of the free pixels before it; exactly half is the centre."""
    side = min(pixels.shape[1:])
    free = max(pixels.shape[1:]) - side
    at = free // 2 if share == 0.5 else min(int(share * (free + 1)), free)
    cut = pixels[:, at : at + side] if pixels.shape[1] > side else pixels[:, :, at : at + side]
    return np.ascontiguousarray(cut)


def too_many(broken: tuple[Broken, ...], share: float, source: Source, config: DataConfig) -> UserError:
    """The message where too much is broken: how much, which, and what to do."""
    listed = "".join(f"\n  {path}: {why}" for path, why in broken[:SHOWN])
    more = f"\n  ... and {len(broken) - SHOWN:,} more" if len(broken) > SHOWN else ""
    return UserError(
        f"{share:.2%} of the pictures in {source.where} are broken, more than max_broken = {config.max_broken:.2%}:"
        f"{listed}{more}\nremove or replace them, or raise max_broken"
    )


def _decoded(source: Source, config: DataConfig, places: Iterable[int]) -> Iterator[Picture | str]:
    """Each picture, or why there is none, in order, whatever the number of workers."""

    def one(place: int) -> Picture | str:
        try:
            return decode(source.read(place), config)
        except (Unreadable, OSError) as error:
            return reason(error)

    if config.workers == 0:
        yield from map(one, places)
        return
    with concurrent.futures.ThreadPoolExecutor(config.workers, thread_name_prefix="unnoise-scan") as pool:
        yield from pool.map(one, places)


def _as_stored(array: NDArray[np.uint8], config: DataConfig) -> Tensor | None:
    """(N, C, size, size) where the array holds just that, so that nothing needs decoding; None otherwise."""
    stored = array.shape[3] if array.ndim == 4 else 1
    fits = len(array) * config.channels * config.size**2 <= config.cache_bytes
    if array.shape[1:3] != (config.size, config.size) or stored not in (1, config.channels) or not fits:
        return None
    if stored == 1:
        return torch.from_numpy(np.repeat(array[:, None], config.channels, axis=1))
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def _mode(array: NDArray[np.uint8]) -> str:
    return "L" if array.ndim == 3 else {3: "RGB", 4: "RGBA"}[array.shape[3]]


def _stacked(kept: list[NDArray[np.uint8]] | None, config: DataConfig) -> Tensor | list[NDArray[np.uint8]] | None:
    shape = (config.channels, config.size, config.size)
    if kept and all(pixels.shape == shape for pixels in kept):
        return torch.from_numpy(np.stack(kept))
    return kept


def _enough(found: Scan, share: float, source: Source, config: DataConfig) -> None:
    if share > config.max_broken:
        raise too_many(found.broken, share, source, config)
    if len(found.good) < 2:
        raise UserError(f"{source.where} has {len(found.good)} picture to learn from; give at least 2")
