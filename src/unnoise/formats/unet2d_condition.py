"""diffusers' UNet2DConditionModel and ControlNetModel: their settings in ours, both ways.

The networks of Stable Diffusion 1, 2 and XL. What a setting means is the class's own documentation and the network it
builds (diffusers 0.42); one that we cannot say is an error that names it. One that is not in a file has the class's
default where names and shapes of tensors hold it to that, or where published files of Stable Diffusion 1 (diffusers
0.6) do not have it, for the class then knew nothing else (resnet_skip_time_act, resnet_out_scale_factor,
timestep_post_act, time_embedding_act_fn, global_pool_conditions). Those in UNSEEN have to be said: no tensor tells a
wrong one from a right one, and every published file has them. Two names mislead: `attention_head_dim` is the number of
heads here, not a head's width; `upcast_attention`, which computes scores in float32 beside weights in half precision,
says nothing of the weights: it is read, and left to where a network is placed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError, unknown
from unnoise.formats.files import not_said
from unnoise.formats.unet2d import LAYERS, LEVELS, WIDTH, list_of_whole, not_ours, real, size, whole
from unnoise.nn.blocks import at_level, context_width, heads
from unnoise.nn.unet import check

DEFAULTS: dict[str, Any] = {  # of UNet2DConditionModel
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "only_cross_attention": False,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,  # of an addition_embed_type that we do not have
}
_ONLY_UNET = [
    "sample_size",
    "out_channels",
    "center_input_sample",
    "up_block_types",
    "dropout",
    "dual_cross_attention",
    "reverse_transformer_layers_per_block",
    "resnet_skip_time_act",
    "resnet_out_scale_factor",
    "time_embedding_type",
    "time_embedding_dim",
    "time_embedding_act_fn",
    "timestep_post_act",
    "time_cond_proj_dim",
    "conv_in_kernel",
    "conv_out_kernel",
    "attention_type",
    "class_embeddings_concat",
    "mid_block_only_cross_attention",
    "cross_attention_norm",
]
CONTROL_DEFAULTS: dict[str, Any] = {name: v for name, v in DEFAULTS.items() if name not in _ONLY_UNET} | {
    "conditioning_channels": 3,
    "controlnet_conditioning_channel_order": "rgb",
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "global_pool_conditions": False,
}

UNSEEN = {  # what changes the numbers and no tensor's shape
    *("act_fn", "attention_head_dim", "center_input_sample", "controlnet_conditioning_channel_order"),
    *("downsample_padding", "flip_sin_to_cos", "freq_shift", "mid_block_scale_factor", "norm_eps", "norm_num_groups"),
}
UNDERSTOOD: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True, False),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "downsample_padding": (0, 1),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "use_linear_projection": (True, False),
    "class_embed_type": (None, "timestep", "projection"),
    "addition_embed_type": (None, "text_time"),
    "upcast_attention": (True, False, None),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "global_pool_conditions": (True, False),
}
DOWN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
UP = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}
TIME_IDS = 6  # the numbers that Stable Diffusion XL is told: the sizes of the original and of the crop's corner and cut


# --- theirs to ours ---


def from_config(given: Mapping[str, Any], where: str, *, time_ids: int = TIME_IDS) -> UNetConfig:
    """Our settings of a UNet2DConditionModel's config.json; `where` begins every error.

    Channels of the input beyond the output's are those of a picture that is joined to it. How many numbers XL is told
    is not in its file: `time_ids`. Raises UserError for a setting or a value that we cannot say.
    """
    data = _data(given, DEFAULTS, "UNet2DConditionModel", where)
    inputs, outputs = (whole(data, key, where, most=WIDTH) for key in ("in_channels", "out_channels"))
    joined = max(0, inputs - outputs)
    config = _from(data, where, time_ids)
    if data["time_embedding_dim"] not in (None, 4 * config.channels[0]):
        raise not_ours(where, "time_embedding_dim", data["time_embedding_dim"], f"null or {4 * config.channels[0]}")
    up = _attends(data, "up_block_types", UP, len(config.channels), where)[::-1]
    if up != config.attention:
        raise UserError(
            f"{where}: down_block_types attends at levels {list(config.attention)}, up_block_types at {list(up)} (the "
            "finest first): only networks that attend at the same levels on both ways are understood"
        )
    config = replace(
        config,
        size=size(data, where),
        in_channels=inputs - joined,
        out_channels=outputs,
        concat_channels=joined,
        dropout=real(data, "dropout", where),
    )
    return _checked(config, where)


def control_from_config(given: Mapping[str, Any], base: UNetConfig, where: str) -> ControlConfig:
    """The control of a ControlNetModel's config.json, for a network of `base`.

    Raises UserError for a setting that we cannot say, or in which the two differ.
    """
    data = _data(given, CONTROL_DEFAULTS, "ControlNetModel", where)
    theirs = _from(data, where, base.values or TIME_IDS)
    inputs = whole(data, "in_channels", where, most=WIDTH)
    if inputs != base.in_channels + base.concat_channels:
        raise UserError(
            f"{where}: in_channels is {inputs}, its network's {base.in_channels + base.concat_channels}: they differ"
        )
    same: tuple[str, ...] = (
        "channels",
        "blocks",
        "attention",
        "groups",
        "norm_eps",
        "context",
        "scale_shift",
        "asymmetric_padding",
    )
    same += ("cosine_first", "frequency_shift", "values", "vector", "value_width", "linear_projection")
    for name in same:
        if getattr(theirs, name) != getattr(base, name):
            raise UserError(
                f"{where}: a control of another network: {name} is {getattr(theirs, name)} here, "
                f"{getattr(base, name)} in the network"
            )
    for level in range(len(base.channels)):
        mine = heads(theirs, level), at_level(theirs.transformers, level)
        if mine != (heads(base, level), at_level(base.transformers, level)):
            raise UserError(f"{where}: a control of another network: heads or layers of level {level} differ")
    rows = base.classes + base.null_class if base.classes else 0
    if theirs.classes != rows:
        raise UserError(f"{where}: num_class_embeds is {theirs.classes}, its network's {rows}: they differ")
    hint = tuple(list_of_whole(data, "conditioning_embedding_out_channels", where, most=WIDTH, length=LEVELS))
    return ControlConfig(
        channels=whole(data, "conditioning_channels", where, most=WIDTH),
        order=data["controlnet_conditioning_channel_order"],
        hint=hint,
        scale=2 ** (len(hint) - 1),
        pooled=data["global_pool_conditions"],
    )


def _data(given: Mapping[str, Any], defaults: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Every setting, with the defaults of those that are not said; those of one value each have it."""
    said = {key: value for key, value in given.items() if not key.startswith("_")}
    for key in sorted(UNSEEN & defaults.keys() - said.keys()):
        raise not_said(where, key)
    for key in said:
        if key not in defaults:
            raise UserError(f"{where}: {unknown(f'setting of {kind}', key, defaults)}")
    data = {**defaults, **said}
    for key in data.keys() & UNDERSTOOD.keys():
        values = UNDERSTOOD[key]
        if not any(data[key] == value and isinstance(data[key], bool) == isinstance(value, bool) for value in values):
            raise not_ours(where, key, data[key], " or ".join(map(repr, values)))
    return data


def _from(data: Mapping[str, Any], where: str, time_ids: int) -> UNetConfig:
    """What both classes say alike."""
    channels = tuple(list_of_whole(data, "block_out_channels", where, most=WIDTH, length=LEVELS))
    levels = len(channels)
    config = UNetConfig(
        channels=channels,
        blocks=_one(data, "layers_per_block", levels, where, most=LAYERS),
        attention=_attends(data, "down_block_types", DOWN, levels, where),
        heads=_each(data, "attention_head_dim", levels, where),
        transformers=_each(data, "transformer_layers_per_block", levels, where),
        groups=whole(data, "norm_num_groups", where, most=WIDTH),
        norm_eps=real(data, "norm_eps", where),
        scale_shift=data["resnet_time_scale_shift"] == "scale_shift",
        asymmetric_padding=data["downsample_padding"] == 0,
        cosine_first=data["flip_sin_to_cos"],
        frequency_shift=real(data, "freq_shift", where),
        context=_one(data, "cross_attention_dim", levels, where, most=WIDTH),
        linear_projection=data["use_linear_projection"],
        null_class=False,
        null_value=False,
    )
    told: dict[str, Any] = _told(data, where, time_ids)
    return replace(config, **told)


def _told(data: Mapping[str, Any], where: str, time_ids: int) -> dict[str, int]:
    """What is told beside time and words."""
    kind, addition = data["class_embed_type"], data["addition_embed_type"]
    rows = data["num_class_embeds"]
    if sum(each is not None for each in (kind, addition, rows)) > 1:
        raise UserError(
            f"{where}: class_embed_type {kind!r}, num_class_embeds {rows} and addition_embed_type {addition!r} are "
            "said together: only one of them is understood"
        )
    if rows is not None:
        return {"classes": whole(data, "num_class_embeds", where, most=2**31)}
    if kind == "timestep":
        return {"values": 1}
    if kind is None and addition is None:
        return {}
    inputs = whole(data, "projection_class_embeddings_input_dim", where, most=WIDTH)
    if kind == "projection":
        return {"vector": inputs}
    width = whole(data, "addition_time_embed_dim", where, most=WIDTH)
    if inputs <= time_ids * width:
        raise UserError(
            f"{where}: projection_class_embeddings_input_dim is {inputs}: {time_ids} numbers of "
            f"addition_time_embed_dim {width} leave no room for a caption's vector"
        )
    return {"values": time_ids, "value_width": width, "vector": inputs - time_ids * width}


def _attends(data: Mapping[str, Any], key: str, kinds: Mapping[str, bool], levels: int, where: str) -> tuple[bool, ...]:
    names = data[key]
    if not isinstance(names, list | tuple) or len(names) != levels:
        raise not_ours(where, key, names, f"a kind of block for each of the {levels} block_out_channels")
    for name in names:
        if name not in kinds:
            raise not_ours(where, key, name, " or ".join(kinds))
    return tuple(kinds[name] for name in names)


def _each(data: Mapping[str, Any], key: str, levels: int, where: str) -> int | tuple[int, ...]:
    """A whole number, or one for each level."""
    if not isinstance(data[key], list | tuple):
        return whole(data, key, where, most=WIDTH)
    numbers = list_of_whole(data, key, where, most=WIDTH, length=LEVELS)
    if len(numbers) != levels:
        raise not_ours(where, key, data[key], f"a number, or one for each of the {levels} block_out_channels,")
    return tuple(numbers)


def _one(data: Mapping[str, Any], key: str, levels: int, where: str, *, most: int) -> int:
    """A whole number that is the same for all levels."""
    number = _each(data, key, levels, where)
    if isinstance(number, tuple):
        if len(set(number)) > 1:
            raise not_ours(where, key, data[key], "one number for all levels")
        number = number[0]
    if number > most:
        raise not_ours(where, key, number, f"a whole number from 1 to {most:,}")
    return number


def _checked(config: UNetConfig, where: str) -> UNetConfig:
    try:
        check(config)
    except UserError as problem:
        raise UserError(f"{where}: {problem}") from None
    return config


# --- ours to theirs ---


def to_config(config: UNetConfig) -> dict[str, Any]:
    """A UNet2DConditionModel's config.json, with every setting said. Raises UserError for what they cannot say."""
    if config.text is not None:
        raise _unsaid("a text encoder inside the network, which diffusers has beside it")
    if not config.middle_attention:
        raise _unsaid("no attention in the middle")
    if config.residual_resampling:
        raise _unsaid("steps by residual blocks")
    levels = config.attention
    return DEFAULTS | _to(config) | {
        "sample_size": config.size,
        "out_channels": config.out_channels,
        "up_block_types": [f"{'CrossAttn' if attends else ''}UpBlock2D" for attends in reversed(levels)],
        "dropout": config.dropout,
    }  # fmt: skip


def control_to_config(config: UNetConfig, how: ControlConfig) -> dict[str, Any]:
    """A ControlNetModel's config.json. Raises UserError for what they cannot say."""
    if how.scale != 2 ** (len(how.hint) - 1):
        raise _unsaid(f"a control of scale {how.scale} with {len(how.hint)} widths of hint: every step halves there")
    to_config(config)
    return CONTROL_DEFAULTS | _to(config) | {
        "conditioning_channels": how.channels,
        "controlnet_conditioning_channel_order": how.order,
        "conditioning_embedding_out_channels": list(how.hint),
        "global_pool_conditions": how.pooled,
    }  # fmt: skip


def _to(config: UNetConfig) -> dict[str, Any]:
    """What both classes say alike."""
    levels, shift = range(len(config.channels)), config.frequency_shift
    number, layers = (
        [heads(config, level) for level in levels],
        [at_level(config.transformers, level) for level in levels],
    )
    return _to_told(config) | {
        "in_channels": config.in_channels + config.concat_channels,
        "flip_sin_to_cos": config.cosine_first,
        "freq_shift": int(shift) if shift == int(shift) else shift,
        "down_block_types": [f"{'CrossAttn' if attends else ''}DownBlock2D" for attends in config.attention],
        "block_out_channels": list(config.channels),
        "layers_per_block": config.blocks,
        "downsample_padding": 0 if config.asymmetric_padding else 1,
        "norm_num_groups": config.groups,
        "norm_eps": config.norm_eps,
        "cross_attention_dim": context_width(config),
        "transformer_layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "attention_head_dim": number[0] if len(set(number)) == 1 else number,
        "use_linear_projection": config.linear_projection,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
    }


def _to_told(config: UNetConfig) -> dict[str, Any]:
    if config.value_width:
        if config.classes:
            raise _unsaid("classes beside numbers and a vector")
        inputs = config.vector + config.values * config.value_width
        return {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": config.value_width,
            "projection_class_embeddings_input_dim": inputs,
        }
    if bool(config.classes) + bool(config.values) + bool(config.vector) > 1:
        raise _unsaid("more than one of classes, values and a vector")
    if config.values > 1 or (config.values and config.null_value):
        raise _unsaid("more than one number, or a null of its own for a number")
    if config.vector:
        return {"class_embed_type": "projection", "projection_class_embeddings_input_dim": config.vector}
    if config.values:
        return {"class_embed_type": "timestep"}
    return {"num_class_embeds": config.classes + config.null_class} if config.classes else {}


def _unsaid(what: str) -> UserError:
    return UserError(f"diffusers' UNet2DConditionModel cannot say {what}: this network cannot be written for it")
