"""Accuracy of generated pictures of shapes, by the exact reader: against their captions, masks and scenes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unnoise.data.shapes.captions import Claim, Mention, parse
from unnoise.data.shapes.reader import Found, read
from unnoise.data.shapes.scene import Pixels, Scene, relation


class Count(NamedTuple):
    """The number of right answers, `right`, out of `of`."""

    right: int
    of: int

    @property
    def fraction(self) -> float:
        """The fraction of right answers, in [0, 1]; nan if there are none."""
        return self.right / self.of if self.of else math.nan


def caption_correct(caption: str, pixels: Pixels) -> dict[str, bool]:
    """Whether a picture shows each attribute that its caption gives, and "all" of them.

    Attributes are the "number" of shapes; "kind", "colour" and "size" of every one; "background"; "relation" of the
    first to the second. Mentioned and found shapes are paired so that as much as possible is right; nothing is right of
    a shape that is mentioned and not found. Raises UserError for a caption outside the grammar.
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
    """For each attribute, how many captions give it and in how many pictures (S, S, 3) it is right."""
    counts: dict[str, Count] = {}
    for caption, pixels in zip(captions, pictures, strict=True):
        for attribute, right in caption_correct(caption, pixels).items():
            was = counts.get(attribute, Count(0, 0))
            counts[attribute] = Count(was.right + right, was.of + 1)
    return counts


def mask_iou(pixels: Pixels, mask: NDArray[np.bool_]) -> float:
    """Intersection over union of all shapes that are found and a mask (S, S); 1 if both are empty."""
    found = np.zeros(mask.shape, np.bool_)
    for shape in read(pixels).shapes:
        found |= shape.mask
    either = int((found | mask).sum())
    return int((found & mask).sum()) / either if either else 1.0


def centre_shift(pixels: Pixels, scene: Scene) -> float:
    """The mean distance of the centres of shapes from those of a scene, in fractions of the picture's side.

    Shapes are paired so that the sum is smallest, regardless of kind and colour; nan if their numbers differ.
    """
    found, expected = [shape.centre for shape in read(pixels).shapes], [shape.centre for shape in scene.shapes]
    if len(found) != len(expected) or not expected:
        return math.nan
    return min(sum(map(math.dist, order, expected)) for order in itertools.permutations(found)) / len(expected)


def _pairing(claim: Claim, pairing: tuple[Found | None, ...]) -> tuple[dict[str, bool], int]:
    """Which attributes are right under one pairing, and the number of single words that are right."""
    words = [_words(mention, found) for mention, found in zip(claim.shapes, pairing)]
    right = {
        attribute: all(of[attribute] for of in words if attribute in of)
        for attribute in ("kind", "colour", "size")
        if any(attribute in of for of in words)
    }
    if claim.relation is not None:
        one, other = pairing
        actual = None if one is None or other is None else relation(one.centre, other.centre)
        right["relation"] = actual == claim.relation
    return right, sum(sum(of.values()) for of in words)


def _merit(pairing: tuple[dict[str, bool], int]) -> tuple[int, int]:
    """A sort key: the number of right words, then of right attributes."""
    right, words = pairing
    return words, sum(right.values())


def _words(mention: Mention, found: Found | None) -> dict[str, bool]:
    right = {
        "kind": found is not None and found.kind == mention.kind,
        "colour": found is not None and found.colour == mention.colour,
    }
    return right if mention.size is None else right | {"size": found is not None and found.size == mention.size}
