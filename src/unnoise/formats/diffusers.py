"""diffusers' folders of an unconditional or class-conditional UNet2DModel, read and written without diffusers.

    model_index.json                              which class each part is
    unet/config.json                              the network's settings
    unet/diffusion_pytorch_model.safetensors      its weights, or ...safetensors.index.json and shards
    scheduler/scheduler_config.json               betas, prediction, how to draw
    unnoise.json                                  ours: names of the classes, and whether the last row means "no class"

Older folders (google/ddpm-cifar10-32) have all files at the top; a network alone has its two. Laws
(tests/test_diffusers_format.py): a network reads and writes as diffusers computes it, to 1e-5; what is written draws
in diffusers what it draws here; a setting that is not understood is an error that names it; nothing is allocated
before every name and shape is right.
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
from unnoise.formats import schedulers, unet2d
from unnoise.formats.files import Shape, Tensors, read_json
from unnoise.settings import Process, UNetConfig

INDEX, CONFIG, SCHEDULER, NOTES = "model_index.json", "config.json", "scheduler_config.json", "unnoise.json"
WEIGHTS = "diffusion_pytorch_model"
VERSION = "0.42.0"  # of diffusers, whose defaults these are
SHOWN = 4  # how many wrong tensors an error names


class Hints(TypedDict):
    """What a folder says beside the network and the process: the rest of a model's card."""

    channels: int
    classes: tuple[str, ...]
    sampler: str
    clip: bool
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
    unet, scheduler = _parts(folder)
    given = read_json(unet / CONFIG)
    if given.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"{unet / CONFIG} is the configuration of a {given['_class_name']}; UNet2DModel is understood")
    config = unet2d.from_config(given, str(unet / CONFIG))
    file = scheduler / SCHEDULER
    said = read_json(file) if file.is_file() else {}
    process, sampler, clip = schedulers.from_config(said, str(file))
    outputs = config.in_channels * (2 if process.learned_variance else 1)
    if config.out_channels != outputs:
        raise UserError(
            f"{unet / CONFIG}: out_channels is {config.out_channels} beside in_channels {config.in_channels}; "
            f"{'with' if process.learned_variance else 'without'} variance_type learned_range it is {outputs}"
        )

    state = _weights(unet, unet2d.pieces_of(config), pickles=pickles)
    config, classes = _classes(config, folder)  # after the weights, which say that the rows are there
    drawn = {key: value for key, value in said.items() if not key.startswith("_") and key != "trained_betas"}
    info = {"format": "diffusers", "scheduler": drawn}
    return (
        config,
        state,
        process,
        Hints(channels=config.in_channels, classes=classes, sampler=sampler, clip=clip, info=info),
    )


def _parts(folder: Path) -> tuple[Path, Path]:
    """The folders of the network and of the scheduler. Raises UserError for a pipeline of other parts."""
    if not (folder / INDEX).is_file():
        return folder, folder
    index = read_json(folder / INDEX)
    parts = {name: part for name, part in index.items() if not name.startswith("_") and _is_part(part)}
    for name, (_, kind) in parts.items():
        if name not in ("unet", "scheduler"):
            raise UserError(
                f"{folder / INDEX}: a {index.get('_class_name', 'pipeline')} with a part {name!r} ({kind}); pipelines "
                "of a unet and a scheduler are understood"
            )
    if "unet" not in parts:
        raise UserError(f"{folder / INDEX} names no unet: there is no network to draw with")
    unet, scheduler = (folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler"))
    return unet, scheduler


def _is_part(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[1] is not None


def _classes(config: UNetConfig, folder: Path) -> tuple[UNetConfig, tuple[str, ...]]:
    """The names of the classes, and the network's settings that know which rows are classes."""
    rows, file = config.classes, folder / NOTES
    if not file.is_file():
        return config, tuple(map(str, range(rows)))
    notes = read_json(file)
    names, null = notes.get("classes", []), notes.get("null_class", False)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not isinstance(null, bool):
        raise UserError(f"{file}: classes is a list of names, null_class true or false")
    if len(names) + (null and bool(names)) != rows:
        raise UserError(
            f"{file}: {len(names)} classes{' and a null class' if null else ''} are not the {rows} rows "
            "(num_class_embeds) of the network: the folder was put together from two models"
        )
    return replace(config, classes=len(names), null_class=null), tuple(names)


def _weights(folder: Path, table: Mapping[str, Mapping[str, Shape]], *, pickles: bool) -> dict[str, Tensor]:
    """The weights in our names. Names and shapes are compared before anything is loaded."""
    wanted = {name: shape for parts in table.values() for name, shape in parts.items()}
    found = _tensors(folder)
    if found is not None:
        shapes = {unet2d.modern(name): shape for name, shape in found.shapes().items()}
        check_tensors(shapes, wanted, str(folder))
        state = found.load()
    else:
        state = _unpickled(folder / f"{WEIGHTS}.bin", pickles=pickles)
        shapes = {unet2d.modern(name): tuple(tensor.shape) for name, tensor in state.items()}
        check_tensors(shapes, wanted, str(folder))
    return unet2d.join(table, {unet2d.modern(name): tensor for name, tensor in state.items()})


def _tensors(folder: Path) -> Tensors | None:
    """The safetensors of a folder: one file, its shards, or a variant; None where there are none."""
    whole = folder / f"{WEIGHTS}.safetensors"
    index = folder / f"{WEIGHTS}.safetensors.index.json"
    if whole.is_file():
        return Tensors.of(whole)
    if index.is_file():
        return _shards(index)
    variants = sorted(folder.glob(f"{WEIGHTS}.*.safetensors"))
    if len(variants) > 1:
        names = ", ".join(file.name for file in variants)
        raise UserError(f"{folder} has the weights in {names}: rename the one that is meant to {whole.name}")
    return Tensors.of(*variants) if variants else None


def _shards(index: Path) -> Tensors:
    """The tensors of an index, each from the file that the index says."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{index}: weight_map, which says the file of each tensor, is not there")
    for file in set(places.values()):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"{index}: {file!r} is no name of a safetensors file beside it")
    tensors = Tensors.of(*(index.parent / file for file in sorted(set(places.values()))))
    for name, file in places.items():
        if tensors.home.get(name) != index.parent / file:
            raise UserError(f"{index}: {name} is not in {file}: index and shards are not of one model")
    return tensors


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
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not known" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{where}: config and weights are not of one network: {'; '.join(problems[:SHOWN])}{more}")


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
) -> None:
    """A pipeline folder that `DDIMPipeline` (sampler ddim) or `DDPMPipeline` (ddpm, ddpm-large, ddpm-learned) loads.

    `state` is in our names. With `clip`, DDIM's pictures are those of here when the pipeline is called with
    use_clipped_model_output=True: alone it clips the picture and keeps the noise that no longer belongs to it. Neither
    pipeline hands labels on: a class-conditional network is drawn there by UNet2DModel and the scheduler.
    Raises UserError for what diffusers cannot say and for a folder that is not empty, before anything is written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a new folder")
    if len(classes) != config.classes:
        raise UserError(f"{len(classes)} names for the {config.classes} classes of the network")
    unet = {"_class_name": "UNet2DModel", "_diffusers_version": VERSION} | unet2d.to_config(config)
    scheduler = {"_diffusers_version": VERSION} | schedulers.to_config(process, sampler, clip=clip)
    table = unet2d.pieces_of(config)
    wanted = {
        name: (sum(s[0] for s in parts.values()), *next(iter(parts.values()))[1:]) for name, parts in table.items()
    }
    check_tensors({name: tuple(tensor.shape) for name, tensor in state.items()}, wanted, "the weights")

    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True)
    _write_json(folder / "unet" / CONFIG, unet)
    save_file(unet2d.split(table, state), folder / "unet" / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})
    _write_json(folder / "scheduler" / SCHEDULER, scheduler)
    index = {
        "_class_name": "DDIMPipeline" if sampler == "ddim" else "DDPMPipeline",
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DModel"],
    }
    _write_json(folder / INDEX, index)
    if classes:
        _write_json(folder / NOTES, {"classes": list(classes), "null_class": config.null_class})


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
