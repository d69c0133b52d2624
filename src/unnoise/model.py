"""A model: a diffusion, a codec, and a conditioner that encodes labels and prompts.

Saved as a directory (formats/directory.py); loaded from one, from a run, or from a diffusers folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from unnoise import nn as networks
from unnoise.acceleration.fork import check_fork
from unnoise.acceleration.placement import find as find_device
from unnoise.codec import NO_AUTOENCODER, Codec, make_codec, picture_shape
from unnoise.config.cards import ModelCard
from unnoise.config.comparison import check_same_base
from unnoise.config.networks import ControlConfig, UNetConfig, height_width
from unnoise.config.request import Request
from unnoise.config.usage import as_keywords
from unnoise.denoiser import Diffusion, make_diffusion
from unnoise.errors import UserError
from unnoise.formats import controlnet, diffusers
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.formats.directory import (
    CARD,
    WEIGHTS,
    check_fits,
    find,
    load_autoencoder,
    load_text_encoder,
    read_card,
    write_model,
)
from unnoise.formats.files import Tensors
from unnoise.formats.part import check_tensors
from unnoise.formats.single_file import read
from unnoise.io import checkpoint
from unnoise.io.pictures import Pictures
from unnoise.io.weights import renamed
from unnoise.text.conditioner import Conditioner, make_conditioner
from unnoise.text.tokenizer import PromptEncoder, truncation_note

MOST_PARAMETERS = 20_000_000_000  # a card with more is a mistake, which is found before memory is allocated


@dataclass
class Model:
    """Everything that generates pictures: what is saved, loaded, shared and sampled from."""

    diffusion: Diffusion
    card: ModelCard
    text: PromptEncoder | None = None  # encodes captions
    device: str = "auto"  # where samples are computed if a call names no device
    autoencoder: AutoencoderModel | None = None  # of a model of latents

    @property
    def codec(self) -> Codec:
        """The map between pictures and x."""
        return make_codec(self.card.codec, self.card.channels) if self.autoencoder is None else self.autoencoder.codec

    @property
    def conditioner(self) -> Conditioner:
        """The map from labels, prompts and values to conditions."""
        return make_conditioner(self.card, self.text)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes; empty for a model without classes."""
        return self.card.classes

    @property
    def uses_text(self) -> bool:
        """Whether its network is conditioned on text, even if the text encoder is not loaded."""
        return self.card.net.context > 0 or self.card.net.text is not None

    @property
    def controls(self) -> tuple[ControlConfig, ...]:
        """The settings of its control networks."""
        return self.card.net.controls if isinstance(self.card.net, UNetConfig) else ()

    @property
    def residuals(self) -> int:
        """The number of residuals that a control adds: one for each skip, and the middle's."""
        net = self.card.net
        return len(net.channels) * (net.blocks + 1) + 1 if isinstance(net, UNetConfig) else 0

    @property
    def x_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x, in which the model diffuses: a picture, or its latents."""
        return (self.card.channels, *self.card.size)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture, in pixels."""
        return picture_shape(self.card)

    @property
    def latent_only(self) -> bool:
        """Whether the model generates latents that cannot be decoded, since it has no autoencoder."""
        return self.card.codec.kind == "latents" and self.autoencoder is None

    def decode(self, x: Tensor) -> Tensor:
        """Pictures of x, float32 in [-1, 1]; x itself, in float32, from a `latent_only` model."""
        return x.float() if self.latent_only else self.codec.decode(x)

    def require_pictures(self) -> Model:
        """This model. Raises UserError if it generates latents that cannot be decoded to pictures."""
        if self.latent_only:
            raise UserError(NO_AUTOENCODER)
        return self

    def save(self, path: str | Path) -> None:
        """Write the model directory, whole or not at all. Raises CannotSave, and UserError if `path` is not empty."""
        folder = Path(path)
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: save the model under another name")
        if folder.exists():
            folder.rmdir()
        state = self.diffusion.net.state_dict()
        checkpoint.publish(folder, lambda inside: write_model(inside, state, self.card, self.text, self.autoencoder))

    def sample(
        self,
        *,
        labels: str | int | Sequence[str | int] = (),
        prompts: str | Sequence[str] = (),
        values: Mapping[str, float | Sequence[float]] = MappingProxyType({}),
        seeds: int | Sequence[int] = (0,),
        **settings: Any,
    ) -> Pictures:
        """Generate a picture for each seed, with one label, prompt or value of each name for all seeds, or one a seed.

        `settings` are the other fields of a Request. Raises UserError for a request that this model cannot fulfil, and
        TypeError for an unknown setting. Warns if a prompt is longer than the text encoder reads.
        """
        from unnoise.generate.frames import sample

        labels = (labels,) if isinstance(labels, str | int) else labels
        seeds = (seeds,) if isinstance(seeds, int) else seeds
        texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        numbers = {name: (float(x),) if isinstance(x, int | float) else tuple(x) for name, x in values.items()}
        request = Request.of(
            seeds=tuple(seeds), labels=tuple(map(str, labels)), prompts=texts, values=numbers, **settings
        )
        if note := truncation_note(self.text, filter(None, (*texts, request.prompt.negative_prompt))):
            warnings.warn(note, stacklevel=2)
        try:
            return sample(self, request)
        except UserError as error:  # its messages name options of the command line
            raise UserError(as_keywords(str(error))) from None

    def to(self, device: str | torch.device) -> Model:
        """Move the networks to a device (cpu, cuda, cuda:1, mps), on which `sample` then runs unless a call names one.

        Returns this model. Raises UserError for a device that is unknown or not available. The precision is not changed
        by moving: it is the setting `precision` of `sample`.
        """
        self.device = find_device(str(device))
        self.diffusion.net.to(self.device)
        if self.autoencoder is not None:
            self.autoencoder.net.to(self.device)
        return self

    def with_controlnets(self, *others: Model | str | Path) -> Model:
        """This model with the controls of `others` after its own, in this order; each needs a control image.

        Each of `others` is a model, a path that `load` accepts, or a diffusers folder of a ControlNetModel. Raises
        UserError if the network of one, without its controls, differs from this one's.
        """
        net = self.card.net
        if not others:
            return self
        if not isinstance(net, UNetConfig):
            raise UserError(f"controls need a U-Net, and this model is a {net.kind}: load a U-Net")
        more = [each for other in others for each in self._controls_of(other, net)]
        net, state = controlnet.beside(net, self.diffusion.net.state_dict(), more)
        folders = [
            Path(other) for other in others if isinstance(other, str | Path) and controlnet.is_folder(Path(other))
        ]
        notes = (note for folder in folders for note in controlnet.notes(folder))
        card = replace(self.card, net=net, notes=(*self.card.notes, *notes))
        return Model.from_state(card, state, "this model and its controls", self.text, self.autoencoder)

    def _controls_of(self, other: Model | str | Path, net: UNetConfig) -> list[tuple[ControlConfig, dict[str, Tensor]]]:
        """The controls of another model, each with its weights. Raises UserError if they do not fit this model."""
        if isinstance(other, str | Path):
            if controlnet.is_folder(Path(other)):
                return [controlnet.read(Path(other), net)]
            if read.is_control(Path(other)):
                return [read.read_control(Path(other), net)]
            other = load(other)
        check_same_base(self.card, other.card)
        if getattr(other.text, "text", None) != getattr(self.text, "text", None):
            raise UserError("these controls use another tokenizer: train them with this model as their base")
        assert isinstance(other.card.net, UNetConfig)
        return controlnet.apart(other.card.net, other.diffusion.net.state_dict())[1]

    @classmethod
    def from_state(
        cls,
        card: ModelCard,
        state: Mapping[str, Tensor],
        where: str,
        text: PromptEncoder | None = None,
        autoencoder: AutoencoderModel | None = None,
    ) -> Model:
        """The model of a card and its parts. Raises UserError that names the first weights that do not fit; `where`
        begins its message."""
        net = _network_for(card, {name: tuple(value.shape) for name, value in state.items()}, where)
        if autoencoder is not None:
            check_fits(autoencoder, card, where)
        return cls(_assembled(net, card, state), card, text, autoencoder=autoencoder)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model in a model directory. Raises UserError that names the file and what is wrong with it."""
        folder = Path(path)
        card = read_card(folder)
        tensors = Tensors.of(folder / WEIGHTS)
        net = _network_for(card, renamed(tensors.shapes()), str(folder))  # compared before a tensor is loaded
        diffusion = _assembled(net, card, renamed(tensors.load()))
        text, autoencoder = load_text_encoder(card, folder), load_autoencoder(card, folder)
        return cls(diffusion, card, text, autoencoder=autoencoder)


def _assembled(net: nn.Module, card: ModelCard, state: Mapping[str, Tensor]) -> Diffusion:
    """The diffusion of a network on the meta device and its weights, which fit."""
    check_fork()
    net.load_state_dict(dict(state), assign=True)
    assert not any(tensor.is_meta for tensor in net.buffers()), "a buffer that is computed needs a device of its own"
    net.requires_grad_(False)
    return make_diffusion(net.eval(), card.process).eval()


def _network_for(card: ModelCard, shapes: Mapping[str, tuple[int, ...]], where: str) -> nn.Module:
    """The network of a card, without memory for its weights. Raises UserError if weights of these shapes do not fit."""
    with torch.device("meta"):
        net = networks.build(card.net)
    count = sum(p.numel() for p in net.parameters())
    if count > MOST_PARAMETERS:
        raise UserError(f"{where}: the card describes {count:,} parameters, more than {MOST_PARAMETERS:,}")
    check_tensors(shapes, {name: tuple(value.shape) for name, value in net.state_dict().items()}, where)
    return net


# --- loading: a run, a model, a checkpoint, a diffusers folder ---


def load(
    path: str | Path,
    *,
    verify: bool = True,
    tokenizer: str | Path | None = None,
    ema: bool = False,
    allow_pickle: bool = False,
    predicts: str = "",
    vae: str | Path | None = None,
) -> Model:
    """The model in a run, a model directory or checkpoint, a diffusers folder or a checkpoint file: CPU, float32.

    With `verify`, every byte is compared with the manifest, if there is one. The others are options of a checkpoint
    file: the folder of CLIP's `tokenizer`, by default tokenizer/ beside it; `ema` reads the moving average of the
    weights; `allow_pickle` opens a .ckpt, tensors only; `predicts` is eps or v; `vae` is an autoencoder instead of the
    file's own, a file or a folder. Raises UserError if it cannot be read.
    """
    how = read.Options(tokenizer, ema, allow_pickle, predicts, vae)
    folder = find(path)
    if folder.is_file():
        found = read.read(folder, how)
        return Model.from_state(found.card, found.state, str(folder), found.text, found.autoencoder)
    if how != read.Options():
        options = "--tokenizer, --ema, --allow-pickle, --predicts and --vae"
        raise UserError(f"{options} are options of a checkpoint file, and {path} is a folder: leave them out")
    if (folder / CARD).is_file():
        if verify and (folder / checkpoint.MANIFEST).is_file():
            checkpoint.verify(folder)
        return Model.load(folder)
    net, state, process, hints = diffusers.read(folder)
    card = ModelCard(net=net, process=process, size=height_width(net.size), **hints)
    text, autoencoder = diffusers.read_text_encoder(folder, net), diffusers.read_autoencoder(folder)
    return Model.from_state(card, state, str(folder), text, autoencoder)
