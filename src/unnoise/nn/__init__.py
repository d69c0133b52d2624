"""Networks: a noisy picture, a time and a condition in, a prediction out. They know nothing of schedules."""

from __future__ import annotations

from torch import nn

from unnoise.config.networks import DiTConfig, NetConfig
from unnoise.nn.dit import DiT
from unnoise.nn.unet import UNet

__all__ = ["DiT", "UNet", "build"]


def build(config: NetConfig) -> nn.Module:
    """The network that `config` describes, new-born. Raises UserError where no network is like that."""
    return DiT(config) if isinstance(config, DiTConfig) else UNet(config)
