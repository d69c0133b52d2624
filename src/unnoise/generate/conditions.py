"""The condition of a request: labels, prompts, values, and pictures in files become tensors, a row per seed.

A file is opened once and a prompt encoded once, however many seeds use it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from unnoise.codec import concat_in_x, from_bytes
from unnoise.conditions import Cond
from unnoise.config.cards import NoisyClassifierCard
from unnoise.config.data import DataConfig
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.data import degrade
from unnoise.data.decode import Picture, decode
from unnoise.data.source import FILE_BYTES, Unreadable, reason
from unnoise.errors import UserError
from unnoise.io.reading import read_bytes
from unnoise.model import Model
from unnoise.nn.controlnet import guess_scales
from unnoise.text.conditioner import Conditioner

T = TypeVar("T")


def conditioner_of(model: Model, guide: NoisyClassifierCard | None = None) -> Conditioner:
    """The model's conditioner; where it has no classes, it knows those of the classifier that guides it."""
    if guide is None or model.classes:
        return model.conditioner
    return replace(model.conditioner, classes=guide.classes, classifier_only=True)


def text_and_labels(conditioner: Conditioner, request: Request) -> Cond:
    """Labels, prompts and values, a row per seed. One of a kind is for all seeds; without labels and prompts, and for a
    label that is empty, each seed has a class of its own."""
    count = len(request.seeds)
    values = {name: _per_seed(given, count, name) for name, given in request.prompt.values.items()}
    if not request.prompt.labels and not request.prompt.prompts:
        return conditioner.random_class(request.seeds, values)
    labels, prompts = (
        _per_seed(request.prompt.labels, count, "label"),
        _per_seed(request.prompt.prompts, count, "prompt"),
    )
    labels = tuple(label or _class_of(conditioner, seed) for label, seed in zip(labels, request.seeds))
    return conditioner.encode(labels, prompts, values)


def placeholder(model: Model, count: int) -> Cond:
    """A condition of the right shapes, `count` rows, for measurements: random classes, the empty caption, values in the
    middle of their ranges, and blank pictures."""
    net, (height, width) = model.card.net, model.card.size
    values = {known.name: ((known.low + known.high) / 2,) * count for known in model.card.values}
    cond = model.conditioner.random_class(range(count), values)
    if model.text is None and net.context:  # its text encoder is elsewhere: 77 tokens, as CLIP's
        cond = replace(cond, text=torch.zeros(count, 77, net.context))
    if not isinstance(net, UNetConfig):
        return cond
    if net.vector and cond.pooled is None:
        cond = replace(cond, pooled=torch.zeros(count, net.vector))
    if net.concat_channels:
        cond = replace(cond, concat=torch.zeros(count, net.concat_channels, height, width))
    images = (torch.zeros(count, c.channels, c.scale * height, c.scale * width) for c in net.controls)
    return replace(cond, control=tuple(images))


def _class_of(conditioner: Conditioner, seed: int) -> str:
    """The class that a seed has when none is named; "none" for a model without classes."""
    label = conditioner.random_class([seed]).label
    return "none" if label is None else conditioner.name(int(label[0]))


def null_condition(conditioner: Conditioner, request: Request, cond: Cond) -> Cond:
    """The condition that guidance leads away from, a row per seed: no class and the negative prompt, or an empty one.

    Concatenated and control images stay. In guess mode control images do not act on these rows. Raises UserError for a
    model that has no such rows.
    """
    count = len(request.seeds)
    null = conditioner.null(1, request.prompt.negative_prompt)
    null = null[torch.zeros(count, dtype=torch.int64)]
    scale = cond.control_scale
    if request.prompt.guess and scale is not None:
        scale = torch.zeros_like(scale)
    value = null.value if conditioner.null_value else conditioner.null_values(cond.value)
    return replace(null, value=value, concat=cond.concat, control=cond.control, control_scale=scale)


def add_control_images(model: Model, cond: Cond, request: Request) -> Cond:
    """`cond` with the request's control images in every row. Raises UserError for one that cannot be used."""
    wanted = model.controls
    scaled = not cond.control and (request.prompt.guess or request.prompt.control_scale != (1.0,))
    if not wanted and (request.prompt.controls or scaled):
        options = "--control" if request.prompt.controls else "--guess and --control-scale"
        raise UserError(f"this model has no ControlNet: remove {options}; {model.conditioner.supported_inputs}")
    if not request.prompt.controls:
        if scaled:
            raise UserError("--guess and --control-scale need a control image: add --control FILE")
        return cond
    count, scales = len(request.seeds), request.prompt.control_scale
    if len(request.prompt.controls) != len(wanted):
        given, needed = (
            f"{n} control image{'s' if n > 1 else ''}" for n in (len(request.prompt.controls), len(wanted))
        )
        raise UserError(f"{given} for a model that needs {needed}: repeat --control once per ControlNet")
    if len(scales) not in (1, len(wanted)):
        raise UserError(f"{len(scales)} control scales for {len(wanted)} control images: give one, or one for each")
    images = tuple(control_image(Path(file), model, control) for file, control in zip(request.prompt.controls, wanted))
    scale = torch.tensor(scales if len(scales) > 1 else scales * len(wanted), dtype=torch.float32).expand(count, -1)
    if request.prompt.guess:
        scale = guess_scales(scale, model.residuals)
    return replace(cond, control=tuple(image.expand(count, -1, -1, -1) for image in images), control_scale=scale)


def concat_image(model: Model, request: Request) -> Tensor | None:
    """The picture that is concatenated to x_t, in pixels: (1, C, H, W), or (1, C + 1, H, W) with the mask of its hole;
    None for a model without one.

    Raises UserError for a file that cannot be used, for one that is missing, and for one too many.
    """
    process = model.card.process
    if not process.concat:
        if request.prompt.image or request.prompt.mask:
            raise UserError(
                "this model has no image input beside x_t: remove --image and --mask; "
                f"{model.conditioner.supported_inputs}"
            )
        return None
    if not request.prompt.image:
        needed = "LOW_RES_FILE" if process.concat == "low_res" else "FILE, and --mask FILE, white where it is inpainted"
        raise UserError(f"this model needs an image input: add --image {needed}")
    if process.concat == "masked" and not request.prompt.mask:
        raise UserError(
            "this model inpaints part of a picture: add --mask FILE, white where it is inpainted, else black"
        )
    if process.concat == "low_res" and request.prompt.mask:
        raise UserError("this model is for super-resolution and has no mask input: remove --mask")
    if process.concat == "low_res":
        return degrade.upscale(low_res_image(Path(request.prompt.image), model), process.concat_factor)
    channels, height, width = model.picture_shape
    hole = read_picture(Path(request.prompt.mask), (height, width), 1, "mask")
    image = read_picture(Path(request.prompt.image), (height, width), channels, "picture")
    return degrade.mask_out(from_bytes(image), (hole > 127).float())


def concat_rows(model: Model, request: Request, image: Tensor) -> Tensor:
    """The picture of `concat_image` as the network reads it, a row per seed."""
    return concat_in_x(image, model.codec).expand(len(request.seeds), -1, -1, -1)


def low_res_image(file: Path, model: Model) -> Tensor:
    """The low-resolution picture in a file, (1, C, h, w) in [-1, 1].

    A file of exactly that size is read as it is; a larger one is brought to the size of the model's pictures and
    downscaled as in training. Raises UserError for sizes in between.
    """
    factor, (channels, height, width) = model.card.process.concat_factor, model.picture_shape
    small = (height // factor, width // factor)
    found = open_picture(file, min(height, width), channels, "picture").size[::-1]  # height, width
    if found == small:
        return from_bytes(read_picture(file, small, channels, "picture"))
    if found[0] < height or found[1] < width:
        raise UserError(
            f"the picture {file} is {found[1]}x{found[0]}; this model turns {small[1]}x{small[0]} into {width}x"
            f"{height}: give it in one of these two sizes, or a larger one of that shape"
        )
    whole = read_picture(file, (height, width), channels, "picture")
    return degrade.downscale(from_bytes(whole), factor)


def input_picture(file: Path, model: Model) -> Tensor:
    """A picture to invert or interpolate: (1, C, H, W) in [-1, 1].

    Raises UserError for a file that is not a picture, for another size than the model's, and for a picture in colour if
    the model's are grey: resizing or converting it would invert another picture.
    """
    channels, height, width = model.picture_shape
    found = open_picture(file, min(height, width), 3, "picture")
    if found.size != (width, height):
        raise UserError(
            f"the picture {file} is {found.size[0]}x{found.size[1]}, and this model's are {width}x{height}: resize it"
        )
    pixels = torch.from_numpy(found.pixels.copy())
    if channels == 1 and bool((pixels != pixels[:1]).any()):
        raise UserError(f"the picture {file} is in colour, and this model's are grey: convert it to grey")
    return from_bytes(pixels[None, :channels])


def control_image(file: Path, model: Model, control: ControlConfig) -> Tensor:
    """A control image as the ControlNet reads it: (1, C, h, w) in [0, 1]. Raises UserError for an unusable file."""
    height, width = (side * control.scale for side in model.card.size)
    return read_picture(file, (height, width), control.channels, "control image").float() / 255


def read_picture(file: Path, size: tuple[int, int], channels: int, what: str) -> Tensor:
    """Bytes (1, C, height, width) of a picture of this aspect ratio, resized. Raises UserError.

    Transparent parts become black in control images and masks, white in pictures.
    """
    pixels = open_picture(file, min(size), channels, what).pixels
    if pixels.shape[1:] != size:
        raise UserError(
            f"the {what} {file} has not the aspect ratio of the model's pictures, {size[1]}x{size[0]}: crop it to that"
        )
    return torch.from_numpy(pixels.copy())[None]


def open_picture(file: Path, size: int, channels: int, what: str) -> Picture:
    """A picture whose shorter side becomes `size`. Raises UserError for a file that is not a picture."""
    background = (255, 255, 255) if what == "picture" else (0, 0, 0)
    try:
        config = DataConfig(size=size, channels=channels, background=background)
        return decode(read_bytes(file, FILE_BYTES), config, control=what == "control image")
    except (OSError, Unreadable, UserError) as error:
        raise UserError(f"the {what} {file} cannot be read: {reason(error)}") from None


def _per_seed(given: tuple[T, ...], count: int, what: str) -> tuple[T, ...]:
    """One value per seed. Raises UserError for a number of values that is neither 1 nor `count`."""
    if len(given) not in (0, 1, count):
        raise UserError(f"{len(given)} {what}s for {count} seeds: give one {what}, or one per seed")
    return given * count if len(given) == 1 else given
