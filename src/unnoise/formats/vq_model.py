"""Conversion between the settings of diffusers' VQModel and an AutoencoderCard, both ways.

The VQ autoencoders of latent diffusion. Their latents were not scaled in training, so that the scale is 1; a file
without `scaling_factor` means the class's default, 0.18215, all the same: `notes` states it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unnoise.config.autoencoders import VQConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.config.limits import ROWS
from unnoise.errors import UserError
from unnoise.formats.autoencoder_kl import common, to_common
from unnoise.formats.settings import WIDTH, check_values, of_class, real, whole

KIND = "VQModel"
DEFAULTS: dict[str, Any] = {  # of the class
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 3,
    "sample_size": 32,
    "num_vq_embeddings": 256,
    "norm_num_groups": 32,
    "vq_embed_dim": None,
    "scaling_factor": 0.18215,
    "norm_type": "group",
    "mid_block_add_attention": True,
    "lookup_from_codebook": False,
    "force_upcast": False,
}
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "norm_type": ("group",),
    "mid_block_add_attention": (True, False),
    "lookup_from_codebook": (False,),
    "force_upcast": (True, False),
}


def from_config(given: Mapping[str, Any], where: str) -> AutoencoderCard:
    """The card of a config.json; `where` begins every error message. Raises UserError for what has no equivalent."""
    data = DEFAULTS | of_class(given, DEFAULTS, KIND, where)
    check_values(data, SUPPORTED, where)
    z = whole(data, "latent_channels", where, most=WIDTH)
    width = z if data["vq_embed_dim"] is None else whole(data, "vq_embed_dim", where, most=WIDTH)
    net = VQConfig(
        **common(data, where),
        latent_channels=width,
        z_channels=None if z == width else z,
        codes=whole(data, "num_vq_embeddings", where, most=ROWS),
    )
    scale = real(data, "scaling_factor", where)
    if scale <= 0:
        raise UserError(f"{where}: scaling_factor has to be above 0")
    latents = LatentsConfig(factor=net.factor, picture_channels=net.in_channels, scale=scale)
    return AutoencoderCard(net=net, latents=latents, force_upcast=data["force_upcast"])


def to_config(card: AutoencoderCard) -> dict[str, Any]:
    """The config.json of an autoencoder, with every setting. Raises UserError for a shift of the latents."""
    net, latents = card.net, card.latents
    assert isinstance(net, VQConfig)
    if latents.shift or latents.mean or latents.std:
        raise UserError("diffusers' VQModel has one scale of its latents, and no shift, mean or std")
    return DEFAULTS | to_common(net) | {
        "latent_channels": net.z_channels or net.latent_channels,
        "vq_embed_dim": net.latent_channels,
        "num_vq_embeddings": net.codes,
        "scaling_factor": latents.scale,
        "force_upcast": card.force_upcast,
    }  # fmt: skip
