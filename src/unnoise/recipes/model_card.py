"""The card of a trained diffusion model: what is needed to sample from the network, from the settings and the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unnoise.config.cards import ModelCard, PixelsConfig, ValueRange
from unnoise.config.networks import EncoderConfig, UNetConfig, height_width
from unnoise.config.training import TrainConfig
from unnoise.config.usage import some
from unnoise.data import Dataset
from unnoise.data.plain_text import escaped
from unnoise.errors import UserError
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.model import Model
from unnoise.recipes import latents
from unnoise.training.run import Run


def describe(
    config: TrainConfig, pictures: Dataset, base: Model | None = None, autoencoder: AutoencoderModel | None = None
) -> ModelCard:
    """Returns the card of the model that this training makes, in the latents of an autoencoder or in pixels.

    Raises UserError where the network's classes or values are not those of the data set, and where the base diffuses in
    another space.
    """
    if base is not None:
        latents.check_base(config, base, autoencoder)
    classes, wanted = pictures.classes, config.net.classes
    if wanted and wanted != len(classes):
        raise UserError(
            f"net.classes {wanted} should be {len(classes)}, the classes of {config.data.path}"
            + (f" ({some(classes, 8)})" if classes else ", which has none")
        )
    return ModelCard(
        net=config.net,
        process=config.process,
        size=height_width(config.net.size),
        channels=config.net.in_channels,
        codec=PixelsConfig() if autoencoder is None else autoencoder.card.latents,
        classes=classes if wanted else (),
        values=value_ranges(config, pictures, base),
        captions=example_captions(pictures) if config.net.text or config.encoder else (),
        encoder=None if config.encoder is None else portable_encoder(config.encoder),
        sampler="heun" if config.process.schedule == "edm" else "ddim",
        clip=autoencoder is None,
        info={
            "training": config.name,
            "about": config.about,
            "data": escaped(config.data.path),
            **({"control": config.data.control} if config.data.control else {}),
            **({"autoencoder": config.autoencoder} if config.autoencoder else {}),
            "pictures": len(pictures),
            "fingerprint": pictures.fingerprint,
        },
    )


def value_ranges(config: TrainConfig, pictures: Dataset, base: Model | None) -> tuple[ValueRange, ...]:
    """Returns the range of each value of the data set; with a base, its ranges, which its network was trained with.

    Raises UserError for a value that is equal in all pictures, or missing where the network has no null for it.
    """
    names = config.data.values
    known = base.card.values if base is not None else ()
    if base is not None and tuple(value.name for value in known) != names:
        theirs = ", ".join(value.name for value in known) or "none"
        raise UserError(f"data.values {', '.join(names) or 'none'} should be the base's, in its order: {theirs}")
    found = []
    for name, column in zip(names, pictures.values().T):
        given = column[~np.isnan(column)]
        if len(given) == 0 or given.min() == given.max():
            state = f"{given[0]:g} in every picture that has it" if len(given) else "missing in every picture"
            raise UserError(f"{name} is {state} in {config.data.path}, so nothing can be learned from it: leave it out")
        if len(given) < len(column) and isinstance(config.net, UNetConfig) and not config.net.null_value:
            raise UserError(
                f"{name} is given for {len(given)} of {len(column)} pictures: set net.null_value, or give it for all"
            )
        found.append(ValueRange(name, float(given.min()), float(given.max())))
    return known or tuple(found)


def portable_encoder(encoder: EncoderConfig) -> EncoderConfig:
    """Returns the encoder as a model names it: a folder by its absolute path, and without a cache."""
    path = Path(encoder.path)
    return replace(encoder, path=str(path.resolve()) if path.is_dir() else encoder.path, cache="")


def example_captions(pictures: Dataset, count: int = 16) -> tuple[str, ...]:
    """Returns captions of pictures spread over the data set, without repetition: examples of prompts for the model."""
    rows = (i * len(pictures) // count for i in range(count))
    return tuple(dict.fromkeys(text for row in rows if (text := pictures.caption(row).strip())))


def data_facts(pictures: Dataset) -> dict[str, Any]:
    """Returns the contents of data.json, which identify the data set."""
    return {
        "fingerprint": pictures.fingerprint,
        "parts": pictures.fingerprint_parts,
        "path": escaped(pictures.config.path),
        "count": len(pictures),
        "classes": list(pictures.classes),
        "broken": [{"path": broken.path, "why": broken.why} for broken in pictures.broken],
    }


def log_notes(run: Run, pictures: Dataset) -> None:
    """Writes to the run's log how the files of the data set are interpreted, and which of them are not used."""
    for note in pictures.notes:
        run.log(f"note: {note}")
