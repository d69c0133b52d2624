"""Fonts for labels and captions of pictures: Pillow's own font, or a font of the system that has all letters.

Pillow's own font has ASCII only. A font renders every letter that it lacks as the same box, by which missing letters
are detected.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONTS = (  # searched by name in the folders of the system; the first with all letters is used
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
MISSING = "\uffff"  # no character, so every font renders its box


def font_for(texts: Iterable[str], size: float) -> Font:
    """The first font that has all letters of these texts, otherwise the one that lacks the fewest."""
    letters = _letters(texts)
    best, least = None, len(letters) + 1
    for font in _fonts(size):
        if (lacking := len(_lacking(font, letters))) < least:
            best, least = font, lacking
        if least == 0:
            break
    assert best is not None, "Pillow has a default font"
    return best


def boxes(texts: Iterable[str]) -> str:
    """A note about the letters of these texts that will be rendered as boxes; empty if there are none."""
    letters = _letters(texts)
    lacking = _lacking(font_for(["".join(letters)], 12), letters)
    if not lacking:
        return ""
    shown = "".join(lacking[:12]) + (" ..." if len(lacking) > 12 else "")
    return f"no font of this machine has all letters: boxes replace {shown}. Install one, for example Noto Sans (CJK)"


def _letters(texts: Iterable[str]) -> list[str]:
    """The visible characters, each once, without combining marks."""
    return [c for c in sorted({c for text in texts for c in text}) if unicodedata.category(c)[0] not in "MZC"]


def _lacking(font: Font, letters: Iterable[str]) -> list[str]:
    box = _shape(font, MISSING)
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
    """A font of the system by file name; None if no font folder contains it."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None
