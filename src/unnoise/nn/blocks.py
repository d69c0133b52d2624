"""The parts of a U-Net: residual blocks, followed by attention where the level has it, and steps down and up.

Each is called with a feature map and its part of the embedding of time and conditions, (B, emb_channels); an
autoencoder has none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.networks import UNetConfig
from unnoise.nn.attention import NO_CONTEXT, Attention, Context
from unnoise.nn.conv import Conv3x3
from unnoise.nn.norm import Norm
from unnoise.nn.transformer import Transformer


class Block(nn.Module):
    """A residual block, followed by attention where the level has it: a transformer if the network reads text.

    `level` is the index in config.channels.
    """

    def __init__(self, config: UNetConfig, c_in: int, level: int, attends: bool) -> None:
        super().__init__()
        width = config.channels[level]
        self.resnet = Residual(config, c_in, width)
        self.attention: Attention | Transformer | None = None
        if attends and context_width(config):
            self.attention = Transformer(
                width,
                context_width(config),
                heads=heads(config, level),
                groups=config.groups,
                depth=at_level(config.transformers, level),
                dropout=config.dropout,
            )
        elif attends:
            self.attention = Attention(width, heads=heads(config, level), groups=config.groups, eps=config.norm_eps)

    @property
    def depth(self) -> int:
        """The number of cross-attentions."""
        return len(self.attention.blocks) if isinstance(self.attention, Transformer) else 0

    def encode(self, text: Tensor) -> list[Tensor]:
        """The keys and values of text embeddings (B, L, context), for each cross-attention."""
        return self.attention.encode(text) if isinstance(self.attention, Transformer) else []

    def forward(
        self, h: Tensor, emb: Tensor | None = None, skip: Tensor | None = None, context: Context = NO_CONTEXT
    ) -> Tensor:
        h = self.resnet(h, emb, skip)
        if isinstance(self.attention, Transformer):
            h = self.attention(h, context)
        elif self.attention is not None:
            h = self.attention(h)
        return h


class Residual(nn.Module):
    """norm, SiLU, [resample], convolution, embedding, norm, SiLU, dropout, convolution; added to the input.

    (B, C_in, H, W) and an embedding (B, C_out), or (B, 2 C_out) as (scale, shift) -> (B, C_out, H', W'). On the way up
    the input is `h` and the skip side by side: its first h.shape[1] channels are those of `h`.
    """

    def __init__(
        self, config: UNetConfig, c_in: int, c_out: int, resample: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.emb_channels = 2 * c_out if config.scale_shift else c_out
        self.dropout = config.dropout
        self.resample = resample
        self.norm1 = Norm(config.groups, c_in, eps=config.norm_eps)
        self.conv1 = Conv3x3(c_in, c_out)
        self.norm2 = Norm(config.groups, c_out, eps=config.norm_eps)
        self.conv2 = Conv3x3(c_out, c_out)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, h: Tensor, emb: Tensor | None = None, skip: Tensor | None = None) -> Tensor:
        x = h if skip is None else torch.cat([h, skip], dim=1)
        h = self.norm1(x, silu=True)
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h)
        if self.scale_shift:
            assert emb is not None
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm2(h, silu=True, scale=scale, shift=shift)
        else:
            h = self.norm2(h, silu=True, add=emb)
        h = self.conv2(F.dropout(h, self.dropout, self.training))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return torch.add(x, h)


class Down(nn.Module):
    """Half the size, by a convolution with stride 2. DDPM pads on the right and below only, as TensorFlow's "SAME"."""

    emb_channels = 0

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.asymmetric = config.asymmetric_padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if self.asymmetric else 1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Up(nn.Module):
    """Twice the size: each pixel repeated 2x2, then a convolution."""

    emb_channels = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        out: Tensor = self.conv(double(x))
        return out


def halve(x: Tensor) -> Tensor:
    """The mean of each 2x2 square."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Each pixel repeated 2x2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def heads(config: UNetConfig, level: int) -> int:
    """The number of attention heads at a level: `heads`, or the level's channels / `head_width`, or one."""
    if config.head_width is not None:
        return config.channels[level] // config.head_width
    return 1 if config.heads is None else at_level(config.heads, level)


def context_width(config: UNetConfig) -> int:
    """The width of the text embeddings that cross-attention reads; 0: there is no cross-attention."""
    return config.context if config.text is None else config.text.width


def at_level(number: int | tuple[int, ...], level: int) -> int:
    """The value of an option at a level, where one number holds for all levels."""
    return number[level] if isinstance(number, tuple) else number
