"""3,198 emoji of 32x32 with their names, in two styles, from the folder of this name (see its README.md)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from unnoise.data.archive import archive
from unnoise.data.source import Source

FILE = Path(__file__).parent / "emoji" / "emoji.zip"
HELD_OUT = 20  # one name in so many, in both styles


def emoji(split: str) -> Source:
    """Noto Emoji (flat) and Fluent Emoji (3d): MIT, Apache-2.0 and OFL; "a flat emoji of cow face"."""
    whole = archive(FILE)
    held = np.array([_held(Path(name).stem) for name in whole.names])
    part = whole.only(held if split == "test" else ~held)
    return replace(part, where=f"emoji:{split}", classes=(), labels=None)  # the caption says the style


def _held(character: str) -> bool:
    """By lot: the characters of an emoji, in hexadecimal, decide."""
    return int.from_bytes(hashlib.sha256(character.encode()).digest()[:4], "big") % HELD_OUT == 0
