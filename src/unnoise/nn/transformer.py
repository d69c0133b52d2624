"""The spatial transformer of latent diffusion: self-attention of the pixels, cross-attention to text, feed-forward.

    u = in(GN(x));    depth times  u += self(LN u),  u += cross(LN u, text),  u += GEGLU(LN u);    x + out(u)

Rombach et al. 2022, App. E.2.1, in the order of the published code. `in` and `out` are linear maps of each pixel; files
may contain them as 1x1 convolutions, which are the same numbers (`UNetConfig.linear_projection`).

Laws (tests/nn/test_transformer.py): the output of diffusers with these weights; the identity at initialisation;
permuting the pixels permutes the output; a masked token of the text changes nothing.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.attention import Context, CrossAttention, SelfAttention
from unnoise.nn.norm import Norm

GROUP_EPS = 1e-6  # the published code's, independent of the residual blocks'
LAYER_EPS = 1e-5


class Transformer(nn.Module):
    """(B, C, H, W), and a context with keys and values for each of its blocks -> (B, C, H, W)."""

    def __init__(
        self, channels: int, context: int, *, heads: int, groups: int, depth: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = Norm(groups, channels, eps=GROUP_EPS)
        self.proj_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, context, heads=heads, dropout=dropout) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels)

    def encode(self, text: Tensor) -> list[Tensor]:
        """The keys and values of text embeddings (B, L, context), for each block."""
        return [block.encode(text) for block in self.blocks if isinstance(block, TransformerBlock)]

    def forward(self, x: Tensor, context: Context) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        tokens = self.proj_in(tokens)
        for block, keys_values in zip(self.blocks, context.keys_values, strict=True):
            tokens = block(tokens, keys_values, context.bias)
        out: Tensor = self.proj_out(tokens)
        return x + out.view(b, h, w, c).permute(0, 3, 1, 2)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and a gated two-layer network, each with a norm before it and a residual sum."""

    def __init__(self, width: int, context: int, *, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_EPS)
        self.self_attention = SelfAttention(width, heads=heads, bias=False)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_EPS)
        self.cross_attention = CrossAttention(width, context, heads=heads)
        self.norm3 = nn.LayerNorm(width, eps=LAYER_EPS)
        self.feed_forward = GatedFeedForward(width, dropout=dropout)

    def encode(self, text: Tensor) -> Tensor:
        return self.cross_attention.encode(text)

    def forward(self, tokens: Tensor, keys_values: Tensor, bias: Tensor | None) -> Tensor:
        tokens = tokens + self.self_attention(self.norm1(tokens))
        tokens = tokens + self.cross_attention(self.norm2(tokens), keys_values, bias)
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
