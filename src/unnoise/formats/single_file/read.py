"""Reads a checkpoint file: the network, the process, the text encoder and the autoencoder of a model.

What the tensors do not show follows the published models (infer.py, text.py), and a note states what was assumed. A
tensor of a part that its table does not contain is an error: a network that is read in part computes something else.
Laws (tests/formats/single_file/test_read.py): the outputs are those of the diffusers folder with the tensors that
diffusers' own converter makes of the file, to 1e-5; a missing, unknown or misshapen tensor is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unnoise.config.cards import AutoencoderCard, LatentsConfig, ModelCard, PixelsConfig
from unnoise.config.networks import ControlConfig, UNetConfig, height_width
from unnoise.errors import UserError
from unnoise.formats import autoencoders, clip, controlnet, names
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.formats.clip_tokenizer import ClipTokenizer
from unnoise.formats.diffusers import values_of
from unnoise.formats.files import Shape, what_is_wrong
from unnoise.formats.single_file import autoencoder, entries, infer, processes, text, unet
from unnoise.formats.single_file.contents import EMA, UNET, Contents, contents_of, require
from unnoise.formats.single_file.family import family
from unnoise.formats.single_file.source import Source, opened
from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder

BASE_TOWERS = 2  # of XL; its refiner has one
TOKENS = 77  # of a text
NO_TOKENIZER = (
    "{file} has a text encoder, and the tokenizer that it needs is in no checkpoint file: put CLIP's tokenizer "
    "(tokenizer.json, or vocab.json and merges.txt) into {beside}, or give its folder once: "
    "unnoise export {file} FOLDER --tokenizer DIR"
)


@dataclass(frozen=True)
class Options:
    """What a caller chooses about a checkpoint file."""

    tokenizer: str | Path | None = None  # a folder with CLIP's tokenizer; None: tokenizer/ beside the file
    ema: bool = False  # read the moving average of the U-Net instead of its weights
    allow_pickle: bool = False  # open a .ckpt or .pt
    predicts: str = ""  # what the network predicts: eps or v; empty: as published
    vae: str | Path | None = None  # a file or a folder with an autoencoder; None: the file's own


@dataclass(frozen=True)
class Found:
    """A model: its card, its weights under unnoise's names in float32, and its text encoder."""

    card: ModelCard
    state: dict[str, Tensor]
    text: ClipEncoder | DualClipEncoder | None
    autoencoder: AutoencoderModel | None


def read(file: Path, how: Options = Options()) -> Found:
    """The model in a checkpoint file.

    Raises UserError for a file without a U-Net, which it names, and for tensors that are not those of a model of latent
    diffusion.
    """
    source = opened(file, allow_pickle=how.allow_pickle)
    found = contents_of(source.names)
    prefix = require(found, "unet", source.names, str(file))
    shapes = source.shapes(prefix)
    config = infer.unet(shapes, str(file), one_head=found.classes)
    chosen = processes.choose(source, config, found, how.predicts)
    config = replace(config, size=chosen.size)
    words = _text(source, found, how.tokenizer, config)
    pieces = names.pieces_of(config)
    state = _part(source, prefix, unet.unet(config, names.wanted(pieces)), names.wanted(pieces), ema=how.ema)
    vae = _autoencoder(source, found, config, how)
    card = _card(source, config, chosen, found, how)
    if vae is not None:
        card = replace(card, codec=vae.card.latents, values=values_of(config, vae.card.latents.factor))
    return Found(card, names.join(pieces, state), words, vae)


def is_control(file: Path) -> bool:
    """Whether this is a safetensors file with a ControlNet and without a model of its own."""
    return file.is_file() and contents_of(opened(file).names).control is not None


def read_control(
    file: Path, base: UNetConfig, *, allow_pickle: bool = False
) -> tuple[ControlConfig, dict[str, Tensor]]:
    """The settings and weights of a ControlNet in a file, for the network `base`.

    Raises UserError for another file, and for a control of another network.
    """
    source = opened(file, allow_pickle=allow_pickle)
    prefix = require(contents_of(source.names), "control", source.names, str(file))
    how = infer.control(source.shapes(prefix), base, str(file))
    pieces = controlnet.table_of(base, how)
    table = unet.controlnet(base, how, names.wanted(pieces))
    return how, names.join(pieces, _part(source, prefix, table, names.wanted(pieces)))


def _part(
    source: Source,
    prefix: str,
    table: Sequence[entries.Entry],
    shapes: Mapping[str, Shape],
    *,
    ema: bool = False,
    without: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The tensors of a part under the folder's names, `without` those that begin so.

    Raises UserError if its tensors are not those of the table.
    """
    stored = {entry.name: prefix + entry.name for entry in table}
    if ema:
        stored = {name: averaged(name) for name in stored}
        own = source.shapes_of([name for name in stored.values() if name in source.names])
        if not own:
            raise UserError(f"{source.file} has no moving average: leave --ema out")
        back = {there: name for name, there in stored.items()}
        found = {back[name]: shape for name, shape in own.items()}
    else:
        found = {name: shape for name, shape in source.shapes(prefix).items() if not name.startswith(without or " ")}
    if problem := what_is_wrong(found, entries.wanted(table)):
        part = prefix.rstrip(".") or "this network"
        raise UserError(f"{source.file}: the tensors of {part} are not those of a network that is supported: {problem}")
    loaded = source.load(stored.values())
    return entries.to_folder(table, {name: loaded.pop(there) for name, there in stored.items()}, shapes)


def averaged(name: str) -> str:
    """The name of the moving average of a tensor of the U-Net: without dots."""
    return EMA + f"{UNET.removeprefix('model.')}{name}".replace(".", "")


# --- text ---


def _text(
    source: Source, found: Contents, tokenizer: str | Path | None, config: UNetConfig
) -> ClipEncoder | DualClipEncoder | None:
    """The text encoder of a file; None where it has none. Raises UserError where its width is not the U-Net's."""
    if not found.towers:
        return None
    folder = Path(tokenizer or source.file.parent / "tokenizer")
    if not folder.is_dir():
        raise UserError(NO_TOKENIZER.format(file=source.file, beside=source.file.parent / "tokenizer"))
    tokens = ClipTokenizer.load(folder, TOKENS)
    parts = [_tower(source, prefix, kind, tokens) for prefix, kind in found.towers]
    words: ClipEncoder | DualClipEncoder
    if config.value_width:
        words = DualClipEncoder(parts, zeros=len(parts) == BASE_TOWERS)
        if not parts[-1].tower.config.projection:
            raise UserError(f"{source.file}: the text encoder of XL has no text_projection: part of it is missing")
    else:
        words = parts[0]
        words.skip = text.skip_of(words.tower.config) if words.tower.config.activation == "gelu" else 0
    if words.width != config.context:
        raise UserError(
            f"{source.file}: the text encoder has embeddings of width {words.width}, and the U-Net needs "
            f"{config.context}: its parts belong to different models"
        )
    return words


def _tower(source: Source, prefix: str, kind: str, tokens: ClipTokenizer) -> ClipEncoder:
    config = text.config_of(source.shapes(prefix), kind, tokens.end, str(source.file))
    state = _part(source, prefix, text.entries(config, kind), clip.shapes_of(config))
    tokenizer = text.tokenizer_of(tokens, kind)
    tokenizer.length = config.length
    return ClipEncoder(tokenizer, clip.join(config, state))


# --- the autoencoder ---


def read_autoencoder(file: Path, scale: float, *, allow_pickle: bool = False) -> AutoencoderModel:
    """The autoencoder in a checkpoint file, or that is alone in a file. `scale`: of the latents, which no tensor shows.

    Raises UserError for a file without one.
    """
    source = opened(file, allow_pickle=allow_pickle)
    prefix = require(contents_of(source.names), "vae", source.names, str(file))
    shapes = {n: s for n, s in source.shapes(prefix).items() if not n.startswith(autoencoder.WITHOUT_EFFECT)}
    config = autoencoder.config_of(shapes, str(file))
    pieces = autoencoders.pieces_of(config)
    table = autoencoder.entries(config, names.wanted(pieces))
    state = names.join(pieces, _part(source, prefix, table, names.wanted(pieces), without=autoencoder.WITHOUT_EFFECT))
    latents = LatentsConfig(factor=config.factor, picture_channels=config.in_channels, scale=scale)
    card = AutoencoderCard(net=config, latents=latents, force_upcast=True)
    return autoencoders.from_state(card, {name: tuple(t.shape) for name, t in state.items()}, lambda: state, str(file))


def _autoencoder(source: Source, found: Contents, config: UNetConfig, how: Options) -> AutoencoderModel | None:
    """The autoencoder of a model: the one that the caller chose, or the file's own; None where there is neither."""
    scale = processes.scale(source, config)
    if how.vae is not None:
        path = Path(how.vae)
        if path.is_dir():
            return autoencoders.load(path)
        return read_autoencoder(path, scale, allow_pickle=how.allow_pickle)
    return read_autoencoder(source.file, scale, allow_pickle=how.allow_pickle) if found.vae is not None else None


# --- the card ---


def _card(source: Source, config: UNetConfig, chosen: processes.Chosen, found: Contents, how: Options) -> ModelCard:
    notes = [*chosen.notes]
    if found.ema and not how.ema:
        notes.append(f"{source.file} also has a moving average of the U-Net: --ema reads it")
    if found.unread:
        notes.append(f"{source.file}: {len(found.unread)} tensors are not read: {_first(found.unread)}")
    if not config.context:
        width = "8 heads" if config.heads else f"heads of {config.head_width} channels"
        notes.append(f"{source.file}: attention has {width} as in the published models: its tensors do not show it")
    scheduler = chosen.scheduler
    return ModelCard(
        net=config,
        process=scheduler.process,
        size=height_width(config.size),
        channels=config.in_channels,
        classes=tuple(map(str, range(config.classes))),
        values=values_of(config, processes.FACTOR if chosen.latents else 1),
        sampler=scheduler.sampler,
        spacing=scheduler.spacing,
        spacing_options=scheduler.spacing_options,
        clip=scheduler.clip and not chosen.latents,
        codec=LatentsConfig() if chosen.latents else PixelsConfig(),
        info={"format": "checkpoint file", "family": family(config, classes=found.classes)},
        notes=tuple(notes),
    )


def _first(unread: Iterable[str], most: int = 3) -> str:
    listed = list(unread)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
