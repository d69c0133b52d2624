"""Fashion-MNIST, 10,000 pictures to train on and 2,000 held out, from the folder of this name (see its README.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unnoise.data.idx import idx
from unnoise.data.source import Source

FOLDER = Path(__file__).parent / "fashion"
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def fashion(split: str) -> Source:
    """Zalando Research 2017, MIT licence; labels and order as published."""
    return replace(idx(FOLDER / f"{split}-images-idx3-ubyte.xz", classes=CLASSES), where=f"fashion:{split}")
