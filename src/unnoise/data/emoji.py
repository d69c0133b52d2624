"""3,198 emoji of 32x32 pixels with their names, in two styles, from the folder emoji/ (see its README.md)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from unnoise.data.archive import archive
from unnoise.data.source import Source

FILE = Path(__file__).parent / "emoji" / "emoji.zip"
HELD_OUT = 20  # one name in 20 is held out, in both styles


def emoji(split: str) -> Source:
    """Noto Emoji (flat) and Fluent Emoji (3d), with captions such as "a flat emoji of cow face".

    Licences: MIT, Apache-2.0 and OFL.
    """
    whole = archive(FILE)
    held_out = np.array([_held_out(Path(name).stem) for name in whole.names])
    part = whole.only(held_out if split == "test" else ~held_out)
    return replace(part, where=f"emoji:{split}", classes=(), labels=None)  # the caption contains the style


def _held_out(character: str) -> bool:
    """Whether an emoji is in the test part, by a hash of its characters in hexadecimal."""
    return int.from_bytes(hashlib.sha256(character.encode()).digest()[:4], "big") % HELD_OUT == 0
