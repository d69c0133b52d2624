"""CLIP's text tower: a transformer in which each token sees those before it (Radford et al. 2021).

    words = LN(transformer(table[tokens] + positions)),    vector = words at the end of the text, [times a matrix]

The encoder beside Stable Diffusion's networks. Nothing is masked but the future: what stands behind the end of a text
sees all of it, and the networks were trained to read that too. Laws (tests/nn/test_clip.py): what transformers computes
with these weights; a token does not see those behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.errors import UserError
from unnoise.nn.attention import attend


def quick_gelu(x: Tensor) -> Tensor:
    """x sigma(1.702 x), which the first CLIP took for GELU."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class ClipConfig:
    """A text tower; the defaults are ViT-L/14's, beside Stable Diffusion 1."""

    vocabulary: int = 49408
    length: int = 77
    width: int = 768
    hidden: int = 3072  # width of the two-layer networks
    depth: int = 12
    heads: int = 12
    activation: str = "quick_gelu"
    eps: float = 1e-5  # of the norms
    end: int = 49407  # the token at whose first place the vector is read
    largest_ends: bool = False  # it is read at the largest token instead, as files say by an end of 2
    projection: int = 0  # width of the vector; 0: the words', as they are


class Read(NamedTuple):
    """Words (B, L, width), and a vector (B, width or projection) of each text."""

    words: Tensor
    vector: Tensor


class ClipText(nn.Module):
    """Tokens (B, L) int64, L at most config.length -> what the tower reads."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise UserError(f"heads {config.heads} does not divide the width {config.width} of the text tower")
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(ClipBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.projection: nn.Linear | None = None
        if config.projection:
            self.projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, tokens: Tensor, *, skip: int = 0, normed: bool = True) -> Read:
        """With `skip` the words are those before the last `skip` blocks ("clip skip"); `normed` or as they are there.

        The vector is of the whole tower. Raises UserError for a text that is too long, or a skip beyond the first.
        """
        length, depth = tokens.shape[1], len(self.blocks)
        if length > self.config.length:
            raise UserError(f"a text of {length} tokens; this tower reads {self.config.length}: cut it")
        if not 0 <= skip <= depth:
            raise UserError(f"{skip} of the {depth} blocks of the text tower cannot be skipped: 0 to {depth} can")
        h = self.table(tokens) + self.positions.weight[:length]
        future = torch.full((length, length), -torch.inf, dtype=h.dtype, device=h.device).triu(1)
        kept = h
        for place, block in enumerate(self.blocks):
            h = block(h, future)
            if place + 1 == depth - skip:
                kept = h
        last = self.norm(h)
        words = last if normed and not skip else self.norm(kept) if normed else kept
        vector = last[torch.arange(len(tokens), device=tokens.device), self._ends(tokens)]
        return Read(words, vector if self.projection is None else self.projection(vector))

    def _ends(self, tokens: Tensor) -> Tensor:
        found = tokens if self.config.largest_ends else tokens == self.config.end
        return found.int().argmax(1)


class ClipBlock(nn.Module):
    """Self-attention and a two-layer network, each normed and added to what was there."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.activation = ACTIVATIONS[config.activation]
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.linear_in = nn.Linear(config.width, config.hidden)
        self.linear_out = nn.Linear(config.hidden, config.width)

    def forward(self, h: Tensor, future: Tensor) -> Tensor:
        h = h + self.out(attend(self.norm1(h), self.qkv, self.heads, future[None, None]))
        out: Tensor = h + self.linear_out(self.activation(self.linear_in(self.norm2(h))))
        return out
