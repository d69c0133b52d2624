"""Networks: from a noisy picture, a time and a condition to a prediction. They are independent of schedules."""

from __future__ import annotations

from torch import nn

from unnoise.config.autoencoders import AutoencoderConfig, KLConfig, VQConfig
from unnoise.config.networks import DiTConfig, NetConfig
from unnoise.nn.autoencoder import AutoencoderKL
from unnoise.nn.dit import DiT
from unnoise.nn.tiny_autoencoder import AutoencoderTiny
from unnoise.nn.unet import UNet
from unnoise.nn.vq_autoencoder import VQModel

__all__ = ["AutoencoderKL", "AutoencoderTiny", "DiT", "UNet", "VQModel", "build", "build_autoencoder"]


def build(config: NetConfig) -> nn.Module:
    """The network that `config` describes, with initial weights. Raises UserError for an invalid configuration."""
    return DiT(config) if isinstance(config, DiTConfig) else UNet(config)


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKL | VQModel | AutoencoderTiny:
    """The autoencoder that `config` describes, with initial weights. Raises UserError for an invalid configuration."""
    if isinstance(config, KLConfig):
        return AutoencoderKL(config)
    return VQModel(config) if isinstance(config, VQConfig) else AutoencoderTiny(config)
