"""The encoder of a U-Net, which a control network copies: embeddings, first convolution, levels down, middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.config.networks import UNetConfig
from unnoise.nn.attention import Attention, Context, CrossAttention, SelfAttention
from unnoise.nn.blocks import Block, Down, Residual, Up, context_width, halve
from unnoise.nn.embeddings import (
    TimeEmbedding,
    ValueEmbedding,
    class_rows,
    class_table,
    sinusoid,
    value_rows,
    vector_rows,
)
from unnoise.nn.transformer import Transformer

Run = Callable[..., Tensor]
"""Calls a module with inputs: directly, or with checkpointing, which computes it again for its gradient."""


class UNetEncoder(nn.Module):
    """The part that a U-Net and its control networks have in common. Abstract: subclasses call `finish` at the end."""

    emb_channels: list[int]  # of each residual block and step, in the order in which they run; 0 without an embedding
    depths: list[int]  # the number of cross-attentions of each block, likewise
    emb_proj: nn.Linear

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        first = config.channels[0]
        self.time_embedding = TimeEmbedding(first, 4 * first)
        self.class_embedding = class_table(config.classes, 4 * first, null_class=config.null_class)
        self.value_embedding: ValueEmbedding | None = None
        if config.values and not config.value_width:
            self.value_embedding = ValueEmbedding(config.values, first, 4 * first, null=config.null_value)
        self.vector_embedding: TimeEmbedding | None = None
        if config.vector:
            self.vector_embedding = TimeEmbedding(config.vector + config.values * config.value_width, 4 * first)
        self.pooled_embedding: nn.Linear | None = None  # of the pooled caption; zero at initialisation
        if config.text is not None:
            self.pooled_embedding = nn.Linear(context_width(config), 4 * first)
        self.conv_in = nn.Conv2d(config.patch**2 * (config.in_channels + config.concat_channels), first, 3, padding=1)
        self.skip_channels = [first]  # of the skips, in the order of the levels down
        self.down_blocks = nn.ModuleList(
            DownLevel(config, level, self.skip_channels) for level in range(len(config.channels))
        )
        self.mid_block = Middle(config)

    def finish(self) -> None:
        """Adds `emb_proj`, once all blocks exist, and initialises every weight.

        Each block has its own linear map of the embedding. They are the rows of one matrix, in the order in which the
        blocks run: one product per step instead of one per block (slices.py).
        """
        self.emb_channels = [part.emb_channels for part in self.modules() if isinstance(part, Residual | Down | Up)]
        self.depths = [part.depth for part in self.modules() if isinstance(part, Block)]
        self.emb_proj = nn.Linear(4 * self.config.channels[0], sum(self.emb_channels))
        initialise(self)

    def first(self, x: Tensor) -> Tensor:
        """x (B, C, H, W), with its concatenated channels -> (B, C_0, H / patch, W / patch)."""
        out: Tensor = self.conv_in(F.pixel_unshuffle(x, self.config.patch) if self.config.patch > 1 else x)
        return out

    def embed(self, time: Tensor, cond: Cond, pooled: Tensor | None) -> Iterator[Tensor]:
        """The embedding of time and conditions for each block, (B, emb_channels), in the order in which they run.

        Time is (B,); `pooled` (B, D) is the pooled caption, for a network with a text encoder. All conditions but text
        and control images are in the embedding.
        """
        config, dtype = self.config, self.dtype
        embedding = self.time_embedding(self._waves(time, config.channels[0]).to(dtype))
        batch, device = len(time), time.device
        rows = class_rows(cond, batch, classes=config.classes, null_class=config.null_class, device=device)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(rows)
        null = config.null_value and not config.value_width
        values = value_rows(cond, batch, values=config.values, null=null, device=device)
        vector = vector_rows(cond, config.vector)
        if self.value_embedding is not None and values is not None:
            waves = self._value_waves(values, config.channels[0])
            embedding = embedding + self.value_embedding(waves.to(dtype), values.isnan())
        if self.vector_embedding is not None and vector is not None:
            if values is not None and config.value_width:
                vector = torch.cat([vector.float(), self._value_waves(values, config.value_width).flatten(1)], dim=1)
            embedding = embedding + self.vector_embedding(vector.to(dtype))
        if self.pooled_embedding is not None and pooled is not None:
            embedding = embedding + self.pooled_embedding(pooled)
        return iter(self.emb_proj(F.silu(embedding)).split(self.emb_channels, dim=1))

    def keys_and_values(self, text: Tensor) -> tuple[Tensor, ...]:
        """The keys and values of text embeddings (B, L, context) for each cross-attention, in the order they run."""
        parts = [module for name, module in self.named_modules() if not name.startswith("controls.")]
        return tuple(encoded for block in parts if isinstance(block, Block) for encoded in block.encode(text))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, in which the network computes."""
        return next(self.parameters()).dtype

    @property
    def depth(self) -> int:
        """The number of cross-attentions."""
        return sum(self.depths)

    def contexts(self, keys_values: Sequence[Tensor], bias: Tensor | None) -> Iterator[Context]:
        """The context of each block, in the order in which they run: its part of `keys_and_values`."""
        rest = iter(keys_values)
        return iter([Context(tuple(islice(rest, depth)), bias) for depth in self.depths])

    def down(self, h: Tensor, emb: Iterator[Tensor], contexts: Iterator[Context], run: Run) -> list[Tensor]:
        """The skips of h (B, C_0, H, W): h itself, then the output of each block and step down."""
        skips = [h]
        for level in self.down_blocks:
            skips += level(skips[-1], emb, contexts, run)
        return skips

    def _waves(self, numbers: Tensor, width: int) -> Tensor:
        return sinusoid(numbers, width, shift=self.config.frequency_shift, cosine_first=self.config.cosine_first)

    def _value_waves(self, values: Tensor, width: int) -> Tensor:
        """(B, K) -> (B, K, width); the sinusoid of 0 where a value is missing."""
        return self._waves(values.nan_to_num(0.0).flatten(), width).view(*values.shape, width)


class DownLevel(nn.Module):
    """A level on the way down. Appends to `skip_channels` the channels of each of its outputs."""

    def __init__(self, config: UNetConfig, level: int, skip_channels: list[int]) -> None:
        super().__init__()
        width, attends = config.channels[level], config.attention[level]
        self.blocks = nn.ModuleList()
        for _ in range(config.blocks):
            self.blocks.append(Block(config, skip_channels[-1], level, attends))
            skip_channels.append(width)
        self.step: nn.Module | None = None
        if level < len(config.channels) - 1:
            self.step = Residual(config, width, width, halve) if config.residual_resampling else Down(config, width)
            skip_channels.append(width)

    def forward(self, h: Tensor, emb: Iterator[Tensor], contexts: Iterator[Context], run: Run) -> list[Tensor]:
        """The output of each block and of the step down, which are skips; the last is the next level's input."""
        outputs = [h]
        for block in self.blocks:
            outputs.append(run(block, outputs[-1], next(emb), None, next(contexts)))
        if self.step is not None:
            outputs.append(run(self.step, outputs[-1], next(emb)))
        return outputs[1:]


class Middle(nn.Module):
    """Two blocks at the lowest resolution, attention between them."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width, lowest = config.channels[-1], len(config.channels) - 1
        self.blocks = nn.ModuleList(
            [Block(config, width, lowest, config.middle_attention), Block(config, width, lowest, attends=False)]
        )

    def forward(self, h: Tensor, emb: Iterator[Tensor], contexts: Iterator[Context], run: Run) -> Tensor:
        for block in self.blocks:
            h = run(block, h, next(emb), None, next(contexts))
        return h


def initialise(net: UNetEncoder) -> None:
    """DDPM's initialisation: uniform with variance 2 / (fan in + fan out), no bias; zero for a branch's last map.

    The maps in a fused matrix are each initialised with their own fan out. Embedding tables are N(0, 0.02^2): rows of
    N(0, 1) would outweigh the embedding of time.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for rows in torch.split(net.emb_proj.weight, net.emb_channels):
        if len(rows):
            nn.init.xavier_uniform_(rows)
    for module in net.modules():
        if isinstance(module, Attention | SelfAttention):
            for third in module.qkv.weight.chunk(3):
                nn.init.xavier_uniform_(third)
        if isinstance(module, CrossAttention):
            for half in module.kv.weight.chunk(2):
                nn.init.xavier_uniform_(half)
        if isinstance(module, Attention):
            nn.init.zeros_(module.out.weight)
        elif isinstance(module, Transformer):
            nn.init.zeros_(module.proj_out.weight)
        elif isinstance(module, Residual):
            nn.init.zeros_(module.conv2.weight)
    if net.pooled_embedding is not None:
        nn.init.zeros_(net.pooled_embedding.weight)
