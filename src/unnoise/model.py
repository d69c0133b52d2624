"""A model: a diffusion, the space it works in, and a reader of what people say. On disk, a directory.

    model.safetensors    the network's weights
    model.json           the card: everything else that is needed to draw
    tokenizer.json       what the network's own text encoder reads with, where it has one
    words/               CLIP's tower and tokenizer, where they stand beside the network (formats/text_encoders.py)
    manifest.json        the sha256 and size of each file, checked on loading

Nothing in these files can run: they hold numbers and names, and the names choose among classes of ours.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unnoise import nn as networks
from unnoise.codec import Codec, Latents, Pixels
from unnoise.config.cards import ModelCard
from unnoise.config.convert import from_dict, to_dict
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, NetConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.config.training import TrainConfig
from unnoise.config.usage import picture_options
from unnoise.denoiser import Diffusion, make_diffusion
from unnoise.errors import UserError
from unnoise.formats import controlnet, diffusers, text_encoders
from unnoise.formats.files import Tensors, read_json
from unnoise.formats.part import check_tensors
from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder
from unnoise.io import checkpoint
from unnoise.io.pictures import Pictures
from unnoise.text.conditioner import Conditioner
from unnoise.text.pretrained import Encoder
from unnoise.text.tokenizer import FILE as TOKENIZER
from unnoise.text.tokenizer import PromptEncoder, Tokenizer, truncation_note

WEIGHTS, CARD, WORDS = "model.safetensors", "model.json", "words"
FORMAT = {"format": "unnoise-model", "version": 2}
READABLE = (1, 2)  # versions: 1 has earlier names of settings and weights
MOST_PARAMETERS = 20_000_000_000  # a card that asks for more is a mistake, found before memory is taken


@dataclass
class Model:
    """What is saved, loaded, shared and drawn from."""

    diffusion: Diffusion
    card: ModelCard
    codec: Codec = field(default_factory=Pixels)
    text: PromptEncoder | None = None  # what reads captions

    @property
    def conditioner(self) -> Conditioner:
        return reader_of(self.card, self.text)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes; none where it was trained without."""
        return self.card.classes

    @property
    def uses_text(self) -> bool:
        """Whether its network reads captions, with or without what reads them for it."""
        return self.card.net.context > 0 or self.card.net.text is not None

    @property
    def controls(self) -> tuple[ControlConfig, ...]:
        """The drawings that it takes."""
        return self.card.net.controls if isinstance(self.card.net, UNetConfig) else ()

    @property
    def residuals(self) -> int:
        """What a control adds to: the skips and the middle."""
        net = self.card.net
        return len(net.channels) * (net.blocks + 1) + 1 if isinstance(net, UNetConfig) else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x."""
        return (self.card.channels, *self.card.size)

    def require_pictures(self) -> Model:
        """This model. Raises UserError where what it draws are no pictures."""
        if self.card.latents:
            raise UserError(
                "this model draws latents, and unnoise does not read the autoencoder that makes pictures of them: take "
                "the latents, unnoise sample --latents FILE, or model.sample(...).pixels in Python"
            )
        return self

    def save(self, path: str | Path) -> None:
        """Write the model directory, whole or not at all. Raises CannotSave, and UserError where something is there."""
        folder = Path(path)
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is there and holds something: save the model under another name")
        if folder.exists():
            folder.rmdir()
        checkpoint.publish(
            folder, lambda inside: write_model(inside, self.diffusion.net.state_dict(), self.card, self.text)
        )

    def sample(
        self,
        *,
        labels: Sequence[str | int] = (),
        prompts: str | Sequence[str] = (),
        values: Mapping[str, float | Sequence[float]] = MappingProxyType({}),
        seeds: Sequence[int] = (0,),
        **settings: Any,
    ) -> Pictures:
        """Draw pictures: one a seed, with one label (or prompt, or number by its name) for all or one a seed.
        `settings` are the fields of a Request.

        Raises UserError for what this model cannot draw, TypeError for an unknown setting. Warns where of a prompt only
        the beginning is heard.
        """
        from unnoise.generate.frames import sample

        said = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        numbers = {name: (float(x),) if isinstance(x, int | float) else tuple(x) for name, x in values.items()}
        request = Request(seeds=tuple(seeds), labels=tuple(map(str, labels)), prompts=said, values=numbers, **settings)
        if note := truncation_note(self.text, filter(None, (*said, request.negative_prompt))):
            warnings.warn(note, stacklevel=2)
        return sample(self, request)

    def with_controlnets(self, *others: Model | str | Path) -> Model:
        """This model with the controls of others beside its own, in this order: a drawing each when it draws.

        Another is a model, or a path: whatever `load` takes, or diffusers' folder of a ControlNetModel. Raises
        UserError where the network of another, without its controls, is not this one's.
        """
        net = self.card.net
        if not others:
            return self
        if not isinstance(net, UNetConfig):
            raise UserError("controls steer a U-Net, and this model is another network")
        more = [each for other in others for each in self._controls_of(other, net)]
        net, state = controlnet.beside(net, self.diffusion.net.state_dict(), more)
        return Model.from_state(replace(self.card, net=net), state, "this model and its controls", self.text)

    def _controls_of(self, other: Model | str | Path, net: UNetConfig) -> list[tuple[ControlConfig, dict[str, Tensor]]]:
        """The controls of another, each with its weights. Raises UserError where they are not this model's."""
        if isinstance(other, str | Path):
            if controlnet.is_folder(Path(other)):
                return [controlnet.read(Path(other), net)]
            other = load(other)
        if not isinstance(other.card.net, UNetConfig):
            raise UserError("controls steer a U-Net, and one of these models is another network")
        if without_controls(other.card.net) != without_controls(net):
            raise UserError("these controls belong to another network: their base has to be this model")
        if process_of(other.card) != process_of(self.card) or other.card.classes != self.card.classes:
            raise UserError("these controls were trained on another process, or other classes, than this model")
        if getattr(other.text, "text", None) != getattr(self.text, "text", None):
            raise UserError("these controls read captions by another tokenizer: their base has to be this model")
        return controlnet.apart(other.card.net, other.diffusion.net.state_dict())[1]

    @classmethod
    def from_state(
        cls, card: ModelCard, state: Mapping[str, Tensor], where: str, words: PromptEncoder | None = None
    ) -> Model:
        """The model of this card and these weights, with what reads its captions. Raises UserError where they do
        not fit, with the first names."""
        with torch.device("meta"):
            net = networks.build(card.net)
        count = sum(p.numel() for p in net.parameters())
        if count > MOST_PARAMETERS:
            raise UserError(f"{where}: the card asks for {count:,} parameters, more than {MOST_PARAMETERS:,}")
        wanted = {name: tuple(value.shape) for name, value in net.state_dict().items()}
        check_tensors({name: tuple(value.shape) for name, value in state.items()}, wanted, where)
        net.load_state_dict(dict(state), assign=True)
        rest = {name: buffer for name, buffer in net.named_buffers() if buffer.is_meta}
        if rest:  # buffers that are computed, not saved
            net = networks.build(card.net)
            net.load_state_dict(dict(state))
        net.requires_grad_(False)
        codec = Latents() if card.latents else Pixels()
        return cls(make_diffusion(net.eval(), card.process).eval(), card, codec, words)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model in a model directory. Raises UserError that names what is wrong with which file."""
        folder = Path(path)
        card = read_card(folder)
        return cls.from_state(
            card, checkpoint.renamed(Tensors.of(folder / WEIGHTS).load()), str(folder), words_of(card, folder)
        )


def words_of(card: ModelCard, folder: Path) -> PromptEncoder | None:
    """What reads captions for the model in a directory: its own tokenizer, CLIP's tower, or an encoder elsewhere."""
    if card.net.text is not None:
        return Tokenizer.load(folder / TOKENIZER, card.net.text.length)
    if (folder / WORDS).is_dir():
        return text_encoders.read(folder / WORDS)
    return Encoder(card.encoder) if card.encoder is not None else None


def reader_of(card: ModelCard, words: PromptEncoder | None) -> Conditioner:
    """What turns into conditions what is said to the model of this card."""
    null_value = card.net.null_value if isinstance(card.net, UNetConfig) else True
    return Conditioner(
        card.classes, null_row(card), words, card.values, null_value, picture_options=picture_options(card)
    )


def without_controls(net: NetConfig) -> NetConfig:
    """The network alone, with nothing dropped while it is trained."""
    return replace(net, dropout=0.0, controls=()) if isinstance(net, UNetConfig) else replace(net, dropout=0.0)


def process_of(config: TrainConfig | ModelCard) -> DiffusionConfig:
    """What a network's answers mean, without how it was taught."""
    p = config.process
    plain = DiffusionConfig(p.schedule, p.steps, p.schedule_options, p.zero_snr, p.predicts, p.learned_variance)
    return replace(plain, concat=p.concat, concat_factor=p.concat_factor)


def null_row(card: ModelCard) -> int | None:
    """The row of "no class" in the network's class embedding."""
    return card.net.classes if card.net.classes and card.net.null_class else None


def write_model(folder: Path, state: Mapping[str, Tensor], card: ModelCard, words: PromptEncoder | None = None) -> None:
    """model.safetensors, model.json and what reads its captions into an existing folder.

    Raises UserError for a reader of captions that has no form on disk.
    """
    match words:
        case Tokenizer():
            words.save(folder / TOKENIZER)
        case ClipEncoder() | DualClipEncoder():
            text_encoders.save(folder / WORDS, words)
        case None | Encoder():  # the card says where an encoder is
            pass
        case _:
            raise UserError(
                f"a {type(words).__name__} reads this model's captions, and it has no form on disk: save the model "
                "with words=None, and hand the reader to it again when it is loaded"
            )
    save_weights(folder / WEIGHTS, state)
    text = json.dumps(FORMAT | {"card": to_dict(card)}, indent=2, sort_keys=True)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def read_card(folder: Path) -> ModelCard:
    """The card of a model directory, without its weights."""
    file = folder / CARD
    data = read_json(file)
    if data.get("format") != FORMAT["format"]:
        raise UserError(f"{file}: this is not the card of a model of ours: 'format' is {data.get('format')!r}")
    if data.get("version") not in READABLE:
        raise UserError(
            f"{file}: written in version {data.get('version')!r} of the format, this program reads up to "
            f"{FORMAT['version']}: update unnoise"
        )
    return from_dict(ModelCard, data.get("card", {}), str(file))


def save_weights(file: Path, state: Mapping[str, Tensor]) -> None:
    """Tensors to safetensors: contiguous, on the CPU, none sharing memory with another."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, file)


# --- whatever a person has: a run, a model, a checkpoint, somebody else's folder ---


def find(path: str | Path) -> Path:
    """The directory with the weights that `path` means: a run's newest checkpoint, or the directory itself."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(
            f"there is no {folder}: give a run (runs/00001-fashion), a model directory or a diffusers folder"
        )
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: give the directory it is in")
    if (folder / CARD).is_file():
        return folder
    if (folder / "checkpoints").is_dir():
        newest = checkpoint.sound(folder / "checkpoints")
        if newest is None:
            raise UserError(f"{folder} has no checkpoint yet: let it train until it has saved one")
        return newest
    if diffusers.is_folder(folder):
        return folder
    raise UserError(
        f"{folder} is no run, no model directory and no diffusers folder: it has no {CARD}, checkpoints/ or config.json"
    )


def load(path: str | Path, *, verify: bool = True) -> Model:
    """The model that `path` means: a run directory, a model directory or checkpoint, or a diffusers folder.

    Every byte is compared with the manifest, where there is one, unless `verify` is off. On the CPU, in float32.
    """
    folder = find(path)
    if (folder / CARD).is_file():
        if verify and (folder / checkpoint.MANIFEST).is_file():
            checkpoint.verify(folder)
        return Model.load(folder)
    net, state, process, hints = diffusers.read(folder)
    card = ModelCard(net=net, process=process, size=(net.size, net.size), **hints)
    return Model.from_state(card, state, str(folder), diffusers.read_words(folder, net))
