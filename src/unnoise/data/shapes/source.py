"""Scenes by number, and sets of them: `shapes` (one, two or three shapes), `shapes-one` and `shapes-two`.

One combination of (kind, colour, background) in ten, and one pair of (kind, colour)s in ten, are held out: training
scenes have none of them, and every scene of `:test` has at least one. A scene is a pure function of its set, part and
number; pictures are drawn at the size asked for, never resized.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unnoise.data.idx import array_source
from unnoise.data.random import SHAPES, uniform
from unnoise.data.shapes.captions import caption
from unnoise.data.shapes.scene import BACKGROUNDS, COLOURS, KINDS, Pixels, Scene, Shape, edges, renders, segmentation
from unnoise.data.source import Source

SETS = {"shapes": (0.3, 0.6, 0.1), "shapes-one": (1.0, 0.0, 0.0), "shapes-two": (0.0, 1.0, 0.0)}  # shares of counts
TRAINING, HELD_OUT = 20_000, 2_000
SHARE = 0.1  # of combinations held out
SMALL_RADII, LARGE_RADII, ALONE_LARGE_RADII = (0.13, 0.16), (0.20, 0.21), (0.20, 0.30)
MARGIN, GAP = 0.03, 0.09  # to the border, and between the boxes of shapes
ASKEW = 0.6  # two shapes are related by the way that is longer, and the other is at most so much of it
SMALLEST = 16  # pixels a side that are drawn as they are
LOT, COUNT, SCENE = range(3)  # what a draw is for, after SHAPES
DRAWS = 17  # chances a scene is made of


def held_out(scene: Scene) -> bool:
    """Whether any combination in it is kept from training."""
    items = [f"{shape.kind} {shape.colour}" for shape in scene.shapes]
    pairs = (" ".join(sorted(pair)) for pair in itertools.combinations(items, 2))
    return any(_lot(f"{item} {scene.background}") for item in items) or any(map(_lot, pairs))


def scenes(name: str, part: str, numbers: Sequence[int]) -> tuple[Scene, ...]:
    """The scenes of these numbers in a part, "train" or "test", of a set of SETS."""
    key = zlib.crc32(f"{name} {part}".encode())
    waiting, draws = np.asarray(numbers, np.int64), np.arange(DRAWS)
    counts = 1 + np.searchsorted(np.cumsum(SETS[name]), uniform(SHAPES, COUNT, key, waiting), side="right")
    count = dict(zip(waiting.tolist(), counts.tolist()))
    found: dict[int, Scene] = {}
    attempts = itertools.count()
    while len(waiting):
        for number, chances in zip(
            waiting.tolist(), uniform(SHAPES, SCENE, key, waiting[:, None], next(attempts), draws).tolist()
        ):
            scene = compose(count[number], chances)
            if held_out(scene) == (part == "test"):
                found[number] = scene
        waiting = np.array([number for number in waiting.tolist() if number not in found], np.int64)
    return tuple(found[number] for number in numbers)


def compose(count: int, chances: Sequence[float]) -> Scene:
    """A scene of one to three shapes out of DRAWS numbers evenly in [0, 1): no two of one kind and colour, boxes apart,
    none in the colour of the background."""
    draw = iter(chances)
    background = _pick(BACKGROUNDS, next(draw))
    items = list(_items(background))
    chosen = [items.pop(int(next(draw) * len(items))) for _ in range(count)]
    large = ALONE_LARGE_RADII if count == 1 else LARGE_RADII
    radii = [_between(large if next(draw) < 0.5 else SMALL_RADII, next(draw)) for _ in range(count)]
    place = (_alone, _related, _in_quarters)[count - 1]
    centres = place(radii, [next(draw) for _ in range(DRAWS - 1 - 3 * count)])
    return Scene(background, tuple(Shape(*item, c, r) for item, c, r in zip(chosen, centres, radii)))


def source(name: str, part: str, size: int) -> Source:
    """20,000 captioned pictures, or 2,000 others for "test", with their outlines and segmentations.

    Below SMALLEST pixels a side, where outlines are lost, a picture is the mean of squares of a larger one.
    """
    shown = _whole(name, part)
    one = name == "shapes-one"
    return replace(
        array_source(
            _pictures(shown, size),
            f"{name}:{part}",
            classes=KINDS if one else (),
            labels=np.array([KINDS.index(scene.shapes[0].kind) for scene in shown]) if one else None,
        ),
        captions=tuple(caption(scene, seed) for seed, scene in enumerate(shown)),
        controls={"edges": lambda i: edges(shown[i], size), "segmentation": lambda i: segmentation(shown[i], size)},
    )


def _pictures(shown: Sequence[Scene], size: int) -> Pixels:
    times = -(-SMALLEST // size)
    if times == 1:
        return renders(shown, size)
    squares = renders(shown, times * size).reshape(len(shown), size, times, size, times, 3)
    return np.asarray(np.rint(squares.mean((2, 4), dtype=np.float32)), np.uint8)


@functools.lru_cache(maxsize=2)  # a set is looked at more than once before a training
def _whole(name: str, part: str) -> tuple[Scene, ...]:
    return scenes(name, part, range(HELD_OUT if part == "test" else TRAINING))


@functools.lru_cache(maxsize=len(BACKGROUNDS))
def _items(background: str) -> tuple[tuple[str, str], ...]:
    return tuple((kind, colour) for kind in KINDS for colour in COLOURS if colour != background)


@functools.lru_cache(maxsize=10_000)  # all there are
def _lot(combination: str) -> bool:
    return bool(uniform(SHAPES, LOT, zlib.crc32(combination.encode()))[0] < SHARE)


def _alone(radii: Sequence[float], chances: Sequence[float]) -> list[tuple[float, float]]:
    """Anywhere."""
    inside = (MARGIN + radii[0], 1 - MARGIN - radii[0])
    return [(_between(inside, chances[0]), _between(inside, chances[1]))]


def _related(radii: Sequence[float], chances: Sequence[float]) -> list[tuple[float, float]]:
    """Two, along one axis: what room is left there is parted at random before, between and behind."""
    first, last = radii
    room = 1 - 2 * (MARGIN + first + last) - GAP
    near, far = sorted((room * chances[0], room * chances[1]))
    along = MARGIN + first + near, 1 - MARGIN - last - (room - far)
    across = _between((MARGIN + first, 1 - MARGIN - first), chances[2])
    reach = ASKEW * (along[1] - along[0])
    beside = _between((max(MARGIN + last, across - reach), min(1 - MARGIN - last, across + reach)), chances[3])
    centres = [(along[0], across), (along[1], beside)]
    return centres if chances[4] < 0.5 else [(y, x) for x, y in centres]


def _in_quarters(radii: Sequence[float], chances: Sequence[float]) -> list[tuple[float, float]]:
    """Three, each in a quarter of its own."""
    quarters = [(0, 0), (0, 1), (1, 0), (1, 1)]
    quarters.pop(int(chances[0] * 4))
    low, high = MARGIN, 0.5 - GAP / 2
    centres = []
    for i, (radius, (right, down)) in enumerate(zip(radii, quarters)):
        x, y = (_between((low + radius, high - radius), chances[1 + 2 * i + axis]) for axis in (0, 1))
        centres.append((1 - x if right else x, 1 - y if down else y))
    return centres


def _pick(words: Sequence[str], chance: float) -> str:
    return words[int(chance * len(words))]


def _between(ends: tuple[float, float], chance: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * chance
