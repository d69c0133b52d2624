"""Self-attention: every place looks at every other.

    softmax(q k^T / sqrt(d)) v,    q, k, v = three linear maps of the same tokens, made in one product

Over the pixels of a feature map (`Attention`, DDPM's block: normalise, attend, project, add), or over given tokens
(`attend`, which both architectures share).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.group_norm import group_norm


def attend(tokens: Tensor, qkv: nn.Linear, heads: int) -> Tensor:
    """What the heads read, side by side: (B, L, D) -> (B, L, D). `qkv` has 3 D outputs: queries, keys, values."""
    b, length, width = tokens.shape
    q, k, v = qkv(tokens).view(b, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)  # (B, heads, L, D / heads)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, length, width)


class Attention(nn.Module):
    """Attention over all pixels of a feature map, added to it: (B, C, H, W) -> (B, C, H, W). Ho et al. 2020, App. B.

    In channels_last a pixel is a token as it lies in memory, and nothing is copied.
    """

    def __init__(self, channels: int, *, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, eps=eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = group_norm(x, self.group_norm, silu=False).permute(0, 2, 3, 1).reshape(b, h * w, c)
        read: Tensor = self.out(attend(tokens, self.qkv, self.heads))
        return x + read.view(b, h, w, c).permute(0, 3, 1, 2)
