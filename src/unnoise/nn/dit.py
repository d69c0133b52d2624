"""The diffusion transformer: patches are tokens, and conditions scale, shift and gate every layer (adaLN-zero).

    x <- x + gate * f((1 + scale) LN(x) + shift),    f = attention, then a two-layer network, in each of `depth` blocks

shift, scale and gate are linear in the embedding of time and class, and zero at initialisation: every block begins as
the identity. With text, each block also has a cross-attention between the two, which is neither normed nor gated and
whose last map is zero at initialisation (Chen et al. 2023, PixArt). Peebles & Xie 2023. Laws (tests/nn/test_dit.py):
the published parameter counts; zero output at initialisation; permuting the patches permutes the output but for the
positions; a sample's output does not depend on its batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.conditions import Cond, Encoded
from unnoise.config.networks import DiTConfig
from unnoise.errors import UserError, unknown
from unnoise.nn import text
from unnoise.nn.attention import AttentionCore, CrossAttention, score_bias, split_heads
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

    With `checkpointing` the activations inside each block are computed again for the gradient instead of stored: less
    memory, a third more work, the same numbers. Raises UserError for an invalid configuration, and for a condition that
    does not fit it.
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
        """The condition with `encoded`, all that depends on neither x nor time, in place of captions: see `UNet`."""
        if text.is_encoded(cond):
            return cond
        embeddings, mask = text.encode_text(cond, self.text, context_width(self.config))
        if embeddings is None:
            return cond
        embeddings = embeddings.to(self.dtype)
        keys_values = tuple(block.encode(embeddings) for block in self.blocks if isinstance(block, DiTBlock))
        pooled = text.pooled(embeddings, mask) if self.text is not None else None
        return replace(cond, tokens=None, text=None, mask=mask, encoded=Encoded(pooled, keys_values))

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        config = self.config
        _check_supported(cond)
        if x.shape[-2:] != (config.size, config.size):
            raise UserError(
                f"this network computes pictures of {config.size}x{config.size}, not {x.shape[-1]}x{x.shape[-2]}"
            )
        cond = self.encode(cond)
        encoded = cond.encoded or Encoded()
        self._check_encoded(encoded)
        emb = self.embed(time, cond, encoded.pooled)
        bias = score_bias(cond.mask, x.dtype) if encoded.keys_values else None
        tokens = self.patch_in(x).flatten(2).transpose(1, 2)  # (B, L, D)
        tokens = tokens + self.positions.to(tokens.dtype)
        for place, block in enumerate(self.blocks):
            context = (encoded.keys_values[place], bias) if encoded.keys_values else ()
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, emb, *context, use_reentrant=False)
            else:
                tokens = block(tokens, emb, *context)
        shift, scale = self.modulate_out(emb)[:, None].chunk(2, dim=2)
        return self._unpatch(self.patch_out(modulated(tokens, shift, scale)))

    def _unpatch(self, patches: Tensor) -> Tensor:
        """Patches (B, L, P P C) as pictures (B, C, S, S)."""
        size, p, channels = self.config.size, self.config.patch, self.config.out_channels
        grid = patches.view(len(patches), size // p, size // p, p, p, channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), channels, size, size)

    def _check_encoded(self, encoded: Encoded) -> None:
        """Raises UserError for what another network encoded."""
        depth = len(self.blocks) if context_width(self.config) else 0
        right = len(encoded.keys_values) == depth and (encoded.pooled is None) == (self.text is None)
        if not right or encoded.controls:
            raise UserError(
                f"this condition was encoded by another network (keys and values of {len(encoded.keys_values)} "
                f"cross-attentions, expected {depth}): encode it with this one"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, in which the network computes."""
        return next(self.parameters()).dtype

    def embed(self, time: Tensor, cond: Cond, pooled: Tensor | None) -> Tensor:
        """The embedding of time (B,), class and the pooled caption (B, D), after its SiLU: (B, D)."""
        config = self.config
        waves = sinusoid(time, WAVES, shift=0.0, cosine_first=True).to(self.dtype)
        embedding: Tensor = self.time_embedding(waves)
        rows = class_rows(cond, len(time), classes=config.classes, null_class=config.null_class, device=time.device)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(rows)
        if self.pooled_embedding is not None:
            embedding = embedding + self.pooled_embedding(pooled)
        return F.silu(embedding)


class DiTBlock(nn.Module):
    """Attention and a two-layer network, each after a norm that is scaled and shifted, and before a gate.

    With text, there is a cross-attention between the two.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.dropout = config.dropout
        self.modulate = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.core = AttentionCore()
        self.out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.cross_attention: CrossAttention | None = None
        if context_width(config):
            self.cross_attention = CrossAttention(width, context_width(config), heads=config.heads)

    def encode(self, text: Tensor) -> Tensor:
        """The keys and values of text embeddings (B, L, context)."""
        assert self.cross_attention is not None
        return self.cross_attention.encode(text)

    def forward(
        self, tokens: Tensor, emb: Tensor, keys_values: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        rows = self.modulate(emb)[:, None].chunk(6, dim=2)  # six of (B, 1, D)
        shift, scale, gate = rows[:3]
        q, k, v = split_heads(self.qkv(modulated(tokens, shift, scale)), 3, self.heads)
        attended = self.out(self.core(q, k, v))
        tokens = torch.addcmul(tokens, gate, F.dropout(attended, self.dropout, self.training))
        if self.cross_attention is not None and keys_values is not None:
            tokens = tokens + self.cross_attention(tokens, keys_values, bias)
        shift, scale, gate = rows[3:]
        hidden = F.gelu(self.mlp_in(modulated(tokens, shift, scale)), approximate="tanh")
        fed_forward = self.mlp_out(F.dropout(hidden, self.dropout, self.training))
        return torch.addcmul(tokens, gate, F.dropout(fed_forward, self.dropout, self.training))


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + scale) LN(tokens) + shift, of tokens (B, L, D) and rows (B, 1, D)."""
    return torch.addcmul(shift, F.layer_norm(tokens, tokens.shape[-1:], eps=LN_EPS), 1 + scale)


def initialise(net: DiT) -> None:
    """The paper's initialisation: uniform with variance 2 / (fan in + fan out); N(0, 0.02^2) for embeddings; zero for
    the maps that scale, shift and gate, and for the last one."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))  # a patch as one row
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


def context_width(config: DiTConfig) -> int:
    """The width of the text embeddings that cross-attention reads; 0: there is no cross-attention."""
    return config.context if config.text is None else config.text.width


def _check_supported(cond: Cond) -> None:
    """Raises UserError for conditions that no DiT has."""
    given = {"value": cond.value, "pooled": cond.pooled, "concat": cond.concat}
    given |= {"control": cond.control[0] if cond.control else None, "control_scale": cond.control_scale}
    for name, value in given.items():
        if value is not None:
            raise UserError(f"a DiT is not conditioned on {name}: give none, or use a U-Net")


def check(config: DiTConfig) -> None:
    """Raises UserError for an invalid configuration: which field, its value and what is valid."""
    for name in ("size", "in_channels", "out_channels", "patch", "width", "depth", "heads"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, not {getattr(config, name)}")
    if config.size % config.patch:
        raise UserError(f"size {config.size} is not divisible by patch {config.patch}: change one of the two")
    if config.width % config.heads:
        raise UserError(f"heads {config.heads} does not divide the width {config.width}")
    if config.width % 4:
        raise UserError(f"width must be a multiple of four (sine and cosine of row and column), not {config.width}")
    if config.classes < 0:
        raise UserError(f"classes must be 0 (unconditional) or more, not {config.classes}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"dropout must be at least 0 and below 1, not {config.dropout}")
    if config.mlp_ratio <= 0:
        raise UserError(f"mlp_ratio must be above 0, not {config.mlp_ratio}")
    text.check(config.text, config.context)
