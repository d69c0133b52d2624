"""Fashion-MNIST, 10,000 training and 2,000 test pictures, from the folder fashion/ (see its README.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unnoise.data.idx import idx
from unnoise.data.source import Source

FOLDER = Path(__file__).parent / "fashion"
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def fashion(split: str) -> Source:
    """The pictures of one split, with labels and order as published. Zalando Research 2017, MIT licence."""
    return replace(idx(FOLDER / f"{split}-images-idx3-ubyte.xz", classes=CLASSES), where=f"fashion:{split}")
