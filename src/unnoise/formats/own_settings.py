"""unnoise.json beside a diffusers pipeline: what its files have no settings for.

classes, null_class     the names of the classes; whether the last row of the class embedding is "no class"
latents                 whether x are latents, where the pipeline has no autoencoder
patch                   the side of the patches that are folded into channels
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.formats.files import read_json

NOTES = "unnoise.json"


def named_classes(config: UNetConfig, folder: Path) -> tuple[UNetConfig, tuple[str, ...]]:
    """The network's settings with the number of classes and the null class, and the names of the classes.

    Classes without names have their numbers as names, and there is no null class.
    """
    rows, file = config.classes, folder / NOTES
    notes = own_settings(folder)
    names, null = notes["classes"], notes["null_class"]
    if names is None:
        return config, tuple(map(str, range(rows)))
    if len(names) + (null and bool(names)) != rows:
        raise UserError(
            f"{file}: {len(names)} classes{' and a null class' if null else ''} are not the {rows} rows "
            "(num_class_embeds) of the network: they belong to different models"
        )
    return replace(config, classes=len(names), null_class=null), tuple(names)


def own_settings(folder: Path) -> dict[str, Any]:
    """The contents of the file, or what its absence means. Raises UserError for a wrong type."""
    file = folder / NOTES
    notes: dict[str, Any] = {"classes": None, "null_class": False, "latents": False, "patch": 1}
    if not file.is_file():
        return notes
    notes |= {"classes": []} | read_json(file)
    names = notes["classes"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: classes has to be a list of names")
    for name in ("null_class", "latents"):
        if not isinstance(notes[name], bool):
            raise UserError(f"{file}: {name} has to be true or false")
    if not isinstance(notes["patch"], int) or not 1 <= notes["patch"] <= 64:
        raise UserError(f"{file}: patch has to be a whole number from 1 to 64")
    return notes
