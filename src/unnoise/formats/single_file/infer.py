"""The configuration of a CompVis U-Net, ControlNet or text tower, from the shapes of its tensors.

Widths, levels, blocks, where attention is, its depth and its context are in the shapes. What is not follows the
published models: GroupNorm of 32 groups, heads of 64 channels where transformers have linear projections (Stable
Diffusion 2 and XL), otherwise 8 heads (Stable Diffusion 1), or one where classes are the context (ImageNet); without
transformers, heads of 32 channels for latents, 8 heads with scale and shift (churches), and 64 channels for pixels
(ADM). A step that the shapes do not show is found by the comparison with the table (unet.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.formats.files import Shape
from unnoise.formats.settings import LAYERS
from unnoise.nn.unet import check

Shapes = Mapping[str, Shape]
VALUE_WIDTH = 256  # of XL's sizes, each
BASE_IDS, REFINER_IDS = 6, 5  # numbers of XL's sizes and scores
COMMON: dict[str, Any] = {  # of all models of this kind
    "norm_eps": 1e-5,
    "groups": 32,
    "asymmetric_padding": False,
    "cosine_first": True,
    "frequency_shift": 0.0,
    "null_class": False,
    "null_value": False,
}


def unet(shapes: Shapes, where: str, *, one_head: bool = False) -> UNetConfig:
    """The configuration of a U-Net, of the smallest size that it accepts; `one_head` where classes are the context.

    Raises UserError that begins with `where` for tensors that are not those of a U-Net of this kind.
    """
    outputs = [f"output_blocks.{i}" for i in range(_count(shapes, "output_blocks"))]
    steps = [i for i, name in enumerate(outputs) if _step_up(shapes, name)]
    each = steps[0] + 1 if steps else len(outputs)
    if not outputs or "input_blocks.0.0.weight" not in shapes or len(outputs) % each:
        raise UserError(f"{where}: its tensors are not those of a U-Net of latent diffusion")
    levels = [outputs[first : first + each] for first in reversed(range(0, len(outputs), each))]
    attention = tuple(_attends(shapes, f"{names[0]}.1") for names in levels)
    depths = [_depth(shapes, f"{names[0]}.1") for names in levels]
    middle = _attends(shapes, "middle_block.1")
    depths[-1] = depths[-1] or _depth(shapes, "middle_block.1")  # the refiner's last level has none
    found = _ends(shapes, where) | {
        "size": 2 ** (len(levels) - 1),
        "channels": tuple(_width(shapes, f"{names[0]}.0.out_layers.3.weight", where) for names in levels),
        "blocks": each - 1,
        "attention": attention,
        "middle_attention": middle,
        "transformers": tuple(depth or 1 for depth in depths) if len({*filter(None, depths)}) > 1 else max(*depths, 1),
        "residual_resampling": bool(steps) and not any(name.endswith(".op.weight") for name in shapes),
        "scale_shift": _scale_shift(shapes),
    }
    config = UNetConfig(**COMMON | found | _text(shapes, one_head) | _conditions(shapes, attention))
    if not config.context:
        config = _without_text(config)
    return _checked(config, where)


def control(shapes: Shapes, base: UNetConfig, where: str) -> ControlConfig:
    """The settings of a ControlNet of `base`. Raises UserError for tensors that are not those of a ControlNet."""
    convs = sorted(int(name.split(".")[1]) for name in shapes if _is(name, "input_hint_block", "weight"))
    if not convs:
        raise UserError(f"{where}: its tensors are not those of a ControlNet")
    widths = [_width(shapes, f"input_hint_block.{i}.weight", where) for i in convs]
    return ControlConfig(
        channels=shapes["input_hint_block.0.weight"][1],
        hint=(widths[0], *widths[2:-1:2]),
        scale=2 ** ((len(widths) - 2) // 2),
    )


# --- parts of a U-Net ---


def _ends(shapes: Shapes, where: str) -> dict[str, int]:
    """Channels of input and output. More outputs than inputs are a learned variance, more inputs a picture beside x."""
    inputs = _axis(shapes, "input_blocks.0.0.weight", 1, where)
    outputs = _width(shapes, "out.2.weight", where)
    return {
        "in_channels": min(inputs, outputs),
        "out_channels": outputs,
        "concat_channels": max(0, inputs - outputs),
    }


def _text(shapes: Shapes, one_head: bool) -> dict[str, Any]:
    """The width of the context, and the projections and heads of transformers."""
    keys = [shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight") and len(shape) == 2]
    if not keys:
        return {}
    linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in shapes.items())
    heads = {"head_width": 64} if linear else {"heads": 1 if one_head else 8}
    return {"context": keys[0], "linear_projection": linear, **heads}


def _without_text(config: UNetConfig) -> UNetConfig:
    pixels = config.residual_resampling or config.out_channels != config.in_channels
    if config.scale_shift and not pixels:
        return replace(config, heads=8)
    return replace(config, head_width=64 if pixels else 32)


def _conditions(shapes: Shapes, attention: tuple[bool, ...]) -> dict[str, int]:
    """Classes, or a vector; XL's, whose first level has no attention, has sizes in it."""
    if "label_emb.weight" in shapes:
        return {"classes": shapes["label_emb.weight"][0]}
    if "label_emb.0.0.weight" not in shapes:
        return {}
    width = shapes["label_emb.0.0.weight"][-1]
    values = 0 if attention[0] else BASE_IDS if attention[-1] else REFINER_IDS
    if not values:
        return {"vector": width}
    return {"vector": width - values * VALUE_WIDTH, "values": values, "value_width": VALUE_WIDTH}


def _scale_shift(shapes: Shapes) -> bool:
    both = (shapes.get(f"middle_block.0.{name}.weight", (0,)) for name in ("emb_layers.1", "out_layers.3"))
    embedding, width = (shape[0] if shape else 0 for shape in both)
    return embedding == 2 * width > 0


def _step_up(shapes: Shapes, block: str) -> bool:
    """Whether a block of the decoder ends with a step up: a convolution, or a residual block."""
    return any(f"{block}.{place}.{kind}.weight" in shapes for place in (1, 2) for kind in ("conv", "in_layers.2"))


def _attends(shapes: Shapes, module: str) -> bool:
    return f"{module}.qkv.weight" in shapes or f"{module}.proj_in.weight" in shapes


def _depth(shapes: Shapes, module: str) -> int:
    return _count(shapes, f"{module}.transformer_blocks")


def _checked(config: UNetConfig, where: str) -> UNetConfig:
    try:
        check(config)
    except UserError as problem:
        raise UserError(f"{where}: a U-Net of latent diffusion that is not supported: {problem}") from None
    return config


# --- shapes ---


def _count(shapes: Shapes, parent: str) -> int:
    """The number of modules `parent`.0, `parent`.1, ... Raises UserError for more than any network has."""
    numbers = {name[len(parent) + 1 :].split(".")[0] for name in shapes if name.startswith(f"{parent}.")}
    if len(numbers) > LAYERS:
        raise UserError(f"{parent} has {len(numbers):,} modules, more than {LAYERS:,}: this is not a network")
    return len(numbers)


def _width(shapes: Shapes, name: str, where: str) -> int:
    return _axis(shapes, name, 0, where)


def _axis(shapes: Shapes, name: str, axis: int, where: str) -> int:
    if name not in shapes:
        raise UserError(f"{where}: {name} is missing: part of the network is not in this file")
    shape = shapes[name]
    if len(shape) <= axis or shape[axis] < 1:
        raise UserError(f"{where}: {name} is of the shape {shape}: this is not a weight of a U-Net")
    return shape[axis]


def _is(name: str, parent: str, leaf: str) -> bool:
    start, _, rest = name.partition(".")
    number, _, end = rest.partition(".")
    return start == parent and number.isdecimal() and end == leaf
