"""Two small U-Nets, with the options of DDPM and of improved DDPM, and inputs for them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tests.helpers.random_weights import randomised
from unnoise.conditions import NOTHING, Cond
from unnoise.config.networks import UNetConfig
from unnoise.nn import UNet, build
from unnoise.noise import normal

SMALL = UNetConfig(size=16, channels=(8, 16, 16), blocks=1, attention=(False, True, False), groups=4)
IMPROVED = replace(
    SMALL,
    out_channels=6,
    scale_shift=True,
    residual_resampling=True,
    head_width=4,
    cosine_first=True,
    frequency_shift=0.0,
    classes=3,
)
CONFIGS = {"ddpm": SMALL, "improved": IMPROVED}
TIMES = torch.tensor([0.0, 999.0, 137.0, 500.0])
LABELS = torch.tensor([2, 0, 3, 1])  # 3 is the null row


def random_network(config: UNetConfig) -> UNet:
    """A network with random weights everywhere, also where initial weights are zero."""
    return randomised(UNet(config))


def conditions(config: UNetConfig) -> Cond:
    return Cond(LABELS) if config.classes else NOTHING


def pictures(config: UNetConfig) -> Tensor:
    return normal((len(TIMES), config.in_channels, config.size, config.size), "pictures")


def count(config: UNetConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())
