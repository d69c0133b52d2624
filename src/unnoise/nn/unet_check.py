"""Validation of U-Net configurations: every error names the setting, its value and what is valid."""

from __future__ import annotations

from unnoise.config.limits import LAYERS
from unnoise.config.networks import UNetConfig, height_width
from unnoise.errors import UserError
from unnoise.nn import controlnet, text
from unnoise.nn.blocks import at_level, context_width


def check(config: UNetConfig) -> None:
    """Raises UserError for an invalid configuration."""
    _check_sizes(config)
    _check_channels(config)
    _check_conditions(config)
    _check_heads(config)
    _check_layers(config)
    for control in config.controls:
        controlnet.check(control)
        if control.scale % config.patch:
            raise UserError(
                f"scale of a control must be a multiple of patch, {config.patch}, not {control.scale}: the control "
                "image is added to the first level"
            )


def _check_sizes(config: UNetConfig) -> None:
    size = min(height_width(config.size))
    sizes = {"blocks": config.blocks, "groups": config.groups, "size": size, "patch": config.patch}
    sizes |= {"in_channels": config.in_channels, "out_channels": config.out_channels}
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    if config.classes < 0:
        raise UserError(f"classes must be 0 (unconditional) or more, not {config.classes}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"dropout must be at least 0 and below 1, not {config.dropout}")


def _check_channels(config: UNetConfig) -> None:
    levels = len(config.channels)
    if not levels or min(config.channels) < 1:
        raise UserError(
            f"channels must be a width for each level, the finest first, as 64,128,256; not {config.channels}"
        )
    if len(config.attention) != levels:
        raise UserError(
            f"attention must be true or false for each of the {levels} levels, but has {len(config.attention)} values"
        )
    multiple = config.patch * 2 ** (levels - 1)
    if any(side % multiple for side in height_width(config.size)):
        patches = f"patches of {config.patch} pixels and " if config.patch > 1 else ""
        raise UserError(
            f"size {config.size} is not a multiple of {multiple}, as {patches}{levels} levels of channels require: "
            "use fewer levels or another size"
        )
    for width in config.channels:
        if width % config.groups:
            raise UserError(f"channels {width} are not divisible by groups {config.groups}: change one of the two")
    if config.channels[0] % 2 or config.channels[0] < 4:
        raise UserError(
            "the first of channels is the width of the time's sinusoid and must be even and at least 4, not "
            f"{config.channels[0]}"
        )


def _check_conditions(config: UNetConfig) -> None:
    for name in ("values", "vector", "value_width", "concat_channels"):
        if getattr(config, name) < 0:
            raise UserError(f"{name} must be 0 (none) or more, not {getattr(config, name)}")
    if config.value_width and not (config.values and config.vector and config.value_width % 2 == 0):
        raise UserError("value_width must be even and needs values and vector: set both, or leave value_width at 0")
    text.check(config.text, config.context)
    if context_width(config) and not (any(config.attention) or config.middle_attention):
        raise UserError(
            "text conditioning needs cross-attention: set attention for at least one level, or middle_attention"
        )
    depths = config.transformers if isinstance(config.transformers, tuple) else (config.transformers,)
    if isinstance(config.transformers, tuple) and len(depths) != len(config.channels):
        raise UserError(
            f"transformers must be one number, or one for each of the {len(config.channels)} levels, not {depths}"
        )
    if min(depths, default=0) < 1:
        raise UserError(f"transformers must be at least 1, not {config.transformers}")


def _check_layers(config: UNetConfig) -> None:
    """Raises UserError for a network of more blocks than LAYERS, which would take minutes to build."""
    each = [1 + at_level(config.transformers, level) * attends for level, attends in enumerate(config.attention)]
    count = sum(each) * ((2 + len(config.controls)) * config.blocks + 1)
    if count > LAYERS:
        raise UserError(
            f"the network has {count:,} blocks, more than {LAYERS:,}: use fewer blocks, levels or transformers"
        )


def _check_heads(config: UNetConfig) -> None:
    if config.heads is not None and config.head_width is not None:
        raise UserError("heads and head_width exclude each other: set one of them")
    levels = len(config.channels)
    if isinstance(config.heads, tuple) and len(config.heads) != levels:
        raise UserError(f"heads must be one number, or one for each of the {levels} levels, not {config.heads}")
    attending = {level for level, attends in enumerate(config.attention) if attends}
    attending |= {levels - 1} if config.middle_attention else set()
    for level in sorted(attending):
        name, number = "head_width", config.head_width
        if config.heads is not None:
            name, number = "heads", at_level(config.heads, level)
        width = config.channels[level]
        if number is not None and (number < 1 or width % number):
            raise UserError(f"{name} {number} does not divide the {width} channels of a level with attention")
