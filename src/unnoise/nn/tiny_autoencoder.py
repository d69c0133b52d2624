"""TAESD's network: an autoencoder of convolutions and ReLU alone, for the latents of a larger one, already scaled.

    latents = encoder((picture + 1) / 2)
    picture = 2 decoder(3 tanh(latents / 3)) - 1

A block is three convolutions, added to its input. Steps down are convolutions with stride 2, padded on all sides. There
is no norm and no attention: a pixel depends on latents nearby only. Bohan 2023 (madebyollin/taesd).

Laws (tests/nn/test_autoencoder.py): far latents change nothing, bit for bit; the output of diffusers with these weights
(tests/formats/test_autoencoders.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unnoise.config.autoencoders import TinyConfig
from unnoise.config.limits import LAYERS
from unnoise.errors import UserError
from unnoise.nn.autoencoder import at_weights
from unnoise.nn.conv import Conv3x3


class AutoencoderTiny(nn.Module):
    """Pictures (B, in_channels, factor H, factor W) in [-1, 1] <-> latents (B, latent_channels, H, W), any H and W.

    Inputs are cast to the device and dtype of the weights. Raises UserError for an invalid configuration.
    """

    def __init__(self, config: TinyConfig) -> None:
        check(config)
        super().__init__()
        self.config = config
        self.encoder = TinyEncoder(config)
        self.decoder = TinyDecoder(config)

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures. This encoder is deterministic: `noise` has no effect."""
        latents: Tensor = self.encoder(at_weights(picture, self))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, not clipped to [-1, 1]."""
        picture: Tensor = self.decoder(at_weights(latents, self))
        return picture


class TinyEncoder(nn.Module):
    """Pictures in [-1, 1] -> latents."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(config.in_channels, width, 3, padding=1)]
        for level, blocks in enumerate(config.encoder_blocks):
            if level:
                layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
            layers += [TinyBlock(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, config.latent_channels, 3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        latents: Tensor = self.layers((picture + 1) / 2)
        return latents


class TinyDecoder(nn.Module):
    """Latents -> pictures in [-1, 1]."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width, last = config.width, len(config.decoder_blocks) - 1
        layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, width, 3, padding=1), nn.ReLU()]
        for level, blocks in enumerate(config.decoder_blocks):
            layers += [TinyBlock(width) for _ in range(blocks)]
            if level < last:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, config.in_channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        picture: Tensor = self.layers(3 * torch.tanh(latents / 3))
        return 2 * picture - 1


class TinyBlock(nn.Module):
    """Three convolutions, added to the input, then ReLU: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            Conv3x3(width, width), nn.ReLU(), Conv3x3(width, width), nn.ReLU(), Conv3x3(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


def check(config: TinyConfig) -> None:
    """Raises UserError for an invalid configuration."""
    for name in ("in_channels", "latent_channels", "width"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, not {getattr(config, name)}")
    down, up = config.encoder_blocks, config.decoder_blocks
    if not down or len(down) != len(up) or min(*down, *up) < 0:
        raise UserError(
            f"encoder_blocks and decoder_blocks must each have a number for each level, not {down} and {up}"
        )
    if sum(down) + sum(up) > LAYERS:
        raise UserError(f"the network has {sum(down) + sum(up):,} blocks, more than {LAYERS:,}: use fewer blocks")
