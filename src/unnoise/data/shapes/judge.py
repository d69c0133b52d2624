"""Whether a picture shows what its caption says, and whether what should stay in its place did: by the exact reader."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unnoise.data.shapes.captions import Claim, Told, parse
from unnoise.data.shapes.reader import Found, read
from unnoise.data.shapes.scene import Pixels, Scene, relation


class Count(NamedTuple):
    """How many were right, of how many that were told."""

    right: int
    of: int

    @property
    def share(self) -> float:
        """In [0, 1]; nan of none."""
        return self.right / self.of if self.of else math.nan


def caption_correct(caption: str, pixels: Pixels) -> dict[str, bool]:
    """Attribute by attribute, of those that the caption tells, and "all": each of them.

    "number" of shapes; "kind", "colour" and "size" of every one; "background"; "relation" of the first to the second.
    Shapes told and shapes found are paired so that most is right; a shape told and not found has nothing right. Raises
    UserError for a caption outside the grammar.
    """
    claim = parse(caption)
    reading = read(pixels)
    right = {"number": len(reading.shapes) == len(claim.shapes)}
    if claim.background is not None:
        right["background"] = reading.background == claim.background
    spare = [None] * max(0, len(claim.shapes) - len(reading.shapes))
    pairings = itertools.permutations([*reading.shapes, *spare], len(claim.shapes))
    right |= max((_pairing(claim, pairing) for pairing in pairings), key=_merit)[0]
    return right | {"all": all(right.values())}


def caption_accuracy(captions: Iterable[str], pictures: Iterable[Pixels]) -> dict[str, Count]:
    """How often each attribute was right, of the times it was told, over pairs of caption and picture (S, S, 3)."""
    counts: dict[str, Count] = {}
    for caption, pixels in zip(captions, pictures, strict=True):
        for attribute, right in caption_correct(caption, pixels).items():
            was = counts.get(attribute, Count(0, 0))
            counts[attribute] = Count(was.right + right, was.of + 1)
    return counts


def mask_iou(pixels: Pixels, mask: NDArray[np.bool_]) -> float:
    """Intersection over union of the shapes found, all together, and a mask (S, S); 1 where both are empty."""
    found = np.zeros(mask.shape, np.bool_)
    for shape in read(pixels).shapes:
        found |= shape.mask
    either = int((found | mask).sum())
    return int((found & mask).sum()) / either if either else 1.0


def centre_shift(pixels: Pixels, scene: Scene) -> float:
    """How far shapes are from where the scene has them: the mean over shapes, in fractions of the side.

    They are paired so that the sum is least, whatever their kinds and colours; nan where their numbers differ.
    """
    found, want = [shape.centre for shape in read(pixels).shapes], [shape.centre for shape in scene.shapes]
    if len(found) != len(want) or not want:
        return math.nan
    return min(sum(map(math.dist, order, want)) for order in itertools.permutations(found)) / len(want)


def _pairing(claim: Claim, pairing: tuple[Found | None, ...]) -> tuple[dict[str, bool], int]:
    """What is right under one pairing, and how many single words of it."""
    words = [_words(told, found) for told, found in zip(claim.shapes, pairing)]
    right = {
        attribute: all(of[attribute] for of in words if attribute in of)
        for attribute in ("kind", "colour", "size")
        if any(attribute in of for of in words)
    }
    if claim.relation is not None:
        one, other = pairing
        seen = None if one is None or other is None else relation(one.centre, other.centre)
        right["relation"] = seen == claim.relation
    return right, sum(sum(of.values()) for of in words)


def _merit(pairing: tuple[dict[str, bool], int]) -> tuple[int, int]:
    """Single words first; among equals, whole attributes."""
    right, words = pairing
    return words, sum(right.values())


def _words(told: Told, found: Found | None) -> dict[str, bool]:
    right = {
        "kind": found is not None and found.kind == told.kind,
        "colour": found is not None and found.colour == told.colour,
    }
    return right if told.size is None else right | {"size": found is not None and found.size == told.size}
