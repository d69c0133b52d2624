"""Sets of scenes: `shapes` (one, two or three shapes), `shapes-one` and `shapes-two`.

One combination of (kind, colour, background) in ten, and one pair of (kind, colour)s in ten, are held out: training
scenes contain none of them, and every scene of `:test` contains at least one. A scene is a pure function of its set,
part and number. Pictures are rendered at the given size, never resized.
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

SETS = {
    "shapes": (0.3, 0.6, 0.1),
    "shapes-one": (1.0, 0.0, 0.0),
    "shapes-two": (0.0, 1.0, 0.0),
}  # probabilities of 1, 2, 3 shapes
TRAINING, HELD_OUT = 20_000, 2_000
HELD_OUT_FRACTION = 0.1  # of the combinations
SMALL_RADII, LARGE_RADII, ALONE_LARGE_RADII = (0.13, 0.16), (0.20, 0.21), (0.20, 0.30)
MARGIN, GAP = 0.03, 0.09  # to the border, and between the boxes of shapes
ASKEW = 0.6  # the distance of two shapes across their relation, at most, as a fraction of the one along it
SMALLEST = 16  # smallest size that is rendered directly
COMBINATION, COUNT, SCENE = range(3)  # the purpose of a random number: the second part of its key, after SHAPES
NUMBERS = 17  # random numbers that determine a scene


def held_out(scene: Scene) -> bool:
    """Whether a scene contains a combination that is held out from training."""
    items = [f"{shape.kind} {shape.colour}" for shape in scene.shapes]
    pairs = (" ".join(sorted(pair)) for pair in itertools.combinations(items, 2))
    return any(_is_held_out(f"{item} {scene.background}") for item in items) or any(map(_is_held_out, pairs))


def scenes(name: str, part: str, numbers: Sequence[int]) -> tuple[Scene, ...]:
    """The scenes with these numbers in a part, "train" or "test", of a set of SETS."""
    key = zlib.crc32(f"{name} {part}".encode())
    waiting, indices = np.asarray(numbers, np.int64), np.arange(NUMBERS)
    counts = 1 + np.searchsorted(np.cumsum(SETS[name]), uniform(SHAPES, COUNT, key, waiting), side="right")
    count = dict(zip(waiting.tolist(), counts.tolist()))
    found: dict[int, Scene] = {}
    attempts = itertools.count()
    while len(waiting):
        for number, uniforms in zip(
            waiting.tolist(), uniform(SHAPES, SCENE, key, waiting[:, None], next(attempts), indices).tolist()
        ):
            scene = compose(count[number], uniforms)
            if held_out(scene) == (part == "test"):
                found[number] = scene
        waiting = np.array([number for number in waiting.tolist() if number not in found], np.int64)
    return tuple(found[number] for number in numbers)


def compose(count: int, uniforms: Sequence[float]) -> Scene:
    """A scene of one to three shapes from NUMBERS uniform numbers in [0, 1).

    No two shapes have the same kind and colour, boxes do not touch, and none has the colour of the background.
    """
    draw = iter(uniforms)
    background = _pick(BACKGROUNDS, next(draw))
    items = list(_items(background))
    chosen = [items.pop(int(next(draw) * len(items))) for _ in range(count)]
    large = ALONE_LARGE_RADII if count == 1 else LARGE_RADII
    radii = [_between(large if next(draw) < 0.5 else SMALL_RADII, next(draw)) for _ in range(count)]
    place = (_alone, _related, _in_quarters)[count - 1]
    centres = place(radii, [next(draw) for _ in range(NUMBERS - 1 - 3 * count)])
    return Scene(background, tuple(Shape(*item, c, r) for item, c, r in zip(chosen, centres, radii)))


def source(name: str, part: str, size: int) -> Source:
    """20,000 captioned pictures, or 2,000 others for "test", with their outlines and segmentations.

    Below SMALLEST pixels, where outlines are lost, a picture is a larger one reduced by area means.
    """
    contents = _whole(name, part)
    one = name == "shapes-one"
    return replace(
        array_source(
            _pictures(contents, size),
            f"{name}:{part}",
            classes=KINDS if one else (),
            labels=np.array([KINDS.index(scene.shapes[0].kind) for scene in contents]) if one else None,
        ),
        captions=tuple(caption(scene, seed) for seed, scene in enumerate(contents)),
        controls={
            "edges": lambda i: edges(contents[i], size),
            "segmentation": lambda i: segmentation(contents[i], size),
        },
    )


def _pictures(contents: Sequence[Scene], size: int) -> Pixels:
    times = -(-SMALLEST // size)
    if times == 1:
        return renders(contents, size)
    squares = renders(contents, times * size).reshape(len(contents), size, times, size, times, 3)
    return np.asarray(np.rint(squares.mean((2, 4), dtype=np.float32)), np.uint8)


@functools.lru_cache(maxsize=2)  # a set is opened more than once before a training
def _whole(name: str, part: str) -> tuple[Scene, ...]:
    return scenes(name, part, range(HELD_OUT if part == "test" else TRAINING))


@functools.lru_cache(maxsize=len(BACKGROUNDS))
def _items(background: str) -> tuple[tuple[str, str], ...]:
    return tuple((kind, colour) for kind in KINDS for colour in COLOURS if colour != background)


@functools.lru_cache(maxsize=10_000)  # more than the number of combinations
def _is_held_out(combination: str) -> bool:
    return bool(uniform(SHAPES, COMBINATION, zlib.crc32(combination.encode()))[0] < HELD_OUT_FRACTION)


def _alone(radii: Sequence[float], uniforms: Sequence[float]) -> list[tuple[float, float]]:
    """The centre of one shape, anywhere inside the margin."""
    inside = (MARGIN + radii[0], 1 - MARGIN - radii[0])
    return [(_between(inside, uniforms[0]), _between(inside, uniforms[1]))]


def _related(radii: Sequence[float], uniforms: Sequence[float]) -> list[tuple[float, float]]:
    """The centres of two shapes along one axis: the free length is split at random before, between and behind them."""
    first, last = radii
    room = 1 - 2 * (MARGIN + first + last) - GAP
    near, far = sorted((room * uniforms[0], room * uniforms[1]))
    along = MARGIN + first + near, 1 - MARGIN - last - (room - far)
    across = _between((MARGIN + first, 1 - MARGIN - first), uniforms[2])
    reach = ASKEW * (along[1] - along[0])
    beside = _between((max(MARGIN + last, across - reach), min(1 - MARGIN - last, across + reach)), uniforms[3])
    centres = [(along[0], across), (along[1], beside)]
    return centres if uniforms[4] < 0.5 else [(y, x) for x, y in centres]


def _in_quarters(radii: Sequence[float], uniforms: Sequence[float]) -> list[tuple[float, float]]:
    """The centres of three shapes, each in a different quarter."""
    quarters = [(0, 0), (0, 1), (1, 0), (1, 1)]
    quarters.pop(int(uniforms[0] * 4))
    low, high = MARGIN, 0.5 - GAP / 2
    centres = []
    for i, (radius, (right, down)) in enumerate(zip(radii, quarters)):
        x, y = (_between((low + radius, high - radius), uniforms[1 + 2 * i + axis]) for axis in (0, 1))
        centres.append((1 - x if right else x, 1 - y if down else y))
    return centres


def _pick(words: Sequence[str], position: float) -> str:
    return words[int(position * len(words))]


def _between(ends: tuple[float, float], position: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * position
