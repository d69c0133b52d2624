"""EfficientNet-lite0, an ImageNet classifier of 4.7 million weights whose features compare pictures.

Inverted residual blocks (Sandler et al. 2018) in the depths and widths of EfficientNet-B0 (Tan & Le 2019), without
squeeze-and-excitation and with ReLU6, as Google published it for phones. Paddings are TensorFlow's: a step of stride 2
pads an even side at the right and the bottom. Its input is (byte - 127) / 128.

Laws (tests/nn/test_efficientnet.py): the published parameter count; its classes of known photographs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.perceptual import coloured

EPS = 1e-3  # of every batch norm: TensorFlow's
SIZE = 224  # side of the pictures that it was trained with
WIDTH = 1280


class Stage(NamedTuple):
    """Blocks one after another; the first has the stride, and the change of channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
LEVELS = (0, 2, 4, 10, 15)  # the last block of each resolution


class EfficientNetLite0(nn.Module):
    """Pictures (B, 3 or 1, H, W) in [-1, 1] -> feature maps, one for each resolution: 1/2 to 1/32 of the side."""

    least = 1

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, 32, 3, 2), _norm(32))
        self.blocks = nn.ModuleList()
        width = 32
        for stage in STAGES:
            for i in range(stage.blocks):
                stride = 1 if i else stage.stride
                self.blocks.append(InvertedResidual(width, stage._replace(stride=stride)))
                width = stage.channels
        self.head = nn.Sequential(SameConv(width, WIDTH, 1), _norm(WIDTH))
        self.classify = nn.Linear(WIDTH, 1000)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [h for i, h in enumerate(self._maps(x)) if i in LEVELS]

    def pooled(self, x: Tensor) -> Tensor:
        """The last features of pictures of any size, which are resized to 224 pixels: (B, 1280)."""
        resized = F.interpolate(coloured(x), (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        return F.relu6(self.head(self._maps(resized)[-1])).mean((2, 3))

    def logits(self, x: Tensor) -> Tensor:
        """The logits of ImageNet's classes, (B, 1000)."""
        logits: Tensor = self.classify(self.pooled(x))
        return logits

    def _maps(self, x: Tensor) -> list[Tensor]:
        h = F.relu6(self.stem((coloured(x) * 127.5 + 0.5) / 128))  # (byte - 127) / 128
        found = []
        for block in self.blocks:
            h = block(h)
            found.append(h)
        return found


class InvertedResidual(nn.Module):
    """Wide inside, narrow at both ends: a 1x1, a depthwise and a linear 1x1 convolution."""

    def __init__(self, width: int, stage: Stage) -> None:
        super().__init__()
        wide = width * stage.expansion
        self.expand = nn.Sequential(SameConv(width, wide, 1), _norm(wide)) if stage.expansion > 1 else None
        self.depthwise = nn.Sequential(SameConv(wide, wide, stage.kernel, stage.stride, groups=wide), _norm(wide))
        self.project = nn.Sequential(SameConv(wide, stage.channels, 1), _norm(stage.channels))
        self.residual = stage.stride == 1 and width == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(h)))
        return x + out if self.residual else out


class SameConv(nn.Conv2d):
    """A convolution without bias whose output has ceil(side / stride) pixels: TensorFlow's padding "same"."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        edges: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            edges += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, edges))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPS)


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published weights, under the names of this network."""
    inside = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1"}
    inside |= {"_project_conv": "project.0", "_bn2": "project.1"}
    outside = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1", "_fc": "classify"}

    def renamed(name: str) -> str:
        parts = name.split(".")
        if parts[0] == "_blocks":
            return ".".join(["blocks", parts[1], inside.get(parts[2], parts[2]), *parts[3:]])
        return ".".join([outside.get(parts[0], parts[0]), *parts[1:]])

    return {renamed(name): value for name, value in state.items()}


@torch.no_grad()
def load_published(state: dict[str, Tensor]) -> EfficientNetLite0:
    """The network with the published weights. Raises RuntimeError where names or shapes are others."""
    net = EfficientNetLite0()
    net.load_state_dict(published_names(state))
    return net.eval().requires_grad_(False)
