"""A small text encoder that is trained together with its network, and the text embeddings of a condition.

    text = LN(transformer(table[tokens] + positions)),    pre-norm, unmasked attention among tokens, padding masked

As in latent diffusion's first text model (Rombach et al. 2022, a BERT-like encoder trained from scratch). As in GLIDE
and Imagen, one vector of the whole caption is also added to the time embedding (`pooled`): the mean over its tokens,
which has no position to learn and holds for captions of any length.

Laws (tests/nn/test_text.py): more padding changes nothing; the order of tokens matters; a row's output does not depend
on its batch; the output of torch's own transformer with these weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.config.networks import TextConfig
from unnoise.errors import UserError
from unnoise.nn.attention import SelfAttention, score_bias

PAD = 0  # the token of padding


class TextEncoder(nn.Module):
    """Tokens (B, L), L at most config.length -> embeddings (B, L, width). Token 0 is padding: see `token_mask`."""

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
            raise UserError(
                f"a caption has {length} tokens and this network reads at most {self.config.length}: truncate it"
            )
        h = self.table(tokens) + self.positions.weight[:length]
        bias = score_bias(token_mask(tokens), h.dtype)
        for block in self.blocks:
            h = block(h, bias)
        out: Tensor = self.norm(h)
        return out


class TextBlock(nn.Module):
    """Self-attention and a two-layer network, each with a norm before it and a residual sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.linear_in = nn.Linear(width, 4 * width)
        self.linear_out = nn.Linear(4 * width, width)

    def forward(self, h: Tensor, bias: Tensor | None) -> Tensor:
        h = h + self.self_attention(self.norm1(h), bias)
        out: Tensor = h + self.linear_out(F.gelu(self.linear_in(self.norm2(h))))
        return out


def token_mask(tokens: Tensor) -> Tensor:
    """True where a token is not padding: (B, L) bool."""
    return tokens != PAD


def pooled(text: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the unmasked tokens of text embeddings (B, L, D): (B, D); zero where all are masked."""
    if mask is None:
        return text.mean(1)
    weights = mask[:, :, None].to(text.dtype)
    return (text * weights).sum(1) / weights.sum(1).clamp(min=1)


def is_encoded(cond: Cond) -> bool:
    """Whether a condition is encoded. Raises UserError for an encoded one with text or control images."""
    if cond.encoded is not None and (cond.tokens is not None or cond.text is not None or cond.control):
        raise UserError(
            "text or control images were added to a condition that is already encoded: add them before `encode`"
        )
    return cond.encoded is not None


def encode_text(cond: Cond, encoder: TextEncoder | None, width: int) -> tuple[Tensor | None, Tensor | None]:
    """The text embeddings (B, L, width) of a condition and their mask (B, L); None for a network without text.

    A network with a text encoder also accepts that encoder's output, as `text`. Raises UserError for text that does not
    fit the network, or is missing.
    """
    if not width:
        if cond.tokens is not None or cond.text is not None or cond.mask is not None:
            raise UserError("this network is not conditioned on text: give neither tokens nor text")
        return None, None
    if cond.text is not None and cond.tokens is not None:
        raise UserError("a condition has both tokens and text, the embeddings of tokens: give one of them")
    if cond.text is not None:
        if cond.text.ndim != 3 or cond.text.shape[2] != width:
            raise UserError(
                f"text must be of shape (rows, tokens, {width}) for this network, not {tuple(cond.text.shape)}"
            )
        _check_mask(cond.mask, cond.text)
        return cond.text, cond.mask
    if cond.tokens is None:
        name = "tokens" if encoder is not None else "text"
        raise UserError(
            f"this network is conditioned on text: give {name} for every picture, those of the empty caption "
            "where there is none"
        )
    if encoder is None:
        raise UserError(
            "this network has no text encoder of its own: give text, the output of the encoder that it was trained with"
        )
    _check_mask(cond.mask, cond.tokens)
    mask = token_mask(cond.tokens) if cond.mask is None else cond.mask
    return encoder(cond.tokens), mask


def _check_mask(mask: Tensor | None, text: Tensor) -> None:
    if mask is not None and mask.shape != text.shape[:2]:
        raise UserError(
            f"mask has shape {tuple(mask.shape)} and text {tuple(text.shape[:2])}: give one value per token of a row"
        )


def check(config: TextConfig | None, context: int) -> int:
    """The width of the text embeddings that a network with these settings reads; 0: none. Raises UserError."""
    if context < 0:
        raise UserError(f"context, the width of text embeddings, must be 0 (none) or more, not {context}")
    if config is None:
        return context
    for name in ("vocabulary", "length", "width", "heads"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} of the text encoder must be at least 1, not {getattr(config, name)}")
    if config.depth < 0:
        raise UserError(f"depth of the text encoder must be 0 or more, not {config.depth}")
    if config.width % config.heads:
        raise UserError(f"heads {config.heads} does not divide the width {config.width} of the text encoder")
    if context not in (0, config.width):
        raise UserError(
            f"context {context} differs from the width {config.width} of the text encoder: leave context unset"
        )
    return config.width
