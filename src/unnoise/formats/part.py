"""A network in a folder of diffusers': its settings, and its weights in their names.

    config.json                              _class_name, and the class's settings
    diffusion_pytorch_model.safetensors      its weights, or ...safetensors.index.json and shards

Nothing is allocated before every name and shape is right.
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
VERSION = "0.42.0"  # of diffusers, whose defaults these are


def read_weights(folder: Path, table: names.Table, *, pickles: bool) -> dict[str, Tensor]:
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


def write(folder: Path, kind: str, said: Mapping[str, Any], table: names.Table, state: Mapping[str, Tensor]) -> None:
    """A folder that the class `kind` of diffusers loads, of weights that `check_ours` found right."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {"_class_name": kind, "_diffusers_version": VERSION, **said})
    save_file(names.split(table, state), folder / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})


def check_ours(state: Mapping[str, Tensor], table: names.Table) -> None:
    """Names and shapes are ours. Raises UserError with the first few that are not."""
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_tensors(found, {name: each.shape for name, each in table.items()}, "the weights")


def check_empty(folder: Path) -> None:
    """Raises UserError for a folder that holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a new folder")


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
