"""CLIP's text encoder: a transformer in which each token attends to those before it (Radford et al. 2021).

    text = LN(transformer(table[tokens] + positions)),    pooled = text at the end token, [times a matrix]

The encoder of Stable Diffusion's networks. Only later tokens are masked: padding after the end token attends to the
whole caption, and the networks were trained with that. Laws (tests/nn/test_clip.py): the output of transformers with
these weights; a token's output does not depend on later ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.errors import UserError
from unnoise.nn.attention import AttentionCore, split_heads


def quick_gelu(x: Tensor) -> Tensor:
    """x sigma(1.702 x), the first CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class ClipConfig:
    """The sizes of a text encoder; the defaults are ViT-L/14's, Stable Diffusion 1's."""

    vocabulary: int = 49408
    length: int = 77
    width: int = 768
    hidden: int = 3072  # width of the two-layer networks
    depth: int = 12
    heads: int = 12
    activation: str = "quick_gelu"
    eps: float = 1e-5  # of the norms
    end: int = 49407  # the end token: `pooled` is the output at its first position
    largest_ends: bool = False  # the end token is the largest one of a row; files have an end of 2 for this
    projection: int = 0  # width of the projection of `pooled`; 0: none


class ClipOutput(NamedTuple):
    """Embeddings of the tokens (B, L, width), and one of the whole text (B, width or projection)."""

    text: Tensor
    pooled: Tensor


class ClipText(nn.Module):
    """Tokens (B, L) int64, L at most config.length -> their embeddings, and one of the text."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise UserError(f"heads {config.heads} does not divide the width {config.width} of the text encoder")
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(ClipBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.projection: nn.Linear | None = None
        if config.projection:
            self.projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, tokens: Tensor, *, skip: int = 0, normed: bool = True) -> ClipOutput:
        """The embeddings before the last `skip` blocks ("clip skip"), with the last norm unless not `normed`.

        The pooled one is always of the last block. Raises UserError for a text that is too long, or an invalid skip.
        """
        length, depth = tokens.shape[1], len(self.blocks)
        if length > self.config.length:
            raise UserError(
                f"a text has {length} tokens and this encoder reads at most {self.config.length}: truncate it"
            )
        if not 0 <= skip <= depth:
            raise UserError(f"skip must be between 0 and the {depth} blocks of the text encoder, not {skip}")
        h = self.table(tokens) + self.positions.weight[:length]
        future = torch.full((length, length), -torch.inf, dtype=h.dtype, device=h.device).triu(1)
        hidden = h
        for place, block in enumerate(self.blocks):
            h = block(h, future)
            if place + 1 == depth - skip:
                hidden = h
        last = self.norm(h)
        text = last if normed and not skip else self.norm(hidden) if normed else hidden
        pooled = last[torch.arange(len(tokens), device=tokens.device), self._ends(tokens)]
        return ClipOutput(text, pooled if self.projection is None else self.projection(pooled))

    def _ends(self, tokens: Tensor) -> Tensor:
        found = tokens if self.config.largest_ends else tokens == self.config.end
        return found.int().argmax(1)


class ClipBlock(nn.Module):
    """Self-attention and a two-layer network, each with a norm before it and a residual sum."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.activation = ACTIVATIONS[config.activation]
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.core = AttentionCore()
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.linear_in = nn.Linear(config.width, config.hidden)
        self.linear_out = nn.Linear(config.hidden, config.width)

    def forward(self, h: Tensor, future: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(self.norm1(h)), 3, self.heads)
        h = h + self.out(self.core(q, k, v, future[None, None]))
        out: Tensor = h + self.linear_out(self.activation(self.linear_in(self.norm2(h))))
        return out
