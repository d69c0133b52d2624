"""The autoencoder of latent diffusion with a codebook: its decoder begins with the nearest vector for each latent.

    latents = quant_conv(encoder(picture))            what a model diffuses: not yet quantized
    q = e_k,   k = argmin_j |latents - e_j|^2         at each pixel
    picture = decoder(post_quant_conv(q))

In training the gradient passes through the quantization as if it were the identity (van den Oord et al. 2017). That
latents are quantized by the decoder, not by the encoder, lets a model diffuse over all real numbers (Rombach et al.
2022, App. G).

Laws (tests/nn/test_autoencoder.py): the nearest vector, by a search over all; the gradient of the identity; the output
of diffusers with these weights (tests/formats/test_autoencoders.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unnoise.config.autoencoders import VQConfig
from unnoise.nn.autoencoder import Decoder, Encoder, at_weights, check

PIECE = 1 << 24  # distances at once: 64 MiB


class VQModel(nn.Module):
    """Pictures (B, in_channels, factor H, factor W) in [-1, 1] <-> latents (B, latent_channels, H, W), any H and W.

    Inputs are cast to the device and dtype of the weights. Raises UserError for an invalid configuration.
    """

    def __init__(self, config: VQConfig) -> None:
        check(config)
        super().__init__()
        self.config = config
        z = config.z_channels or config.latent_channels
        self.encoder = Encoder(config, z)
        self.decoder = Decoder(config, z)
        self.quant_conv = nn.Conv2d(z, config.latent_channels, 1)
        self.quantize = Codebook(config.codes, config.latent_channels)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, z, 1)

    def encode(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures, before quantization. This encoder is deterministic: `noise` has no effect."""
        latents: Tensor = self.quant_conv(self.encoder(at_weights(picture, self)))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, which are quantized first; not clipped to [-1, 1]."""
        picture: Tensor = self.decoder(self.post_quant_conv(self.quantize(at_weights(latents, self))))
        return picture


class Codebook(nn.Module):
    """The nearest vector of a table, with the gradient of the identity: (B, D, H, W) -> (B, D, H, W)."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def forward(self, latents: Tensor) -> Tensor:
        return latents + (self.vectors(self.nearest(latents)) - latents).detach()

    def vectors(self, codes: Tensor) -> Tensor:
        """The vectors of codes (B, H, W): (B, D, H, W)."""
        vectors: Tensor = self.embedding(codes)
        return vectors.permute(0, 3, 1, 2)

    def nearest(self, latents: Tensor) -> Tensor:
        """The code of the nearest vector for each pixel of latents (B, D, H, W): (B, H, W), whole numbers."""
        b, width, h, w = latents.shape
        table = self.embedding.weight.detach().float()
        half = 0.5 * table.square().sum(dim=1)  # |z - e|^2 / 2 = |z|^2 / 2 - z.e + |e|^2 / 2
        pixels = latents.detach().float().permute(0, 2, 3, 1).reshape(-1, width)
        pieces = torch.split(pixels, max(1, PIECE // len(table)))
        found = [torch.addmm(half, piece, table.T, alpha=-1).argmin(dim=1) for piece in pieces]
        return torch.cat(found).view(b, h, w)
