"""diffusers' own converter of checkpoint files is the judge of the names of autoencoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.checkpoints import random_tensors
from unnoise.config.autoencoders import KLConfig, VQConfig
from unnoise.errors import UserError
from unnoise.formats.files import Shape
from unnoise.formats.single_file import autoencoder
from unnoise.formats.single_file.entries import to_file, to_folder, wanted

theirs: Any = pytest.importorskip("diffusers")
converter: Any = pytest.importorskip("diffusers.loaders.single_file_utils")

KL = KLConfig(channels=(32, 64), blocks=1, attention=(False, False), latent_channels=4)
BARE = KLConfig(
    channels=(32, 64, 64), blocks=2, attention=(False,) * 3, latent_channels=16, quant_conv=False, post_quant_conv=False
)
VQ = VQConfig(channels=(32, 64), blocks=1, attention=(False, True), latent_channels=3, codes=17)
VQ_WIDE = VQConfig(channels=(32, 64), blocks=1, attention=(False, False), latent_channels=3, z_channels=5, codes=9)


def settings(config: KLConfig | VQConfig) -> dict[str, Any]:
    common = {
        "block_out_channels": list(config.channels), "layers_per_block": config.blocks,
        "down_block_types": [f"{'Attn' * attends}DownEncoderBlock2D" for attends in config.attention],
        "up_block_types": [f"{'Attn' * attends}UpDecoderBlock2D" for attends in reversed(config.attention)],
    }  # fmt: skip
    if isinstance(config, KLConfig):
        quant = {"use_quant_conv": config.quant_conv, "use_post_quant_conv": config.post_quant_conv}
        return common | quant | {"latent_channels": config.latent_channels}
    return common | {
        "latent_channels": config.z_channels or config.latent_channels, "vq_embed_dim": config.latent_channels,
        "num_vq_embeddings": config.codes,
    }  # fmt: skip


def folder_shapes(config: KLConfig | VQConfig) -> dict[str, Shape]:
    net = (theirs.AutoencoderKL if isinstance(config, KLConfig) else theirs.VQModel)(**settings(config))
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def tensors(config: KLConfig | VQConfig, prefix: str = "") -> dict[str, Tensor]:
    table = autoencoder.entries(config, folder_shapes(config))
    return random_tensors({prefix + name: shape for name, shape in wanted(table).items()})


@pytest.mark.parametrize("config", [KL, BARE])
@pytest.mark.parametrize("prefix", ["first_stage_model.", ""])
def test_names_are_those_that_diffusers_converts(config: KLConfig, prefix: str) -> None:
    right = converter.convert_ldm_vae_checkpoint(tensors(config, prefix), settings(config))
    shapes = folder_shapes(config)
    ours = to_folder(autoencoder.entries(config, shapes), tensors(config), shapes)
    assert ours.keys() == right.keys()
    assert all(torch.equal(ours[name], right[name]) for name in ours)


@pytest.mark.parametrize("config", [KL, BARE, VQ, VQ_WIDE])
def test_writing_undoes_reading(config: KLConfig | VQConfig) -> None:
    shapes, state = folder_shapes(config), tensors(config)
    table = autoencoder.entries(config, shapes)
    assert {part for entry in table for part in entry.parts} == shapes.keys()
    again = to_file(table, to_folder(table, state, shapes))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize("config", [KL, BARE, VQ, VQ_WIDE])
def test_sizes_are_inferred(config: KLConfig | VQConfig) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors(config).items()}
    found = autoencoder.config_of(shapes, "there")
    right = (
        config if isinstance(config, KLConfig) else VQConfig(**vars(config) | {"z_channels": config.z_channels or 3})
    )
    assert found == right
    for missing in ("encoder.conv_in.weight", "decoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight"):
        with pytest.raises(UserError, match="there: its tensors are not those of an autoencoder"):
            autoencoder.config_of({name: shape for name, shape in shapes.items() if name != missing}, "there")
    with pytest.raises(UserError, match="there: its tensors are not those of an autoencoder"):
        autoencoder.config_of({}, "there")


def test_the_names_of_levels_with_attention_are_those_of_the_published_code() -> None:
    """diffusers' converter leaves these out: CompVis' Encoder has down.{level}.attn.{block}, with 1x1 convolutions."""
    state = tensors(VQ)
    assert state["encoder.down.1.attn.0.q.weight"].shape == (64, 64, 1, 1)
    assert {name for name in state if ".attn.1." in name} == {
        f"decoder.up.1.attn.1.{layer}.{leaf}"
        for layer in ("norm", "q", "k", "v", "proj_out")
        for leaf in ("weight", "bias")
    }
    assert state["quantize.embedding.weight"].shape == (17, 3)
