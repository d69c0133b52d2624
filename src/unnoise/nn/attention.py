"""Self-attention: every place looks at every other.

    softmax(q k^T / sqrt(d)) v,    q, k, v = three linear maps of the same tokens, made in one product

Over the pixels of a feature map (`Attention`, DDPM's block: normalise, attend, project, add), or over given tokens
(`attend`, which both architectures share).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.group_norm import group_norm

SHORT = 1024  # tokens up to which the scores are written down in bfloat16 on a CPU


def attend(tokens: Tensor, qkv: nn.Linear, heads: int) -> Tensor:
    """What the heads read, side by side: (B, L, D) -> (B, L, D). `qkv` has 3 D outputs: queries, keys, values."""
    b, length, width = tokens.shape
    q, k, v = qkv(tokens).view(b, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)  # (B, heads, L, D / heads)
    # torch's fused kernel is slow in bfloat16 on a CPU: two products and a softmax take a third of its time at 256
    # tokens, and less than half with gradients. Beyond SHORT the scores no longer pay for their memory.
    written = q.device.type == "cpu" and q.dtype == torch.bfloat16 and length <= SHORT
    read = _written(q, k, v) if written else F.scaled_dot_product_attention(q, k, v)
    return read.transpose(1, 2).reshape(b, length, width)


def _written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with its L x L weights in memory."""
    b, heads, length, width = q.shape
    q, k, v = (each.reshape(b * heads, length, width) for each in (q, k, v))
    nothing = q.new_empty(1, 1, 1)
    weights = torch.baddbmm(nothing, q, k.transpose(1, 2), beta=0, alpha=width**-0.5).softmax(dim=-1)
    return torch.bmm(weights, v).view(b, heads, length, width)


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
