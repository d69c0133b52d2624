"""Generated pictures: a collection of PIL images, with their seeds and labels.

pictures = model.sample(seeds=range(4))
pictures[0], pictures[-1], pictures[1:3]    a PIL image, the last one, Pictures
len(pictures), list(pictures)               the number of pictures, all of them as PIL images
pictures.grid(), pictures.save("grid.png")  one sheet, and its file
pictures.pixels, pictures.array()           a tensor (B, C, H, W) uint8, an array (B, H, W, C) uint8
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image
from torch import Tensor

from unnoise.errors import UserError
from unnoise.io.images import grid, image


@dataclass(frozen=True)
class Pictures:
    """Generated pictures (B, C, H, W) uint8 on the CPU, the seed of each, and its label if the model has classes.

    The samples of a model of latents are float32 without a fixed range. They cannot be shown: every method that needs
    pictures raises UserError.
    """

    pixels: Tensor
    seeds: tuple[int, ...]
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @overload
    def __getitem__(self, at: int) -> Image.Image: ...

    @overload
    def __getitem__(self, at: slice) -> Pictures: ...

    def __getitem__(self, at: int | slice) -> Image.Image | Pictures:
        """One picture as a PIL image, or the pictures of a slice. Raises IndexError past the last one."""
        if isinstance(at, slice):
            return Pictures(self.pixels[at], self.seeds[at], self.labels[at])
        place = range(len(self))[at]
        return image(self[place : place + 1].array()[0])

    def __iter__(self) -> Iterator[Image.Image]:
        for pixels in self.array():
            yield image(pixels)

    def grid(self, columns: int | None = None, *, gap: int = 2) -> Image.Image:
        """All pictures on one sheet, in reading order; by default the sheet is about square."""
        return grid(list(self.array()), columns=columns or round(len(self) ** 0.5 + 0.499), scale=1, gap=gap)

    def save(self, path: str | Path, columns: int | None = None) -> None:
        """Writes one sheet with all pictures over what is at `path`, whose suffix chooses the format.

        Raises UserError for a suffix that is not that of a picture format.
        """
        if Path(path).suffix.lower() not in Image.registered_extensions():
            raise UserError(f"{path} does not end as a picture file does: name it for example {Path(path).stem}.png")
        self.grid(columns).save(path)

    def array(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """(B, H, W, C) uint8."""
        if self.pixels.is_floating_point():
            raise UserError("latents are no pictures: decode `.pixels` with their autoencoder")
        return np.ascontiguousarray(self.pixels.permute(0, 2, 3, 1).numpy())
