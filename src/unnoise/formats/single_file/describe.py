"""What a checkpoint file is, from the names and shapes of its tensors: for `unnoise info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unnoise.errors import UserError
from unnoise.formats.single_file import infer
from unnoise.formats.single_file.contents import Contents, contents_of, what_else
from unnoise.formats.single_file.family import family
from unnoise.formats.single_file.source import opened


def describe(file: Path) -> dict[str, Any]:
    """The family of a model, its parts, those that it lacks, and why it cannot be loaded, if so.

    A file of another kind has a `contents` alone, which names the kind.
    """
    source = opened(file)
    found = contents_of(source.names)
    if not found.parts:
        return {"contents": what_else(source.names)}
    about: dict[str, Any] = {"contents": ", ".join(found.parts)}
    if found.unet is None:
        return about
    try:
        config = infer.unet(source.shapes(found.unet), str(file), one_head=found.classes)
    except UserError as error:
        return about | {"warnings": [f"it cannot be loaded: {error}"]}
    return about | {"family": family(config, classes=found.classes), "missing": missing(found, text=config.context > 0)}


def missing(found: Contents, *, text: bool) -> str:
    """The parts that a model needs and a file lacks; a tokenizer is in no file. `text`: the network reads text."""
    absent = [] if found.vae is not None else ["autoencoder"]
    if text and not found.classes:
        absent += ["tokenizer"] if found.towers else ["text encoder", "tokenizer"]
    return ", ".join(absent) or "nothing"
