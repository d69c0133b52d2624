"""Conversion between diffusers' UNet2DConditionModel and ControlNetModel and a UNetConfig, both ways.

The networks of Stable Diffusion 1, 2 and XL. The meaning of a setting follows the class's documentation and the network
it builds (diffusers 0.42); one without an equivalent is an error that names it. Two names mislead:
`attention_head_dim` is the number of heads here, not a head's width; `upcast_attention` computes attention scores in
float32 beside half-precision weights, and does not describe the weights: it is accepted, and has no effect, since the
precision is that of the placement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.formats.condition_settings import CONTROL_DEFAULTS, DEFAULTS, DOWN, TIME_IDS, UP, complete
from unnoise.formats.settings import (
    LAYERS,
    LEVELS,
    WIDTH,
    block_attention,
    list_of_whole,
    one_for_all,
    one_or_each,
    real,
    size,
    unsupported,
    whole,
)
from unnoise.nn.blocks import at_level, context_width, heads
from unnoise.nn.unet import check

SHARED = (  # settings that a control has in common with its network
    *("channels", "blocks", "attention", "groups", "norm_eps", "context", "scale_shift", "asymmetric_padding"),
    *("cosine_first", "frequency_shift", "values", "vector", "value_width", "linear_projection"),
)


# --- diffusers to unnoise ---


def from_config(given: Mapping[str, Any], where: str, *, time_ids: int = TIME_IDS) -> UNetConfig:
    """The network of a UNet2DConditionModel's config.json; `where` begins every error message.

    Input channels beyond those of the output are a picture that is concatenated. The number of values of XL is not in
    its file: `time_ids`. Raises UserError for a setting or a value without an equivalent.
    """
    data = complete(given, DEFAULTS, "UNet2DConditionModel", where)
    inputs, outputs = (whole(data, key, where, most=WIDTH) for key in ("in_channels", "out_channels"))
    concat = max(0, inputs - outputs)
    config = _common(data, where, time_ids)
    if data["time_embedding_dim"] not in (None, 4 * config.channels[0]):
        raise unsupported(where, "time_embedding_dim", data["time_embedding_dim"], f"null or {4 * config.channels[0]}")
    up = block_attention(data, "up_block_types", UP, len(config.channels), where)[::-1]
    if up != config.attention:
        raise UserError(
            f"{where}: down_block_types has attention at levels {list(config.attention)}, up_block_types at {list(up)} "
            "(the finest first): only attention at the same levels in both is supported"
        )
    config = replace(
        config,
        size=size(data, where),
        in_channels=inputs - concat,
        out_channels=outputs,
        concat_channels=concat,
        dropout=real(data, "dropout", where),
    )
    return _checked(config, where)


def control_from_config(given: Mapping[str, Any], base: UNetConfig, where: str) -> ControlConfig:
    """The control of a ControlNetModel's config.json, for the network `base`.

    Raises UserError for a setting without an equivalent, or one in which the two differ.
    """
    data = complete(given, CONTROL_DEFAULTS, "ControlNetModel", where)
    theirs = _common(data, where, base.values or TIME_IDS)
    inputs = whole(data, "in_channels", where, most=WIDTH)
    if inputs != base.in_channels + base.concat_channels:
        raise UserError(
            f"{where}: in_channels is {inputs}, its network's {base.in_channels + base.concat_channels}: they differ"
        )
    for name in SHARED:
        if getattr(theirs, name) != getattr(base, name):
            raise UserError(
                f"{where}: a control of another network: {name} is {getattr(theirs, name)} here, "
                f"{getattr(base, name)} in the network"
            )
    for level in range(len(base.channels)):
        found = heads(theirs, level), at_level(theirs.transformers, level)
        if found != (heads(base, level), at_level(base.transformers, level)):
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


def _common(data: Mapping[str, Any], where: str, time_ids: int) -> UNetConfig:
    """The settings that both classes have."""
    channels = tuple(list_of_whole(data, "block_out_channels", where, most=WIDTH, length=LEVELS))
    levels = len(channels)
    config = UNetConfig(
        channels=channels,
        blocks=one_for_all(data, "layers_per_block", levels, where, most=LAYERS),
        attention=block_attention(data, "down_block_types", DOWN, levels, where),
        heads=one_or_each(data, "attention_head_dim", levels, where),
        transformers=one_or_each(data, "transformer_layers_per_block", levels, where),
        groups=whole(data, "norm_num_groups", where, most=WIDTH),
        norm_eps=real(data, "norm_eps", where),
        scale_shift=data["resnet_time_scale_shift"] == "scale_shift",
        asymmetric_padding=data["downsample_padding"] == 0,
        cosine_first=data["flip_sin_to_cos"],
        frequency_shift=real(data, "freq_shift", where),
        context=one_for_all(data, "cross_attention_dim", levels, where, most=WIDTH),
        linear_projection=data["use_linear_projection"],
        null_class=False,
        null_value=False,
    )
    inputs: dict[str, Any] = _conditions(data, where, time_ids)
    return replace(config, **inputs)


def _conditions(data: Mapping[str, Any], where: str, time_ids: int) -> dict[str, int]:
    """The conditions besides time and text: classes, values, or a vector."""
    kind, addition = data["class_embed_type"], data["addition_embed_type"]
    rows = data["num_class_embeds"] if kind is None else None  # it has no effect beside class_embed_type
    if sum(each is not None for each in (kind, addition, rows)) > 1:
        raise UserError(
            f"{where}: class_embed_type {kind!r}, num_class_embeds {rows} and addition_embed_type {addition!r} are set "
            "together: only one of them is supported"
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
            f"{where}: projection_class_embeddings_input_dim is {inputs}: {time_ids} values of "
            f"addition_time_embed_dim {width} leave no room for the pooled text embedding"
        )
    return {"values": time_ids, "value_width": width, "vector": inputs - time_ids * width}


def _checked(config: UNetConfig, where: str) -> UNetConfig:
    """`config`. Raises UserError that begins with `where` if no network can be built from it."""
    try:
        check(config)
    except UserError as problem:
        raise UserError(f"{where}: {problem}") from None
    return config


# --- unnoise to diffusers ---


def to_config(config: UNetConfig) -> dict[str, Any]:
    """The config.json of a UNet2DConditionModel, with every setting. Raises UserError for a network without one."""
    if config.text is not None:
        raise _no_equivalent("text encoder inside the network")
    if config.patch > 1:
        raise _no_equivalent("patches")
    if not config.middle_attention:
        raise _no_equivalent("middle block without attention")
    if config.residual_resampling:
        raise _no_equivalent("resampling by residual blocks")
    levels = config.attention
    return DEFAULTS | _to(config) | {
        "sample_size": config.size if isinstance(config.size, int) else list(config.size),
        "out_channels": config.out_channels,
        "up_block_types": [f"{'CrossAttn' if attends else ''}UpBlock2D" for attends in reversed(levels)],
        "dropout": config.dropout,
    }  # fmt: skip


def control_to_config(config: UNetConfig, how: ControlConfig) -> dict[str, Any]:
    """The config.json of a ControlNetModel. Raises UserError for a control without one."""
    if how.scale != 2 ** (len(how.hint) - 1):
        raise _no_equivalent(f"control of scale {how.scale} with {len(how.hint)} widths of hint, each of which halves")
    to_config(config)
    return CONTROL_DEFAULTS | _to(config) | {
        "conditioning_channels": how.channels,
        "controlnet_conditioning_channel_order": how.order,
        "conditioning_embedding_out_channels": list(how.hint),
        "global_pool_conditions": how.pooled,
    }  # fmt: skip


def _to(config: UNetConfig) -> dict[str, Any]:
    """The settings that both classes have."""
    levels, shift = range(len(config.channels)), config.frequency_shift
    number, layers = (
        [heads(config, level) for level in levels],
        [at_level(config.transformers, level) for level in levels],
    )
    return _to_conditions(config) | {
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


def _to_conditions(config: UNetConfig) -> dict[str, Any]:
    """The settings of classes, values and a vector."""
    if config.value_width:
        if config.classes:
            raise _no_equivalent("combination of classes with values and a vector")
        inputs = config.vector + config.values * config.value_width
        return {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": config.value_width,
            "projection_class_embeddings_input_dim": inputs,
        }
    if bool(config.classes) + bool(config.values) + bool(config.vector) > 1:
        raise _no_equivalent("combination of classes, values and a vector")
    if config.values > 1 or (config.values and config.null_value):
        raise _no_equivalent("second value, and no null embedding of a value")
    if config.vector:
        return {"class_embed_type": "projection", "projection_class_embeddings_input_dim": config.vector}
    if config.values:
        return {"class_embed_type": "timestep"}
    return {"num_class_embeds": config.classes + config.null_class} if config.classes else {}


def _no_equivalent(what: str) -> UserError:
    return UserError(f"diffusers' UNet2DConditionModel has no {what}: this network cannot be exported")
