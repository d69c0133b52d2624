"""Perceptual distances: how different two pictures look to a network that was trained to recognise things.

    d(x, y) = sum_l mean_hw sum_c w_lc (u_l(x) - u_l(y))^2,    u_l = f_l / |f_l|, the unit vector of channels at a pixel

With VGG16's features f and the weights w that were fitted to human judgements this is LPIPS (Zhang et al. 2018, eq. 1).
With w = 1 / (number of levels) it needs nothing but a backbone: their unweighted baseline, averaged over levels so that
it is about as large as LPIPS.

Laws (tests/nn/test_perceptual.py): the distance of torchmetrics with the same weights; 0 between equal pictures;
unweighted, a feature that is multiplied by a number changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.errors import UserError
from unnoise.nn.classifier import Classifier

# of each channel of pictures in [-1, 1]: ImageNet's means and deviations as LPIPS rounds them
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
CAFFE_MEAN = (104.00699, 116.66877, 122.67892)  # of bytes, blue first
VGG16_LEVELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Backbone(Protocol):
    """A network whose features are compared."""

    least: int  # pixels along a side that it needs

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Feature maps (B, C_l, H_l, W_l), one for each level, of pictures (B, 3 or 1, H, W) in [-1, 1]."""


class FeatureDistance(nn.Module):
    """Pictures (B, C, H, W) and (B, C, H, W) in [-1, 1] -> distance (B,), float32.

    `heads` has the weights (C_l,) of each level; none: levels are averaged. The gradient passes to the pictures, and to
    no weight. Raises UserError for pictures that are too small.
    """

    def __init__(self, backbone: Backbone, heads: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ParameterList(heads)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if min(x.shape[2:]) < self.backbone.least:
            raise UserError(
                f"a perceptual distance in these features needs pictures of {self.backbone.least} pixels or more, "
                f"these have {min(x.shape[2:])}: choose other features, or none"
            )
        distance = torch.zeros(len(x), device=x.device)
        levels = list(zip(self.backbone(x.float()), self.backbone(y.float()), strict=True))
        for level, (f, g) in enumerate(levels):
            # normalize is lpips' f / (|f| + 1e-10), with a finite gradient where all channels are 0
            difference = (F.normalize(f, dim=1, eps=1e-10) - F.normalize(g, dim=1, eps=1e-10)).square()
            weight = self.heads[level].view(1, -1, 1, 1) if len(self.heads) else 1 / len(levels)
            distance = distance + (weight * difference).sum(dim=1).mean((1, 2))
        return distance


class VGG16(nn.Module):
    """VGG16's convolutions: features before each pooling, of `levels` levels. Simonyan & Zisserman 2015.

    `caffe` is the input that its first weights were trained with, and those of Keras: bytes, blue first, minus their
    mean. Otherwise pictures are shifted and scaled as in LPIPS.
    """

    def __init__(self, levels: int = 5, *, caffe: bool = False) -> None:
        super().__init__()
        self.levels, self.caffe = levels, caffe
        self.least = 2 ** (levels - 1)
        widths = (3, *(width for level in VGG16_LEVELS for width in level))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        h, convs = self.preprocess(coloured(x)), iter(self.convs)
        found: list[Tensor] = []
        for level in VGG16_LEVELS[: self.levels]:
            h = F.max_pool2d(h, 2) if found else h
            for _ in level:
                h = F.relu(next(convs)(h))
            found.append(h)
        return found

    def preprocess(self, x: Tensor) -> Tensor:
        """What the first convolution is given, of colour pictures in [-1, 1]."""
        if self.caffe:
            return (x.flip(1) + 1) * 127.5 - x.new_tensor(CAFFE_MEAN).view(1, 3, 1, 1)
        return (x - x.new_tensor(LPIPS_SHIFT).view(1, 3, 1, 1)) / x.new_tensor(LPIPS_SCALE).view(1, 3, 1, 1)


class ClassifierBackbone(nn.Module):
    """The features of a classifier after each of its blocks; it needs pictures of its own size and channels."""

    least = 1

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.net.stem(x)
        found: list[Tensor] = []
        for block in self.net.blocks:
            h = block(h)
            found.append(h)
        return found


def coloured(x: Tensor) -> Tensor:
    """Pictures with three channels (B, 3, H, W), of grey or colour ones. Raises UserError for others."""
    if x.shape[1] not in (1, 3):
        raise UserError(f"these features need grey or colour pictures, and these have {x.shape[1]} channels")
    return x.expand(-1, 3, -1, -1)
