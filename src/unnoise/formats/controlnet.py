"""diffusers folders of a ControlNetModel, and the controls in a pipeline folder.

    controlnet/, controlnet_1/, ...      one for each control (part.py)

A control is read for the network to which it belongs, whose settings it shares. Laws
(tests/formats/test_stable_diffusion.py, tests/formats/test_pipelines.py): its residuals are those that diffusers
computes, to 1e-5, in both directions; a control of another network is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.formats import condition_settings, names, part, unet2d_condition
from unnoise.formats.files import read_json
from unnoise.formats.settings import assumed
from unnoise.nn.blocks import context_width
from unnoise.nn.controlnet import ControlNet

KIND, SEVERAL = "ControlNetModel", "MultiControlNetModel"


def is_folder(folder: Path) -> bool:
    """Whether this is the folder of a single ControlNetModel."""
    file = folder / part.CONFIG
    return file.is_file() and read_json(file).get("_class_name") == KIND


def read(folder: Path, config: UNetConfig, *, pickles: bool = False) -> tuple[ControlConfig, dict[str, Tensor]]:
    """The settings and the weights (of nn.controlnet.ControlNet) of a ControlNetModel, for the network `config`.

    Raises UserError for a setting or tensor that is not supported, and for a control of another network.
    """
    file = folder / part.CONFIG
    given = read_json(file)
    if given.get("_class_name", KIND) != KIND:
        raise UserError(f"{file} is the configuration of a {given['_class_name']}: only {KIND} is supported")
    how = unet2d_condition.control_from_config(given, config, str(file))
    return how, part.read_weights(folder, table_of(config, how), pickles=pickles)


def notes(folder: Path) -> list[str]:
    """Notes on settings that the files of a control lack."""
    file = folder / part.CONFIG
    return assumed(read_json(file), condition_settings.CONTROL_DEFAULTS, KIND, str(file))


def write(folder: Path, config: UNetConfig, state: Mapping[str, Tensor], how: ControlConfig) -> None:
    """Write a folder that `ControlNetModel.from_pretrained` loads: a control of the network `config`, with weights.

    Raises UserError for a control without an equivalent in diffusers, and for a folder that is not empty.
    """
    part.check_empty(folder)
    settings, table = unet2d_condition.control_to_config(config, how), table_of(config, how)
    part.check_ours(state, table)
    part.write(folder, KIND, settings, table, state)


def table_of(config: UNetConfig, how: ControlConfig) -> names.Table:
    with torch.device("meta"):
        return names.pieces(ControlNet(config, how))


# --- the controls of a network ---


def beside(
    config: UNetConfig, state: Mapping[str, Tensor], more: Sequence[tuple[ControlConfig, Mapping[str, Tensor]]]
) -> tuple[UNetConfig, dict[str, Tensor]]:
    """The settings and the weights of a network with more controls, after those that it has."""
    merged, controls = dict(state), list(config.controls)
    for how, tensors in more:
        merged |= {f"controls.{len(controls)}.{name}": tensor for name, tensor in tensors.items()}
        controls.append(how)
    return replace(config, controls=tuple(controls)), merged


def apart(
    config: UNetConfig, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[tuple[ControlConfig, dict[str, Tensor]]]]:
    """The weights of the network alone, and the settings and weights of each control: the inverse of `beside`."""
    alone = {name: tensor for name, tensor in state.items() if not name.startswith("controls.")}
    found = []
    for place, how in enumerate(config.controls):
        start = f"controls.{place}."
        found.append((how, {n.removeprefix(start): tensor for n, tensor in state.items() if n.startswith(start)}))
    return alone, found


def folders(pipeline: Path, kind: str) -> list[Path]:
    """The folders of the controls of a pipeline, whose index has a controlnet of the class `kind`."""
    first = pipeline / "controlnet"
    if kind != SEVERAL:
        return [first]
    found = [first]
    while (after := pipeline / f"controlnet_{len(found)}").is_dir():
        found.append(after)
    return found


def write_all(
    pipeline: Path, config: UNetConfig, controls: Sequence[tuple[ControlConfig, Mapping[str, Tensor]]]
) -> dict[str, Any]:
    """Write the controls of a network into a pipeline folder; returns their entry of its index."""
    for place, (how, state) in enumerate(controls):
        write(pipeline / (f"controlnet_{place}" if place else "controlnet"), config, state, how)
    return {"controlnet": ["diffusers", KIND if len(controls) == 1 else SEVERAL]} if controls else {}


def check(config: UNetConfig) -> None:
    """Raises UserError for controls without an equivalent in diffusers."""
    if config.controls and not context_width(config):
        raise UserError(
            f"diffusers' {KIND} needs a network that is conditioned on text, and this one is not: export it without "
            "controls"
        )
    for how in config.controls:
        unet2d_condition.control_to_config(config, how)
