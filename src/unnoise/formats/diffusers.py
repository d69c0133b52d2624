"""diffusers' folders, read and written without diffusers: UNet2DModel, and the parts of Stable Diffusion.

    model_index.json                              which class each part is
    unet/config.json                              the network's settings
    unet/diffusion_pytorch_model.safetensors      its weights, or ...safetensors.index.json and shards
    scheduler/scheduler_config.json               betas, prediction, how to draw
    text_encoder/, tokenizer/                     what reads captions, for a UNet2DConditionModel: clip_words.py
    vae/                                          not read: what is drawn with such a network is latents
    unnoise.json                                  ours: names of the classes, whether the last row means "no class",
                                                  whether the pictures are latents

Older folders (google/ddpm-cifar10-32) have all files at the top; a network alone has its two, and so has a
ControlNetModel. Laws (tests/test_diffusers_format.py, test_stable_diffusion_format.py): a network reads and writes as
diffusers computes it, to 1e-5; what is written draws in diffusers what it draws here; a setting that is not understood
is an error that names it; nothing is allocated before every name and shape is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import save_file
from torch import Tensor

from unnoise.errors import UserError
from unnoise.formats import clip_words, names, schedulers, unet2d, unet2d_condition
from unnoise.formats.clip_words import INDEX, ClipWords, is_part
from unnoise.formats.files import Shape, read_json, weights, what_is_wrong
from unnoise.nn.blocks import context
from unnoise.nn.control import Control
from unnoise.settings import ControlConfig, Process, UNetConfig

CONFIG, SCHEDULER, NOTES = "config.json", "scheduler_config.json", "unnoise.json"
WEIGHTS = "diffusion_pytorch_model"
VERSION = "0.42.0"  # of diffusers, whose defaults these are


class Hints(TypedDict):
    """What a folder says beside the network and the process: the rest of a model's card."""

    channels: int
    classes: tuple[str, ...]
    sampler: str
    clip: bool
    latents: bool
    info: dict[str, Any]


def is_folder(folder: Path) -> bool:
    """Whether this looks like one."""
    return (folder / CONFIG).is_file() or (folder / INDEX).is_file()


# --- reading ---


def read(folder: Path, *, pickles: bool = False) -> tuple[UNetConfig, dict[str, Tensor], Process, Hints]:
    """The network's settings, its weights in our names (float32), the process, and the rest of the card.

    A network without a scheduler is taken for DDPM's: linear betas, 1,000 steps, eps. Classes without names are called
    by their numbers, and none of them means "no class". With `pickles` a .bin file is opened too, tensors only.
    Raises UserError that names the file and the setting or tensors that are not understood.
    """
    parts = _parts(folder)
    unet = parts["unet"]
    config = _config(unet / CONFIG)
    file = parts["scheduler"] / SCHEDULER
    said = read_json(file) if file.is_file() else {}
    process, sampler, clip = schedulers.from_config(said, str(file))
    outputs = config.in_channels * (2 if process.learned_variance else 1)
    if config.out_channels != outputs:
        raise UserError(
            f"{unet / CONFIG}: out_channels is {config.out_channels} beside in_channels {config.in_channels}; "
            f"{'with' if process.learned_variance else 'without'} variance_type learned_range it is {outputs}"
        )

    state = _weights(unet, names.pieces_of(config), pickles=pickles)
    config, classes = _classes(config, folder)  # after the weights, which say that the rows are there
    drawn = {key: value for key, value in said.items() if not key.startswith("_") and key != "trained_betas"}
    info = {"format": "diffusers", "scheduler": drawn}
    latents = "vae" in parts or config.in_channels not in (1, 3) or _notes(folder)["latents"]
    if latents:
        info["latents"] = "no autoencoder is read: what is drawn are its latents, not pictures"
    hints = Hints(
        channels=config.in_channels,
        classes=classes,
        sampler=sampler,
        clip=clip and not latents,
        latents=latents,
        info=info,
    )
    return config, state, process, hints


def read_words(folder: Path) -> ClipWords | None:
    """What reads captions for the network of a pipeline; None where the folder has no such part."""
    return clip_words.read(folder) if (folder / INDEX).is_file() else None


def read_control(folder: Path, config: UNetConfig, *, pickles: bool = False) -> tuple[ControlConfig, dict[str, Tensor]]:
    """A ControlNetModel for a network of `config`: its settings, and the weights of our `Control`.

    Raises UserError for a setting or tensor that is not understood, and for a control of another network.
    """
    file = folder / CONFIG
    given = read_json(file)
    if given.get("_class_name", "ControlNetModel") != "ControlNetModel":
        raise UserError(f"{file} is the configuration of a {given['_class_name']}; ControlNetModel is understood")
    how = unet2d_condition.control_from_config(given, config, str(file))
    with torch.device("meta"):
        table = names.pieces(Control(config, how))
    return how, _weights(folder, table, pickles=pickles)


def _config(file: Path) -> UNetConfig:
    """The network's settings, by the class that the file names."""
    given = read_json(file)
    kind = given.get("_class_name", "UNet2DConditionModel" if "cross_attention_dim" in given else "UNet2DModel")
    if kind not in ("UNet2DModel", "UNet2DConditionModel"):
        raise UserError(f"{file} is the configuration of a {kind}; UNet2DModel and UNet2DConditionModel are understood")
    read = unet2d.from_config if kind == "UNet2DModel" else unet2d_condition.from_config
    return read(given, str(file))


READ = ("unet", "scheduler", *clip_words.PARTS)
PASSED = ("vae", "safety_checker", "feature_extractor", "image_encoder")  # parts that the network does not need


def _parts(folder: Path) -> dict[str, Path]:
    """The folder of each part. Raises UserError for a pipeline with a part that we cannot do without."""
    if not (folder / INDEX).is_file():
        return {"unet": folder, "scheduler": folder}
    index = read_json(folder / INDEX)
    parts = {name: part for name, part in index.items() if not name.startswith("_") and is_part(part)}
    for name, (_, kind) in parts.items():
        if name not in (*READ, *PASSED):
            raise UserError(
                f"{folder / INDEX}: a {index.get('_class_name', 'pipeline')} with a part {name!r} ({kind}); pipelines "
                f"of {', '.join(READ)} are understood, with or without {', '.join(PASSED)}"
            )
    if "unet" not in parts:
        raise UserError(f"{folder / INDEX} names no unet: there is no network to draw with")
    found = {name: folder / name for name in parts if name not in ("unet", "scheduler")}
    return found | {name: folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler")}


def _classes(config: UNetConfig, folder: Path) -> tuple[UNetConfig, tuple[str, ...]]:
    """The names of the classes, and the network's settings that know which rows are classes."""
    rows, file = config.classes, folder / NOTES
    notes = _notes(folder)
    names, null = notes["classes"], notes["null_class"]
    if names is None:
        return config, tuple(map(str, range(rows)))
    if len(names) + (null and bool(names)) != rows:
        raise UserError(
            f"{file}: {len(names)} classes{' and a null class' if null else ''} are not the {rows} rows "
            "(num_class_embeds) of the network: the folder was put together from two models"
        )
    return replace(config, classes=len(names), null_class=null), tuple(names)


def _notes(folder: Path) -> dict[str, Any]:
    """What we noted beside diffusers' files, if anything: names of the classes, and the rest."""
    file = folder / NOTES
    notes: dict[str, Any] = {"classes": None, "null_class": False, "latents": False}
    if not file.is_file():
        return notes
    notes |= {"classes": []} | read_json(file)
    names = notes["classes"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: classes is a list of names")
    for name in ("null_class", "latents"):
        if not isinstance(notes[name], bool):
            raise UserError(f"{file}: {name} is true or false")
    return notes


def _weights(folder: Path, table: names.Table, *, pickles: bool) -> dict[str, Tensor]:
    """The weights in our names. Names and shapes are compared before anything is loaded."""
    found = weights(folder, WEIGHTS)
    if found is not None:
        shapes = {names.modern(name): shape for name, shape in found.shapes().items()}
        check_tensors(shapes, names.wanted(table), str(folder))
        state = found.load()
    else:
        state = _unpickled(folder / f"{WEIGHTS}.bin", pickles=pickles)
        shapes = {names.modern(name): tuple(tensor.shape) for name, tensor in state.items()}
        check_tensors(shapes, names.wanted(table), str(folder))
    return names.join(table, {names.modern(name): state.pop(name) for name in list(state)})


def _unpickled(file: Path, *, pickles: bool) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"{file.parent} has no {WEIGHTS}.safetensors: copy the whole folder")
    if not pickles:
        raise UserError(
            f"{file} is a pickle, which can run code, and is not opened. Convert it once, where you trust it: "
            "diffusers' UNet2DModel.from_pretrained(...).save_pretrained(...) writes safetensors"
        )
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {name: tensor.to(torch.float32) for name, tensor in state.items()}


def check_tensors(found: Mapping[str, Shape], wanted: Mapping[str, Shape], where: str) -> None:
    """Names and shapes are those of the network, all of them. Raises UserError with the first few that are not."""
    problem = what_is_wrong(found, wanted)
    if problem:
        raise UserError(f"{where}: config and weights are not of one network: {problem}")


# --- writing ---


def write(
    folder: Path,
    config: UNetConfig,
    state: Mapping[str, Tensor],
    process: Process,
    classes: Sequence[str] = (),
    *,
    sampler: str = "ddim",
    clip: bool = True,
    latents: bool = False,
    words: ClipWords | None = None,
) -> None:
    """A pipeline folder that `DDIMPipeline` (sampler ddim) or `DDPMPipeline` (ddpm, ddpm-large, ddpm-learned) loads.

    Of a network that reads words, with what reads its captions: `StableDiffusionPipeline` loads it when it is handed
    an autoencoder, or None for one (vae=None, and output_type="latent" when it is called). That pipeline sets the
    scheduler's steps_offset to 1, whatever the file says.

    `state` is in our names. With `clip`, DDIM's pictures are those of here when the pipeline is called with
    use_clipped_model_output=True: alone it clips the picture and keeps the noise that no longer belongs to it. Neither
    pipeline hands labels on: a class-conditional network is drawn there by UNet2DModel and the scheduler.
    Raises UserError for what diffusers cannot say and for a folder that is not empty, before anything is written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a new folder")
    if len(classes) != config.classes:
        raise UserError(f"{len(classes)} names for the {config.classes} classes of the network")
    if config.controls:
        raise UserError("a network with controls is written in parts: write_control, and write for the network alone")
    kind = "UNet2DConditionModel" if context(config) else "UNet2DModel"
    said = unet2d_condition.to_config(config) if context(config) else unet2d.to_config(config)
    unet = {"_class_name": kind, "_diffusers_version": VERSION} | said
    scheduler = {"_diffusers_version": VERSION} | schedulers.to_config(process, sampler, clip=clip)
    table = names.pieces_of(config)
    _check_ours(state, table)

    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True)
    _write_json(folder / "unet" / CONFIG, unet)
    save_file(names.split(table, state), folder / "unet" / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})
    _write_json(folder / "scheduler" / SCHEDULER, scheduler)
    pipeline = "DDIMPipeline" if sampler == "ddim" else "DDPMPipeline"
    index = {
        "_class_name": "StableDiffusionPipeline" if context(config) else pipeline,
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", kind],
    }
    clip_words.write_index(folder, index | (clip_words.write(folder, words) if words is not None else {}))
    if classes or latents:
        noted = {"classes": list(classes), "null_class": config.null_class and bool(classes), "latents": latents}
        _write_json(folder / NOTES, noted)


def write_control(folder: Path, config: UNetConfig, state: Mapping[str, Tensor], how: ControlConfig) -> None:
    """A folder that `ControlNetModel.from_pretrained` loads, of the weights of a `Control` of a network of `config`.

    Raises UserError for what diffusers cannot say and for a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a new folder")
    said = {"_class_name": "ControlNetModel", "_diffusers_version": VERSION}
    said |= unet2d_condition.control_to_config(config, how)
    with torch.device("meta"):
        table = names.pieces(Control(config, how))
    _check_ours(state, table)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG, said)
    save_file(names.split(table, state), folder / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})


def _check_ours(state: Mapping[str, Tensor], table: names.Table) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_tensors(found, {name: each.shape for name, each in table.items()}, "the weights")


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
