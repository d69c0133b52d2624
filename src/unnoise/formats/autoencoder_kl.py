"""Conversion between the settings of diffusers' AutoencoderKL and an AutoencoderCard, both ways.

The autoencoders of Stable Diffusion 1, 2, XL and 3. The meaning of a setting follows the class's documentation and the
network it builds (diffusers 0.42); one without an equivalent is an error that names it. Without `scaling_factor` a file
means 0.18215, which is right for Stable Diffusion 1 and 2 alone: `notes` states it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.config.autoencoders import KLConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.errors import UserError
from unnoise.formats.settings import (
    LAYERS,
    LEVELS,
    WIDTH,
    block_attention,
    check_values,
    list_of_whole,
    numbers,
    of_class,
    real,
    size,
    unsupported,
    whole,
)

KIND = "AutoencoderKL"
DEFAULTS: dict[str, Any] = {  # of the class
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "force_upcast": (True, False),
    "use_quant_conv": (True, False),
    "use_post_quant_conv": (True, False),
    "mid_block_add_attention": (True, False),
}
DOWN = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}  # block type: whether it has attention
UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}


def from_config(given: Mapping[str, Any], where: str) -> AutoencoderCard:
    """The card of a config.json; `where` begins every error message. Raises UserError for what has no equivalent."""
    data = DEFAULTS | of_class(given, DEFAULTS, KIND, where)
    check_values(data, SUPPORTED, where)
    net = KLConfig(
        **common(data, where),
        latent_channels=whole(data, "latent_channels", where, most=WIDTH),
        quant_conv=data["use_quant_conv"],
        post_quant_conv=data["use_post_quant_conv"],
    )
    shift = 0.0 if data["shift_factor"] is None else real(data, "shift_factor", where)
    mean, std = (numbers(data, key, where, length=net.latent_channels) for key in ("latents_mean", "latents_std"))
    if mean and shift:
        raise UserError(f"{where}: shift_factor and latents_mean both shift the latents: set one of them to null")
    scale = real(data, "scaling_factor", where)
    if scale <= 0 or min(std, default=1) <= 0:
        raise UserError(f"{where}: scaling_factor and latents_std have to be above 0")
    latents = LatentsConfig(
        factor=net.factor, picture_channels=net.in_channels, scale=scale, shift=shift, mean=mean, std=std
    )
    return AutoencoderCard(net=net, latents=latents, force_upcast=data["force_upcast"])


def common(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields that AutoencoderKL and VQModel have in common."""
    channels = tuple(list_of_whole(data, "block_out_channels", where, most=WIDTH, length=LEVELS))
    down, up = (
        block_attention(data, key, kinds, len(channels), where)
        for key, kinds in (("down_block_types", DOWN), ("up_block_types", UP))
    )
    if down != up[::-1]:
        raise UserError(
            f"{where}: down_block_types has attention at levels {list(down)}, up_block_types at {list(up[::-1])} (the "
            "finest first): only attention at the same levels in both is supported"
        )
    side = size(data, where)
    if isinstance(side, tuple):
        raise unsupported(where, "sample_size", list(side), "one number, or twice the same,")
    return {
        "size": side,
        "in_channels": picture_channels(data, where),
        "channels": channels,
        "blocks": whole(data, "layers_per_block", where, most=LAYERS),
        "attention": down,
        "middle_attention": data["mid_block_add_attention"],
        "groups": whole(data, "norm_num_groups", where, most=WIDTH),
    }


def picture_channels(data: Mapping[str, Any], where: str) -> int:
    """The channels of pictures. Raises UserError if those that are encoded and those that are decoded differ."""
    inputs, outputs = (whole(data, key, where, most=4) for key in ("in_channels", "out_channels"))
    if inputs != outputs:
        raise unsupported(where, "out_channels", outputs, f"{inputs}, the in_channels,")
    return inputs


def to_config(card: AutoencoderCard) -> dict[str, Any]:
    """The config.json of an autoencoder, with every setting."""
    net, latents = card.net, card.latents
    assert isinstance(net, KLConfig)
    return DEFAULTS | to_common(net) | {
        "scaling_factor": latents.scale,
        "shift_factor": latents.shift or None,
        "latents_mean": list(latents.mean) or None,
        "latents_std": list(latents.std) or None,
        "force_upcast": card.force_upcast,
        "use_quant_conv": net.quant_conv,
        "use_post_quant_conv": net.post_quant_conv,
        "latent_channels": net.latent_channels,
    }  # fmt: skip


def to_common(net: Any) -> dict[str, Any]:
    """The settings that AutoencoderKL and VQModel have in common."""
    attends, middle = net.attention, net.middle_attention
    return {
        "in_channels": net.in_channels,
        "out_channels": net.in_channels,
        "down_block_types": [f"{'Attn' if each else ''}DownEncoderBlock2D" for each in attends],
        "up_block_types": [f"{'Attn' if each else ''}UpDecoderBlock2D" for each in reversed(attends)],
        "block_out_channels": list(net.channels),
        "layers_per_block": net.blocks,
        "norm_num_groups": net.groups,
        "sample_size": net.size,
        "mid_block_add_attention": middle,
    }
