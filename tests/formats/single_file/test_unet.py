"""diffusers' own converter of checkpoint files is the judge of the names of U-Nets and ControlNets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.checkpoints import PIXELS, UNETS, random_tensors, shapes_of_unet, unet_tensors
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.formats import controlnet, names, unet2d_condition
from unnoise.formats.single_file import entries, unet
from unnoise.nn import UNet
from unnoise.nn.attention import Attention
from unnoise.nn.blocks import heads
from unnoise.noise import normal

pytest.importorskip("diffusers")
converter: Any = pytest.importorskip("diffusers.loaders.single_file_utils")

WITH_TEXT = [name for name, config in UNETS.items() if config.context]


def to_folder(config: UNetConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    shapes = names.wanted(names.pieces_of(config))
    return entries.to_folder(unet.unet(config, shapes), state, shapes)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_names_of_a_unet_are_those_that_diffusers_converts(name: str) -> None:
    """Every tensor, bit for bit, and no other."""
    config = UNETS[name]
    theirs = converter.convert_ldm_unet_checkpoint(unet_tensors(config), unet2d_condition.to_config(config))
    ours = to_folder(config, unet_tensors(config, ""))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", UNETS)
def test_writing_undoes_reading(name: str) -> None:
    config = UNETS[name]
    state = unet_tensors(config, "")
    shapes = names.wanted(names.pieces_of(config))
    table = unet.unet(config, shapes)
    again = entries.to_file(table, entries.to_folder(table, state, shapes))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["sd1", "sd2"])  # of XL's, diffusers' converter leaves the embedding of sizes out
def test_names_of_a_controlnet_are_those_that_diffusers_converts(name: str) -> None:
    base, how = UNETS[name], ControlConfig()
    shapes = names.wanted(controlnet.table_of(base, how))
    table = unet.controlnet(base, how, shapes)
    state = random_tensors(entries.wanted(table))
    settings = unet2d_condition.control_to_config(base, how)
    theirs = converter.convert_controlnet_checkpoint({f"control_model.{k}": v for k, v in state.items()}, settings)
    ours = entries.to_folder(table, state, shapes)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def legacy_attention(qkv: Tensor, heads: int) -> Tensor:
    """QKVAttentionLegacy of guided-diffusion, (B, 3C, T) -> (B, C, T): heads are the outermost axis of the rows."""
    batch, width, length = qkv.shape
    channels = width // (3 * heads)
    q, k, v = qkv.reshape(batch * heads, channels * 3, length).split(channels, dim=1)
    weight = torch.einsum("bct,bcs->bts", q, k) / channels**0.5
    return torch.einsum("bts,bcs->bct", weight.softmax(-1), v).reshape(batch, -1, length)


@pytest.mark.parametrize("place", ["up_blocks.0.blocks.1", "mid_block.blocks.0"])
@torch.no_grad()
def test_attention_without_text_is_that_of_the_published_code(place: str) -> None:
    """Two heads, whose queries, keys and values are interleaved in the file: the formula, written out."""
    config = PIXELS
    state = unet_tensors(config, "")
    ours = UNet(config)
    ours.load_state_dict(names.join(names.pieces_of(config), to_folder(config, state)))
    module = ours.get_submodule(f"{place}.attention")
    assert isinstance(module, Attention)
    assert heads(config, 1) == 2
    stem = "middle_block.1" if "mid" in place else "output_blocks.1.1"
    x = normal((2, 128, 4, 4), "x")
    h = torch.nn.functional.group_norm(x, 32, state[f"{stem}.norm.weight"], state[f"{stem}.norm.bias"], 1e-5)
    qkv = torch.nn.functional.conv1d(h.flatten(2), state[f"{stem}.qkv.weight"], state[f"{stem}.qkv.bias"])
    out = torch.nn.functional.conv1d(
        legacy_attention(qkv, 2), state[f"{stem}.proj_out.weight"], state[f"{stem}.proj_out.bias"]
    )
    torch.testing.assert_close(module(x), x + out.view_as(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", UNETS)
def test_each_tensor_has_one_name(name: str) -> None:
    table = unet.unet(UNETS[name], names.wanted(names.pieces_of(UNETS[name])))
    parts = [part for entry in table for part in entry.parts]
    assert len(parts) == len(set(parts))
    assert set(parts) == names.wanted(names.pieces_of(UNETS[name])).keys()
    assert len(shapes_of_unet(UNETS[name])) == len(table)


def test_names_of_published_files_are_in_the_tables() -> None:
    """Of Stable Diffusion 1 and XL, at full size: the step up follows the attention, if the level has one."""
    one = replace(
        UNETS["sd1"], channels=(320, 640, 1280, 1280), blocks=2, attention=(True, True, True, False), context=768
    )
    xl = replace(UNETS["xl"], channels=(320, 640, 1280), blocks=2, transformers=(1, 2, 10), context=2048, vector=1280)
    for config, count, published in (
        (one, 686, {
            "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3), "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
            "output_blocks.8.2.conv.bias": (640,), "output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
            "input_blocks.3.0.op.weight": (320, 320, 3, 3), "input_blocks.11.0.out_layers.3.bias": (1280,),
            "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
            "middle_block.2.emb_layers.1.bias": (1280,),
        }),
        (xl, 1680, {
            "label_emb.0.0.weight": (1280, 2816), "output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
            "output_blocks.5.2.conv.weight": (640, 640, 3, 3), "input_blocks.4.1.proj_in.weight": (640, 640),
            "middle_block.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
        }),
    ):  # fmt: skip
        shapes = shapes_of_unet(config)
        assert len(shapes) == count
        assert {name: shapes.get(name) for name in published} == published
