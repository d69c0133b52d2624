"""A classifier of noisy pictures: the encoder of a U-Net, conditioned on time, and attention pooling.

    in -> [blocks, step down] a level -> middle -> norm, SiLU -> attention pooling -> a logit a class

Dhariwal & Nichol 2021, sec. 4 and App. H: the query of the pooling is the mean of all pixels, as in CLIP
(Radford et al. 2021), where a plain average would weigh all pixels equally.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.conditions import NOTHING
from unnoise.config.networks import UNetConfig, height_width
from unnoise.errors import UserError
from unnoise.nn.blocks import heads
from unnoise.nn.norm import Norm
from unnoise.nn.unet_encoder import UNetEncoder


class EncoderClassifier(UNetEncoder):
    """(B, C, size, size), time (B,) -> logits (B, `config.classes`). The classes are its output, not a condition."""

    def __init__(self, config: UNetConfig) -> None:
        if config.classes < 2:
            raise UserError(f"a classifier needs at least two classes, not {config.classes}")
        super().__init__(replace(config, classes=0))
        width, lowest = config.channels[-1], len(config.channels) - 1
        self.norm_out = Norm(config.groups, width, eps=config.norm_eps)
        height, across = (side >> lowest for side in height_width(config.size))
        self.pool = AttentionPool(width, config.classes, pixels=height * across, heads=heads(config, lowest))
        self.finish()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        emb, contexts = self.embed(time, NOTHING, None), self.contexts((), None)
        h = self.down(self.first(x), emb, contexts, _run)[-1]
        h = self.mid_block(h, emb, contexts, _run)
        logits: Tensor = self.pool(self.norm_out(h, silu=True))
        return logits


class AttentionPool(nn.Module):
    """(B, C, h, w) with h w = `pixels` -> (B, out): the mean of all pixels attends to itself and to them."""

    def __init__(self, channels: int, out: int, *, pixels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(1 + pixels, channels) / channels**0.5)
        self.query = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (B, h w, C)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.position
        q = self.query(tokens[:, :1]).view(b, 1, self.heads, -1).transpose(1, 2)
        k, v = self.kv(tokens).view(b, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        pooled: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, c))
        return pooled


def _run(part: nn.Module, *inputs: object) -> Tensor:
    out: Tensor = part(*inputs)
    return out
