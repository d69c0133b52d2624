"""diffusers' UNet2DModel: its settings in ours, both ways.

What a setting means is the class's own documentation and the network it builds (diffusers 0.42); a setting that is not
in a file has the class's default. One that we cannot say is an error that names it, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError, unknown
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
    "num_train_timesteps": None,  # read by the learned time embedding alone, which we do not have
}

UNDERSTOOD: dict[str, tuple[Any, ...]] = {
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
    "class_embed_type": (None,),
}

# a kind of block: does it attend, and is its step up or down a residual block (None: as downsample_type says)
DOWN = {"DownBlock2D": (False, False), "AttnDownBlock2D": (True, None), "ResnetDownsampleBlock2D": (False, True)}
UP = {"UpBlock2D": (False, False), "AttnUpBlock2D": (True, None), "ResnetUpsampleBlock2D": (False, True)}

LEVELS, LAYERS, WIDTH = 16, 64, 2**17  # more than that is a mistake, found before anything is built


# --- settings: theirs to ours ---


def from_config(given: Mapping[str, Any], where: str) -> UNetConfig:
    """Our settings of their config.json; `where` begins every error. The null row is not in it: see diffusers.py.

    Raises UserError for a setting or a value that we cannot say.
    """
    said = {key: value for key, value in given.items() if not key.startswith("_")}
    for key in said:
        if key not in DEFAULTS:
            raise UserError(f"{where}: {unknown('setting of UNet2DModel', key, DEFAULTS)}")
    data = DEFAULTS | said
    for key, values in UNDERSTOOD.items():
        if not any(data[key] == value and isinstance(data[key], bool) == isinstance(value, bool) for value in values):
            raise not_ours(where, key, data[key], " or ".join(map(repr, values)))
    channels = tuple(list_of_whole(data, "block_out_channels", where, most=WIDTH, length=LEVELS))
    attention, residual = _levels(data, len(channels), where)
    groups = whole(data, "norm_num_groups", where, most=WIDTH)
    _check_rest(data, channels, groups, where)
    rows = 0 if data["num_class_embeds"] is None else whole(data, "num_class_embeds", where, most=2**31)
    config = UNetConfig(
        size=size(data, where),
        in_channels=whole(data, "in_channels", where, most=WIDTH),
        out_channels=whole(data, "out_channels", where, most=WIDTH),
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
        classes=rows,
        null_class=False,
    )
    try:
        check(config)
    except UserError as problem:
        raise UserError(f"{where}: {problem}") from None
    return config


def _levels(data: Mapping[str, Any], levels: int, where: str) -> tuple[tuple[bool, ...], bool]:
    """Which levels attend, and whether steps between levels are residual blocks. Both ways must say the same."""
    attends: dict[str, list[bool]] = {}
    steps: dict[bool, str] = {}  # the kinds of steps that there are, and the setting that asks for each
    for key, kinds, step in (("down_block_types", DOWN, "downsample_type"), ("up_block_types", UP, "upsample_type")):
        names = data[key]
        if not isinstance(names, list | tuple) or len(names) != levels:
            raise not_ours(where, key, names, f"a kind of block for each of the {levels} block_out_channels")
        attends[key] = []
        for place, name in enumerate(names):
            kind = kinds.get(str(name).removeprefix("UNetRes"))  # the prefix of diffusers before 0.3
            if kind is None:
                raise not_ours(where, key, name, " or ".join(kinds))
            attends[key].append(kind[0])
            if place < levels - 1:  # the last on either way has no step
                residual = data[step] == "resnet" if kind[1] is None else kind[1]
                steps[residual] = f"{key} has {name}" + (f" with {step} {data[step]}" if kind[1] is None else "")
    down, up = attends["down_block_types"], attends["up_block_types"][::-1]
    if down != up:
        raise UserError(
            f"{where}: down_block_types attends at levels {down}, up_block_types at {up} (the finest first): "
            "only networks that attend at the same levels on both ways are understood"
        )
    if len(steps) > 1:
        raise UserError(
            f"{where}: {steps[True]}, which steps by a residual block, and {steps[False]}, which steps by a "
            "convolution: only networks with one kind of step are understood"
        )
    return tuple(down), bool(steps) and next(iter(steps))


def _check_rest(data: Mapping[str, Any], channels: tuple[int, ...], groups: int, where: str) -> None:
    """Settings that must follow from others."""
    if data["time_embedding_dim"] not in (None, 4 * channels[0]):
        raise not_ours(where, "time_embedding_dim", data["time_embedding_dim"], f"null or {4 * channels[0]}")
    middle = data["attn_norm_num_groups"]
    if data["add_attention"] and middle is None and data["resnet_time_scale_shift"] == "scale_shift":
        raise UserError(
            f"{where}: attn_norm_num_groups is null beside resnet_time_scale_shift 'scale_shift', which leaves the "
            f"middle attention without a norm: only {groups}, the norm_num_groups, is understood"
        )
    if data["add_attention"] and middle not in (None, groups):
        raise not_ours(where, "attn_norm_num_groups", middle, f"{groups}, the norm_num_groups,")


def size(data: Mapping[str, Any], where: str) -> int:
    size = data["sample_size"]
    if size is None:
        raise UserError(f"{where}: sample_size is not there, so nobody knows what size to draw: add it, in pixels")
    if isinstance(size, list | tuple) and len(set(map(str, size))) == 1:
        return whole({"sample_size": size[0]}, "sample_size", where, most=WIDTH)
    return whole(data, "sample_size", where, most=WIDTH)


def whole(data: Mapping[str, Any], key: str, where: str, most: int) -> int:
    value = data[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise not_ours(where, key, value, f"a whole number from 1 to {most:,}")
    return value


def list_of_whole(data: Mapping[str, Any], key: str, where: str, *, most: int, length: int) -> list[int]:
    values = data[key]
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= length:
        raise not_ours(where, key, values, f"a list of 1 to {length} whole numbers")
    return [whole({key: value}, key, where, most) for value in values]


def real(data: Mapping[str, Any], key: str, where: str) -> float:
    value = data[key]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise not_ours(where, key, value, "a number")
    return float(value)


def not_ours(where: str, key: str, value: object, understood: str) -> UserError:
    shown = repr(value)
    return UserError(f"{where}: {key} is {shown[:80]}: only {understood} is understood")


# --- settings: ours to theirs ---


def to_config(config: UNetConfig) -> dict[str, Any]:
    """Their config.json of our settings, with every setting said. Raises UserError for what they cannot say."""
    levels = list(zip(config.channels, config.attention, strict=True))
    plain = "Resnet{}sampleBlock2D" if config.residual_resampling else "{}Block2D"
    down = ["AttnDownBlock2D" if attends else plain.format("Down") for _, attends in levels]
    up = ["AttnUpBlock2D" if attends else plain.format("Up") for _, attends in reversed(levels)]
    step = "resnet" if config.residual_resampling else "conv"
    shift = config.frequency_shift
    return DEFAULTS | {
        "sample_size": config.size,
        "in_channels": config.in_channels,
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
    }


def _head_width(config: UNetConfig) -> int | None:
    """One width of a head for all levels, or None for one head: that is all that UNet2DModel can say."""
    if config.head_width is not None:
        return config.head_width
    attending = {level for level, attends in enumerate(config.attention) if attends}
    attending |= {len(config.channels) - 1} if config.middle_attention else set()
    if all(heads(config, level) == 1 for level in attending):
        return None
    widths = {config.channels[level] // heads(config, level) for level in attending}
    if len(widths) > 1:
        raise UserError(
            f"diffusers' UNet2DModel says the width of a head, one for all levels; {config.heads} heads are "
            f"{', '.join(map(str, sorted(widths)))} wide here: this network cannot be said in its settings"
        )
    return widths.pop()
