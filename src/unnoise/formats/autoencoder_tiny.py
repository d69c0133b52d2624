"""Conversion between the settings of diffusers' AutoencoderTiny (TAESD) and an AutoencoderCard, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.config.autoencoders import TinyConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.errors import UserError
from unnoise.formats.autoencoder_kl import picture_channels
from unnoise.formats.settings import (
    LAYERS,
    LEVELS,
    WIDTH,
    check_values,
    list_of_whole,
    of_class,
    real,
    unsupported,
    whole,
)

KIND = "AutoencoderTiny"
DEFAULTS: dict[str, Any] = {  # of the class; it adds block_out_channels itself, which has no effect
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": [64, 64, 64, 64],
    "decoder_block_out_channels": [64, 64, 64, 64],
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "latent_channels": 4,
    "upsampling_scaling_factor": 2,
    "num_encoder_blocks": [1, 3, 3, 3],
    "num_decoder_blocks": [3, 3, 3, 1],
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "force_upcast": False,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
}
WRITTEN = "block_out_channels"
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("relu",),
    "upsample_fn": ("nearest",),
    "upsampling_scaling_factor": (2,),
    "latent_magnitude": (3,),
    "latent_shift": (0.5,),
    "force_upcast": (True, False),
}


def from_config(given: Mapping[str, Any], where: str) -> AutoencoderCard:
    """The card of a config.json; `where` begins every error message. Raises UserError for what has no equivalent."""
    data = DEFAULTS | of_class({k: v for k, v in given.items() if k != WRITTEN}, DEFAULTS, KIND, where)
    check_values(data, SUPPORTED, where)
    widths = [
        width
        for key in ("encoder_block_out_channels", "decoder_block_out_channels")
        for width in list_of_whole(data, key, where, most=WIDTH, length=LEVELS)
    ]
    if len(set(widths)) > 1:
        raise unsupported(where, "encoder_block_out_channels", widths, "one width for all levels of both networks")
    down, up = (tuple(_blocks(data, key, where)) for key in ("num_encoder_blocks", "num_decoder_blocks"))
    if not 2 * len(down) == 2 * len(up) == len(widths):
        raise UserError(f"{where}: num_encoder_blocks, num_decoder_blocks and the widths have different lengths")
    net = TinyConfig(
        in_channels=picture_channels(data, where),
        latent_channels=whole(data, "latent_channels", where, most=WIDTH),
        width=widths[0],
        encoder_blocks=down,
        decoder_blocks=up,
    )
    scale, shift = (real(data, key, where) for key in ("scaling_factor", "shift_factor"))
    if scale <= 0:
        raise UserError(f"{where}: scaling_factor has to be above 0")
    latents = LatentsConfig(factor=net.factor, picture_channels=net.in_channels, scale=scale, shift=shift)
    return AutoencoderCard(net=net, latents=latents, force_upcast=data["force_upcast"])


def _blocks(data: Mapping[str, Any], key: str, where: str) -> list[int]:
    """The number of blocks of each level, which may be 0."""
    values = data[key]
    right = isinstance(values, list | tuple) and 1 <= len(values) <= LEVELS
    if not right or not all(type(value) is int and 0 <= value <= LAYERS for value in values):
        raise unsupported(where, key, values, f"a list of 1 to {LEVELS} whole numbers")
    return list(values)


def to_config(card: AutoencoderCard) -> dict[str, Any]:
    """The config.json of an autoencoder, with every setting. Raises UserError for a mean or std of each channel."""
    net, latents = card.net, card.latents
    assert isinstance(net, TinyConfig)
    if latents.mean or latents.std:
        raise UserError("diffusers' AutoencoderTiny has one scale and shift of its latents, and no mean or std")
    widths = [net.width] * len(net.encoder_blocks)
    return DEFAULTS | {
        "in_channels": net.in_channels,
        "out_channels": net.in_channels,
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": widths,
        WRITTEN: widths,
        "latent_channels": net.latent_channels,
        "num_encoder_blocks": list(net.encoder_blocks),
        "num_decoder_blocks": list(net.decoder_blocks),
        "force_upcast": card.force_upcast,
        "scaling_factor": latents.scale,
        "shift_factor": latents.shift,
    }
