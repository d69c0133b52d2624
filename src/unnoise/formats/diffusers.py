"""diffusers folders, read and written without diffusers: UNet2DModel, and the parts of Stable Diffusion.

    model_index.json                              the class of each part
    unet/                                         the network: part.py
    controlnet/                                   control networks: controlnet.py
    scheduler/scheduler_config.json               betas, prediction, sampler: schedulers.py
    text_encoder/, tokenizer/, ..._2/             the text encoder of a UNet2DConditionModel: text_encoders.py
    vae/ or vqvae/                                the autoencoder: autoencoders.py
    unnoise.json                                  unnoise's own: names of the classes, whether the last row of the class
                                                  embedding is "no class", whether x are latents

In older folders (google/ddpm-cifar10-32) all files are at the top; a network alone has only its two files. Laws
(tests/formats/test_diffusers.py, tests/formats/test_stable_diffusion.py, tests/formats/test_pipelines.py): a network
computes what it computes in diffusers, to 1e-5, in both directions; a pipeline generates the same pictures; a setting
that is not supported is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from torch import Tensor

from unnoise.config.cards import CodecConfig, LatentsConfig, PixelsConfig, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig, height_width
from unnoise.errors import UserError
from unnoise.formats import (
    autoencoders,
    condition_settings,
    controlnet,
    names,
    part,
    schedulers,
    text_encoders,
    unet2d,
    unet2d_condition,
)
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.formats.files import read_json
from unnoise.formats.own_settings import NOTES, named_classes, own_settings
from unnoise.formats.places import SCHEDULER, Places, locate
from unnoise.formats.settings import assumed
from unnoise.formats.text_encoders import INDEX, ClipEncoder, DualClipEncoder
from unnoise.nn.blocks import context_width


class Hints(TypedDict):
    """The fields of a model's card besides the network and the process."""

    channels: int
    classes: tuple[str, ...]
    values: tuple[ValueRange, ...]
    sampler: str
    spacing: str
    spacing_options: dict[str, bool | int | float | str]
    clip: bool
    codec: CodecConfig
    info: dict[str, Any]
    notes: tuple[str, ...]


NO_SCHEDULER = (
    "{folder} has no scheduler beside it: linear betas from 0.0001 to 0.02, 1,000 steps and a prediction of eps are "
    "assumed; if the network was trained otherwise, copy its scheduler_config.json into that folder"
)
CONCAT = (
    "{folder}: the network reads {count} channels beside x_t, such as a mask and the latents of a picture: "
    "in Python they are given as Cond(concat=...), and `unnoise sample` has no option for them"
)
REFINES, REFINER_IDS = "requires_aesthetics_score", 5  # the flag in the index of XL's refiner, and its number of values
SCALE = 1000.0  # the range of values that are passed on unscaled: text.conditioner.VALUE_SCALE


def is_folder(folder: Path) -> bool:
    """Whether a folder has a config.json or a model_index.json."""
    return (folder / part.CONFIG).is_file() or (folder / INDEX).is_file()


# --- reading ---


class Settings(NamedTuple):
    """What the files of settings contain."""

    net: UNetConfig  # without controls
    process: DiffusionConfig
    hints: Hints


def read(folder: Path, *, pickles: bool = False) -> tuple[UNetConfig, dict[str, Tensor], DiffusionConfig, Hints]:
    """The settings of the network, its weights under unnoise's names (float32), the process, the rest of the card.

    With `pickles` a .bin file is opened too, tensors only. Raises UserError that names the file and the setting or
    tensors that are not supported.
    """
    places = locate(folder)
    net, process, hints = read_settings(places)
    state = part.read_weights(places.unet, names.pieces_of(net), pickles=pickles)
    if places.has("controlnet") and not places.alone:
        found = controlnet.folders(folder, places.index["controlnet"][1])
        net, state = controlnet.beside(net, state, [controlnet.read(one, net, pickles=pickles) for one in found])
        hints["notes"] += tuple(note for one in found for note in controlnet.notes(one))
    net, hints["classes"] = named_classes(
        net, places.pipeline
    )  # after the weights, whose shapes have the number of rows
    return net, state, process, hints


def read_settings(places: Places) -> Settings:
    """All that the files of settings contain; `hints["notes"]` states what they leave open and what is not applied.

    A network without a scheduler has that of DDPM: linear betas, 1,000 steps, eps. The classes are not among it.
    """
    ids = REFINER_IDS if places.index.get(REFINES) is True else condition_settings.TIME_IDS
    net, notes = _config(places.unet / part.CONFIG, ids)
    net = unet2d.folded(net, own_settings(places.pipeline)["patch"], str(places.pipeline / NOTES))
    given = {} if places.scheduler is None else read_json(places.scheduler)
    found = schedulers.from_config(given, str(places.scheduler or places.unet / SCHEDULER))
    outputs = net.in_channels * (2 if found.process.learned_variance else 1)
    if net.out_channels != outputs:
        raise UserError(
            f"{places.unet / part.CONFIG}: out_channels is {net.out_channels} and in_channels {net.in_channels}: "
            f"{'with' if found.process.learned_variance else 'without'} variance_type learned_range it is {outputs}"
        )
    if net.value_width and not places.index:
        notes.append(f"{places.unet} is outside its pipeline: the {net.values} values of SDXL's base are assumed")
    notes += found.notes if places.scheduler is not None else [NO_SCHEDULER.format(folder=places.unet)]
    kept = {key: value for key, value in given.items() if not key.startswith("_") and key != "trained_betas"}
    info = {"format": "diffusers", "scheduler": kept}
    codec, more = _codec(places, net)
    notes += more
    if codec.kind == "latents" and net.concat_channels:
        notes.append(CONCAT.format(folder=places.pipeline, count=net.concat_channels))
    if codec.kind == "latents" and places.autoencoder is None:
        info["latents"] = "there is no autoencoder: samples are latents, not pictures"
    hints = Hints(
        channels=net.in_channels,
        classes=(),
        values=values_of(net, codec.factor if isinstance(codec, LatentsConfig) else 1),
        sampler=found.sampler,
        spacing=found.spacing,
        spacing_options=found.spacing_options,
        clip=found.clip and codec.kind == "pixels",
        codec=codec,
        info=info,
        notes=tuple(notes),
    )
    return Settings(net, found.process, hints)


def _codec(places: Places, net: UNetConfig) -> tuple[CodecConfig, list[str]]:
    """The space of x, and notes: what is assumed, and which parts of the pipeline are not run."""
    notes = []
    if places.has("safety_checker"):
        notes.append(f"{places.pipeline}: the safety checker is not run: pictures are not filtered")
    if places.autoencoder is not None:
        card = autoencoders.read_card(places.autoencoder)
        return card.latents, [*notes, *autoencoders.notes(places.autoencoder)]
    if places.has("vae") or places.has("vqvae") or own_settings(places.pipeline)["latents"]:
        return LatentsConfig(), notes
    if net.in_channels not in (1, 3):
        file = places.unet / part.CONFIG
        return LatentsConfig(), [*notes, f"{file}: x has {net.in_channels} channels, so it is assumed to be latents"]
    return PixelsConfig(), notes


def read_autoencoder(folder: Path, *, pickles: bool = False) -> AutoencoderModel | None:
    """The autoencoder of a pipeline; None if the folder has none. Raises UserError that names what is wrong with it."""
    places = locate(folder)
    return None if places.autoencoder is None else autoencoders.load(places.autoencoder, pickles=pickles)


def read_text_encoder(folder: Path, config: UNetConfig) -> ClipEncoder | DualClipEncoder | None:
    """The text encoder of a pipeline; None if the folder has none. Raises UserError if the widths differ."""
    text = text_encoders.read(folder) if (folder / INDEX).is_file() else None
    if text is not None and text.width != context_width(config):
        raise UserError(
            f"{folder}: the text encoder has embeddings of width {text.width}, and the unet needs "
            f"{context_width(config)}: its parts belong to different models"
        )
    return text


def _config(file: Path, time_ids: int) -> tuple[UNetConfig, list[str]]:
    """The settings of the network, by the class in the file, and notes; `time_ids`: the number of values of XL."""
    given = read_json(file)
    kind = given.get("_class_name", "UNet2DConditionModel" if "cross_attention_dim" in given else "UNet2DModel")
    if kind == controlnet.KIND:
        raise UserError(
            f"{file} is the configuration of a {kind}, which needs another network: load that network, and add this "
            "with --control-model or model.with_controlnets"
        )
    if kind not in ("UNet2DModel", "UNet2DConditionModel"):
        raise UserError(
            f"{file} is the configuration of a {kind}: only UNet2DModel and UNet2DConditionModel are supported"
        )
    if kind == "UNet2DModel":
        return unet2d.from_config(given, str(file)), assumed(given, unet2d.DEFAULTS, kind, str(file))
    notes = assumed(given, condition_settings.DEFAULTS, kind, str(file))
    return unet2d_condition.from_config(given, str(file), time_ids=time_ids), notes


def values_of(config: UNetConfig, factor: int) -> tuple[ValueRange, ...]:
    """The number that diffusers passes on as class_labels, or those of XL.

    The defaults of XL mean a picture that was neither resized nor cropped. The refiner has an aesthetic score of 6 by
    default, and is guided away from one of 2.5.
    """
    if not config.value_width:
        return (ValueRange("class_labels", 0, SCALE),) if config.values else ()
    height, width = (float(factor * side) for side in height_width(config.size))  # pixels of a picture
    usual = {"original_height": height, "original_width": width, "crop_top": 0.0, "crop_left": 0.0}
    if config.values == REFINER_IDS:
        usual |= {"aesthetic_score": 6.0}
    else:
        usual |= {"target_height": height, "target_width": width}
    null = {"aesthetic_score": 2.5}
    return tuple(ValueRange(name, 0, SCALE, number, null.get(name)) for name, number in usual.items())


# --- writing ---


def write(
    folder: Path,
    config: UNetConfig,
    state: Mapping[str, Tensor],
    process: DiffusionConfig,
    classes: Sequence[str] = (),
    *,
    sampler: str = "ddim",
    spacing: str = "auto",
    offset: int = 0,
    clip: bool = True,
    latents: bool = False,
    text: ClipEncoder | DualClipEncoder | None = None,
    autoencoder: AutoencoderModel | None = None,
) -> None:
    """Write a folder for `DDIMPipeline` (sampler ddim) or `DDPMPipeline` (ddpm, ddpm-large, ddpm-learned).

    A network that is conditioned on text, with its text encoder and controls, is written for StableDiffusionPipeline or
    StableDiffusionControlNetPipeline; another one of latents, with its autoencoder, for LDMPipeline. Without an
    autoencoder they load it when they are given one, or vae=None, with output_type="latent" when the pipeline is
    called. They set the scheduler's steps_offset to 1, whatever the file has.

    `state` has unnoise's names. With `clip`, DDIM's pictures equal those of unnoise if the pipeline is called with
    use_clipped_model_output=True: by default it clips the picture and keeps the noise, which then no longer fits.
    Neither pipeline passes labels on: draw.py (formats/draw.py) does. Raises UserError, before anything is written, for
    a model without an equivalent and a folder that is not empty.
    """
    part.check_empty(folder)
    if len(classes) != config.classes:
        raise UserError(f"{len(classes)} names for the {config.classes} classes of the network: give one for each")
    kind = "UNet2DConditionModel" if context_width(config) else "UNet2DModel"
    settings = unet2d_condition.to_config(config) if context_width(config) else unet2d.to_config(config)
    controlnet.check(config)
    if text is not None:
        text_encoders.check(text)
    scheduler = {"_diffusers_version": part.VERSION} | schedulers.to_config(
        process, sampler, clip=clip, spacing=spacing, offset=offset
    )
    alone, controls = controlnet.apart(config, state)
    table = names.pieces_of(unet2d.unfolded(replace(config, controls=())))
    part.check_ours(alone, table)

    part.write(folder / "unet", kind, settings, table, alone)
    (folder / "scheduler").mkdir()
    part.write_json(folder / "scheduler" / SCHEDULER, scheduler)
    index: dict[str, Any] = {
        "_class_name": _pipeline(config, sampler, autoencoder),
        "_diffusers_version": part.VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", kind],
    }
    index |= {REFINES: True} if config.values == REFINER_IDS else {}
    index |= controlnet.write_all(folder, config, controls)
    if autoencoder is not None:
        name = "vae" if context_width(config) else "vqvae"
        index[name] = ["diffusers", autoencoders.write_diffusers(folder / name, autoencoder)]
    text_encoders.write_index(folder, index | (text_encoders.write(folder, text) if text is not None else {}))
    if classes or latents or config.patch > 1:
        notes = {"classes": list(classes), "null_class": config.null_class and bool(classes), "latents": latents}
        notes |= {"patch": config.patch} if config.patch > 1 else {}
        part.write_json(folder / NOTES, notes)


def _pipeline(config: UNetConfig, sampler: str, autoencoder: AutoencoderModel | None) -> str:
    """The diffusers class of the pipeline of a network."""
    if not context_width(config) and autoencoder is not None:
        return "LDMPipeline"
    if not context_width(config):
        return "DDIMPipeline" if sampler == "ddim" else "DDPMPipeline"
    xl, refines = "XL" if config.value_width else "", "Img2Img" if config.values == REFINER_IDS else ""
    return f"StableDiffusion{xl}{'ControlNet' if config.controls else ''}{refines}Pipeline"
