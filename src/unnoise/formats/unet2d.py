"""Conversion between the settings of diffusers' UNet2DModel and a UNetConfig, both ways.

The meaning of a setting follows the class's documentation and the network it builds (diffusers 0.42). A setting that is
missing from a file has the class's default. One without an equivalent is an error that names it, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unnoise.config.networks import UNetConfig, height_width
from unnoise.errors import UserError
from unnoise.formats.settings import (
    LAYERS,
    LEVELS,
    WIDTH,
    check_values,
    list_of_whole,
    of_class,
    real,
    size,
    unsupported,
    whole,
)
from unnoise.nn.blocks import heads
from unnoise.nn.unet import check

DEFAULTS: dict[str, Any] = {  # of the class
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,  # of the learned time embedding alone, which is not supported
}

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "flip_sin_to_cos": (True, False),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True, False),
    "class_embed_type": (None, "timestep"),
}

# block type: whether it has attention, and whether it resamples with a residual block (None: see downsample_type)
DOWN = {"DownBlock2D": (False, False), "AttnDownBlock2D": (True, None), "ResnetDownsampleBlock2D": (False, True)}
UP = {"UpBlock2D": (False, False), "AttnUpBlock2D": (True, None), "ResnetUpsampleBlock2D": (False, True)}

# --- diffusers to unnoise ---


def from_config(given: Mapping[str, Any], where: str) -> UNetConfig:
    """The network of a config.json; `where` begins every error message. For the null class see diffusers.py.

    Input channels beyond those of the output are a picture that is concatenated. Raises UserError for a setting or a
    value without an equivalent.
    """
    data = DEFAULTS | of_class(given, DEFAULTS, "UNet2DModel", where)
    check_values(data, SUPPORTED, where)
    channels = tuple(list_of_whole(data, "block_out_channels", where, most=WIDTH, length=LEVELS))
    attention, residual = _levels(data, len(channels), where)
    groups = whole(data, "norm_num_groups", where, most=WIDTH)
    _check_rest(data, channels, groups, where)
    inputs, outputs = (whole(data, key, where, most=WIDTH) for key in ("in_channels", "out_channels"))
    number = data["class_embed_type"] == "timestep"  # num_class_embeds then has no effect
    rows = data["num_class_embeds"] is not None and not number
    config = UNetConfig(
        size=size(data, where),
        in_channels=min(inputs, outputs),
        out_channels=outputs,
        concat_channels=max(0, inputs - outputs),
        channels=channels,
        blocks=whole(data, "layers_per_block", where, most=LAYERS),
        attention=attention,
        middle_attention=data["add_attention"],
        heads=None,
        head_width=None if data["attention_head_dim"] is None else whole(data, "attention_head_dim", where, WIDTH),
        dropout=real(data, "dropout", where),
        groups=groups,
        norm_eps=real(data, "norm_eps", where),
        scale_shift=data["resnet_time_scale_shift"] == "scale_shift",
        residual_resampling=residual,
        asymmetric_padding=data["downsample_padding"] == 0,
        cosine_first=data["flip_sin_to_cos"],
        frequency_shift=real(data, "freq_shift", where),
        classes=whole(data, "num_class_embeds", where, most=2**31) if rows else 0,
        null_class=False,
        values=int(number),
        null_value=not number,
    )
    try:
        check(config)
    except UserError as problem:
        raise UserError(f"{where}: {problem}") from None
    return config


def _levels(data: Mapping[str, Any], levels: int, where: str) -> tuple[tuple[bool, ...], bool]:
    """Which levels have attention, and whether resampling is by residual blocks: both have to agree in up and down."""
    attends: dict[str, list[bool]] = {}
    steps: dict[bool, str] = {}  # the kinds of resampling, and the setting that selects each
    for key, kinds, step in (("down_block_types", DOWN, "downsample_type"), ("up_block_types", UP, "upsample_type")):
        names = data[key]
        if not isinstance(names, list | tuple) or len(names) != levels:
            raise unsupported(where, key, names, f"a block type for each of the {levels} block_out_channels")
        attends[key] = []
        for place, name in enumerate(names):
            kind = kinds.get(str(name).removeprefix("UNetRes"))  # the prefix of diffusers before 0.3
            if kind is None:
                raise unsupported(where, key, name, " or ".join(kinds))
            attends[key].append(kind[0])
            if place < levels - 1:  # the last block does not resample
                residual = data[step] == "resnet" if kind[1] is None else kind[1]
                steps[residual] = f"{key} has {name}" + (f" with {step} {data[step]}" if kind[1] is None else "")
    down, up = attends["down_block_types"], attends["up_block_types"][::-1]
    if down != up:
        raise UserError(
            f"{where}: down_block_types has attention at levels {down}, up_block_types at {up} (the finest first): "
            "only attention at the same levels in both is supported"
        )
    if len(steps) > 1:
        raise UserError(
            f"{where}: {steps[True]}, which resamples with a residual block, and {steps[False]}, which resamples with "
            "a convolution: only one kind of resampling in a network is supported"
        )
    return tuple(down), bool(steps) and next(iter(steps))


def _check_rest(data: Mapping[str, Any], channels: tuple[int, ...], groups: int, where: str) -> None:
    """Raises UserError for settings that do not agree with others."""
    if data["time_embedding_dim"] not in (None, 4 * channels[0]):
        raise unsupported(where, "time_embedding_dim", data["time_embedding_dim"], f"null or {4 * channels[0]}")
    middle = data["attn_norm_num_groups"]
    if data["add_attention"] and middle is None and data["resnet_time_scale_shift"] == "scale_shift":
        raise UserError(
            f"{where}: attn_norm_num_groups is null beside resnet_time_scale_shift 'scale_shift', which leaves the "
            f"middle attention without a norm: only {groups}, the norm_num_groups, is supported"
        )
    if data["add_attention"] and middle not in (None, groups):
        raise unsupported(where, "attn_norm_num_groups", middle, f"{groups}, the norm_num_groups,")


# --- unnoise to diffusers ---


def to_config(config: UNetConfig) -> dict[str, Any]:
    """The config.json of a network, with every setting. Raises UserError for a network without an equivalent."""
    config = unfolded(config)
    levels = list(zip(config.channels, config.attention, strict=True))
    plain = "Resnet{}sampleBlock2D" if config.residual_resampling else "{}Block2D"
    down = ["AttnDownBlock2D" if attends else plain.format("Down") for _, attends in levels]
    up = ["AttnUpBlock2D" if attends else plain.format("Up") for _, attends in reversed(levels)]
    step = "resnet" if config.residual_resampling else "conv"
    shift = config.frequency_shift
    return DEFAULTS | {
        "sample_size": config.size if isinstance(config.size, int) else list(config.size),
        "in_channels": config.in_channels + config.concat_channels,
        "out_channels": config.out_channels,
        "freq_shift": int(shift) if shift == int(shift) else shift,
        "flip_sin_to_cos": config.cosine_first,
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": list(config.channels),
        "layers_per_block": config.blocks,
        "downsample_padding": 0 if config.asymmetric_padding else 1,
        "downsample_type": step,
        "upsample_type": step,
        "dropout": config.dropout,
        "attention_head_dim": _head_width(config),
        "norm_num_groups": config.groups,
        "attn_norm_num_groups": config.groups,
        "norm_eps": config.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "add_attention": config.middle_attention,
        "num_class_embeds": config.classes + config.null_class if config.classes else None,
        "class_embed_type": "timestep" if _number(config) else None,
    }


def _number(config: UNetConfig) -> bool:
    """Whether the network is conditioned on a number. Raises UserError for conditions that UNet2DModel lacks."""
    if config.vector:
        raise UserError("diffusers' UNet2DModel has no pooled vector: this network cannot be exported")
    if config.values and (config.values > 1 or config.null_value or config.classes):
        raise UserError(
            "diffusers' UNet2DModel has one number at most, without a null embedding and without classes beside it: "
            "this network cannot be exported"
        )
    return bool(config.values)


def unfolded(config: UNetConfig) -> UNetConfig:
    """The network without patches that has the same weights, of pictures that are folded into channels."""
    height, width = (side // config.patch for side in height_width(config.size))
    pixels = config.patch**2
    return replace(
        config,
        patch=1,
        size=height if height == width else (height, width),
        in_channels=pixels * config.in_channels,
        out_channels=pixels * config.out_channels,
        concat_channels=pixels * config.concat_channels,
    )


def folded(config: UNetConfig, patch: int, where: str) -> UNetConfig:
    """The network in patches that `unfolded` was made of. Raises UserError where the channels do not divide."""
    pixels = patch**2
    if patch < 1 or any(n % pixels for n in (config.in_channels, config.out_channels, config.concat_channels)):
        raise UserError(f"{where}: the channels of the network do not belong to patches of {patch} pixels")
    height, width = (side * patch for side in height_width(config.size))
    return replace(
        config,
        patch=patch,
        size=height if height == width else (height, width),
        in_channels=config.in_channels // pixels,
        out_channels=config.out_channels // pixels,
        concat_channels=config.concat_channels // pixels,
    )


def _head_width(config: UNetConfig) -> int | None:
    """The width of a head at all levels, or None for one head: UNet2DModel has no other setting."""
    if config.head_width is not None:
        return config.head_width
    attending = {level for level, attends in enumerate(config.attention) if attends}
    attending |= {len(config.channels) - 1} if config.middle_attention else set()
    if all(heads(config, level) == 1 for level in attending):
        return None
    widths = {config.channels[level] // heads(config, level) for level in attending}
    if len(widths) > 1:
        raise UserError(
            f"diffusers' UNet2DModel has one width of a head for all levels, and {config.heads} heads are "
            f"{', '.join(map(str, sorted(widths)))} wide here: this network cannot be written as one"
        )
    return widths.pop()
