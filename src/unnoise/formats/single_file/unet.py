"""The names of CompVis' U-Net and ControlNet beside those of diffusers.

    input_blocks.{i}.0, .1        residual block, attention;  i = 1 + level (blocks + 1) + j
    input_blocks.{i}.0.op         the step down after the last block of a level
    middle_block.0, .1, .2        residual block, attention, residual block
    output_blocks.{i}.0, .1       residual block, attention;  i = level' (blocks + 1) + j, the lowest level first
    output_blocks.{i}.{last}      the step up after the last block of a level

CompVis latent-diffusion and guided-diffusion, openaimodel.py; ControlNet, cldm.py. Laws
(tests/formats/single_file/test_unet.py): the names are those that diffusers' converter reads; each tensor of the
network has one name, and each name one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.formats.files import Shape
from unnoise.formats.single_file.entries import Entry, plain
from unnoise.nn.blocks import context_width, heads

RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
QKV = ("to_q", "to_k", "to_v")


def unet(config: UNetConfig, shapes: Mapping[str, Shape]) -> list[Entry]:
    """The entries of a U-Net whose tensors have these names and shapes in diffusers."""
    found = _entries(config, {**_encoder(config), **_decoder(config)}, shapes)
    assert len({entry.name for entry in found}) == len(found)
    return found


def controlnet(config: UNetConfig, control: ControlConfig, shapes: Mapping[str, Shape]) -> list[Entry]:
    """The entries of a ControlNet of the U-Net `config`."""
    names = _encoder(config)
    last = 2 * (len(control.hint) - 1)
    names["controlnet_cond_embedding.conv_in"] = "input_hint_block.0"
    names |= {f"controlnet_cond_embedding.blocks.{i}": f"input_hint_block.{2 * i + 2}" for i in range(last)}
    names["controlnet_cond_embedding.conv_out"] = f"input_hint_block.{2 * last + 2}"
    skips = len(config.channels) * (config.blocks + 1)
    names |= {f"controlnet_down_blocks.{k}": f"zero_convs.{k}.0" for k in range(skips)}
    names["controlnet_mid_block"] = "middle_block_out.0"
    return _entries(config, names, shapes)


def _encoder(config: UNetConfig) -> dict[str, str]:
    """{module in diffusers: module in CompVis' code} of the part that a ControlNet copies."""
    each, levels = config.blocks + 1, len(config.channels)
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "class_embedding": "label_emb",
        "mid_block.attentions.0": "middle_block.1",
    }
    for kind in ("class_embedding", "add_embedding"):  # of a vector
        names |= {f"{kind}.linear_1": "label_emb.0.0", f"{kind}.linear_2": "label_emb.0.2"}
    for level in range(levels):
        for j in range(config.blocks):
            at = f"input_blocks.{1 + level * each + j}"
            names |= _residual(f"down_blocks.{level}.resnets.{j}", f"{at}.0")
            names[f"down_blocks.{level}.attentions.{j}"] = f"{at}.1"
        step, at = f"down_blocks.{level}.downsamplers.0", f"input_blocks.{(level + 1) * each}.0"
        names |= {f"{step}.conv": f"{at}.op"} | _residual(step, at)
    names |= _residual("mid_block.resnets.0", "middle_block.0")
    return names | _residual("mid_block.resnets.1", f"middle_block.{2 if config.middle_attention else 1}")


def _decoder(config: UNetConfig) -> dict[str, str]:
    each, levels = config.blocks + 1, len(config.channels)
    names = {"conv_norm_out": "out.0", "conv_out": "out.2"}
    for place, level in enumerate(reversed(range(levels))):
        for j in range(each):
            at = f"output_blocks.{place * each + j}"
            names |= _residual(f"up_blocks.{place}.resnets.{j}", f"{at}.0")
            names[f"up_blocks.{place}.attentions.{j}"] = f"{at}.1"
        step = f"up_blocks.{place}.upsamplers.0"
        at = f"output_blocks.{place * each + config.blocks}.{2 if config.attention[level] else 1}"
        names |= {f"{step}.conv": f"{at}.conv"} | _residual(step, at)
    return names


def _residual(theirs: str, compvis: str) -> dict[str, str]:
    return {f"{theirs}.{name}": f"{compvis}.{other}" for name, other in RESIDUAL.items()}


def _entries(config: UNetConfig, names: Mapping[str, str], shapes: Mapping[str, Shape]) -> list[Entry]:
    if context_width(config):
        return plain(names, shapes)
    places = {module: compvis for module, compvis in names.items() if ".attentions." in f"{module}."}
    rest = {name: shape for name, shape in shapes.items() if ".attentions." not in name}
    return [*plain(names, rest), *_attention(config, places, shapes)]


def _attention(config: UNetConfig, places: Mapping[str, str], shapes: Mapping[str, Shape]) -> Iterator[Entry]:
    """The entries of attention without text, whose queries, keys and values are one convolution in the file."""
    for module, compvis in places.items():
        if f"{module}.to_q.weight" not in shapes:
            continue
        width = shapes[f"{module}.to_q.bias"][0]
        level = _level(config, module)
        for leaf, rest in (("weight", (width, 1)), ("bias", ())):
            yield Entry(f"{compvis}.norm.{leaf}", (width,), (f"{module}.group_norm.{leaf}",))
            parts = tuple(f"{module}.{to}.{leaf}" for to in QKV)
            yield Entry(f"{compvis}.qkv.{leaf}", (3 * width, *rest), parts, heads(config, level))
            yield Entry(f"{compvis}.proj_out.{leaf}", (width, *rest), (f"{module}.to_out.0.{leaf}",))


def _level(config: UNetConfig, module: str) -> int:
    """The level of an attention of diffusers' name: up_blocks begin with the lowest."""
    kind, place, *_ = module.split(".")
    last = len(config.channels) - 1
    return last if kind == "mid_block" else int(place) if kind == "down_blocks" else last - int(place)
