"""Captions of scenes in a small grammar, and their parser.

caption  = shapes [ground]                      a red circle on white
shapes   = shape | shape RELATION shape         a large blue square above a green triangle on a black background
         | shape {", " shape} " and " shape     a red ring, a small cyan cross and a black circle on yellow
shape    = "a" [SIZE] COLOUR KIND
ground   = "on" COLOUR | "on a" COLOUR "background"
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from unnoise.data.shapes.scene import COLOURS, KINDS, RELATIONS, SIZES, Scene, Shape, relation
from unnoise.errors import UserError

_SHAPE = rf"a (?:({'|'.join(SIZES)}) )?({'|'.join(COLOURS)}) ({'|'.join(KINDS)})"
_BETWEEN = rf"(?: ({'|'.join(RELATIONS)}|and) |, )"
_GROUND = rf"(?: on (?:a )?({'|'.join(COLOURS)})(?: background)?)?"
_CAPTION = re.compile(rf"{_SHAPE}(?:{_BETWEEN}{_SHAPE}){{0,2}}{_GROUND}")
_FIRST = {
    1: (0,),
    2: (0, 0, 0, 1),
    3: (0, 1, 2),
}  # by number of shapes: index of the one mentioned first, all equally likely
_shapes, _relations, _ground = re.compile(_SHAPE), re.compile("|".join(RELATIONS)), re.compile(_GROUND + "$")


@dataclass(frozen=True)
class Mention:
    """A shape as a caption describes it; `size` is None if the caption gives none."""

    kind: str
    colour: str
    size: str | None = None


@dataclass(frozen=True)
class Claim:
    """The meaning of a caption: exactly these shapes, on this background, the first in this relation to the second.

    None for a background or relation that the caption does not give.
    """

    shapes: tuple[Mention, ...]
    background: str | None = None
    relation: str | None = None


def caption(scene: Scene, seed: int = 0) -> str:
    """A true caption of a scene of one to three shapes; the seed chooses among the possible ones.

    The choices are which shape comes first, whether sizes are given, whether two shapes are related or only listed, and
    the form of the background. Of two, the left or upper one comes first with probability 3/4, as in human captions.
    """
    choice = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest())
    shapes = _reading_order(scene.shapes)
    turns = _FIRST[len(shapes)]
    choice, turn = divmod(choice, len(turns))
    shapes = shapes[turns[turn] :] + shapes[: turns[turn]]
    choice, sized = divmod(choice, 2 ** len(shapes))
    choice, related = divmod(choice, 4)  # a relation with probability 3/4
    phrases = [_phrase(shape, sized=bool(sized >> i & 1)) for i, shape in enumerate(shapes)]
    ground = f"on a {scene.background} background" if choice % 4 == 0 else f"on {scene.background}"
    if len(phrases) == 2 and related:
        return f"{phrases[0]} {relation(shapes[0].centre, shapes[1].centre)} {phrases[1]} {ground}"
    listed = " and ".join([", ".join(phrases[:-1]), phrases[-1]]) if phrases[1:] else phrases[0]
    return f"{listed} {ground}"


def parse(text: str) -> Claim:
    """The claim of a caption. Raises UserError for text outside the grammar."""
    plain = " ".join(text.lower().split()).rstrip(".")
    if not _CAPTION.fullmatch(plain):
        raise UserError(
            f"{text!r} is no caption of shapes; write for example 'a large red circle left of a blue square on white', "
            f"with the words {', '.join(KINDS)}; {', '.join(COLOURS)}; {', '.join(SIZES)}; {', '.join(RELATIONS)}, and"
        )
    shapes = tuple(Mention(kind, colour, size or None) for size, colour, kind in _shapes.findall(plain))
    relations, ground = _relations.findall(plain), _ground.search(plain)
    if len(relations) > 1 or (relations and len(shapes) != 2):
        raise UserError(f"{text!r} relates more than two shapes; relate only two, or join them with 'and'")
    return Claim(shapes, ground[1] if ground else None, relations[0] if relations else None)


def _reading_order(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """The shapes, with the left or upper one first if there are two."""
    late = len(shapes) == 2 and relation(shapes[0].centre, shapes[1].centre) in ("right of", "below")
    return shapes[::-1] if late else shapes


def _phrase(shape: Shape, *, sized: bool) -> str:
    return f"a {shape.size + ' ' if sized else ''}{shape.colour} {shape.kind}"
