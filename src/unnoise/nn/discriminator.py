"""PatchGAN: a discriminator that judges each patch of a picture, not the whole one.

    conv / 2, LeakyReLU;  (layers - 1) x [conv / 2, norm, LeakyReLU];  conv, norm, LeakyReLU;  conv

All convolutions are 4x4; / 2 is a stride of 2. With three layers, a logit sees 70x70 pixels. Isola et al. 2017; hinge
loss, weights from N(0, 0.02) and batch norm are those of Esser et al. 2021. The published batch norm makes the logits
of a picture depend on the others of its batch, on each process by itself; group and instance norm do not.

Laws (tests/nn/test_discriminator.py): the published parameter count; the patch of a logit is 70x70; with group and
instance norm, a picture's logits are its own.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from unnoise.config.training import DiscriminatorConfig
from unnoise.errors import UserError

STD = 0.02  # of the convolutions' initial weights, and of the norms' around 1
SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Pictures (B, channels, H, W) in [-1, 1] -> logits of patches (B, 1, h, w); positive: real.

    Raises UserError for an invalid configuration.
    """

    def __init__(self, config: DiscriminatorConfig, channels: int) -> None:
        super().__init__()
        if config.width < 1 or config.layers < 1:
            raise UserError(
                f"discriminator.width {config.width} and discriminator.layers {config.layers} must be at least 1"
            )
        width = config.width
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for layer in range(1, config.layers + 1):
            wider = config.width * min(2**layer, 8)
            stride = 2 if layer < config.layers else 1
            bias = config.norm != "batch"  # as published, although every norm here has a shift
            parts += [nn.Conv2d(width, wider, 4, stride, 1, bias=bias), make_norm(config.norm, wider)]
            parts += [nn.LeakyReLU(SLOPE)]
            width = wider
        parts += [nn.Conv2d(width, 1, 4, 1, 1)]
        self.net = nn.Sequential(*parts)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


def make_norm(kind: str, channels: int) -> nn.Module:
    """The norm of this name, with a scale and a shift for each channel and without a state."""
    if kind == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)  # as in training: always of this batch
    return nn.GroupNorm(math.gcd(32, channels) if kind == "group" else channels, channels)


def least_size(layers: int) -> int:
    """The smallest side of a picture, in pixels: after `layers` halvings, two 4x4 convolutions take a pixel each."""
    return int(3 * 2**layers)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, STD)
    elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
        nn.init.normal_(module.weight, 1.0, STD)
        nn.init.zeros_(module.bias)
