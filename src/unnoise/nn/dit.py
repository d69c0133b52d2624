"""The diffusion transformer: patches are tokens, and what is told scales, shifts and gates every layer (adaLN-zero).

    x <- x + gate * f((1 + scale) LN(x) + shift),    f = attention, then a two-layer network, in each of `depth` blocks

shift, scale and gate are linear in what time and class say, and zero at birth: every block begins as the identity.
Where words are emb, each block also reads them, between the two, by a cross-attention that is neither normed nor gated
and whose last map is zero at birth (Chen et al. 2023, PixArt). Peebles & Xie 2023. Laws (tests/nn/test_dit.py): the
published parameter counts; zero output at birth; moving the patches moves nothing but the positions; a sample does not
see its batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.conditions import Cond
from unnoise.config.networks import DiTConfig
from unnoise.errors import UserError, unknown
from unnoise.nn import text
from unnoise.nn.attention import CrossAttention, attend, score_bias
from unnoise.nn.embeddings import TimeEmbedding, class_rows, class_table, grid_waves, sinusoid
from unnoise.nn.text import TextEncoder

WAVES = 256  # width of the time's sinusoid
LN_EPS = 1e-6

SIZES = {  # width, depth, heads: Table 1
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}


def dit_config(
    name: Literal["S", "B", "L", "XL"],
    patch: int,
    *,
    size: int,
    in_channels: int,
    out_channels: int,
    classes: int = 0,
    dropout: float = 0.0,
) -> DiTConfig:
    """The paper's DiT-`name`/`patch`, for pictures (or latents) of `size` pixels."""
    if name not in SIZES:
        raise unknown("size of a DiT", name, SIZES)
    width, depth, heads = SIZES[name]
    return DiTConfig(
        size=size,
        in_channels=in_channels,
        out_channels=out_channels,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        dropout=dropout,
        classes=classes,
    )


class DiT(nn.Module):
    """(B, C_in, S, S), time (B,), a condition -> (B, C_out, S, S), in the dtype of its weights; S is config.size.

    While `checkpointing` is true no block keeps more than its inputs for the gradient: less memory, a third more work,
    the same numbers. Raises UserError for a configuration that no network has.
    """

    positions: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        check(config)
        self.config = config
        self.checkpointing = False
        width, patch = config.width, config.patch

        self.time_embedding = TimeEmbedding(WAVES, width)
        self.class_embedding = class_table(config.classes, width, null_class=config.null_class)
        self.patch_in = nn.Conv2d(config.in_channels, width, patch, stride=patch)
        self.register_buffer("positions", grid_waves(config.size // patch, width), persistent=False)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.modulate_out = nn.Linear(width, 2 * width)
        self.patch_out = nn.Linear(width, patch * patch * config.out_channels)
        self.text = TextEncoder(config.text) if config.text is not None else None
        self.pooled_embedding = nn.Linear(config.text.width, width) if config.text is not None else None
        initialise(self)

    def encode(self, cond: Cond) -> Cond:
        """The same condition, with what depends on neither x nor time computed: see `UNet.encode`."""
        if text.is_encoded(cond):
            return cond
        read = text.encode_text(cond, self.text, context(self.config))
        if read is None:
            return cond
        words, mask = read[0].to(self.patch_out.weight.dtype), read[1]
        encoded = [block.encode(words) for block in self.blocks if isinstance(block, DiTBlock)]
        if self.text is not None:
            encoded.insert(0, text.pooled(words, mask))
        return replace(cond, tokens=None, text=None, mask=mask, encoded=tuple(encoded))

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        config = self.config
        _refuse(cond)
        if x.shape[-2:] != (config.size, config.size):
            raise UserError(f"this network draws {config.size}x{config.size}, not {x.shape[-1]}x{x.shape[-2]}")
        cond = self.encode(cond)
        own = (self.text is not None) + (len(self.blocks) if context(config) else 0)
        if len(cond.encoded) != own:
            raise UserError(f"{len(cond.encoded)} tensors were encoded of this condition, this network hears {own}")
        encoded = list(cond.encoded)
        emb = self.embed(time, cond, encoded.pop(0) if self.text is not None else None)
        bias = score_bias(cond.mask, x.dtype) if encoded else None
        tokens = self.patch_in(x).flatten(2).transpose(1, 2)  # (B, L, D)
        tokens = tokens + self.positions.to(tokens.dtype)
        for place, block in enumerate(self.blocks):
            read = (encoded[place], bias) if encoded else ()
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, emb, *read, use_reentrant=False)
            else:
                tokens = block(tokens, emb, *read)
        shift, scale = self.modulate_out(emb)[:, None].chunk(2, dim=2)
        patches = self.patch_out(modulated(tokens, shift, scale))  # (B, L, P P C)
        side, p = config.size // config.patch, config.patch
        grid: Tensor = patches.view(len(x), side, side, p, p, config.out_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(x), config.out_channels, config.size, config.size)

    def embed(self, time: Tensor, cond: Cond, caption: Tensor | None) -> Tensor:
        """What time (B,), class and a caption as one vector say, activated: (B, D)."""
        config = self.config
        waves = sinusoid(time, WAVES, shift=0.0, cosine_first=True).to(self.modulate_out.weight.dtype)
        embedding: Tensor = self.time_embedding(waves)
        rows = class_rows(cond, len(time), classes=config.classes, null_class=config.null_class, device=time.device)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(rows)
        if self.pooled_embedding is not None:
            embedding = embedding + self.pooled_embedding(caption)
        return F.silu(embedding)


class DiTBlock(nn.Module):
    """Attention and a two-layer network, each behind a norm that is scaled and shifted, and before a gate.

    Where the network is told words, it reads them in between.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.dropout = config.dropout
        self.modulate = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.cross_attention: CrossAttention | None = None
        if context(config):
            self.cross_attention = CrossAttention(width, context(config), heads=config.heads)

    def encode(self, words: Tensor) -> Tensor:
        """What it reads of words (B, L, context)."""
        assert self.cross_attention is not None
        return self.cross_attention.encode(words)

    def forward(self, tokens: Tensor, emb: Tensor, encoded: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        rows = self.modulate(emb)[:, None].chunk(6, dim=2)  # six of (B, 1, D)
        shift, scale, gate = rows[:3]
        read = self.out(attend(modulated(tokens, shift, scale), self.qkv, self.heads))
        tokens = torch.addcmul(tokens, gate, F.dropout(read, self.dropout, self.training))
        if self.cross_attention is not None and encoded is not None:
            tokens = tokens + self.cross_attention(tokens, encoded, bias)
        shift, scale, gate = rows[3:]
        hidden = F.gelu(self.mlp_in(modulated(tokens, shift, scale)), approximate="tanh")
        thought = self.mlp_out(F.dropout(hidden, self.dropout, self.training))
        return torch.addcmul(tokens, gate, F.dropout(thought, self.dropout, self.training))


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + scale) LN(tokens) + shift, of tokens (B, L, D) and rows (B, 1, D)."""
    return torch.addcmul(shift, F.layer_norm(tokens, tokens.shape[-1:], eps=LN_EPS), 1 + scale)


def initialise(net: DiT) -> None:
    """The paper's: uniform with variance 2 / (fan in + fan out); N(0, 0.02^2) for what is told; zero where it acts."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))  # a patch is a row of numbers
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for layer in (net.time_embedding.linear_1, net.time_embedding.linear_2):
        nn.init.normal_(layer.weight, std=0.02)
    for layer in (net.modulate_out, net.patch_out, *(m.modulate for m in net.modules() if isinstance(m, DiTBlock))):
        nn.init.zeros_(layer.weight)
    for module in net.modules():
        if isinstance(module, CrossAttention):
            nn.init.zeros_(module.out.weight)
    if net.pooled_embedding is not None:
        nn.init.zeros_(net.pooled_embedding.weight)


def context(config: DiTConfig) -> int:
    """The width of the words that cross-attention reads; 0: there is none."""
    return config.context if config.text is None else config.text.width


def _refuse(cond: Cond) -> None:
    """Raises UserError for what no DiT of ours is told."""
    given = {"values": cond.value, "a vector": cond.pooled, "an image": cond.concat}
    given |= {"drawings": cond.control[0] if cond.control else None, "strengths": cond.control_scale}
    for name, value in given.items():
        if value is not None:
            raise UserError(f"this network takes no {name.removeprefix('a ').removeprefix('an ')}: give it none")


def check(config: DiTConfig) -> None:
    """Raises UserError for a configuration that no network has: what is wrong with which field."""
    least = ("size", "in_channels", "out_channels", "patch", "width", "depth", "heads")
    for name in least:
        if getattr(config, name) < 1:
            raise UserError(f"{name} is at least 1, not {getattr(config, name)}")
    if config.size % config.patch:
        raise UserError(f"size {config.size} does not divide into patches of {config.patch}: change one of the two")
    if config.width % config.heads:
        raise UserError(f"heads {config.heads} does not divide the width {config.width}")
    if config.width % 4:
        raise UserError(f"width is a multiple of four (sine and cosine of row and column), not {config.width}")
    if config.classes < 0:
        raise UserError(f"classes is 0 (unconditional) or more, not {config.classes}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"dropout is a share below 1, not {config.dropout}")
    if config.mlp_ratio <= 0:
        raise UserError(f"mlp_ratio is above 0, not {config.mlp_ratio}")
    text.check(config.text, config.context)
