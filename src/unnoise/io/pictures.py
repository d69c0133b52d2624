"""Drawn pictures, to look at and to keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from unnoise.errors import UserError
from unnoise.io.images import grid, image


@dataclass(frozen=True)
class Pictures:
    """What was drawn: bytes (B, C, H, W) uint8 on the CPU, the seed of each, and its label where there are classes.

    Of a model of latents, the latents: float32, without a range. They are numbers to go on with: whatever shows them
    raises UserError.
    """

    pixels: Tensor
    seeds: tuple[int, ...]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[Image.Image]:
        for pixels in self.array():
            yield image(pixels)

    def grid(self, columns: int | None = None, *, gap: int = 2) -> Image.Image:
        """All of them on one sheet, in reading order; by default as square as can be."""
        return grid(list(self.array()), columns=columns or round(len(self) ** 0.5 + 0.499), scale=1, gap=gap)

    def save(self, path: str | Path, columns: int | None = None) -> None:
        """One sheet with all of them."""
        self.grid(columns).save(path)

    def array(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """(B, H, W, C) uint8."""
        if self.pixels.is_floating_point():
            raise UserError("latents are no pictures: take `.pixels`, and decode them with their autoencoder")
        return np.ascontiguousarray(self.pixels.permute(0, 2, 3, 1).numpy())
