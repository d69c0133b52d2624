"""Reads a picture of shapes back to its scene, without a network; exact for pictures of the sets here.

    ground      the median of the border; its name is that of the nearest colour
    shapes      connected pixels (by sides and corners) further from the ground than half the distance of two colours
    coverage    alpha = <pixel - ground, ink - ground> / |ink - ground|^2 around one of them
    kind        for each, area and centre of mass of alpha give radius and centre; the best soft IoU over templates T
                around these is chosen: sum min(alpha, T) / sum max(alpha, T)
    colour      nearest to sum T (pixel - ground) / sum T^2 + ground, the ink that explains the pixels best

Other pictures have a low confidence and never raise; shapes that touch are read as one.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unnoise.data.shapes.scene import ARM, COLOURS, HOLE, KINDS, LARGE, SIZES, Floats, Pixels, Scene, Shape, distance

FAR = 127.5  # half the least distance of two colours
LEAST = 0.0085  # fraction of the picture: a quarter of the smallest shape's area; smaller parts are noise
MOST = 6  # parts considered, the largest ones; no scene has more than three shapes
STEPS = (0.5, 0.25, 0.125)  # pixels by which radius and centre are moved in successive refinements of the match
FINALISTS = 3  # kinds that remain after each refinement

AREAS = {  # in squared radii
    "circle": math.pi,
    "square": 4.0,
    "triangle": 2.0,
    "diamond": 2.0,
    "cross": 8 * ARM - 4 * ARM**2,
    "ring": math.pi * (1 - HOLE**2),
}
LOW = {"triangle": 1 / 3}  # the centre of mass below the centre, in radii

_NAMES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), np.float32)
_MOVES = np.array(list(itertools.product((-1, 0, 1), repeat=3)), np.float32)  # of x, y, radius


class Found(NamedTuple):
    """A shape found in a picture; lengths are fractions of the side."""

    kind: str
    colour: str
    centre: tuple[float, float]  # x, y
    radius: float
    mask: NDArray[np.bool_]  # (H, W), the pixels that it covers by half or more
    confidence: float  # in [0, 1]: how well shape and colour match

    @property
    def size(self) -> str:
        """The word for its radius."""
        return SIZES[self.radius >= LARGE]


class Reading(NamedTuple):
    """The contents of a picture, as found by `read`."""

    background: str
    shapes: tuple[Found, ...]  # the largest first
    confidence: float  # in [0, 1]: that of the least certain shape; 0 if there is none

    @property
    def scene(self) -> Scene:
        """The scene whose picture shows the same."""
        return Scene(self.background, tuple(Shape(f.kind, f.colour, f.centre, f.radius) for f in self.shapes))


def read(pixels: Pixels) -> Reading:
    """The contents of a square picture, (S, S, 3) uint8. Raises ValueError for another shape or type."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.shape[0] != pixels.shape[1] or pixels.dtype != np.uint8:
        raise ValueError(f"a picture of shape {pixels.shape}, {pixels.dtype}; give (S, S, 3), uint8")
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    ground = np.median(border, axis=0).astype(np.float32)
    above = pixels.astype(np.float32) - ground
    far = np.sqrt(np.square(above).sum(-1)) > FAR
    label = components(far)
    areas = np.bincount(label[far], minlength=1)
    chosen = [int(i) for i in np.argsort(-areas, kind="stable")[:MOST] if areas[i] > LEAST * label.size]
    found = tuple(_identify(above, ground, label, i) for i in chosen)
    background, close = _nearest(ground)
    strays = 1 - areas[chosen].sum() / max(1, areas.sum())
    sure = min((shape.confidence for shape in found), default=0.0) * close * (1 - float(strays))
    return Reading(background, found, sure)


def components(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Labels (H, W) of the connected parts of a mask, by sides and corners, from 0; -1 outside."""
    height, width = mask.shape
    outside = mask.size
    parent = np.full((height + 2, width + 2), outside)
    parent[1:-1, 1:-1][mask] = np.flatnonzero(mask)
    while True:  # the least of the 3 x 3 neighbours, then the least that this one has reached
        across = np.minimum(np.minimum(parent[:, :-2], parent[:, 1:-1]), parent[:, 2:])
        least = np.minimum(np.minimum(across[:-2], across[1:-1]), across[2:])[mask]
        least = np.append(parent[1:-1, 1:-1], outside)[least]
        if np.array_equal(least, parent[1:-1, 1:-1][mask]):
            break
        parent[1:-1, 1:-1][mask] = least
    label = np.full(mask.shape, -1)
    label[mask] = np.unique(least, return_inverse=True)[1]
    return label


def _identify(above: Floats, ground: Floats, label: NDArray[np.int64], which: int) -> Found:
    part = label == which
    rows, columns = (np.flatnonzero(part.any(axis)) for axis in (1, 0))
    top, left = max(0, int(rows[0]) - 1), max(0, int(columns[0]) - 1)  # soft edges reach half a pixel further
    box = slice(top, rows[-1] + 2), slice(left, columns[-1] + 2)
    around, inside = above[box], part[box]
    own = ~_widened((label[box] >= 0) & ~inside) | inside  # without the edges of its neighbours
    strength = np.square(around[inside]).sum(-1)
    ink = around[inside][strength >= np.quantile(strength, 0.75)].mean(0)
    name, _ = _nearest(ground + ink)
    toward = np.array(COLOURS[name], np.float32) - ground
    alpha = np.where(own, around @ toward / max(float(toward @ toward), 1.0), 0.0)
    (kind, x, y, radius), template, overlap = _match(alpha, own)
    colour, close = _nearest(ground + np.tensordot(template, around, 2) / np.square(template).sum().clip(1e-6))
    side = label.shape[0]
    mask = np.zeros(label.shape, np.bool_)
    mask[box] = alpha >= 0.5
    return Found(kind, colour, ((left + x) / side, (top + y) / side), radius / side, mask, overlap * close)


def _match(alpha: Floats, own: NDArray[np.bool_]) -> tuple[tuple[str, float, float, float], Floats, float]:
    """The kind, centre and radius (in pixels of this cut-out) of the template with the largest IoU; it, and its IoU."""
    y, x = (np.arange(length, dtype=np.float32) + 0.5 for length in alpha.shape)
    area = max(float(alpha.sum()), 1.0)
    middle_x = float((alpha.sum(0) * x).sum()) / area
    middle_y = float((alpha.sum(1) * y).sum()) / area
    coverage = alpha.clip(0, 1)

    def overlaps(kind: str, at: Floats) -> tuple[Floats, Floats]:
        """Templates (K, h, w) and their IoU (K,), for (K, 3) of x, y, radius."""
        across, down, radius = at.T[:, :, None, None]
        template = np.where(own, np.clip(0.5 - distance(kind, x - across, y[:, None] - down, radius), 0, 1), 0)
        shared = np.minimum(template, coverage).sum((1, 2))
        either = np.maximum(template, coverage).sum((1, 2))
        return template, shared / either.clip(1e-6)

    best = []
    for kind in KINDS:
        radius = math.sqrt(area / AREAS[kind])
        best.append((0.0, kind, np.array([middle_x, middle_y - LOW.get(kind, 0.0) * radius, radius], np.float32)))
    for step in STEPS:
        moved = []
        for _, kind, at in best:
            around = at + step * _MOVES
            around[:, 2] = around[:, 2].clip(0.5)
            iou = overlaps(kind, around)[1]
            moved.append((float(iou.max()), kind, around[int(iou.argmax())]))
        best = sorted(moved, key=lambda one: -one[0])[:FINALISTS]
    overlap, winner, place = best[0]
    return (winner, *place.tolist()), np.asarray(overlaps(winner, place[None])[0][0]), overlap


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with the eight neighbours of each pixel."""
    across = mask.copy()
    across[:, 1:] |= mask[:, :-1]
    across[:, :-1] |= mask[:, 1:]
    out = across.copy()
    out[1:] |= across[:-1]
    out[:-1] |= across[1:]
    return out


def _nearest(colour: Floats) -> tuple[str, float]:
    """The name of the nearest colour, and its closeness in [0, 1]: 1 for the colour itself, 0 at distance FAR."""
    apart = np.sqrt(np.square(_PALETTE - colour).sum(-1))
    at = int(apart.argmin())
    return _NAMES[at], max(0.0, 1 - float(apart[at]) / FAR)
