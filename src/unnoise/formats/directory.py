"""Model directories in unnoise's own format.

    model.safetensors    the network's weights
    model.json           the card: everything else that is needed to generate pictures
    tokenizer.json       the tokenizer of the network's own text encoder, if it has one
    words/               CLIP's text tower and tokenizer, if they are beside the network (text_encoders.py)
    autoencoder/         the autoencoder of a model of latents (autoencoders.py)
    manifest.json        the SHA-256 and size of each file, checked on loading

None of these files contains code: they hold numbers and names, and a name selects one of this package's classes.
Version 2 has other names of settings and weights than version 1, which is still read (config/renamed.py,
io/checkpoint.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from unnoise.config.cards import ModelCard
from unnoise.config.convert import from_dict, to_dict
from unnoise.errors import UserError
from unnoise.formats import autoencoders, text_encoders
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.formats.files import read_json, save_weights
from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder
from unnoise.io import checkpoint
from unnoise.io.whatis import is_checkpoint, is_model, not_a
from unnoise.text.pretrained import Encoder
from unnoise.text.tokenizer import FILE as TOKENIZER
from unnoise.text.tokenizer import PromptEncoder, Tokenizer

WEIGHTS, CARD, WORDS, AUTOENCODER = "model.safetensors", "model.json", "words", "autoencoder"
FORMAT = {"format": "unnoise-model", "version": 2}
READABLE = (1, 2)  # versions


def write_model(
    folder: Path,
    state: Mapping[str, Tensor],
    card: ModelCard,
    text: PromptEncoder | None = None,
    autoencoder: AutoencoderModel | None = None,
) -> None:
    """Write model.safetensors, model.json, the text encoder and the autoencoder into an existing folder.

    Raises UserError for a text encoder that cannot be saved.
    """
    match text:
        case Tokenizer():
            text.save(folder / TOKENIZER)
        case ClipEncoder() | DualClipEncoder():
            text_encoders.save(folder / WORDS, text)
        case None | Encoder():  # the card has the path of an encoder elsewhere
            pass
        case _:
            raise UserError(
                f"a {type(text).__name__} cannot be saved with the model: save the model with text=None, and set its "
                "`text` again after loading"
            )
    if autoencoder is not None:
        autoencoder.with_preview().save(folder / AUTOENCODER)
    save_weights(folder / WEIGHTS, state)
    content = json.dumps(FORMAT | {"card": to_dict(card)}, indent=2, sort_keys=True)
    (folder / CARD).write_text(content + "\n", encoding="utf-8")


def read_card(folder: Path) -> ModelCard:
    """The card of a model directory. Raises UserError for another format, or a newer version of it."""
    file = folder / CARD
    data = read_json(file)
    if data.get("format") != FORMAT["format"]:
        raise UserError(f"{file} is not the card of an unnoise model: 'format' is {data.get('format')!r}")
    if data.get("version") not in READABLE:
        raise UserError(
            f"{file} has version {data.get('version')!r} of the format, and this program reads up to version "
            f"{FORMAT['version']}: update unnoise"
        )
    card = from_dict(ModelCard, data.get("card", {}), str(file))
    if len(card.classes) != card.net.classes:
        raise UserError(
            f"{file}: classes has {len(card.classes)} names for the {card.net.classes} classes of the network "
            "(net.classes): name each class once, in the order of their numbers"
        )
    return card


def load_text_encoder(card: ModelCard, folder: Path) -> PromptEncoder | None:
    """The text encoder of a model directory: the network's own tokenizer, CLIP's tower, or an encoder elsewhere."""
    if card.net.text is not None:
        return Tokenizer.load(folder / TOKENIZER, card.net.text.length)
    if (folder / WORDS).is_dir():
        return text_encoders.read(folder / WORDS)
    return Encoder(card.encoder) if card.encoder is not None else None


def load_autoencoder(card: ModelCard, folder: Path) -> AutoencoderModel | None:
    """The autoencoder of a model directory; None if it has none. Raises UserError if it belongs to another model."""
    if card.codec.kind == "pixels" or not (folder / AUTOENCODER).is_dir():
        return None
    autoencoder = autoencoders.load(folder / AUTOENCODER)
    check_fits(autoencoder, card, str(folder))
    return autoencoder


def check_fits(autoencoder: AutoencoderModel, card: ModelCard, where: str) -> None:
    """Raises UserError for an autoencoder whose latents are not the x of a model."""
    channels, latents = autoencoder.card.net.latent_channels, autoencoder.card.latents
    if channels != card.channels:
        raise UserError(
            f"{where}: the autoencoder has latents of {channels} channels and the model x of {card.channels}: they "
            "belong to different models"
        )
    if latents != card.codec:
        raise UserError(f"{where}: the autoencoder has {latents} and the model {card.codec}: they should be equal")


def find(path: str | Path) -> Path:
    """Where the weights are: a run's newest checkpoint, or `path` itself. Raises UserError for neither."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(
            f"{folder} does not exist: give a run (runs/00001-fashion), a model directory or a diffusers folder"
        )
    if not is_model(folder) and not is_checkpoint(folder):
        raise not_a("a model", folder)
    if (folder / CARD).is_file():
        return folder
    if (folder / "checkpoints").is_dir():
        newest = checkpoint.sound(folder / "checkpoints")
        if newest is None:
            raise UserError(f"{folder} has no checkpoint yet: train until one is saved")
        return newest
    return folder
