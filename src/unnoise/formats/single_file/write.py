"""Writes a model as one checkpoint file, which ComfyUI, AUTOMATIC1111's web UI and CompVis' code read.

The file has the tensors of read.py, in float32, and metadata (modelspec) with what no tensor shows: the prediction and
the size of pictures. Law (tests/formats/single_file/test_write.py): what is written is read back bit for bit, and
diffusers' converter reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from unnoise.config.autoencoders import KLConfig
from unnoise.config.cards import LatentsConfig, ModelCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.formats import autoencoders, clip, names
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.formats.files import Shape
from unnoise.formats.single_file import autoencoder, entries, infer, text, unet
from unnoise.formats.single_file.contents import CLIP, OPEN_CLIP, UNET, VAE
from unnoise.formats.single_file.processes import FACTOR, PREDICTS, STABLE, STABLE_SCALE, XL_SCALE
from unnoise.formats.text_encoders import ClipEncoder, DualClipEncoder
from unnoise.io.atomic import publish
from unnoise.nn.blocks import at_level, heads
from unnoise.nn.clip import ClipText

SKIPPED = "a checkpoint file cannot state that blocks of the text encoder are skipped: save the model as a folder"
Encoders = ClipEncoder | DualClipEncoder


def write(
    file: Path,
    card: ModelCard,
    state: Mapping[str, Tensor],
    words: Encoders | None,
    vae: AutoencoderModel | None = None,
) -> None:
    """Write a model: its U-Net, whose tensors have unnoise's names, its text encoders and its autoencoder.

    Raises UserError, before anything is written, for a model that readers of these files would take for another one.
    """
    if not isinstance(card.net, UNetConfig):
        raise UserError(f"a checkpoint file contains a U-Net, and this model is a {card.net.kind}: save it as a folder")
    config = card.net
    check_process(card.process, config)
    pieces = names.pieces_of(config)
    table = unet.unet(config, names.wanted(pieces))
    check_inferred(config, entries.wanted(table))
    tensors = {UNET + name: tensor for name, tensor in entries.to_file(table, names.split(pieces, state)).items()}
    if words is not None:
        tensors |= _text(words, config)
    if vae is not None:
        tensors |= _autoencoder(vae, config)
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.prediction_type": PREDICTS[card.process.predicts].removesuffix("_prediction"),
        "modelspec.resolution": f"{FACTOR * card.size[1]}x{FACTOR * card.size[0]}",
    }
    publish(file, lambda beside: save_file(tensors, beside, metadata=metadata))


def check_process(process: DiffusionConfig, config: UNetConfig) -> None:
    """Raises UserError for a process that readers of these files do not have."""
    options: dict[str, int | float | tuple[float, ...]] = {"begin": STABLE["beta_start"], "end": STABLE["beta_end"]}
    usual = DiffusionConfig(schedule="scaled-linear", schedule_options=options)
    found = {
        "context": bool(config.context) and config.text is None,
        "controls": not config.controls,
        "predicts": process.predicts in PREDICTS,
        "schedule": (process.schedule, process.steps) == (usual.schedule, usual.steps),
        "schedule_options": process.schedule_options == options,
        "zero_snr": not process.zero_snr,
        "learned_variance": not process.learned_variance,
        "time_input": process.time_input == usual.time_input,
    }
    wrong = [name for name, right in found.items() if not right]
    if wrong:
        raise UserError(
            f"a checkpoint file is for models of Stable Diffusion's form, and {', '.join(wrong)} of this one differ: "
            "save it as a folder instead"
        )


def check_inferred(config: UNetConfig, shapes: Mapping[str, Shape]) -> None:
    """Raises UserError for a U-Net that readers, who see its shapes only, would build differently."""
    seen, own = (_meaning(each) for each in (infer.unet(shapes, "this model"), config))
    differ = [f.name for f in fields(own) if getattr(seen, f.name) != getattr(own, f.name)]
    if differ:
        stated = ", ".join(f"{name} {getattr(own, name)} (read as {getattr(seen, name)})" for name in differ)
        raise UserError(f"a checkpoint file does not state {stated}: save this model as a folder instead")


def _meaning(config: UNetConfig) -> UNetConfig:
    """The settings that the network's output depends on, in one form: heads and depths for each level that attends."""
    last = len(config.channels) - 1
    levels = [(level, attends or level == last) for level, attends in enumerate(config.attention)]
    return replace(
        config,
        size=1,
        dropout=0.0,
        head_width=None,
        heads=tuple(heads(config, level) if attends else 1 for level, attends in levels),
        transformers=tuple(at_level(config.transformers, level) if attends else 1 for level, attends in levels),
    )


def _autoencoder(vae: AutoencoderModel, config: UNetConfig) -> dict[str, Tensor]:
    """The tensors of an autoencoder. Raises UserError for one that readers would take for another."""
    net, usual = vae.card.net, XL_SCALE if config.value_width else STABLE_SCALE
    if not isinstance(net, KLConfig):
        raise UserError("a checkpoint file contains an autoencoder of the kind kl: save this model as a folder instead")
    if vae.card.latents != LatentsConfig(factor=FACTOR, scale=usual):
        raise UserError(
            f"readers of a checkpoint file take {FACTOR} pixels for a latent and scale latents by {usual:g}, unlike "
            f"this model's {vae.card.latents}: save it as a folder instead"
        )
    pieces = autoencoders.pieces_of(net)
    table = autoencoder.entries(net, names.wanted(pieces))
    if autoencoder.config_of(entries.wanted(table), "this model") != replace(net, size=KLConfig().size):
        raise UserError("the groups of this autoencoder's norms are not 32: save the model as a folder instead")
    state = names.split(pieces, vae.net.state_dict())
    return {VAE + name: tensor for name, tensor in entries.to_file(table, state).items()}


def _text(words: Encoders, config: UNetConfig) -> dict[str, Tensor]:
    """The tensors of the text encoders, under the prefixes of the network's family."""
    if isinstance(words, ClipEncoder):
        second = words.tower.config.activation == "gelu"
        prefix = "cond_stage_model.model." if second else "cond_stage_model.transformer.text_model."
        if words.skip > second:
            raise UserError(SKIPPED)
        return _tower(words.tower, prefix, OPEN_CLIP if second else CLIP, copy_last=second and not words.skip)
    if any(each.skip for each in words.parts):
        raise UserError(SKIPPED)
    if words.zeros != (config.values == infer.BASE_IDS) or len(words.parts) != (2 if words.zeros else 1):
        raise UserError("the text encoders are not those of Stable Diffusion XL or its refiner: save it as a folder")
    found = _tower(words.parts[-1].tower, f"conditioner.embedders.{len(words.parts) - 1}.model.", OPEN_CLIP)
    if len(words.parts) > 1:
        found |= _tower(words.parts[0].tower, "conditioner.embedders.0.transformer.text_model.", CLIP)
    return found


def _tower(net: ClipText, prefix: str, kind: str, *, copy_last: bool = False) -> dict[str, Tensor]:
    """The tensors of a tower. With `copy_last` its last block stands twice: readers leave the last one out."""
    config, state = net.config, clip.split(net)
    if copy_last and config.depth != text.TRUNCATED:
        last, more = f"encoder.layers.{config.depth - 1}.", f"encoder.layers.{config.depth}."
        state |= {name.replace(last, more): tensor for name, tensor in state.items() if name.startswith(last)}
        config = replace(config, depth=config.depth + 1)
    found = entries.to_file(text.entries(config, kind), state)
    seen = text.config_of({name: tuple(t.shape) for name, t in found.items()}, kind, config.end, "this model")
    if seen != replace(config, largest_ends=False):
        raise UserError("the text encoder is not one of Stable Diffusion's: save the model as a folder instead")
    return {prefix + name: tensor for name, tensor in found.items()}
