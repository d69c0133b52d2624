"""Networks: from a noisy picture, a time and a condition to a prediction. They are independent of schedules."""

from __future__ import annotations

from torch import nn

from unnoise.config.networks import DiTConfig, NetConfig
from unnoise.nn.dit import DiT
from unnoise.nn.unet import UNet

__all__ = ["DiT", "UNet", "build"]


def build(config: NetConfig) -> nn.Module:
    """The network that `config` describes, with initial weights. Raises UserError for an invalid configuration."""
    return DiT(config) if isinstance(config, DiTConfig) else UNet(config)
