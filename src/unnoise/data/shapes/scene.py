"""Scenes of one to three filled shapes on a plain background, rendered at any size, with exact masks and outlines.

A shape of any kind lies in a box of half-side `radius` around its centre; lengths are fractions of the picture's
side, x to the right and y down. Its coverage of a pixel is clip(1/2 - d, 0, 1), where d is the distance of the pixel's
centre to the outline in pixels, negative inside: exact along straight upright edges, and elsewhere within the bounds of
tests/data/test_shapes.py of the mean over many samples in a pixel.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]  # (S, S, 3)
Floats: TypeAlias = NDArray[np.float32]

COLOURS: dict[str, tuple[int, int, int]] = {  # the corners of the colour cube: at least 255 from each other
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
BACKGROUNDS = ("white", "black", "blue", "yellow")
KINDS = ("circle", "square", "triangle", "diamond", "cross", "ring")
KIND_COLOURS = dict(zip(KINDS, ("red", "green", "blue", "yellow", "cyan", "magenta")))  # colours of a segmentation
SIZES = ("small", "large")
LARGE = 0.18  # smallest radius that is called large
RELATIONS = ("left of", "right of", "above", "below")
TOGETHER = 128  # pictures rendered at a time
ARM, HOLE = 1 / 3, 1 / 2  # half the width of a cross's arm and the hole of a ring, in radii


@dataclass(frozen=True)
class Shape:
    """One filled shape; a triangle stands on its base, a diamond on its tip."""

    kind: str  # one of KINDS
    colour: str  # one of COLOURS
    centre: tuple[float, float]  # x, y of the middle of its box
    radius: float

    @property
    def size(self) -> str:
        """The word for its radius."""
        return SIZES[self.radius >= LARGE]


@dataclass(frozen=True)
class Scene:
    """The contents of a picture. Later shapes cover earlier ones, but in the sets here none of them touch."""

    background: str  # one of COLOURS
    shapes: tuple[Shape, ...]


def relation(of: tuple[float, float], to: tuple[float, float]) -> str:
    """The position of the centre `of` relative to `to`, along the axis on which they are further apart."""
    right, down = of[0] - to[0], of[1] - to[1]
    if abs(right) >= abs(down):
        return "left of" if right < 0 else "right of"
    return "above" if down < 0 else "below"


def distance(kind: str, x: Floats, y: Floats, radius: float | Floats) -> Floats:
    """Signed distance to the outline from points relative to the centre, in their units.

    It is negative inside, and a lower bound at corners. Raises ValueError for an unknown kind.
    """
    a, b = np.abs(x), np.abs(y)
    match kind:
        case "circle":
            out = np.sqrt(a * a + b * b) - radius
        case "square":
            out = np.maximum(a, b) - radius
        case "triangle":  # a base of 2 radii, a height of 2 radii
            out = np.maximum((2 * a - y - radius) * np.float32(5**-0.5), y - radius)
        case "diamond":
            out = (a + b - radius) * np.float32(2**-0.5)
        case "cross":
            out = np.maximum(np.maximum(a, b) - radius, np.minimum(a, b) - ARM * radius)
        case "ring":
            out = np.abs(np.sqrt(a * a + b * b) - (1 + HOLE) / 2 * radius) - (1 - HOLE) / 2 * radius
        case _:
            raise ValueError(f"no shape {kind!r}; valid: {', '.join(KINDS)}")
    return np.asarray(out, np.float32)


def render(scene: Scene, size: int) -> Pixels:
    """The picture of a scene, (size, size, 3)."""
    return np.asarray(renders((scene,), size)[0])


def renders(scenes: Sequence[Scene], size: int) -> Pixels:
    """The pictures of many scenes, (N, size, size, 3), each equal to `render` of its scene."""
    out = np.empty((len(scenes), size, size, 3), np.uint8)
    for start in range(0, len(scenes), TOGETHER):
        part = scenes[start : start + TOGETHER]
        canvas = np.empty((len(part), size, size, 3), np.float32)
        canvas[:] = np.array([COLOURS[scene.background] for scene in part], np.float32)[:, None, None]
        for turn, kind in itertools.product(range(max(len(scene.shapes) for scene in part)), KINDS):
            rows = [
                i for i, scene in enumerate(part) if scene.shapes[turn : turn + 1] and scene.shapes[turn].kind == kind
            ]
            if rows:
                shapes = [part[i].shapes[turn] for i in rows]
                ink = np.array([COLOURS[shape.colour] for shape in shapes], np.float32)[:, None, None]
                below = canvas[rows]
                canvas[rows] = below + _coverage(shapes, size)[..., None] * (ink - below)
        out[start : start + TOGETHER] = np.rint(canvas)
    return out


def masks(scene: Scene, size: int) -> NDArray[np.bool_]:
    """The pixels that each shape covers by half or more, (shapes, size, size)."""
    found = [_coverage([shape], size)[0] >= 0.5 for shape in scene.shapes]
    return np.stack(found) if found else np.zeros((0, size, size), np.bool_)


def mask(scene: Scene, size: int) -> NDArray[np.bool_]:
    """The pixels that any shape covers by half or more, (size, size)."""
    return np.asarray(masks(scene, size).any(0))


def edges(scene: Scene, size: int) -> Pixels:
    """The outlines, a pixel wide, white on black, (size, size, 3): coverage of a band of half a pixel to each side."""
    lines = np.zeros((size, size), np.float32)
    for shape in scene.shapes:
        lines = np.maximum(lines, 1 - np.abs(_distance([shape], size)[0]))
    return np.repeat(np.rint(255 * lines).astype(np.uint8)[..., None], 3, axis=2)


def segmentation(scene: Scene, size: int) -> Pixels:
    """Each shape's mask in the colour of its kind (KIND_COLOURS, not its own), on black, (size, size, 3)."""
    out = np.zeros((size, size, 3), np.uint8)
    for shape, where in zip(scene.shapes, masks(scene, size)):
        out[where] = COLOURS[KIND_COLOURS[shape.kind]]
    return out


def _coverage(shapes: Sequence[Shape], size: int) -> Floats:
    """Coverage (N, size, size) in [0, 1] by each of some shapes of one kind."""
    return np.asarray(np.clip(0.5 - _distance(shapes, size), 0.0, 1.0), np.float32)


def _distance(shapes: Sequence[Shape], size: int) -> Floats:
    """Signed distance (N, size, size) to the outline of each of some shapes of one kind, in pixels."""
    x, y, radius = size * np.array([(*shape.centre, shape.radius) for shape in shapes]).T[:, :, None, None]
    middles = _middles(size)
    return distance(
        shapes[0].kind,
        middles[None, :] - x.astype(np.float32),
        middles[:, None] - y.astype(np.float32),
        radius.astype(np.float32),
    )


@functools.lru_cache(maxsize=8)
def _middles(size: int) -> Floats:
    """Coordinates of the pixel centres, in pixels, (size,), read-only."""
    middles = np.arange(size, dtype=np.float32) + np.float32(0.5)
    middles.flags.writeable = False
    return middles
