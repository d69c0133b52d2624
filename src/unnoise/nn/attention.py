"""Attention: every token looks at every other (self-attention), or at the words (cross-attention).

    softmax(q k^T / sqrt(d)) v,    q from the tokens; k, v from the same tokens, or from words

Linear maps of the same input stand in one matrix: queries, keys and values of self-attention; keys and values of
cross-attention, which depend on neither time nor picture, so that they are made once a walk (`hear`). Laws
(tests/nn/test_unet.py, tests/nn/test_transformer.py): the formula in doubles; a word that is masked out changes
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.norm import group_norm

SHORT = 1024  # tokens up to which the scores are written down in bfloat16 on a CPU, with gradients
PIECE = 1 << 21  # scores at once without: 4 MiB, about what the caches of a core hold


class Context(NamedTuple):
    """What a block's cross-attentions read: keys and values (B, L, 2 D) each, and what is added to all scores."""

    encoded: tuple[Tensor, ...] = ()
    bias: Tensor | None = None  # (B, 1, 1, L): 0, or hardly less than infinity where a word does not count


NO_CONTEXT = Context()


def score_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask (B, L) as what is added to scores. It is finite: a row whose words are all masked out gives numbers."""
    if mask is None:
        return None
    never = torch.full((), torch.finfo(dtype).min / 2, dtype=dtype, device=mask.device)
    return torch.where(mask, torch.zeros_like(never), never)[:, None, None, :]


def attend(tokens: Tensor, qkv: nn.Linear, heads: int, bias: Tensor | None = None) -> Tensor:
    """What the heads read, side by side: (B, L, D) -> (B, L, D). `qkv` has 3 D outputs: queries, keys, values."""
    b, length, width = tokens.shape
    q, k, v = qkv(tokens).view(b, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)  # (B, heads, L, D / heads)
    return read(q, k, v, bias)


def read(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Queries (B, heads, L, d), keys and values (B, heads, M, d) -> (B, L, heads d)."""
    b, heads, length, width = q.shape
    out = _by_products(q, k, v, bias)
    if out is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.transpose(1, 2).reshape(b, length, heads * width)


def _by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor | None:
    """The same by two products and a softmax, where these are faster than torch's fused kernel: in bfloat16 on a CPU.

    In pieces that fit the caches they take half of its time at 1,024 and 4,096 tokens. With gradients all scores are
    kept, and beyond SHORT no longer pay for their memory.
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
    together = b * heads if graded else max(1, PIECE // scores)  # heads, of one sample or several
    rows = length if graded else max(1, PIECE // k.shape[1])  # of their queries
    pieces = []
    for head in range(0, b * heads, together):
        some = slice(head, head + together)
        for row in range(0, length, rows):
            near = None if bias is None else bias[some]
            pieces.append(_written(q[some, row : row + rows], k[some], v[some], near).flatten(0, 1))
    out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return out.view(b, heads, length, width)


def _written(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention with its weights in memory: (N, L, d), (N, M, d), (N, M, d), bias (N, 1, M) -> (N, L, d)."""
    if bias is None:
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=q.shape[2] ** -0.5)
    else:
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=q.shape[2] ** -0.5)
    return torch.bmm(scores.softmax(dim=-1), v)


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
        out: Tensor = self.out(attend(tokens, self.qkv, self.heads))
        return x + out.view(b, h, w, c).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """Tokens that look at each other: (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, *, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        out: Tensor = self.out(attend(tokens, self.qkv, self.heads, bias))
        return out


class CrossAttention(nn.Module):
    """Tokens that look at words: (B, L, D) and what `hear` made of the words -> (B, L, D)."""

    def __init__(self, width: int, context: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(context, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def encode(self, words: Tensor) -> Tensor:
        """Keys, then values, of words (B, M, context): (B, M, 2 D)."""
        encoded: Tensor = self.kv(words)
        return encoded

    def forward(self, tokens: Tensor, encoded: Tensor, bias: Tensor | None = None) -> Tensor:
        b, length, width = tokens.shape
        q = self.q(tokens).view(b, length, self.heads, -1).transpose(1, 2)
        k, v = encoded.view(b, -1, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out: Tensor = self.out(read(q, k, v, bias))
        return out
