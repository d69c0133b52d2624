"""A toy set, generated on opening: discs, squares, crosses and rings of 16 x 16 grey pixels, light on dark.

It is for tests and first steps: a network classifies or generates them after seconds of training. Position, size and
brightness of each are pure functions of its number; the test pictures have further numbers.
"""

from __future__ import annotations

import numpy as np

from unnoise.data.idx import array_source
from unnoise.data.random import TOY, uniform
from unnoise.data.source import Source

CLASSES = ("disc", "square", "cross", "ring")
SIZE, TRAINING, HELD_OUT = 16, 1_000, 200


def toy(split: str) -> Source:
    """1,000 pictures, or 200 others for "test"; picture i has class i modulo 4."""
    numbers = np.arange(TRAINING, TRAINING + HELD_OUT) if split == "test" else np.arange(TRAINING)
    centre_y, centre_x, radius, light = (
        low + (high - low) * uniform(TOY, draw, numbers)[:, None, None]
        for draw, (low, high) in enumerate(((5.5, 9.5), (5.5, 9.5), (3.0, 5.0), (150.0, 255.0)))
    )
    grid = np.arange(SIZE, dtype=np.float64)
    y, x = np.abs(grid[:, None] - centre_y), np.abs(grid[None, :] - centre_x)  # (N, S, S) by broadcasting
    far, along, across = np.hypot(y, x), np.maximum(y, x), np.minimum(y, x)
    outside = np.choose(  # distance to the shape's edge in pixels, roughly; negative inside
        (numbers % len(CLASSES))[:, None, None],
        (far - radius, along - radius, np.maximum(along - radius, across - 1.0), np.abs(far - radius) - 1.0),
    )
    pixels = np.rint(light * np.clip(0.5 - outside, 0.0, 1.0)).astype(np.uint8)  # one pixel of soft edge
    return array_source(pixels, f"toy:{split}", classes=CLASSES, labels=(numbers % len(CLASSES)).astype(np.int64))
