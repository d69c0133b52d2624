"""diffusers folders, read and written without diffusers: UNet2DModel, and the parts of Stable Diffusion.

    model_index.json                              the class of each part
    unet/                                         the network: part.py
    controlnet/                                   control networks: controlnet.py
    scheduler/scheduler_config.json               betas, prediction, sampler: schedulers.py
    text_encoder/, tokenizer/, ..._2/             the text encoder of a UNet2DConditionModel: text_encoders.py
    vae/                                          not read: a network with an autoencoder generates latents
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
from typing import Any, TypedDict

from torch import Tensor

from unnoise.config.cards import CodecConfig, LatentsConfig, PixelsConfig, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.formats import (
    condition_settings,
    controlnet,
    names,
    part,
    schedulers,
    text_encoders,
    unet2d,
    unet2d_condition,
)
from unnoise.formats.files import read_json
from unnoise.formats.text_encoders import INDEX, ClipEncoder, DualClipEncoder, is_part
from unnoise.nn.blocks import context_width

SCHEDULER, NOTES = "scheduler_config.json", "unnoise.json"


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


REFINES, REFINER_IDS = "requires_aesthetics_score", 5  # the flag in the index of XL's refiner, and its number of values
SCALE = 1000.0  # the range of values that are passed on unscaled: text.conditioner.VALUE_SCALE


def is_folder(folder: Path) -> bool:
    """Whether a folder has a config.json or a model_index.json."""
    return (folder / part.CONFIG).is_file() or (folder / INDEX).is_file()


# --- reading ---


def read(folder: Path, *, pickles: bool = False) -> tuple[UNetConfig, dict[str, Tensor], DiffusionConfig, Hints]:
    """The settings of the network, its weights under unnoise's names (float32), the process, the rest of the card.

    A network without a scheduler has that of DDPM: linear betas, 1,000 steps, eps. Classes without names have their
    numbers as names, and there is no null class. With `pickles` a .bin file is opened too, tensors only. Raises
    UserError that names the file and the setting or tensors that are not supported.
    """
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    parts = _parts(folder, index)
    unet = parts["unet"]
    config = _config(unet / part.CONFIG, REFINER_IDS if index.get(REFINES) is True else condition_settings.TIME_IDS)
    file = parts["scheduler"] / SCHEDULER
    scheduler = read_json(file) if file.is_file() or is_part(index.get("scheduler")) else {}
    process, sampler, spacing, spacing_options, clip = schedulers.from_config(scheduler, str(file))
    outputs = config.in_channels * (2 if process.learned_variance else 1)
    if config.out_channels != outputs:
        raise UserError(
            f"{unet / part.CONFIG}: out_channels is {config.out_channels} and in_channels {config.in_channels}: "
            f"{'with' if process.learned_variance else 'without'} variance_type learned_range it is {outputs}"
        )

    state = part.read_weights(unet, names.pieces_of(config), pickles=pickles)
    if "controlnet" in parts:
        found = controlnet.folders(folder, index["controlnet"][1])
        each = [controlnet.read(one, config, pickles=pickles) for one in found]
        config, state = controlnet.beside(config, state, each)
    config, classes = _classes(config, folder)  # after the weights, whose shapes have the number of rows
    kept = {key: value for key, value in scheduler.items() if not key.startswith("_") and key != "trained_betas"}
    info = {"format": "diffusers", "scheduler": kept}
    latents = "vae" in parts or config.in_channels not in (1, 3) or _notes(folder)["latents"]
    if latents:
        info["latents"] = "the autoencoder is not read: samples are its latents, not pictures"
    hints = Hints(
        channels=config.in_channels,
        classes=classes,
        values=_values(config),
        sampler=sampler,
        spacing=spacing,
        spacing_options=spacing_options,
        clip=clip and not latents,
        codec=LatentsConfig() if latents else PixelsConfig(),
        info=info,
    )
    return config, state, process, hints


def read_text_encoder(folder: Path, config: UNetConfig) -> ClipEncoder | DualClipEncoder | None:
    """The text encoder of a pipeline; None if the folder has none. Raises UserError if the widths differ."""
    text = text_encoders.read(folder) if (folder / INDEX).is_file() else None
    if text is not None and text.width != context_width(config):
        raise UserError(
            f"{folder}: the text encoder has embeddings of width {text.width}, and the unet needs "
            f"{context_width(config)}: its parts belong to different models"
        )
    return text


def _config(file: Path, time_ids: int) -> UNetConfig:
    """The settings of the network, by the class in the file; `time_ids`: the number of values of XL."""
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
        return unet2d.from_config(given, str(file))
    return unet2d_condition.from_config(given, str(file), time_ids=time_ids)


def _values(config: UNetConfig) -> tuple[ValueRange, ...]:
    """The values of XL, whose defaults mean a picture that was neither resized nor cropped.

    The refiner has an aesthetic score of 6 by default, and is guided away from one of 2.5.
    """
    if not config.value_width:
        return ()
    side = float(LatentsConfig().factor * config.size)  # pixels of a picture
    usual = {"original_height": side, "original_width": side, "crop_top": 0.0, "crop_left": 0.0}
    usual |= {"target_height": side, "target_width": side} if config.values != REFINER_IDS else {"aesthetic_score": 6.0}
    null = {"aesthetic_score": 2.5}
    return tuple(ValueRange(name, 0, SCALE, number, null.get(name)) for name, number in usual.items())


READ = ("unet", "scheduler", *text_encoders.PARTS, "controlnet")
PASSED = ("vae", "safety_checker", "feature_extractor", "image_encoder")  # parts that sampling x does not need


def _parts(folder: Path, index: Mapping[str, Any]) -> dict[str, Path]:
    """The folder of each part. Raises UserError for a pipeline with a part that is not supported."""
    if not (folder / INDEX).is_file():
        return {"unet": folder, "scheduler": folder}
    parts = {name: entry for name, entry in index.items() if not name.startswith("_") and is_part(entry)}
    for name, (_, kind) in parts.items():
        if name not in (*READ, *PASSED):
            raise UserError(
                f"{folder / INDEX}: a {index.get('_class_name', 'pipeline')} with a part {name!r} ({kind}): only "
                f"pipelines of {', '.join(READ)} are supported, with or without {', '.join(PASSED)}"
            )
    if "unet" not in parts:
        raise UserError(f"{folder / INDEX} lists no unet: give a pipeline with one")
    found = {name: folder / name for name in parts if name not in ("unet", "scheduler")}
    return found | {name: folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler")}


def _classes(config: UNetConfig, folder: Path) -> tuple[UNetConfig, tuple[str, ...]]:
    """The network's settings with the number of classes and the null class, and the names of the classes."""
    rows, file = config.classes, folder / NOTES
    notes = _notes(folder)
    names, null = notes["classes"], notes["null_class"]
    if names is None:
        return config, tuple(map(str, range(rows)))
    if len(names) + (null and bool(names)) != rows:
        raise UserError(
            f"{file}: {len(names)} classes{' and a null class' if null else ''} are not the {rows} rows "
            "(num_class_embeds) of the network: they belong to different models"
        )
    return replace(config, classes=len(names), null_class=null), tuple(names)


def _notes(folder: Path) -> dict[str, Any]:
    """The contents of unnoise.json, or what its absence means. Raises UserError for a wrong type."""
    file = folder / NOTES
    notes: dict[str, Any] = {"classes": None, "null_class": False, "latents": False}
    if not file.is_file():
        return notes
    notes |= {"classes": []} | read_json(file)
    names = notes["classes"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: classes has to be a list of names")
    for name in ("null_class", "latents"):
        if not isinstance(notes[name], bool):
            raise UserError(f"{file}: {name} has to be true or false")
    return notes


# --- writing ---


def write(
    folder: Path,
    config: UNetConfig,
    state: Mapping[str, Tensor],
    process: DiffusionConfig,
    classes: Sequence[str] = (),
    *,
    sampler: str = "ddim",
    clip: bool = True,
    latents: bool = False,
    text: ClipEncoder | DualClipEncoder | None = None,
) -> None:
    """Write a folder for `DDIMPipeline` (sampler ddim) or `DDPMPipeline` (ddpm, ddpm-large, ddpm-learned).

    A network that is conditioned on text, with its text encoder and controls, is written for StableDiffusionPipeline or
    StableDiffusionControlNetPipeline. They load it when they are given an autoencoder, or vae=None, with
    output_type="latent" when the pipeline is called. They set the scheduler's steps_offset to 1, whatever the file has.

    `state` has unnoise's names. With `clip`, DDIM's pictures equal those of unnoise if the pipeline is called with
    use_clipped_model_output=True: by default it clips the picture and keeps the noise, which then no longer fits.
    Neither pipeline passes labels on: sample a class-conditional network there with UNet2DModel and the scheduler.
    Raises UserError, before anything is written, for a model without an equivalent and a folder that is not empty.
    """
    part.check_empty(folder)
    if len(classes) != config.classes:
        raise UserError(f"{len(classes)} names for the {config.classes} classes of the network: give one for each")
    kind = "UNet2DConditionModel" if context_width(config) else "UNet2DModel"
    settings = unet2d_condition.to_config(config) if context_width(config) else unet2d.to_config(config)
    controlnet.check(config)
    if text is not None:
        text_encoders.check(text)
    scheduler = {"_diffusers_version": part.VERSION} | schedulers.to_config(process, sampler, clip=clip)
    alone, controls = controlnet.apart(config, state)
    table = names.pieces_of(replace(config, controls=()))
    part.check_ours(alone, table)

    part.write(folder / "unet", kind, settings, table, alone)
    (folder / "scheduler").mkdir()
    part.write_json(folder / "scheduler" / SCHEDULER, scheduler)
    index: dict[str, Any] = {
        "_class_name": _pipeline(config, sampler),
        "_diffusers_version": part.VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", kind],
    }
    index |= {REFINES: True} if config.values == REFINER_IDS else {}
    index |= controlnet.write_all(folder, config, controls)
    text_encoders.write_index(folder, index | (text_encoders.write(folder, text) if text is not None else {}))
    if classes or latents:
        notes = {"classes": list(classes), "null_class": config.null_class and bool(classes), "latents": latents}
        part.write_json(folder / NOTES, notes)


def _pipeline(config: UNetConfig, sampler: str) -> str:
    """The diffusers class of the pipeline of a network."""
    if not context_width(config):
        return "DDIMPipeline" if sampler == "ddim" else "DDPMPipeline"
    xl, refines = "XL" if config.value_width else "", "Img2Img" if config.values == REFINER_IDS else ""
    return f"StableDiffusion{xl}{'ControlNet' if config.controls else ''}{refines}Pipeline"
