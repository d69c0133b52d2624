"""The configurations of autoencoders: the networks between pictures and the latents in which a model diffuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unnoise.config.field import setting


@dataclass(frozen=True)
class KLConfig:
    """An autoencoder whose encoder gives a normal distribution of latents. Rombach et al. 2022, sec. 3.1, App. G.

    That of Stable Diffusion 1, 2 and XL has these widths, 4 latent channels and an attention in the middle alone.
    """

    kind: Literal["kl"] = "kl"
    size: int = setting(256, "side of the pictures in training; the network accepts every size")
    in_channels: int = setting(3, "channels of a picture: 1 grey, 3 colour")
    latent_channels: int = 4
    channels: tuple[int, ...] = setting(
        (128, 256, 512, 512), "width of each level, the finest first; each level after the first halves the side"
    )
    blocks: int = setting(2, "residual blocks of each level of the encoder; the decoder has one more")
    attention: tuple[bool, ...] = setting((False, False, False, False), "which levels attend")
    middle_attention: bool = True
    groups: int = setting(32, "groups of GroupNorm")
    quant_conv: bool = setting(True, "a 1x1 convolution after the encoder; newer autoencoders lack it")
    post_quant_conv: bool = setting(True, "a 1x1 convolution before the decoder; newer autoencoders lack it")

    @property
    def factor(self) -> int:
        """Pixels along a side for each latent along that side."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class VQConfig:
    """An autoencoder whose decoder begins with the nearest vector of a codebook. Rombach et al. 2022, App. G.

    The default is LDM's VQ-f4: 8,192 vectors of 3 numbers.
    """

    kind: Literal["vq"] = "vq"
    size: int = setting(256, "side of the pictures in training; the network accepts every size")
    in_channels: int = setting(3, "channels of a picture: 1 grey, 3 colour")
    latent_channels: int = setting(3, "channels of the latents, and numbers of a vector of the codebook")
    z_channels: int | None = setting(
        None, "channels of the encoder's output and the decoder's input; none: latent_channels"
    )
    codes: int = setting(8192, "vectors of the codebook")
    channels: tuple[int, ...] = setting(
        (128, 256, 512), "width of each level, the finest first; each level after the first halves the side"
    )
    blocks: int = setting(2, "residual blocks of each level of the encoder; the decoder has one more")
    attention: tuple[bool, ...] = setting((False, False, False), "which levels attend")
    middle_attention: bool = True
    groups: int = setting(32, "groups of GroupNorm")

    @property
    def factor(self) -> int:
        """Pixels along a side for each latent along that side."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class TinyConfig:
    """TAESD's network: convolutions and ReLU, without norms or attention, a few million weights (Bohan 2023).

    It reproduces the latents of a larger autoencoder, already scaled, in a small part of its time.
    """

    kind: Literal["tiny"] = "tiny"
    in_channels: int = setting(3, "channels of a picture: 1 grey, 3 colour")
    latent_channels: int = 4
    width: int = setting(64, "channels of every level")
    encoder_blocks: tuple[int, ...] = setting((1, 3, 3, 3), "blocks of each level of the encoder, the finest first")
    decoder_blocks: tuple[int, ...] = setting((3, 3, 3, 1), "blocks of each level of the decoder, the coarsest first")

    @property
    def factor(self) -> int:
        """Pixels along a side for each latent along that side."""
        return int(2 ** (len(self.encoder_blocks) - 1))


AutoencoderConfig = KLConfig | VQConfig | TinyConfig
