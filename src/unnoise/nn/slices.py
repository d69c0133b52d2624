"""Rows of fused matrices: where the projection of a query, a key, a value or one block's embedding is stored.

Maps of the same input are one matrix, one product instead of several: queries, keys and values (attention.py), and the
embedding's projections for all blocks of a U-Net (unet_encoder.py). Files of other libraries, and what is made for
them, name each map by itself. Law (tests/nn/test_slices.py): these are the rows that formats/names.py reads and writes
for each of diffusers' names, and together they are each fused matrix, once.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from torch import nn

from unnoise.nn.blocks import Down, Residual, Up
from unnoise.nn.unet_encoder import UNetEncoder

FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v")}
"""The name of a fused linear map, and those of its parts, each with the same number of rows."""


class Rows(NamedTuple):
    """Rows of a linear map's weight and, if it has one, of its bias: outputs `rows` of the module named `module`."""

    module: str
    rows: slice


def slices(net: nn.Module) -> dict[str, Rows]:
    """The rows of each part of the fused linear maps of a network, by the name that the part would have by itself.

        {"mid_block.blocks.0.attention.q": Rows("mid_block.blocks.0.attention.qkv", slice(0, 512)),
         "mid_block.blocks.0.resnet.emb_proj": Rows("emb_proj", slice(3072, 3584)), ...}

    Works with every network that has them: U-Nets, their control networks, transformers, text encoders.
    """
    found: dict[str, Rows] = {}
    for name, module in net.named_modules():
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, nn.Linear) and leaf in FUSED:
            rows = module.out_features // len(FUSED[leaf])
            for place, part in enumerate(FUSED[leaf]):
                found[_join(parent, part)] = Rows(name, slice(place * rows, (place + 1) * rows))
        if isinstance(module, UNetEncoder):
            for part, part_rows in emb_slices(module).items():
                found[_join(name, part, "emb_proj")] = Rows(_join(name, "emb_proj"), part_rows)
    return found


def emb_slices(net: UNetEncoder) -> dict[str, slice]:
    """The rows of `net.emb_proj` for each residual block and resampling residual block, by its name in `net`."""
    names = [
        name
        for name, part in net.named_modules()
        if isinstance(part, Residual | Down | Up) and not name.startswith("controls.")
    ]
    ends = list(accumulate(net.emb_channels))
    return {
        name: slice(end - count, end) for name, count, end in zip(names, net.emb_channels, ends, strict=True) if count
    }


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
