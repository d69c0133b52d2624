"""A font that has the letters of what stands beside pictures: Pillow's own, or one that the system has.

Pillow's own has ASCII alone. What a font lacks it draws as one and the same box, by which a missing letter is known.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONTS = (  # looked for by name where the system keeps fonts; the first that has all letters is taken
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "WenQuanYiMicroHei.ttf",
    "Arial Unicode.ttf",  # macOS
    "Hiragino Sans GB.ttc",
    "arial.ttf",  # Windows
    "msyh.ttc",
    "malgun.ttf",
)
NOWHERE = "\uffff"  # no letter: every font draws its box


def font_for(texts: Iterable[str], size: float) -> Font:
    """The first font that has all letters of these texts, or the one that has most."""
    letters = _letters(texts)
    best, least = None, len(letters) + 1
    for font in _fonts(size):
        if (lacking := len(_lacking(font, letters))) < least:
            best, least = font, lacking
        if least == 0:
            break
    assert best is not None, "Pillow has a font of its own"
    return best


def boxes(texts: Iterable[str]) -> str:
    """In words, which letters of these texts will be boxes; empty where none will."""
    letters = _letters(texts)
    lacking = _lacking(font_for(["".join(letters)], 12), letters)
    if not lacking:
        return ""
    shown = "".join(lacking[:12]) + (" ..." if len(lacking) > 12 else "")
    return f"no font of this machine has all letters; boxes stand for {shown}. Install one that has, as Noto Sans (CJK)"


def _letters(texts: Iterable[str]) -> list[str]:
    """Those that are seen, each once; marks stand with their letter."""
    return [c for c in sorted({c for text in texts for c in text}) if unicodedata.category(c)[0] not in "MZC"]


def _lacking(font: Font, letters: Iterable[str]) -> list[str]:
    box = _shape(font, NOWHERE)
    return [letter for letter in letters if _shape(font, letter) == box]


def _shape(font: Font, letter: str) -> tuple[object, bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _fonts(size: float) -> Iterator[Font]:
    yield ImageFont.load_default(size)
    for name in FONTS:
        if (font := _found(name, size)) is not None:
            yield font


@cache
def _found(name: str, size: float) -> Font | None:
    """A font of the system; every folder of fonts is walked for it."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None
