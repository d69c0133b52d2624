"""Where the parts of a diffusers folder are.

    pipeline/model_index.json      the class of each part; the parts lie in folders beside it
    pipeline/unet/                 the network; in older folders its files, and the scheduler's, are beside the index
    pipeline/scheduler/            the scheduler, which belongs to the network: also if the folder is pipeline/unet/

A network that is loaded alone means what it means in its pipeline: no tensor shows what it predicts, on which schedule.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unnoise.errors import UserError
from unnoise.formats import text_encoders
from unnoise.formats.files import read_json
from unnoise.formats.text_encoders import INDEX, is_part

SCHEDULER = "scheduler_config.json"
AUTOENCODERS = ("vae", "vqvae")
READ = ("unet", "scheduler", *AUTOENCODERS, *text_encoders.PARTS, "controlnet")
PASSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts that sampling does not need


@dataclass(frozen=True)
class Places:
    """The parts of a folder that define its network."""

    pipeline: Path  # the folder with the index, or the network's own
    index: Mapping[str, Any]  # of the pipeline; empty without one
    unet: Path
    scheduler: Path | None  # the file; None if there is none
    autoencoder: Path | None  # its folder; None if there is none
    alone: bool  # whether the folder is that of a network, not of a pipeline

    def has(self, name: str) -> bool:
        """Whether the pipeline has a part of this name."""
        return is_part(self.index.get(name))


def locate(folder: Path) -> Places:
    """The parts of a pipeline's folder, or of a network's. Raises UserError for a part that is not supported."""
    if not (folder / INDEX).is_file():
        return _around(folder)
    index = read_json(folder / INDEX)
    for name, entry in index.items():
        if not name.startswith("_") and is_part(entry) and name not in (*READ, *PASSED):
            raise UserError(
                f"{folder / INDEX}: a {index.get('_class_name', 'pipeline')} with a part {name!r} ({entry[1]}): only "
                f"pipelines of {', '.join(READ)} are supported, with or without {', '.join(PASSED)}"
            )
    if not is_part(index.get("unet")):
        raise UserError(f"{folder / INDEX} lists no unet: give a pipeline with one")
    unet, scheduler = (folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler"))
    file = scheduler / SCHEDULER
    found = file if file.is_file() or is_part(index.get("scheduler")) else None
    return Places(folder, index, unet, found, _autoencoder(folder, index), alone=False)


def _autoencoder(pipeline: Path, index: Mapping[str, Any]) -> Path | None:
    """The folder of the autoencoder that the index lists; None also if the folder was not copied."""
    folders = (pipeline / name for name in AUTOENCODERS if is_part(index.get(name)))
    return next((folder for folder in folders if folder.is_dir()), None)


def _around(unet: Path) -> Places:
    """A network's folder: its scheduler is in the same folder or in the pipeline around it."""
    here = Path(os.path.abspath(unet))
    around = here.parent
    index = read_json(around / INDEX) if (around / INDEX).is_file() else {}
    pipeline = around if is_part(index.get(here.name)) else unet
    files = (unet / SCHEDULER, around / "scheduler" / SCHEDULER)
    scheduler = next((file for file in files if file.is_file()), None)
    index = index if pipeline is around else {}
    return Places(pipeline, index, unet, scheduler, _autoencoder(pipeline, index), alone=True)
