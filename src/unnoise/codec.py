"""The space in which a model diffuses: `encode` maps pictures to x, `decode` maps x back to pictures.

    pixels     x = picture
    latents    x = scale (encode(picture) - shift - mean) / std      picture = decode(x std / scale + shift + mean)

Scale and shift, or the mean and deviation of each channel, bring the latents of an autoencoder to about zero mean and
unit variance (Rombach et al. 2022). Large pictures are encoded and decoded in tiles (tiling.py). Laws
(tests/test_codec.py): decode undoes encode; scale, shift, mean and std cancel, whatever they are; x has the shape that
`factor` and `channels` announce.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.config.cards import CodecConfig, LatentsConfig, PreviewConfig
from unnoise.errors import UserError
from unnoise.noise import normal
from unnoise.tiling import Tiles, tiled

PREVIEW_ROWS = 16  # pictures of 16 x 16 latents: 4,096 equations

NO_AUTOENCODER = (
    "this model generates latents, and has no autoencoder that decodes them to pictures: write the latents with "
    "`unnoise sample --latents FILE`, use model.sample(...).pixels in Python, or copy the folder `vae` beside the "
    "network"
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

    `autoencoder` None is a model without its autoencoder: its latents can be sampled, and `encode` and `decode` raise
    UserError. A picture whose side is no multiple of the factor is encoded with its last pixels repeated up to the next
    multiple; what is decoded then has these pixels too.
    """

    autoencoder: Autoencoder | None = None
    channels: int = 4
    how: LatentsConfig = LatentsConfig()
    preview_map: PreviewConfig | None = None
    tiles: Tiles = Tiles()
    bounded: bool = False

    @property
    def factor(self) -> int:
        return self.how.factor

    @property
    def picture_channels(self) -> int:
        return self.how.picture_channels

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        net, factor = self._autoencoder(), self.factor
        height, width = (-(-side // factor) for side in picture.shape[-2:])
        beyond = (0, width * factor - picture.shape[-1], 0, height * factor - picture.shape[-2])
        picture = F.pad(picture, beyond, mode="replicate") if any(beyond) else picture
        inputs = (picture,) if noise is None else (picture, noise)
        latents = tiled(net.encode, inputs, (height, width), factor, self.tiles).float()
        return self.how.scale * (latents - self.how.shift - self._mean(latents)) / self._std(latents)

    def decode(self, x: Tensor) -> Tensor:
        net, x = self._autoencoder(), x.float()
        latents = x * self._std(x) / self.how.scale + self.how.shift + self._mean(x)
        height, width = x.shape[-2:]
        return tiled(net.decode, (latents,), (height, width), self.factor, self.tiles).float().clamp(-1, 1)

    def preview(self, x: Tensor) -> Tensor | None:
        """Pictures of x (B, C, H, W) with a pixel for each latent, by the linear map; None without a map."""
        if self.preview_map is None:
            return None
        weight = x.new_tensor(self.preview_map.weight).view(self.picture_channels, self.channels).float()
        bias = x.new_tensor(self.preview_map.bias).float()
        return torch.einsum("oc,bchw->bohw", weight, x.float()).add(bias[:, None, None]).clamp(-1, 1)

    def _mean(self, x: Tensor) -> Tensor | float:
        return x.new_tensor(self.how.mean).view(-1, 1, 1) if self.how.mean else 0.0

    def _std(self, x: Tensor) -> Tensor | float:
        return x.new_tensor(self.how.std).view(-1, 1, 1) if self.how.std else 1.0

    def _autoencoder(self) -> Autoencoder:
        if self.autoencoder is None:
            raise UserError(NO_AUTOENCODER)
        return self.autoencoder


def make_codec(config: CodecConfig, channels: int, autoencoder: Autoencoder | None = None) -> Codec:
    """The codec that a card describes, of x with this number of channels."""
    return Latents(autoencoder, channels, config) if isinstance(config, LatentsConfig) else Pixels(channels)


def fit_preview(x: Tensor, pictures: Tensor) -> PreviewConfig:
    """The linear map from x (N, C, H, W) to pictures (N, C', factor H, factor W), by least squares.

    Each latent stands for the mean of its factor x factor pixels.
    """
    small = F.avg_pool2d(pictures.float(), pictures.shape[-1] // x.shape[-1])
    rows = torch.cat([x.float(), torch.ones_like(x[:, :1]).float()], dim=1).movedim(1, -1).flatten(0, -2).double().cpu()
    colours = small.movedim(1, -1).flatten(0, -2).double().cpu()
    solution = torch.linalg.lstsq(rows, colours).solution  # (C + 1, C')
    return PreviewConfig(tuple(solution[:-1].T.flatten().tolist()), tuple(solution[-1].tolist()))


def fitted_preview(codec: Latents) -> PreviewConfig:
    """The map of `fit_preview` for decoded noise, where no pictures are at hand.

    The noise has a value for each 4 x 4 latents, and is interpolated: neighbours are similar, as in real pictures.
    """
    coarse = normal((PREVIEW_ROWS, codec.channels, 4, 4), "preview")
    x = F.interpolate(coarse, scale_factor=4, mode="bicubic")
    with torch.no_grad():
        return fit_preview(x, codec.decode(x).cpu())


def to_bytes(picture: Tensor) -> Tensor:
    """uint8, from [-1, 1] to 0..255, rounded to the nearest: the inverse of k / 127.5 - 1 for every byte k."""
    return (picture.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def from_bytes(picture: Tensor) -> Tensor:
    """float32 in [-1, 1] from bytes: k / 127.5 - 1."""
    return picture.float() / 127.5 - 1
