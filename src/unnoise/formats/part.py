"""One network in a diffusers folder: its settings, and its weights under diffusers' names.

    config.json                              _class_name, and the settings of the class
    diffusion_pytorch_model.safetensors      the weights, or ...safetensors.index.json and shards

No memory is allocated before all names and shapes match.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unnoise.errors import UserError
from unnoise.formats import names
from unnoise.formats.files import Shape, weights, what_is_wrong

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model"
VERSION = "0.42.0"  # of diffusers; the defaults of all tables are those of this version


def read_weights(folder: Path, table: names.Table, *, pickles: bool) -> dict[str, Tensor]:
    """The weights under unnoise's names. Raises UserError, before they are loaded, if names or shapes do not match."""
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
            f"{file} is a pickle, which can run code, and is not opened. If you trust it, convert it once: diffusers' "
            "UNet2DModel.from_pretrained(...).save_pretrained(...) writes safetensors"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, none of them documented
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is not a file of weights: {why}") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{file} contains more than tensors by name: convert it to safetensors")
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise UserError(f"{file}: {name} is {tensor.dtype}: weights are floating-point numbers")
    return {name: tensor.to(torch.float32) for name, tensor in state.items()}


def check_tensors(found: Mapping[str, Shape], wanted: Mapping[str, Shape], where: str) -> None:
    """Raises UserError, with the first few names, if tensors are missing, unknown or of another shape."""
    problem = what_is_wrong(found, wanted)
    if problem:
        raise UserError(f"{where}: the configuration and the weights belong to different networks: {problem}")


def write(
    folder: Path, kind: str, settings: Mapping[str, Any], table: names.Table, state: Mapping[str, Tensor]
) -> None:
    """Write a folder that the class `kind` of diffusers loads. The weights have passed `check_ours`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {"_class_name": kind, "_diffusers_version": VERSION, **settings})
    save_file(names.split(table, state), folder / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})


def check_ours(state: Mapping[str, Tensor], table: names.Table) -> None:
    """Raises UserError if names or shapes of the weights are not those of the network."""
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_tensors(found, {name: each.shape for name, each in table.items()}, "the weights")


def check_empty(folder: Path) -> None:
    """Raises UserError for a path that is not a new or an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder: give the path of a new one")


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write an indented JSON file."""
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
