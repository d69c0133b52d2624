"""The spatial transformer of latent diffusion: pixels look at each other, then at the words, then think.

    u = in(GN(x));    depth times  u += self(LN u),  u += cross(LN u, words),  u += GEGLU(LN u);    x + out(u)

Rombach et al. 2022, App. E.2.1, in the order of the published code. `in` and `out` are linear maps of each pixel; files
also hold them as 1x1 convolutions, which are the same numbers (`UNetConfig.linear_projection`).

Laws (tests/nn/test_transformer.py): what diffusers computes with these weights; it adds nothing at birth; moving the
pixels moves the output; a word that is masked out changes nothing.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.attention import Context, CrossAttention, SelfAttention
from unnoise.nn.norm import group_norm

GROUP_EPS = 1e-6  # the published code's, whatever the residual blocks take
LAYER_EPS = 1e-5


class Transformer(nn.Module):
    """(B, C, H, W), and for each of its blocks what was encoded of the words -> (B, C, H, W)."""

    def __init__(
        self, channels: int, context: int, *, heads: int, groups: int, depth: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=GROUP_EPS)
        self.proj_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, context, heads=heads, dropout=dropout) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels)

    def encode(self, words: Tensor) -> list[Tensor]:
        """What each block reads of words (B, L, context)."""
        return [block.encode(words) for block in self.blocks if isinstance(block, TransformerBlock)]

    def forward(self, x: Tensor, words: Context) -> Tensor:
        b, c, h, w = x.shape
        tokens = group_norm(x, self.norm, silu=False).permute(0, 2, 3, 1).reshape(b, h * w, c)
        tokens = self.proj_in(tokens)
        for block, encoded in zip(self.blocks, words.encoded, strict=True):
            tokens = block(tokens, encoded, words.bias)
        out: Tensor = self.proj_out(tokens)
        return x + out.view(b, h, w, c).permute(0, 3, 1, 2)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, a gated two-layer network; each normed and added to what was there."""

    def __init__(self, width: int, context: int, *, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_EPS)
        self.self_attention = SelfAttention(width, heads=heads, bias=False)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_EPS)
        self.cross_attention = CrossAttention(width, context, heads=heads)
        self.norm3 = nn.LayerNorm(width, eps=LAYER_EPS)
        self.feed_forward = GatedFeedForward(width, dropout=dropout)

    def encode(self, words: Tensor) -> Tensor:
        return self.cross_attention.encode(words)

    def forward(self, tokens: Tensor, encoded: Tensor, bias: Tensor | None) -> Tensor:
        tokens = tokens + self.self_attention(self.norm1(tokens))
        tokens = tokens + self.cross_attention(self.norm2(tokens), encoded, bias)
        out: Tensor = tokens + self.feed_forward(self.norm3(tokens))
        return out


class GatedFeedForward(nn.Module):
    """GEGLU (Shazeer 2020): D -> 4 D values and 4 D gates -> D. The GELU is the exact one."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.linear_in = nn.Linear(width, 8 * width)
        self.linear_out = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.linear_in(tokens).chunk(2, dim=-1)
        out: Tensor = self.linear_out(F.dropout(value * F.gelu(gate), self.dropout, self.training))
        return out
