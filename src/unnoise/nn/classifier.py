"""A small picture classifier: residual blocks, group norm, features pooled over the picture.

Its classes evaluate samples (class accuracy), its pooled features measure distances between sets of pictures. There is
no batch norm: the output for a picture depends on that picture alone, in training and in evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The sizes of a classifier: pictures, classes and features."""

    size: int = 28  # pixels, height and width
    channels: int = 1  # 1 grey, 3 colour
    classes: int = 10
    width: int = 32  # channels of the first level; a multiple of 8
    features: int = 128  # width of the pooled features; a multiple of 8


class Block(nn.Module):
    """Two normed 3x3 convolutions and a shortcut (He et al. 2016, "full pre-activation")."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm_1 = nn.GroupNorm(channels // 8, channels)
        self.conv_1 = nn.Conv2d(channels, out, 3, stride, 1)
        self.norm_2 = nn.GroupNorm(out // 8, out)
        self.conv_2 = nn.Conv2d(out, out, 3, 1, 1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        nn.init.zeros_(self.conv_2.weight)  # a block begins as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = self.conv_2(F.silu(self.norm_2(h)))
        shortcut = F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        out: Tensor = self.skip(shortcut) + h
        return out


class Classifier(nn.Module):
    """(B, channels, size, size) in [-1, 1] -> logits (B, classes)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, out = shape.width, shape.features
        self.stem = nn.Conv2d(shape.channels, width, 5, 2, 2)
        self.blocks = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1), Block(2 * width, out, 2)
        )
        self.norm = nn.GroupNorm(out // 8, out)
        self.head = nn.Linear(out, shape.classes)

    def features(self, x: Tensor) -> Tensor:
        """The input of the last layer, (B, features): the mean over the picture."""
        return F.silu(self.norm(self.blocks(self.stem(x)))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def shifted(x: Tensor, down: Tensor, right: Tensor, most: int) -> Tensor:
    """Pictures (B, C, H, W) moved by whole pixels, (B,) on the CPU, in -most..most; edge pixels are repeated."""
    height, width = x.shape[2:]
    padded = F.pad(x, (most,) * 4, mode="replicate")
    rows = (most - down)[:, None] + torch.arange(height)  # (B, H)
    columns = (most - right)[:, None] + torch.arange(width)  # (B, W)
    each = torch.arange(len(x))[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
