"""Names of tensors in diffusers and in unnoise: one table for each network, used both ways.

diffusers has separate matrices for queries, keys and values, and for each block's projection of the time embedding;
unnoise has one matrix for all that read the same input. A pixelwise map may be a 1x1 convolution in diffusers and is a
linear map in unnoise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.config.networks import UNetConfig
from unnoise.formats.files import Shape
from unnoise.nn.blocks import Residual
from unnoise.nn.unet import UNet
from unnoise.nn.unet_encoder import UNetEncoder


class Pieces(NamedTuple):
    """A tensor of unnoise: its shape, and the diffusers tensors that are concatenated in it, with their shapes."""

    shape: Shape
    parts: dict[str, Shape]


Table = Mapping[str, Pieces]

RENAMED = (  # unnoise, diffusers
    (r"\.blocks\.(\d+)\.attention\.blocks\.(\d+)\.", r".attentions.\1.transformer_blocks.\2."),
    (r"\.self_attention\.out\.", ".attn1.to_out.0."),
    (r"\.self_attention\.", ".attn1."),
    (r"\.cross_attention\.out\.", ".attn2.to_out.0."),
    (r"\.cross_attention\.q\.", ".attn2.to_q."),
    (r"\.cross_attention\.", ".attn2."),
    (r"\.feed_forward\.linear_in\.", ".ff.net.0.proj."),
    (r"\.feed_forward\.linear_out\.", ".ff.net.2."),
    (r"\.blocks\.(\d+)\.resnet\.", r".resnets.\1."),
    (r"\.blocks\.(\d+)\.attention\.out\.", r".attentions.\1.to_out.0."),
    (r"\.blocks\.(\d+)\.attention\.", r".attentions.\1."),
    (r"^(encoder\.)?down_blocks\.(\d+)\.step\.", r"\1down_blocks.\2.downsamplers.0."),
    (r"^(decoder\.)?up_blocks\.(\d+)\.step\.", r"\1up_blocks.\2.upsamplers.0."),
    (r"^value_embedding\.networks\.0\.", "class_embedding."),
    (r"^hint\.", "controlnet_cond_embedding."),
    (r"^zero_convs\.", "controlnet_down_blocks."),
    (r"^zero_middle\.", "controlnet_mid_block."),
)
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # attention in diffusers before 0.15
SHARED = {"qkv": ("to_q", "to_k", "to_v"), "kv": ("to_k", "to_v")}  # a matrix of unnoise: those of diffusers


def theirs(name: str, *, vector: str = "class_embedding") -> str:
    """The diffusers name of a tensor or a module (with a trailing dot) that both have.

    `vector` is the diffusers name of the network that embeds a vector.
    """
    for pattern, replacement in (*RENAMED, (r"^vector_embedding\.", f"{vector}.")):
        name = re.sub(pattern, replacement, name)
    return name


def modern(name: str) -> str:
    """The present name of a tensor in a file of diffusers before 0.15."""
    module, _, leaf = name.rpartition(".")
    parent, _, layer = module.rpartition(".")
    return f"{parent}.{OLD[layer]}.{leaf}" if ".attentions." in f".{parent}" and layer in OLD else name


def pieces(net: UNetEncoder) -> dict[str, Pieces]:
    """The table of a network: for each tensor the diffusers tensors that it consists of."""
    config = net.config
    vector = "add_embedding" if config.value_width else "class_embedding"
    blocks = [theirs(f"{name}.") for name, module in net.named_modules() if isinstance(module, Residual)]
    emb_channels = [emb_channels for emb_channels in net.emb_channels if emb_channels]
    table: dict[str, Pieces] = {}
    for name, tensor in net.state_dict().items():
        shape, rest = tuple(tensor.shape), tuple(tensor.shape[1:])
        module, _, leaf = name.rpartition(".")
        layer = module.rpartition(".")[2]
        if module == "emb_proj":
            parts = {f"{b}time_emb_proj.{leaf}": (n, *rest) for b, n in zip(blocks, emb_channels, strict=True)}
        elif layer in SHARED:
            parts = _unfused(name, shape)
        elif layer in ("proj_in", "proj_out") and leaf == "weight" and not config.linear_projection:
            parts = {theirs(name): (*shape, 1, 1)}
        else:
            parts = {theirs(name, vector=vector): shape}
        table[name] = Pieces(shape, parts)
    return table


def plain_pieces(state: Mapping[str, Tensor]) -> dict[str, Pieces]:
    """The table of a network whose only fused matrices are those of attention: an autoencoder's."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    fused = {name for name in shapes if name.split(".")[-2] in SHARED}
    return {
        name: Pieces(shape, _unfused(name, shape) if name in fused else {theirs(name): shape})
        for name, shape in shapes.items()
    }


def _unfused(name: str, shape: Shape) -> dict[str, Shape]:
    """The diffusers tensors of a fused matrix, or of its bias."""
    module, _, leaf = name.rpartition(".")
    parent, _, layer = module.rpartition(".")
    tos = SHARED[layer]
    return {f"{theirs(f'{parent}.')}{to}.{leaf}": (shape[0] // len(tos), *shape[1:]) for to in tos}


def pieces_of(config: UNetConfig) -> dict[str, Pieces]:
    """The table of the U-Net of a configuration, without allocating memory."""
    with torch.device("meta"):
        return pieces(UNet(config))


def wanted(table: Table) -> dict[str, Shape]:
    """The shapes of all diffusers tensors, by name."""
    return {name: shape for each in table.values() for name, shape in each.parts.items()}


def join(table: Table, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """unnoise's tensors from those of diffusers, which are removed from `state` so that memory holds a network once."""
    joined = {}
    for name, (shape, parts) in table.items():
        found = [state.pop(part) for part in parts]
        joined[name] = (found[0] if len(found) == 1 else torch.cat(found)).reshape(shape)
    return joined


def split(table: Table, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' tensors from those of unnoise, in float32, none sharing memory with another."""
    apart: dict[str, Tensor] = {}
    for name, (_, parts) in table.items():
        whole = state[name].detach().to("cpu", torch.float32)
        rows = torch.split(whole, [shape[0] for shape in parts.values()])
        for (part, shape), row in zip(parts.items(), rows, strict=True):
            apart[part] = row.clone(memory_format=torch.contiguous_format).reshape(shape)
    return apart
