"""Growing a U-Net outwards: its inner levels are trained first, on smaller pictures, where a step costs little.

The inner U-Net is the outer one without its first levels, for pictures of half the side per omitted level. The meaning
of text and the layout of a picture are learned at the lowest resolution; the levels around it are trained later.
Karras et al. 2018 grew both networks of a GAN so, Vasconcelos et al. 2024 a text-to-image U-Net (arXiv 2405.16759).

The outer network's inner levels see the mean of k x k pixels: with `shift` 1 / k in its schedule the inner network is
trained at the same noise level at the same time.
Laws (tests/nn/test_grow.py): the inner levels of a grown network compute what the inner network's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from unnoise.config.networks import UNetConfig, height_width
from unnoise.errors import UserError
from unnoise.nn.slices import emb_slices
from unnoise.nn.unet import UNet

OWN = ("conv_in.", "conv_norm_out.", "conv_out.", "emb_proj.")
"""Weights that are not copied: those between pictures and features, and `emb_proj`, of which `grow` copies rows."""


def inner(config: UNetConfig, levels: int) -> UNetConfig:
    """The configuration without its first `levels` levels, for pictures of size / 2^levels."""
    height, width = (side >> levels for side in height_width(config.size))
    size = height if isinstance(config.size, int) else (height, width)
    return replace(config, size=size, channels=config.channels[levels:], attention=config.attention[levels:])


def levels_around(config: UNetConfig, core: UNetConfig) -> int:
    """The number of levels of `config` around `core` if that is its inner part, up to dropout; else 0."""
    levels = len(config.channels) - len(core.channels)
    return levels if levels > 0 and replace(inner(config, levels), dropout=core.dropout) == core else 0


def grow(net: UNet, core: UNetConfig, weights: Mapping[str, Tensor]) -> None:
    """Copies the weights of the inner network `core` to the inner levels of `net`, its text encoder and embeddings.

    Raises UserError if the levels around it differ in width from the first of the core.
    """
    levels, state = levels_around(net.config, core), net.state_dict()
    if set(net.config.channels[: levels + 1]) != {core.channels[0]}:
        raise UserError(
            f"a network grows by levels of the width of its core's first level, {core.channels[0]}: net.channels must "
            f"begin with {', '.join([str(core.channels[0])] * (levels + 1))}, not {net.config.channels[: levels + 1]}"
        )
    with torch.device("meta"):  # for its structure, without weights
        core_net = UNet(core)
    with torch.no_grad():
        for name, tensor in weights.items():
            if not name.startswith(OWN):
                state[_place(name, levels)].copy_(tensor)
        rows = emb_slices(net)
        for name, core_rows in emb_slices(core_net).items():
            for leaf in ("emb_proj.weight", "emb_proj.bias"):
                state[leaf][rows[_place(name, levels)]] = weights[leaf][core_rows]


def _place(name: str, levels: int) -> str:
    """The name in the outer network of a part of the inner one: levels down are counted from the pictures."""
    if not name.startswith("down_blocks."):
        return name
    first, level, rest = name.split(".", 2)
    return f"{first}.{int(level) + levels}.{rest}"
