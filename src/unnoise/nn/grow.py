"""A U-Net that grows outwards: its inner levels are learned first, on smaller pictures, where a step costs little.

The inner U-Net is the outer one without its first levels, for pictures that are half the side a level left out. What
words mean, and what goes where, is settled at the lowest resolution; the levels put around it later learn to draw it.
Karras et al. 2018 grew both ends of a GAN so, Vasconcelos et al. 2024 a text-to-image U-Net (arXiv 2405.16759).

The outer network's inner levels see pictures through k x k pixels: with `shift` 1 / k in its schedule the inner one
learns at the same noise at the same time.
Laws (tests/nn/test_grow.py): the inner levels of a grown network compute what the inner network's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.nn.blocks import Down, Residual, Up
from unnoise.nn.unet import UNet

OWN = (
    "conv_in.",
    "conv_norm_out.",
    "conv_out.",
    "emb_proj.",
)  # between pictures and features; and see `grow` for emb_proj


def inner(config: UNetConfig, levels: int) -> UNetConfig:
    """The same without its first `levels` levels, which has pictures of size / 2^levels."""
    return replace(
        config, size=config.size >> levels, channels=config.channels[levels:], attention=config.attention[levels:]
    )


def levels_around(config: UNetConfig, core: UNetConfig) -> int:
    """How many levels `config` has around `core`, where that is its inner part, whatever is dropped; else 0."""
    levels = len(config.channels) - len(core.channels)
    return levels if levels > 0 and replace(inner(config, levels), dropout=core.dropout) == core else 0


def grow(net: UNet, core: UNetConfig, weights: Mapping[str, Tensor]) -> None:
    """Give the inner levels of `net`, its text encoder and its clock the weights of the inner network `core`.

    Raises UserError where the levels around it are of another width than the core's first.
    """
    levels, mine = levels_around(net.config, core), net.state_dict()
    if set(net.config.channels[: levels + 1]) != {core.channels[0]}:
        raise UserError(
            f"a network grows by levels as wide as the first of its core, {core.channels[0]}: net.channels should "
            f"begin with {', '.join([str(core.channels[0])] * (levels + 1))}, not {net.config.channels[: levels + 1]}"
        )
    with torch.device("meta"):  # its parts are asked for, not its numbers
        parts = UNet(core)
    with torch.no_grad():
        for name, tensor in weights.items():
            if not name.startswith(OWN):
                mine[_place(name, levels)].copy_(tensor)
        here, there = _rows(net), _rows(parts)
        for name, rows in there.items():
            for of in ("emb_proj.weight", "emb_proj.bias"):
                mine[of][here[_place(name, levels)]] = weights[of][rows]


def _place(name: str, levels: int) -> str:
    """What a part of the inner network is called in the outer one: the way down is counted from the pictures."""
    if not name.startswith("down_blocks."):
        return name
    first, level, rest = name.split(".", 2)
    return f"{first}.{int(level) + levels}.{rest}"


def _rows(net: UNet) -> dict[str, slice]:
    """Which rows of `emb_proj` are those of which part."""
    rows, start = {}, 0
    for name, part in net.named_modules():
        if isinstance(part, Residual | Down | Up):
            rows[name] = slice(start, start + part.emb_channels)
            start += part.emb_channels
    return rows
