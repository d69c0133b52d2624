"""Conditions of a request: labels, prompts, numbers and pictures in files, a row per seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from unnoise.codec import from_bytes
from unnoise.conditions import Cond
from unnoise.config.data import DataConfig
from unnoise.config.networks import ControlConfig
from unnoise.config.request import Request
from unnoise.data import degrade
from unnoise.data.decode import Picture, decode
from unnoise.data.source import Unreadable, reason
from unnoise.errors import UserError
from unnoise.model import Model
from unnoise.nn.controlnet import guess_scales
from unnoise.text.conditioner import Conditioner

T = TypeVar("T")


def conditions(reader: Conditioner, request: Request) -> Cond:
    """What each picture is told, a row per seed. One label, prompt or number is for all; no label and no prompt: a
    class by the seed."""
    count = len(request.seeds)
    values = {name: _each(many, count, name) for name, many in request.values.items()}
    if not request.labels and not request.prompts:
        return reader.random_class(request.seeds, values)
    return reader.encode(_each(request.labels, count, "label"), _each(request.prompts, count, "prompt"), values)


def full_condition(model: Model, request: Request) -> Cond:
    """`conditions`, and the joined picture and the drawings of a request: all that `generate` tells, a row per seed.
    Raises UserError for what the model does not take, and for what is missing."""
    cond = replace(conditions(model.conditioner, request), concat=concat_image(model, request))
    return add_control_images(model, cond, request)


def null_conditions(reader: Conditioner, request: Request, cond: Cond, count: int) -> Cond:
    """The rows of `cond` told nothing, or the negative prompt: what guidance leads away from. The joined picture
    and the drawings stay, unless the model is to guess: then only what is told follows them."""
    null = reader.null(count, request.negative_prompt)
    strength = cond.control_scale
    if request.guess and strength is not None:
        strength = torch.zeros_like(strength)
    value = null.value if reader.null_value else reader.null_values(cond.value)
    return replace(null, value=value, concat=cond.concat, control=cond.control, control_scale=strength)


def add_control_images(model: Model, cond: Cond, request: Request) -> Cond:
    """`cond`, and the drawings of a request in every row. Raises UserError for one that cannot be used."""
    takes = model.controls
    strongly = not cond.control and (request.guess or request.control_scale != (1.0,))
    if not takes and (request.controls or strongly):
        out = "--control" if request.controls else "--guess and --control-scale"
        raise UserError(f"this model follows no drawings: leave {out} out; {model.conditioner.supported_inputs}")
    if not request.controls:
        if strongly:
            raise UserError("there is no drawing to follow so strongly: give one, --control FILE")
        return cond
    count, scales = len(request.seeds), request.control_scale
    if len(request.controls) != len(takes):
        given, wants = (f"{n} drawing{'s' if n > 1 else ''}" for n in (len(request.controls), len(takes)))
        raise UserError(f"{given} for a model that takes {wants}: give --control so often")
    if len(scales) not in (1, len(takes)):
        raise UserError(f"{len(scales)} control scales for {len(takes)} drawings: give one, or one each")
    hints = tuple(control_image(Path(file), model, control) for file, control in zip(request.controls, takes))
    strength = torch.tensor(scales if len(scales) > 1 else scales * len(takes), dtype=torch.float32).expand(count, -1)
    if request.guess:
        strength = guess_scales(strength, model.residuals)
    return replace(cond, control=tuple(hint.expand(count, -1, -1, -1) for hint in hints), control_scale=strength)


def concat_image(model: Model, request: Request) -> Tensor | None:
    """What a request joins to x_t, in every row: (B, C, H, W). Raises UserError for a file that cannot be used, and
    where there has to be one, or none."""
    process = model.card.process
    if not process.concat:
        if request.image or request.mask:
            raise UserError(
                f"this model is shown no picture beside the noise: leave --image and --mask out; "
                f"{model.conditioner.supported_inputs}"
            )
        return None
    if not request.image:
        wants = (
            "the small picture" if process.concat == "low_res" else "the picture, and --mask what is drawn anew of it"
        )
        raise UserError(f"this model is shown a picture beside the noise: give it, --image {wants}")
    if process.concat == "masked" and not request.mask:
        raise UserError("this model draws a part of a picture anew: say which, --mask white where it is, else black")
    if process.concat == "low_res" and request.mask:
        raise UserError("this model makes small pictures larger and takes no mask: leave --mask out")
    if process.concat == "low_res":
        image = degrade.upscale(low_res_image(Path(request.image), model), process.concat_factor)
    else:
        hole = read_picture(Path(request.mask), model.card.size, 1, "mask")
        image = read_picture(Path(request.image), model.card.size, model.card.channels, "picture")
        image = degrade.mask_out(from_bytes(image), (hole > 127).float())
    return image.expand(len(request.seeds), -1, -1, -1)


def low_res_image(file: Path, model: Model) -> Tensor:
    """The small picture in a file, (1, C, h, w) in [-1, 1]: as it is; or that of a large one, brought to the size of
    the model's pictures and made small as in training. Raises UserError for one in between."""
    factor, (height, width) = model.card.process.concat_factor, model.card.size
    small = (height // factor, width // factor)
    found = open_picture(file, min(height, width), model.card.channels, "picture").size[::-1]  # height, width
    if found == small:
        return from_bytes(read_picture(file, small, model.card.channels, "picture"))
    if found[0] < height or found[1] < width:
        raise UserError(
            f"the picture {file} is {found[1]}x{found[0]}; this model makes {small[1]}x{small[0]} into {width}x"
            f"{height}: give it in one of these two sizes, or a larger one of that shape"
        )
    whole = read_picture(file, (height, width), model.card.channels, "picture")
    return degrade.downscale(from_bytes(whole), factor)


def control_image(file: Path, model: Model, control: ControlConfig) -> Tensor:
    """A drawing as a control network takes it: (1, C, h, w) in [0, 1]. Raises UserError for a file that is none."""
    height, width = (side * control.scale for side in model.card.size)
    return read_picture(file, (height, width), control.channels, "drawing").float() / 255


def read_picture(file: Path, size: tuple[int, int], channels: int, what: str) -> Tensor:
    """Bytes (1, C, height, width) of a picture of this shape, whatever its size; transparent parts are black in
    drawings and masks, white in pictures. Raises UserError."""
    pixels = open_picture(file, min(size), channels, what).pixels
    if pixels.shape[1:] != size:
        raise UserError(
            f"the {what} {file} has another shape than the model's pictures, {size[1]}x{size[0]}: crop it to that"
        )
    return torch.from_numpy(pixels.copy())[None]


def open_picture(file: Path, size: int, channels: int, what: str) -> Picture:
    """A picture whose shorter side becomes `size`. Raises UserError for a file that is none."""
    background = (255, 255, 255) if what == "picture" else (0, 0, 0)
    try:
        config = DataConfig(size=size, channels=channels, background=background)
        return decode(file.read_bytes(), config, control=what == "drawing")
    except (OSError, Unreadable) as error:
        raise UserError(f"the {what} {file} cannot be read: {reason(error)}") from None


def _each(said: tuple[T, ...], count: int, what: str) -> tuple[T, ...]:
    """One a picture. Raises UserError where it is neither one for all nor as many as there are."""
    if len(said) not in (0, 1, count):
        raise UserError(f"{len(said)} {what}s for {count} seeds: give one {what}, or one a seed")
    return said * count if len(said) == 1 else said
