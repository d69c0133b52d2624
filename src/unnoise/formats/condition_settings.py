"""The settings of diffusers' UNet2DConditionModel and ControlNetModel: defaults and supported values.

A setting that is missing from a file has the class's default. Published files of Stable Diffusion 1 (diffusers 0.6)
lack some, which the class did not have then (resnet_skip_time_act, resnet_out_scale_factor, timestep_post_act,
time_embedding_act_fn, global_pool_conditions). Where every published file has a setting and no tensor's shape reveals a
wrong one, the default is stated in a note (settings.assumed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.formats.settings import check_values, of_class

DEFAULTS: dict[str, Any] = {  # of UNet2DConditionModel
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "only_cross_attention": False,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,  # of an addition_embed_type that is not supported
}
_ONLY_UNET = [
    "sample_size",
    "out_channels",
    "center_input_sample",
    "up_block_types",
    "dropout",
    "dual_cross_attention",
    "reverse_transformer_layers_per_block",
    "resnet_skip_time_act",
    "resnet_out_scale_factor",
    "time_embedding_type",
    "time_embedding_dim",
    "time_embedding_act_fn",
    "timestep_post_act",
    "time_cond_proj_dim",
    "conv_in_kernel",
    "conv_out_kernel",
    "attention_type",
    "class_embeddings_concat",
    "mid_block_only_cross_attention",
    "cross_attention_norm",
]
CONTROL_DEFAULTS: dict[str, Any] = {name: v for name, v in DEFAULTS.items() if name not in _ONLY_UNET} | {
    "conditioning_channels": 3,
    "controlnet_conditioning_channel_order": "rgb",
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "global_pool_conditions": False,
}

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True, False),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "downsample_padding": (0, 1),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "use_linear_projection": (True, False),
    "class_embed_type": (None, "timestep", "projection"),
    "addition_embed_type": (None, "text_time"),
    "upcast_attention": (True, False, None),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "global_pool_conditions": (True, False),
}
# block types: whether they have attention
DOWN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
UP = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}
TIME_IDS = 6  # values of Stable Diffusion XL: original height and width, crop top and left, target height and width


def complete(given: Mapping[str, Any], defaults: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """All settings of the class `kind`, those that are missing with their defaults.

    Raises UserError for an unknown setting, and for a value that is not supported.
    """
    data = {**defaults, **of_class(given, defaults, kind, where)}
    check_values(data, SUPPORTED, where)
    return data
