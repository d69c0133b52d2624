"""Loads a model, and prints what its files leave open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unnoise.cli.console import say

if TYPE_CHECKING:
    from unnoise.model import Model


def load(
    path: Path,
    *,
    tokenizer: Path | None = None,
    ema: bool = False,
    allow_pickle: bool = False,
    predicts: str = "",
    vae: Path | None = None,
) -> Model:
    """The model at a path, as `unnoise.load`; its notes are printed to stderr."""
    from unnoise import model as models

    loaded = models.load(path, tokenizer=tokenizer, ema=ema, allow_pickle=allow_pickle, predicts=predicts, vae=vae)
    for note in loaded.card.notes:
        say(f"note: {note}")
    return loaded
