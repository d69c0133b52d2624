"""A contrastive network (CLIP): the embedding of a picture is close to its own caption's and far from the others'.

    p = unit(picture(x)),    c = unit(W mean(text(tokens))),    s_ij = scale p_i . c_j

    loss_i = -1/2 [log softmax_j(s_ij) + log softmax_j(s_ji)] at j = i,    j over i and all rows with another caption

Radford et al. 2021, sec. 2.3 and fig. 3: InfoNCE from pictures to captions and back, with a learned scale, the inverse
of a temperature. A row with the caption of row i is no negative of it, and is left out of both its sums.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.networks import ContrastiveNet
from unnoise.errors import UserError
from unnoise.nn.classifier import Classifier, Shape
from unnoise.nn.text import TextEncoder, check, pooled, token_mask

INITIAL_SCALE, MAX_SCALE = 1 / 0.07, 100.0  # Radford et al. 2021, sec. 2.5


class Contrastive(nn.Module):
    """Pictures (B, C, size, size) in [-1, 1] and tokens (N, L) -> unit vectors (B, embedding) and (N, embedding)."""

    def __init__(self, config: ContrastiveNet) -> None:
        super().__init__()
        check(config.text, 0)
        for name in ("width", "features"):
            if getattr(config, name) < 8 or getattr(config, name) % 8:
                raise UserError(
                    f"net.{name} must be a multiple of 8, the channels of a group, not {getattr(config, name)}"
                )
        if config.embedding < 2:
            raise UserError(f"net.embedding must be at least 2, not {config.embedding}")
        self.config = config
        # its last layer computes an embedding where that of a classifier computes logits
        self.picture = Classifier(
            Shape(config.size, config.in_channels, config.embedding, config.width, config.features)
        )
        self.text = TextEncoder(config.text)
        self.project = nn.Linear(config.text.width, config.embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))

    def pictures(self, x: Tensor) -> Tensor:
        return F.normalize(self.picture(x), dim=1)

    def captions(self, tokens: Tensor) -> Tensor:
        mask = token_mask(tokens)
        longest = int(mask.sum(1).max()) if len(tokens) else 0  # padding beyond it changes nothing and costs time
        tokens, mask = tokens[:, :longest], mask[:, :longest]
        return F.normalize(self.project(pooled(self.text(tokens), mask)), dim=1)

    @property
    def scale(self) -> Tensor:
        """The factor of the cosines, (): at most 100."""
        return self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The loss of each row, (B,), where tokens_i is the caption of picture x_i."""
        return info_nce(self.scale * self.pictures(x) @ self.captions(tokens).T, equal(tokens))


def info_nce(logits: Tensor, same: Tensor) -> Tensor:
    """The symmetric loss of each row, (B,), of scaled similarities (B, B) of pictures (rows) and captions (columns).

    `same` (B, B), symmetric: which rows have equal captions; those off the diagonal are left out.
    """
    excluded = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    others = logits.masked_fill(excluded, -math.inf)
    return (others.logsumexp(1) + others.logsumexp(0)) / 2 - logits.diagonal()


def equal(tokens: Tensor) -> Tensor:
    """Which rows of tokens (B, L) are equal: (B, B) bool."""
    return (tokens[:, None] == tokens[None]).all(2)
