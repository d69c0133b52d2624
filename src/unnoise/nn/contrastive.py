"""Pictures and captions on one sphere: a picture lies near its own caption and far from the others (CLIP).

    p = unit(picture(x)),    c = unit(W mean(text(tokens))),    s_ij = scale p_i . c_j

    loss_i = -1/2 [log softmax_j(s_ij) + log softmax_j(s_ji)] at j = i,    j over i and all rows told otherwise than i

Radford et al. 2021, sec. 2.3 and fig. 3: InfoNCE from pictures to captions and back, with a learned scale, the inverse
of a temperature. A row with the caption of row i is no wrong answer to it, so it stands in neither of its sums.
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

BORN, MOST = 1 / 0.07, 100.0  # the scale at first, and at most: Radford et al. 2021, sec. 2.5


class Contrastive(nn.Module):
    """Pictures (B, C, size, size) in [-1, 1] and tokens (N, L) -> unit vectors (B, embedding) and (N, embedding)."""

    def __init__(self, config: ContrastiveNet) -> None:
        super().__init__()
        check(config.text, 0)
        for name in ("width", "features"):
            if getattr(config, name) < 8 or getattr(config, name) % 8:
                raise UserError(f"net.{name} {getattr(config, name)}: groups have eight channels, take a multiple of 8")
        if config.embedding < 2:
            raise UserError(f"net.embedding {config.embedding}: a sphere has two dimensions at least")
        self.config = config
        # its last layer gives coordinates where that of a classifier gives logits
        self.picture = Classifier(
            Shape(config.size, config.in_channels, config.embedding, config.width, config.features)
        )
        self.text = TextEncoder(config.text)
        self.project = nn.Linear(config.text.width, config.embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(BORN)))

    def pictures(self, x: Tensor) -> Tensor:
        return F.normalize(self.picture(x), dim=1)

    def captions(self, tokens: Tensor) -> Tensor:
        mask = token_mask(tokens)
        longest = int(mask.sum(1).max()) if len(tokens) else 0  # padding beyond it changes nothing and costs time
        tokens, mask = tokens[:, :longest], mask[:, :longest]
        return F.normalize(self.project(pooled(self.text(tokens), mask)), dim=1)

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by, (): at most 100."""
        return self.log_scale.clamp(max=math.log(MOST)).exp()

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The loss of each row, (B,): picture x_i is told by tokens_i."""
        return info_nce(self.scale * self.pictures(x) @ self.captions(tokens).T, equal(tokens))


def info_nce(logits: Tensor, same: Tensor) -> Tensor:
    """The symmetric loss of each row, (B,), of scaled similarities (B, B) of pictures (rows) and captions (columns).

    `same` (B, B), symmetric: which rows are told the same; those beside the diagonal are left out.
    """
    beside = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    others = logits.masked_fill(beside, -math.inf)
    return (others.logsumexp(1) + others.logsumexp(0)) / 2 - logits.diagonal()


def equal(tokens: Tensor) -> Tensor:
    """Which rows of tokens (B, L) are the same: (B, B)."""
    return (tokens[:, None] == tokens[None]).all(2)
