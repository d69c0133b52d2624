"""From a picture of shapes back to its scene: no network, and exact where the picture is one of this world.

    ground      the median of the border; its name is that of the nearest colour
    shapes      connected pixels (by sides and corners) further from the ground than half of what parts two colours
    coverage    alpha = <pixel - ground, ink - ground> / |ink - ground|^2 around one of them
    kind        for each, area and centre of mass of alpha give radius and centre; the best soft IoU over templates T
                around these decides: sum min(alpha, T) / sum max(alpha, T)
    colour      nearest to sum T (pixel - ground) / sum T^2 + ground, the ink that explains the pixels best

What is no picture of this world gives low confidence, never an exception; shapes that touch are read as one.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unnoise.data.shapes.scene import ARM, COLOURS, HOLE, KINDS, LARGE, SIZES, Floats, Pixels, Scene, Shape, distance

FAR = 127.5  # half of what parts two colours
LEAST = 0.0085  # of the picture: a quarter of the smallest shape's area; what is smaller is a speck
MOST = 6  # shapes looked at, the largest ones: no scene has more than three
STEPS = (0.5, 0.25, 0.125)  # pixels: how far radius and centre are moved to match better, one after another
FINALISTS = 3  # kinds that go on after the first step

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
    """One shape as it was read; lengths are fractions of the side."""

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
    """A picture as it was read."""

    background: str
    shapes: tuple[Found, ...]  # the largest first
    confidence: float  # in [0, 1]: of the least sure part; 0 where no shape is found

    @property
    def scene(self) -> Scene:
        """What would be drawn to show the same."""
        return Scene(self.background, tuple(Shape(f.kind, f.colour, f.centre, f.radius) for f in self.shapes))


def read(pixels: Pixels) -> Reading:
    """What a square picture, (S, S, 3) bytes, shows. Raises ValueError for another form."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.shape[0] != pixels.shape[1] or pixels.dtype != np.uint8:
        raise ValueError(f"a picture of form {pixels.shape}, {pixels.dtype}; give (S, S, 3), uint8")
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
    """(H, W): the number, from 0, of the connected part (by sides and corners) that a pixel is in; -1 outside."""
    height, width = mask.shape
    outside = mask.size
    parent = np.full((height + 2, width + 2), outside)
    parent[1:-1, 1:-1][mask] = np.flatnonzero(mask)
    while True:  # the least of the nine around, then the least that this one has come to
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
    own = ~_widened((label[box] >= 0) & ~inside) | inside  # not its neighbours' edges
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
    """The kind, centre and radius (pixels of this cut-out) whose template is most like alpha; it, and its IoU."""
    y, x = (np.arange(length, dtype=np.float32) + 0.5 for length in alpha.shape)
    area = max(float(alpha.sum()), 1.0)
    middle_x = float((alpha.sum(0) * x).sum()) / area
    middle_y = float((alpha.sum(1) * y).sum()) / area
    seen = alpha.clip(0, 1)

    def overlaps(kind: str, at: Floats) -> tuple[Floats, Floats]:
        """Templates (K, h, w) and their IoU (K,), for (K, 3) of x, y, radius."""
        across, down, radius = at.T[:, :, None, None]
        drawn = np.where(own, np.clip(0.5 - distance(kind, x - across, y[:, None] - down, radius), 0, 1), 0)
        shared = np.minimum(drawn, seen).sum((1, 2))
        either = np.maximum(drawn, seen).sum((1, 2))
        return drawn, shared / either.clip(1e-6)

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
    """With the eight around each pixel."""
    across = mask.copy()
    across[:, 1:] |= mask[:, :-1]
    across[:, :-1] |= mask[:, 1:]
    out = across.copy()
    out[1:] |= across[:-1]
    out[:-1] |= across[1:]
    return out


def _nearest(colour: Floats) -> tuple[str, float]:
    """The name of the nearest colour, and how near in [0, 1]: 1 for itself, 0 from FAR on."""
    apart = np.sqrt(np.square(_PALETTE - colour).sum(-1))
    at = int(apart.argmin())
    return _NAMES[at], max(0.0, 1 - float(apart[at]) / FAR)
