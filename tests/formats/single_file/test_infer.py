"""Configurations are inferred as the published ones, at full size and without memory, and as diffusers builds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.checkpoints import SD1, SD2, UNETS, shapes_of_unet
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.formats import controlnet, names, unet2d_condition
from unnoise.formats.single_file import entries, infer, unet
from unnoise.nn.blocks import at_level, heads

converter: Any = pytest.importorskip("diffusers.loaders.single_file_utils")

COMMON = {"in_channels": 4, "out_channels": 4, "num_res_blocks": 2, "transformer_depth": 1}
PUBLISHED = {  # unet_config of the published YAML files
    "sd1": COMMON | {
        "model_channels": 320, "attention_resolutions": [4, 2, 1], "channel_mult": [1, 2, 4, 4], "num_heads": 8,
        "context_dim": 768,
    },
    "sd2": COMMON | {
        "model_channels": 320, "attention_resolutions": [4, 2, 1], "channel_mult": [1, 2, 4, 4],
        "num_head_channels": 64, "use_linear_in_transformer": True, "context_dim": 1024,
    },
    "xl": COMMON | {
        "model_channels": 320, "attention_resolutions": [4, 2], "channel_mult": [1, 2, 4], "num_head_channels": 64,
        "use_linear_in_transformer": True, "transformer_depth": [1, 2, 10], "context_dim": 2048,
        "num_classes": "sequential", "adm_in_channels": 2816,
    },
    "refiner": COMMON | {
        "model_channels": 384, "attention_resolutions": [4, 2], "channel_mult": [1, 2, 4, 4], "num_head_channels": 64,
        "use_linear_in_transformer": True, "transformer_depth": 4, "context_dim": [1280, 1280, 1280, 1280],
        "num_classes": "sequential", "adm_in_channels": 2560,
    },
    "inpainting": COMMON | {
        "in_channels": 9, "model_channels": 320, "attention_resolutions": [4, 2, 1], "channel_mult": [1, 2, 4, 4],
        "num_heads": 8, "context_dim": 768,
    },
}  # fmt: skip


def meaning(config: UNetConfig) -> UNetConfig:
    """The configuration with heads and transformers at each level, and without its size."""
    levels = range(len(config.channels))
    attends = [a or level == levels[-1] for level, a in zip(levels, config.attention)]
    return replace(
        config,
        size=64,
        heads=tuple(heads(config, level) if attends[level] else 1 for level in levels),
        head_width=None,
        transformers=tuple(at_level(config.transformers, level) if attends[level] else 1 for level in levels),
    )


@pytest.mark.filterwarnings("ignore:`image_size` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_inferred_from_their_shapes(name: str) -> None:
    """The judge is diffusers' conversion of the YAML files that were published with the checkpoints."""
    yaml = {
        "unet_config": {"params": PUBLISHED[name]},
        "first_stage_config": {"params": {"ddconfig": {"ch_mult": [1] * 4}}},
    }
    settings = converter.create_unet_diffusers_config_from_ldm({"model": {"params": yaml}}, {}, image_size=512)
    right = unet2d_condition.from_config(settings, name, time_ids=5 if name == "refiner" else 6)
    assert meaning(infer.unet(shapes_of_unet(right), name)) == meaning(right)


@pytest.mark.parametrize("name", UNETS)
def test_small_networks_are_inferred_from_their_shapes(name: str) -> None:
    found = infer.unet(shapes_of_unet(UNETS[name]), name, one_head=name == "classes")
    assert meaning(found) == meaning(UNETS[name])


@pytest.mark.parametrize("hint", [ControlConfig(), ControlConfig(1, hint=(8, 24), scale=2)])
def test_a_control_is_inferred_from_its_shapes(hint: ControlConfig) -> None:
    shapes = entries.wanted(unet.controlnet(SD1, hint, names.wanted(controlnet.table_of(SD1, hint))))
    assert infer.control(shapes, SD1, "there") == hint


def test_tensors_of_another_network_are_an_error() -> None:
    shapes = shapes_of_unet(SD2)
    for missing, message in (
        ("input_blocks.0.0.weight", "not those of a U-Net"),
        ("out.2.weight", r"there: out\.2\.weight is missing"),
        ("output_blocks.2.0.out_layers.3.weight", r"output_blocks\.2\.0\.out_layers\.3\.weight is missing"),
    ):
        with pytest.raises(UserError, match=message):
            infer.unet({name: shape for name, shape in shapes.items() if name != missing}, "there")
    with pytest.raises(UserError, match="is not supported: channels 33 are not divisible by groups 32"):
        infer.unet(shapes | {"output_blocks.2.0.out_layers.3.weight": (33, 33, 3, 3)}, "there")
    with pytest.raises(UserError, match="is not a weight of a U-Net"):
        infer.unet(shapes | {"out.2.weight": ()}, "there")
    with pytest.raises(UserError, match="not those of a U-Net"):
        infer.unet({}, "there")
    with pytest.raises(UserError, match="not those of a ControlNet"):
        infer.control(shapes, SD2, "there")
    with pytest.raises(UserError, match="more than 64"):
        infer.unet({f"output_blocks.{i}.0.in_layers.2.weight": (1,) for i in range(99)}, "there")
