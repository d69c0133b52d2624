"""A small text encoder that is trained together with the network it speaks to, and how a network comes by its words.

    words = LN(transformer(table[tokens] + positions)),    pre-norm, every word sees every other, padding is not seen

As in latent diffusion's first text model (Rombach et al. 2022, a BERT-like encoder learned from nothing). As GLIDE and
Imagen do, one vector of the whole caption also joins the time embedding (`pooled`): the mean of the words, since a mean
needs no place that has to learn to gather, and is right for captions of any length.

Laws (tests/nn/test_text.py): more padding changes nothing; the order of words is encoded; a row does not see its
batch; what torch's own transformer computes with these weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.config.networks import TextConfig
from unnoise.errors import UserError
from unnoise.nn.attention import SelfAttention, score_bias

PAD = 0  # the token that is no word


class TextEncoder(nn.Module):
    """Tokens (B, L), L at most config.length -> words (B, L, width). Token 0 is padding: see `token_mask`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(TextBlock(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length > self.config.length:
            raise UserError(f"a caption of {length} tokens; this network reads {self.config.length}: cut it")
        words = self.table(tokens) + self.positions.weight[:length]
        bias = score_bias(token_mask(tokens), words.dtype)
        for block in self.blocks:
            words = block(words, bias)
        out: Tensor = self.norm(words)
        return out


class TextBlock(nn.Module):
    """Self-attention and a two-layer network, each normed and added to what was there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.linear_in = nn.Linear(width, 4 * width)
        self.linear_out = nn.Linear(4 * width, width)

    def forward(self, words: Tensor, bias: Tensor | None) -> Tensor:
        words = words + self.self_attention(self.norm1(words), bias)
        out: Tensor = words + self.linear_out(F.gelu(self.linear_in(self.norm2(words))))
        return out


def token_mask(tokens: Tensor) -> Tensor:
    """Which tokens are words."""
    return tokens != PAD


def pooled(words: Tensor, mask: Tensor | None) -> Tensor:
    """One vector of a caption: the mean of its words, (B, D); zero where there are none."""
    if mask is None:
        return words.mean(1)
    counts = mask[:, :, None].to(words.dtype)
    return (words * counts).sum(1) / counts.sum(1).clamp(min=1)


def is_encoded(cond: Cond) -> bool:
    """Whether this was encoded already. Raises UserError where more was said since, which would be lost."""
    if cond.encoded and (cond.tokens is not None or cond.text is not None or cond.control):
        raise UserError("a condition that was encoded is told words or drawings anew: say them before it is encoded")
    return bool(cond.encoded)


def encode_text(cond: Cond, text: TextEncoder | None, context: int) -> tuple[Tensor, Tensor | None] | None:
    """The words (B, L, context) that a network is told and which of them count; None for one that reads none.

    A network with an encoder of its own also takes what that encoder said, as `words`. Raises UserError for words that
    the network cannot take, or needs and does not get.
    """
    if not context:
        if cond.tokens is not None or cond.text is not None or cond.mask is not None:
            raise UserError("this network reads no captions: give it neither tokens nor words")
        return None
    if cond.text is not None and cond.tokens is not None:
        raise UserError("a caption is told twice, as tokens and as words: give one of them")
    if cond.text is not None:
        if cond.text.ndim != 3 or cond.text.shape[2] != context:
            raise UserError(f"words are (rows, words, {context}) for this network, not {tuple(cond.text.shape)}")
        _check_mask(cond.mask, cond.text)
        return cond.text, cond.mask
    if cond.tokens is None:
        what = "tokens" if text is not None else "words"
        raise UserError(
            f"this network reads captions: give every picture {what}, an empty caption's where none is told"
        )
    if text is None:
        raise UserError("this network reads words, which an encoder beside it makes of tokens: give it words")
    _check_mask(cond.mask, cond.tokens)
    mask = token_mask(cond.tokens) if cond.mask is None else cond.mask
    return text(cond.tokens), mask


def _check_mask(mask: Tensor | None, words: Tensor) -> None:
    if mask is not None and mask.shape != words.shape[:2]:
        raise UserError(
            f"a mask of {tuple(mask.shape)} for words of {tuple(words.shape[:2])}: one for each word of a row"
        )


def check(config: TextConfig | None, context: int) -> int:
    """The width of the words that a network with these settings reads; 0: none. Raises UserError."""
    if context < 0:
        raise UserError(f"context is the width of words, 0 for none, not {context}")
    if config is None:
        return context
    for name in ("vocabulary", "length", "width", "heads"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} of the text encoder is at least 1, not {getattr(config, name)}")
    if config.depth < 0:
        raise UserError(f"depth of the text encoder is 0 or more, not {config.depth}")
    if config.width % config.heads:
        raise UserError(f"heads {config.heads} does not divide the width {config.width} of the text encoder")
    if context not in (0, config.width):
        raise UserError(f"context {context} beside a text encoder of width {config.width}: leave context out")
    return config.width
