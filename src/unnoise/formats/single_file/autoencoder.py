"""The autoencoder of a checkpoint file, or one that is alone in a file: CompVis' names beside those of diffusers.

    encoder.down.{b}.block.{j}, .attn.{j}, .downsample.conv       levels down
    decoder.up.{b}.block.{j}, .attn.{j}, .upsample.conv           levels up, the finest is 0
    {encoder, decoder}.mid.block_1, attn_1, block_2               the middle
    quant_conv, post_quant_conv, quantize.embedding               a codebook has the last

CompVis latent-diffusion, ldm/modules/diffusionmodules/model.py. Attention is by 1x1 convolutions in the file. Widths,
levels and channels are in the shapes; the scale of the latents is not, and is that of the model around it. Laws
(tests/formats/single_file/test_autoencoder.py): the names are those that diffusers' converter reads; writing undoes
reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.config.autoencoders import KLConfig, VQConfig
from unnoise.errors import UserError
from unnoise.formats.files import Shape
from unnoise.formats.settings import LAYERS
from unnoise.formats.single_file.entries import Entry, plain

RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "conv_shortcut": "nin_shortcut"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
WITHOUT_EFFECT = ("loss.", "model_ema.")  # the discriminator and LPIPS of the training, and a moving average


def entries(config: KLConfig | VQConfig, shapes: Mapping[str, Shape]) -> list[Entry]:
    """The entries of an autoencoder whose tensors have these names and shapes in diffusers."""
    names = {name: name for name in ("quant_conv", "post_quant_conv", "quantize.embedding")}
    levels = len(config.channels)
    for half in ("encoder", "decoder"):
        names |= {f"{half}.{each}": f"{half}.{each}" for each in ("conv_in", "conv_out")}
        names[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        for j in (0, 1):
            names |= _inside(f"{half}.mid_block.resnets.{j}", f"{half}.mid.block_{j + 1}", RESIDUAL)
        names |= _inside(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", ATTENTION)
    for level in range(levels):
        names |= _level(f"encoder.down_blocks.{level}", f"encoder.down.{level}", config.blocks)
        names[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        names |= _level(f"decoder.up_blocks.{levels - 1 - level}", f"decoder.up.{level}", config.blocks + 1)
        names[f"decoder.up_blocks.{levels - 1 - level}.upsamplers.0.conv"] = f"decoder.up.{level}.upsample.conv"
    return [_convolution(entry) for entry in plain(names, shapes)]


def _level(theirs: str, compvis: str, blocks: int) -> dict[str, str]:
    names: dict[str, str] = {}
    for j in range(blocks):
        names |= _inside(f"{theirs}.resnets.{j}", f"{compvis}.block.{j}", RESIDUAL)
        names |= _inside(f"{theirs}.attentions.{j}", f"{compvis}.attn.{j}", ATTENTION)
    return names


def _inside(theirs: str, compvis: str, modules: Mapping[str, str]) -> dict[str, str]:
    return {f"{theirs}.{name}": f"{compvis}.{other}" for name, other in modules.items()}


def _convolution(entry: Entry) -> Entry:
    """The entry with the shape of a 1x1 convolution, where the folder has a matrix."""
    attends = ".attn" in entry.name and len(entry.shape) == 2
    return entry._replace(shape=(*entry.shape, 1, 1)) if attends else entry


def config_of(shapes: Mapping[str, Shape], where: str) -> KLConfig | VQConfig:
    """The configuration of an autoencoder, from shapes under its names without prefix.

    Raises UserError for tensors that are not those of an autoencoder of this kind.
    """
    levels = _count(shapes, "encoder.down.")
    blocks = _count(shapes, "encoder.down.0.block.")
    codes = shapes.get("quantize.embedding.weight")
    try:
        common: dict[str, Any] = {
            "in_channels": shapes["encoder.conv_in.weight"][1],
            "channels": tuple(shapes[f"encoder.down.{b}.block.0.conv1.weight"][0] for b in range(levels)),
            "blocks": blocks,
            "attention": tuple(f"encoder.down.{b}.attn.0.q.weight" in shapes for b in range(levels)),
            "middle_attention": "encoder.mid.attn_1.q.weight" in shapes,
        }
        inner = shapes["decoder.conv_in.weight"][1]
    except (KeyError, IndexError):
        raise UserError(f"{where}: its tensors are not those of an autoencoder of latent diffusion") from None
    if not levels or not blocks:
        raise UserError(f"{where}: its tensors are not those of an autoencoder of latent diffusion")
    if codes is not None and len(codes) == 2:
        return VQConfig(**common, latent_channels=codes[1], z_channels=inner, codes=codes[0])
    return KLConfig(
        **common,
        latent_channels=inner,
        quant_conv="quant_conv.weight" in shapes,
        post_quant_conv="post_quant_conv.weight" in shapes,
    )


def _count(shapes: Mapping[str, Shape], start: str) -> int:
    found = {name.removeprefix(start).split(".")[0] for name in shapes if name.startswith(start)}
    if len(found) > LAYERS:
        raise UserError(f"{start} has {len(found):,} modules, more than {LAYERS:,}: this is not a network")
    return len(found)
