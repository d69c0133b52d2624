"""The autoencoder of latent diffusion: a small image of latents for each picture, and the picture of latents.

    h = encoder(picture)                      levels of residual blocks, each half the side of the one before
    mean, logvar = quant_conv(h)              logvar clamped to [-30, 20]
    latents = mean + exp(logvar / 2) eps      eps ~ N(0, I); the mean where no noise is given
    picture = decoder(post_quant_conv(latents))

The blocks are those of a U-Net (blocks.py), without a time embedding and without skips. Steps down pad at the right and
the bottom only. There is one attention over all pixels in the middle, with one head, and in levels that have it.
Rombach et al. 2022, sec. 3.1 and App. G; Esser et al. 2021.

Laws (tests/nn/test_autoencoder.py): the published parameter counts; the output of diffusers with these weights
(tests/formats/test_autoencoders.py); a step down sees a pixel where asymmetric padding puts it; the noise acts by the
deviation, within the clamp.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unnoise.config.autoencoders import KLConfig, VQConfig
from unnoise.config.limits import LAYERS
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.nn.blocks import Block, Down, Up
from unnoise.nn.norm import Norm

LOGVAR = (-30.0, 20.0)  # the clamp of LDM, against an overflow of exp
EPS = 1e-6  # of every norm of these networks


class Posterior(NamedTuple):
    """The normal distribution of a picture's latents: mean and log of the variance, (B, latent_channels, H, W)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor | None) -> Tensor:
        """mean + std noise; the mean without noise."""
        if noise is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.logvar) * noise.to(self.mean)


class AutoencoderKL(nn.Module):
    """Pictures (B, in_channels, factor H, factor W) in [-1, 1] <-> latents (B, latent_channels, H, W), any H and W.

    Inputs are cast to the device and dtype of the weights. A picture whose side is no multiple of the factor loses the
    pixels beyond. Raises UserError for an invalid configuration.
    """

    def __init__(self, config: KLConfig) -> None:
        check(config)
        super().__init__()
        self.config = config
        z = config.latent_channels
        self.encoder = Encoder(config, 2 * z)
        self.decoder = Decoder(config, z)
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1) if config.quant_conv else None
        self.post_quant_conv = nn.Conv2d(z, z, 1) if config.post_quant_conv else None

    def posterior(self, picture: Tensor) -> Posterior:
        """The distribution of the latents of pictures."""
        h = self.encoder(at_weights(picture, self))
        if self.quant_conv is not None:
            h = self.quant_conv(h)
        mean, logvar = h.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR))

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures: the sample that `noise` of their shape selects, or the mean."""
        return self.posterior(picture).sample(noise)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, not clipped to [-1, 1]."""
        h = at_weights(latents, self)
        if self.post_quant_conv is not None:
            h = self.post_quant_conv(h)
        picture: Tensor = self.decoder(h)
        return picture


class Encoder(nn.Module):
    """(B, in_channels, factor H, factor W) -> (B, outputs, H, W)."""

    def __init__(self, config: KLConfig | VQConfig, outputs: int) -> None:
        super().__init__()
        parts, widths, last = _parts(config), config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(
                _blocks(parts, widths[max(level - 1, 0)], level, config.blocks),
                Down(parts, widths[level]) if level < last else None,
            )
            for level in range(len(widths))
        )
        self.mid_block = _middle(parts)
        self.conv_norm_out = Norm(config.groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        h = self.conv_in(picture)
        for level in self.down_blocks:
            h = level(h)
        out: Tensor = self.conv_out(self.conv_norm_out(self.mid_block(h), silu=True))
        return out


class Decoder(nn.Module):
    """(B, inputs, H, W) -> (B, in_channels, factor H, factor W)."""

    def __init__(self, config: KLConfig | VQConfig, inputs: int) -> None:
        super().__init__()
        parts, widths, last = _parts(config), config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(inputs, widths[-1], 3, padding=1)
        self.mid_block = _middle(parts)
        self.up_blocks = nn.ModuleList(
            Level(
                _blocks(parts, widths[min(level + 1, last)], level, config.blocks + 1),
                Up(widths[level]) if level else None,
            )
            for level in reversed(range(len(widths)))
        )
        self.conv_norm_out = Norm(config.groups, widths[0], eps=EPS)
        self.conv_out = nn.Conv2d(widths[0], config.in_channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        h = self.mid_block(self.conv_in(h))
        for level in self.up_blocks:
            h = level(h)
        out: Tensor = self.conv_out(self.conv_norm_out(h, silu=True))
        return out


class Level(nn.Module):
    """Blocks one after another, then a step down or up."""

    def __init__(self, blocks: Iterable[Block], step: Down | Up | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.step = step

    def forward(self, h: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h)
        return h if self.step is None else self.step(h)


def at_weights(x: Tensor, net: nn.Module) -> Tensor:
    """`x` on the device and in the dtype of the weights."""
    parameter = next(net.parameters())
    return x.to(parameter.device, parameter.dtype)


def check(config: KLConfig | VQConfig) -> None:
    """Raises UserError for an invalid configuration."""
    sizes = {"blocks": config.blocks, "groups": config.groups, "size": config.size, "in_channels": config.in_channels}
    sizes |= {"latent_channels": config.latent_channels}
    if isinstance(config, VQConfig):
        sizes |= {"codes": config.codes} | ({} if config.z_channels is None else {"z_channels": config.z_channels})
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    levels = len(config.channels)
    if not levels or min(config.channels) < 1:
        raise UserError(
            f"channels must be a width for each level, the finest first, as 64,128,256; not {config.channels}"
        )
    if len(config.attention) != levels:
        raise UserError(
            f"attention must be true or false for each of the {levels} levels, but has {len(config.attention)} values"
        )
    for width in config.channels:
        if width % config.groups:
            raise UserError(f"channels {width} are not divisible by groups {config.groups}: change one of the two")
    if (count := 2 * levels * (config.blocks + 1)) > LAYERS:
        raise UserError(f"the network has {count:,} blocks, more than {LAYERS:,}: use fewer blocks or levels")


def _parts(config: KLConfig | VQConfig) -> UNetConfig:
    """The settings of the blocks, which are those of a U-Net."""
    return UNetConfig(
        channels=config.channels,
        attention=config.attention,
        middle_attention=config.middle_attention,
        groups=config.groups,
        norm_eps=EPS,
        asymmetric_padding=True,
    )


def _blocks(parts: UNetConfig, c_in: int, level: int, count: int) -> Iterable[Block]:
    width = parts.channels[level]
    return (Block(parts, width if i else c_in, level, parts.attention[level]) for i in range(count))


def _middle(parts: UNetConfig) -> Level:
    """Two blocks at the lowest resolution, attention between them."""
    width, lowest = parts.channels[-1], len(parts.channels) - 1
    return Level(Block(parts, width, lowest, attends) for attends in (parts.middle_attention, False))
