"""Attention among the tokens of one sequence (self-attention), or from tokens to a context (cross-attention).

    softmax(q k^T / sqrt(d)) v,    q from the tokens; k, v from the same tokens, or from the context

Linear maps of the same input are one matrix: queries, keys and values of self-attention; keys and values of
cross-attention (slices.py). Those of a context depend on neither time nor picture and are computed once per sampling
(`encode`). `AttentionCore` is the formula alone, without weights, so that a patch can replace it (patch.py). Laws
(tests/nn/test_unet.py, tests/nn/test_transformer.py): the formula in float64; a masked token of the context changes
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.norm import Norm

SHORT = 1024  # tokens up to which the scores are materialised in bfloat16 on a CPU, with gradients
PIECE = 1 << 21  # scores at once without gradients: 4 MiB, about the size of a core's caches


class Context(NamedTuple):
    """What the cross-attentions of a block read: keys and values (B, L, 2 D) for each, and a bias of all scores."""

    keys_values: tuple[Tensor, ...] = ()
    bias: Tensor | None = None  # (B, 1, 1, L): 0, or a large negative number for masked tokens


NO_CONTEXT = Context()


def score_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The bias of scores for a mask (B, L). It is finite, so that a row whose tokens are all masked has no NaN."""
    if mask is None:
        return None
    masked = torch.full((), torch.finfo(dtype).min / 2, dtype=dtype, device=mask.device)
    return torch.where(mask, torch.zeros_like(masked), masked)[:, None, None, :]


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """A fused projection (B, L, parts D) as its parts, each (B, heads, L, D / heads)."""
    b, length, width = x.shape
    return x.view(b, length, parts, heads, width // parts // heads).permute(2, 0, 3, 1, 4).unbind()


class AttentionCore(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v of every head, the heads side by side; it has no weights.

    Queries (B, heads, L, d), keys and values (B, heads, M, d), a bias that broadcasts to (B, heads, L, M)
    -> (B, L, heads d).
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        b, heads, length, width = q.shape
        out = _by_products(q, k, v, bias)
        if out is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return out.transpose(1, 2).reshape(b, length, heads * width)


def _by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor | None:
    """The same by two products and a softmax, or None where torch's fused kernel is used: all but bfloat16 on a CPU.

    In pieces that fit the caches this needs half the time of the fused kernel at 1,024 and 4,096 tokens. With gradients
    all scores stay in memory, which is not worth it beyond SHORT tokens.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return None
    b, heads, length, width = q.shape
    scores = length * k.shape[2]
    graded = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if graded and scores > SHORT**2:
        return None
    q, k, v = (each.reshape(b * heads, -1, width) for each in (q, k, v))
    if bias is not None:
        bias = bias.expand(b, heads, 1, -1).reshape(b * heads, 1, -1)
    group = b * heads if graded else max(1, PIECE // scores)  # heads, of one sample or several
    rows = length if graded else max(1, PIECE // k.shape[1])  # of their queries
    pieces = []
    for head in range(0, b * heads, group):
        some = slice(head, head + group)
        for row in range(0, length, rows):
            bias_piece = None if bias is None else bias[some]
            pieces.append(_materialised(q[some, row : row + rows], k[some], v[some], bias_piece).flatten(0, 1))
    out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return out.view(b, heads, length, width)


def _materialised(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention whose scores are materialised: (N, L, d), (N, M, d), (N, M, d), bias (N, 1, M) -> (N, L, d)."""
    if bias is None:
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=q.shape[2] ** -0.5)
    else:
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=q.shape[2] ** -0.5)
    return torch.bmm(scores.softmax(dim=-1), v)


class Attention(nn.Module):
    """Self-attention of the pixels of a feature map, added to it: (B, C, H, W) -> (B, C, H, W). Ho et al. 2020, App. B.

    In channels_last the tokens are a view of the pixels, without a copy.
    """

    def __init__(self, channels: int, *, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = Norm(groups, channels, eps=eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.core = AttentionCore()
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.group_norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        q, k, v = split_heads(self.qkv(tokens), 3, self.heads)
        out: Tensor = self.out(self.core(q, k, v))
        return x + out.view(b, h, w, c).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """Self-attention of tokens: (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, *, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.core = AttentionCore()
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(tokens), 3, self.heads)
        out: Tensor = self.out(self.core(q, k, v, bias))
        return out


class CrossAttention(nn.Module):
    """Attention from tokens (B, L, D) to the encoded context (B, M, 2 D), see `encode` -> (B, L, D)."""

    def __init__(self, width: int, context: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(context, 2 * width, bias=False)
        self.core = AttentionCore()
        self.out = nn.Linear(width, width)

    def encode(self, text: Tensor) -> Tensor:
        """The keys, then the values, of text embeddings (B, M, context): (B, M, 2 D)."""
        keys_values: Tensor = self.kv(text)
        return keys_values

    def forward(self, tokens: Tensor, keys_values: Tensor, bias: Tensor | None = None) -> Tensor:
        (q,) = split_heads(self.q(tokens), 1, self.heads)
        k, v = split_heads(keys_values, 2, self.heads)
        out: Tensor = self.out(self.core(q, k, v, bias))
        return out
