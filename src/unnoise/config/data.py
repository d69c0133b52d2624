"""Which pictures, and how they become tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they become tensors."""

    path: str = "fashion"  # a folder, a file, or the name of a set that comes with the package
    size: int = 28  # pixels
    channels: int = 1  # 1 grey, 3 colour
    crop: Literal["center", "random"] = "center"
    flip: bool = False  # left-right, half of the time
    control: str = (
        ""  # drawings beside the pictures: "edges", "segmentation" (of sets that have it), or a folder of them
    )
    values: tuple[str, ...] = ()  # numbers told beside the pictures: keys of metadata.jsonl, columns of a table
    background: tuple[int, int, int] = (255, 255, 255)  # under transparent pictures
    max_broken: float = 0.01  # share of unreadable files above which nothing starts
    max_pixels: int = 89_478_485  # a picture larger than this counts as broken, before it is decoded
    cache_bytes: int = 4 * 2**30  # decoded pictures are kept in memory up to this
    workers: int = 0  # decoding threads beyond the main one, where pictures are not cached
