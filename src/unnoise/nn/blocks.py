"""The parts of a U-Net: residual blocks, attention behind them, steps down and up.

Each is called with its input and what it is told of time and class, (B, emb_channels).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.networks import UNetConfig
from unnoise.nn.attention import NO_CONTEXT, Attention, Context
from unnoise.nn.norm import group_norm
from unnoise.nn.transformer import Transformer


class Block(nn.Module):
    """A residual block and, where the level attends, attention over its output, or a transformer that also reads words.

    `level` is the place in config.channels.
    """

    def __init__(self, config: UNetConfig, c_in: int, level: int, attends: bool) -> None:
        super().__init__()
        width = config.channels[level]
        self.resnet = Residual(config, c_in, width)
        self.attention: Attention | Transformer | None = None
        if attends and context(config):
            self.attention = Transformer(
                width,
                context(config),
                heads=heads(config, level),
                groups=config.groups,
                depth=a_level(config.transformers, level),
                dropout=config.dropout,
            )
        elif attends:
            self.attention = Attention(width, heads=heads(config, level), groups=config.groups, eps=config.norm_eps)

    @property
    def depth(self) -> int:
        """How many cross-attentions it has."""
        return len(self.attention.blocks) if isinstance(self.attention, Transformer) else 0

    def encode(self, words: Tensor) -> list[Tensor]:
        """What they read of words (B, L, context)."""
        return self.attention.encode(words) if isinstance(self.attention, Transformer) else []

    def forward(self, h: Tensor, emb: Tensor, skip: Tensor | None = None, words: Context = NO_CONTEXT) -> Tensor:
        h = self.resnet(h if skip is None else torch.cat([h, skip], dim=1), emb)
        if isinstance(self.attention, Transformer):
            h = self.attention(h, words)
        elif self.attention is not None:
            h = self.attention(h)
        return h


class Residual(nn.Module):
    """norm, SiLU, [resample], convolution, what is emb, norm, SiLU, dropout, convolution; added to the input.

    (B, C_in, H, W) and `emb` (B, C_out), or (B, 2 C_out) as (scale, shift) -> (B, C_out, H', W').
    """

    def __init__(
        self, config: UNetConfig, c_in: int, c_out: int, resample: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.emb_channels = 2 * c_out if config.scale_shift else c_out
        self.dropout = config.dropout
        self.resample = resample
        self.norm1 = nn.GroupNorm(config.groups, c_in, eps=config.norm_eps)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(config.groups, c_out, eps=config.norm_eps)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = group_norm(x, self.norm1, silu=True)
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h)
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = group_norm(h, self.norm2, silu=True, scale=scale, shift=shift)
        else:
            h = group_norm(h, self.norm2, silu=True, add=emb)
        h = self.conv2(F.dropout(h, self.dropout, self.training))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return torch.add(x, h)


class Down(nn.Module):
    """Half the size, by a convolution that steps by two. DDPM pads right and bottom only, as TensorFlow's "SAME"."""

    emb_channels = 0

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.asymmetric = config.asymmetric_padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if self.asymmetric else 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Up(nn.Module):
    """Twice the size: every pixel four times, then a convolution."""

    emb_channels = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        out: Tensor = self.conv(double(x))
        return out


def halve(x: Tensor) -> Tensor:
    """The mean of every 2x2 square."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Every pixel four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def heads(config: UNetConfig, level: int) -> int:
    """How many heads attend at a level: as many as asked for, or as wide as asked for, or one."""
    if config.head_width is not None:
        return config.channels[level] // config.head_width
    return 1 if config.heads is None else a_level(config.heads, level)


def context(config: UNetConfig) -> int:
    """The width of the words that cross-attention reads; 0: there is none."""
    return config.context if config.text is None else config.text.width


def a_level(number: int | tuple[int, ...], level: int) -> int:
    """A number that is said once for all levels, or once a level."""
    return number[level] if isinstance(number, tuple) else number
