"""Autoencoders on disk: unnoise's own folders, and those of diffusers, without importing diffusers.

    autoencoder.json                      the card: network, scale of the latents, the map for previews
    model.safetensors                     the weights

    config.json                           of diffusers' AutoencoderKL, VQModel or AutoencoderTiny
    diffusion_pytorch_model.safetensors   its weights; also shards, or a variant (fp16)

Laws (tests/formats/test_autoencoders.py): a network computes what it computes in diffusers, to 1e-5, in both
directions; a setting or a tensor that is not supported is an error that names it; what is written is read back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.codec import Latents, fitted_preview
from unnoise.config.autoencoders import AutoencoderConfig, KLConfig, VQConfig
from unnoise.config.cards import AutoencoderCard
from unnoise.config.convert import from_dict, to_dict
from unnoise.errors import UserError
from unnoise.formats import autoencoder_kl, autoencoder_tiny, names, part, vq_model
from unnoise.formats.files import Shape, Tensors, read_json, save_weights
from unnoise.formats.settings import assumed
from unnoise.nn import build_autoencoder

CARD, WEIGHTS = "autoencoder.json", "model.safetensors"
FORMAT = {"format": "unnoise-autoencoder", "version": 1}
KINDS = {module.KIND: module for module in (autoencoder_kl, vq_model, autoencoder_tiny)}


@dataclass(frozen=True)
class AutoencoderModel:
    """An autoencoder and its card: what is saved, loaded, and belongs to a model of latents."""

    net: nn.Module
    card: AutoencoderCard

    @property
    def codec(self) -> Latents:
        """The map between pictures and x."""
        return codec_of(self.net, self.card)

    def with_preview(self) -> AutoencoderModel:
        """The same with a map for previews, which is fitted if its card has none."""
        if self.card.preview is not None:
            return self
        return replace(self, card=replace(self.card, preview=fitted_preview(self.codec)))

    def save(self, folder: Path) -> None:
        """Write autoencoder.json and the weights into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / WEIGHTS, self.net.state_dict())
        content = json.dumps(FORMAT | {"card": to_dict(self.card)}, indent=2, sort_keys=True)
        (folder / CARD).write_text(content + "\n", encoding="utf-8")


def codec_of(net: nn.Module, card: AutoencoderCard) -> Latents:
    """The codec of a network, which may be a placed copy, and its card."""
    return Latents(net, card.net.latent_channels, card.latents, card.preview)  # type: ignore[arg-type]  # encode, decode


def is_autoencoder(folder: Path) -> bool:
    """Whether a folder is that of an autoencoder, in unnoise's form or in diffusers'."""
    if (folder / CARD).is_file():
        return True
    file = folder / part.CONFIG
    return file.is_file() and read_json(file).get("_class_name") in KINDS


def read_card(folder: Path) -> AutoencoderCard:
    """The card of an autoencoder's folder. Raises UserError that names the file and what is wrong with it."""
    if not (folder / CARD).is_file():
        return _settings(folder)[0]
    file = folder / CARD
    data = read_json(file)
    if data.get("format") != FORMAT["format"]:
        raise UserError(f"{file} is not the card of an autoencoder: 'format' is {data.get('format')!r}")
    if data.get("version") != FORMAT["version"]:
        raise UserError(
            f"{file} has version {data.get('version')!r} of the format, and this program reads up to version "
            f"{FORMAT['version']}: update unnoise"
        )
    card = from_dict(AutoencoderCard, data.get("card", {}), str(file))
    check_card(card, str(file))
    return card


def check_card(card: AutoencoderCard, where: str) -> None:
    """Raises UserError for a card whose parts disagree."""
    latents, net = card.latents, card.net
    if (latents.factor, latents.picture_channels) != (net.factor, net.in_channels):
        raise UserError(
            f"{where}: latents.factor {latents.factor} and picture_channels {latents.picture_channels} should be "
            f"{net.factor} and {net.in_channels}, those of the network"
        )
    for name in ("mean", "std"):
        if len(getattr(latents, name)) not in (0, net.latent_channels):
            raise UserError(f"{where}: latents.{name} should have a number for each of {net.latent_channels} channels")
    if latents.scale <= 0 or min(latents.std, default=1) <= 0:
        raise UserError(f"{where}: latents.scale and latents.std should be above 0")
    if card.preview is not None:
        shape = (len(card.preview.weight), len(card.preview.bias))
        if shape != (net.in_channels * net.latent_channels, net.in_channels):
            raise UserError(f"{where}: preview does not fit {net.latent_channels} channels of latents")


def load(folder: Path, *, pickles: bool = False) -> AutoencoderModel:
    """The autoencoder of a folder, in float32 on the CPU, without gradients.

    With `pickles` a .bin file of diffusers is opened too, tensors only. Raises UserError that names the file and what
    is wrong with it.
    """
    card = read_card(folder)
    if (folder / CARD).is_file():
        tensors = Tensors.of(folder / WEIGHTS)
        return from_state(card, tensors.shapes(), tensors.load, str(folder))
    state = part.read_weights(folder, pieces_of(card.net), pickles=pickles)
    return from_state(card, {name: tuple(t.shape) for name, t in state.items()}, lambda: state, str(folder))


def from_state(
    card: AutoencoderCard, shapes: Mapping[str, Shape], read: Callable[[], Mapping[str, Tensor]], where: str
) -> AutoencoderModel:
    """The autoencoder of a card and its weights, whose shapes are compared before `read` loads them."""
    with torch.device("meta"):
        net = build_autoencoder(card.net)
    part.check_tensors(shapes, {name: tuple(value.shape) for name, value in net.state_dict().items()}, where)
    net.load_state_dict(dict(read()), assign=True)
    return AutoencoderModel(net.eval().requires_grad_(False), card)


def notes(folder: Path) -> list[str]:
    """What the settings of a diffusers folder leave open."""
    return [] if (folder / CARD).is_file() else _settings(folder)[1]


def _settings(folder: Path) -> tuple[AutoencoderCard, list[str]]:
    """The card of a diffusers folder, and notes."""
    file = folder / part.CONFIG
    given = read_json(file)
    kind = given.get("_class_name", autoencoder_kl.KIND)
    if kind not in KINDS:
        raise UserError(f"{file} is the configuration of a {kind}: only {', '.join(KINDS)} are supported")
    module = KINDS[kind]
    return module.from_config(given, str(file)), assumed(given, module.DEFAULTS, kind, str(file))


# --- diffusers' folders ---


def write_diffusers(folder: Path, autoencoder: AutoencoderModel) -> str:
    """Write a folder for diffusers and return its class. Raises UserError for settings that the class lacks."""
    net = autoencoder.card.net
    module = module_of(net)
    settings = module.to_config(autoencoder.card)
    part.write(folder, module.KIND, settings, pieces_of(net), autoencoder.net.state_dict())
    return str(module.KIND)


def module_of(net: AutoencoderConfig) -> Any:
    """The module of the diffusers class of a network."""
    return autoencoder_kl if isinstance(net, KLConfig) else vq_model if isinstance(net, VQConfig) else autoencoder_tiny


def pieces_of(net: AutoencoderConfig) -> dict[str, names.Pieces]:
    """The table of an autoencoder: for each tensor the diffusers tensors that it consists of."""
    with torch.device("meta"):
        return names.plain_pieces(build_autoencoder(net).state_dict())
