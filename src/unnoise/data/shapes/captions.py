"""What is said of a scene, in one small grammar, and back: from the words to what must be true.

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
_FIRST = {1: (0,), 2: (0, 0, 0, 1), 3: (0, 1, 2)}  # which one is told first, by how many there are, all as likely
_shapes, _relations, _ground = re.compile(_SHAPE), re.compile("|".join(RELATIONS)), re.compile(_GROUND + "$")


@dataclass(frozen=True)
class Told:
    """What is said of one shape; a size that is not said is None."""

    kind: str
    colour: str
    size: str | None = None


@dataclass(frozen=True)
class Claim:
    """What must be true of a picture: just these shapes, on this ground, the first in this relation to the second."""

    shapes: tuple[Told, ...]
    background: str | None = None
    relation: str | None = None


def caption(scene: Scene, seed: int = 0) -> str:
    """One true sentence about a scene of one to three shapes; the seed chooses among them.

    It decides which shape comes first, whether sizes are told, whether two are related or only counted, and how the
    background is put. Of two, the left or upper one comes first three times of four, as people tell what they see.
    """
    choice = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest())
    shapes = _reading_order(scene.shapes)
    turns = _FIRST[len(shapes)]
    choice, turn = divmod(choice, len(turns))
    shapes = shapes[turns[turn] :] + shapes[: turns[turn]]
    choice, sized = divmod(choice, 2 ** len(shapes))
    choice, joined = divmod(choice, 4)  # a relation, three times of four
    told = [_told(shape, sized=bool(sized >> i & 1)) for i, shape in enumerate(shapes)]
    ground = f"on a {scene.background} background" if choice % 4 == 0 else f"on {scene.background}"
    if len(told) == 2 and joined:
        return f"{told[0]} {relation(shapes[0].centre, shapes[1].centre)} {told[1]} {ground}"
    return f"{' and '.join([', '.join(told[:-1]), told[-1]]) if told[1:] else told[0]} {ground}"


def parse(text: str) -> Claim:
    """What a caption says. Raises UserError for one outside the grammar."""
    plain = " ".join(text.lower().split()).rstrip(".")
    if not _CAPTION.fullmatch(plain):
        raise UserError(
            f"{text!r} is no caption of shapes; say it as in 'a large red circle left of a blue square on white', with "
            f"{', '.join(KINDS)}; {', '.join(COLOURS)}; {', '.join(SIZES)}; {', '.join(RELATIONS)}, and"
        )
    shapes = tuple(Told(kind, colour, size or None) for size, colour, kind in _shapes.findall(plain))
    said, ground = _relations.findall(plain), _ground.search(plain)
    if len(said) > 1 or (said and len(shapes) != 2):
        raise UserError(f"{text!r} relates more than two shapes; relate just two, or join them by 'and'")
    return Claim(shapes, ground[1] if ground else None, said[0] if said else None)


def _reading_order(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Of two shapes, the left or upper one first."""
    late = len(shapes) == 2 and relation(shapes[0].centre, shapes[1].centre) in ("right of", "below")
    return shapes[::-1] if late else shapes


def _told(shape: Shape, *, sized: bool) -> str:
    return f"a {shape.size + ' ' if sized else ''}{shape.colour} {shape.kind}"
