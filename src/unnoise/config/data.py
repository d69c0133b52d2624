"""The configuration of a data set: which pictures are read, and how they are converted to tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.field import setting


@dataclass(frozen=True)
class DataConfig:
    """Which pictures are read, and how they are converted to tensors."""

    path: str = setting("fashion", "a folder, a file, or the name of a set that comes with the package")
    size: int = setting(28, "height and width of a picture, in pixels")
    channels: int = setting(1, "1 grey, 3 colour")
    crop: Literal["center", "random"] = setting("center", "which square is cut out of a picture that is not square")
    flip: bool = setting(False, "flip each picture left to right with probability 1/2")
    control: str = setting(
        "",
        'control images: "edges", "segmentation" (for sets that have it), a key of the metadata that names them, or a '
        "folder that contains them",
    )
    values: tuple[str, ...] = setting(
        (), "numbers to condition on: keys of the metadata, or columns of a parquet table"
    )
    background: tuple[int, int, int] = setting((255, 255, 255), "colour behind transparent pictures")
    max_broken: float = setting(0.01, "largest fraction of unreadable files with which a training starts")
    max_pixels: int = setting(89_478_485, "a picture with more pixels counts as broken and is not decoded")
    cache_bytes: int = setting(4 * 2**30, "decoded pictures stay in memory if all of them fit into so many bytes")
    workers: int = setting(0, "decoding threads besides the main thread, for pictures that are not in memory")
