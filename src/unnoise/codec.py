"""The space in which a model diffuses: `encode` maps pictures to x, `decode` maps x back to pictures.

    pixels     x = picture
    latents    x = scale (encode(picture) - shift)        picture = decode(x / scale + shift)

Rombach et al. 2022: scale and shift bring the latents of an autoencoder to about zero mean and unit variance. Laws
(tests/test_codec.py): decode undoes encode; scale and shift cancel, whatever they are; x has the shape that `factor`
and `channels` announce.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unnoise.config.cards import CodecConfig, LatentsConfig
from unnoise.errors import UserError

NO_AUTOENCODER = (
    "this model generates latents, and unnoise does not read the autoencoder that decodes them to pictures: write the "
    "latents with `unnoise sample --latents FILE`, or use model.sample(...).pixels in Python"
)


class Codec(Protocol):
    """Maps pictures (B, C, H, W) float32 in [-1, 1] to x (B, channels, H / factor, W / factor), and back."""

    @property
    def factor(self) -> int:
        """Pixels along a side of a picture for each element along that side of x."""

    @property
    def channels(self) -> int:
        """Channels of x."""

    @property
    def picture_channels(self) -> int:
        """Channels of a picture: 1 grey, 3 colour."""

    @property
    def bounded(self) -> bool:
        """Whether x lies in [-1, 1], so that estimates of it may be clipped to that range."""

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """x of pictures; `noise`, like x, chooses a sample where the encoder gives a distribution. None: its mean."""

    def decode(self, x: Tensor) -> Tensor:
        """Pictures of x, float32 in [-1, 1]."""


class Autoencoder(Protocol):
    """A pair of networks between pictures in [-1, 1] and latents."""

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents: the mean of the encoder's distribution, or the sample that `noise` chooses."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures."""


@dataclass(frozen=True)
class Pixels:
    """The space of the pictures themselves: x is the picture, and decoding clips it to [-1, 1]."""

    channels: int = 3
    factor: int = 1
    bounded: bool = True

    @property
    def picture_channels(self) -> int:
        return self.channels

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        return picture

    def decode(self, x: Tensor) -> Tensor:
        return x.float().clamp(-1, 1)


@dataclass(frozen=True)
class Latents:
    """The space of an autoencoder's latents, scaled and shifted. Their values have no bounds.

    `autoencoder` None is a model whose autoencoder is not read: its latents can be sampled, and `encode` and `decode`
    raise UserError.
    """

    autoencoder: Autoencoder | None = None
    channels: int = 4
    factor: int = 8
    picture_channels: int = 3
    scale: float = 1.0
    shift: float = 0.0
    bounded: bool = False

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.scale * (self._autoencoder().encode(picture, noise) - self.shift)

    def decode(self, x: Tensor) -> Tensor:
        return self._autoencoder().decode(x / self.scale + self.shift).float().clamp(-1, 1)

    def _autoencoder(self) -> Autoencoder:
        if self.autoencoder is None:
            raise UserError(NO_AUTOENCODER)
        return self.autoencoder


def make_codec(config: CodecConfig, channels: int, autoencoder: Autoencoder | None = None) -> Codec:
    """The codec that a card describes, of x with this number of channels."""
    if isinstance(config, LatentsConfig):
        return Latents(autoencoder, channels, config.factor, config.picture_channels, config.scale, config.shift)
    return Pixels(channels)


def to_bytes(picture: Tensor) -> Tensor:
    """uint8, from [-1, 1] to 0..255, rounded to the nearest: the inverse of k / 127.5 - 1 for every byte k."""
    return (picture.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def from_bytes(picture: Tensor) -> Tensor:
    """float32 in [-1, 1] from bytes: k / 127.5 - 1."""
    return picture.float() / 127.5 - 1
