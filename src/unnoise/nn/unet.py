"""The U-Net of DDPM, with the options of its descendants (improved DDPM, ADM, latent diffusion, ControlNet).

    in -> [blocks, step down] a level -> middle -> [blocks with skips, step up] a level -> out

A level is a resolution: `blocks` residual blocks on the way down, each followed by attention where the level attends,
and one more on the way up, where every block is also given what one part of the way down left behind. What time, class,
numbers and vectors say is added to a block between its two convolutions, or scales and shifts its second norm. Where
words are read, attention is a transformer (transformer.py). Drawings speak through controls (control.py).
Ho et al. 2020, App. B; Nichol & Dhariwal 2021; Dhariwal & Nichol 2021, sec. 3; Rombach et al. 2022; Zhang et al. 2023.

Laws (tests/nn/test_unet.py, tests/nn/test_transformer.py, tests/nn/test_controlnet.py): the published parameter counts;
zero output at birth; a scale and shift of zero is a plain norm; a sample does not see its batch; a condition that was
encoded beforehand gives the same bits; what diffusers computes with these weights (tests/formats/test_diffusers.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.conditions import Cond
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.nn import controlnet as controls
from unnoise.nn import text
from unnoise.nn.attention import Context, score_bias
from unnoise.nn.blocks import Block, Down, Residual, Up, a_level, context, double, heads
from unnoise.nn.controlnet import ControlNet
from unnoise.nn.embeddings import concat
from unnoise.nn.norm import group_norm
from unnoise.nn.text import TextEncoder
from unnoise.nn.unet_encoder import Run, UNetEncoder

__all__ = ["Block", "Down", "Residual", "UNet", "Up", "check", "heads"]


class UNet(UNetEncoder):
    """(B, C_in, H, W), time (B,), a condition -> (B, C_out, H, W), in the dtype and layout of its weights.

    While `checkpointing` is true no part keeps more than its inputs for the gradient: less memory, a third more work,
    the same numbers. Raises UserError for a configuration that no network has, and for a condition that it cannot hear.
    """

    def __init__(self, config: UNetConfig) -> None:
        check(config)
        super().__init__(config)
        self.checkpointing = False
        left = list(self.left)
        self.up_blocks = nn.ModuleList(UpLevel(config, level, left) for level in reversed(range(len(config.channels))))
        self.conv_norm_out = nn.GroupNorm(config.groups, config.channels[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(config.channels[0], config.out_channels, 3, padding=1)
        self.text = TextEncoder(config.text) if config.text is not None else None
        self.finish()
        nn.init.zeros_(self.conv_out.weight)
        self.controls = nn.ModuleList(ControlNet(config, how) for how in config.controls)
        controls.copy_base(self)

    def encode(self, cond: Cond) -> Cond:
        """The same condition, with all that depends on neither x nor time computed: `encoded` instead of captions and
        drawings. Whoever asks the network many times calls this once; the numbers are the same, bit for bit.

        Its rows can be cut, joined and replaced by rows that were encoded too.
        """
        if text.is_encoded(cond):
            return cond
        controls.check_hints(cond, self.config.controls)
        encoded: list[Tensor] = []
        mask = cond.mask
        dtype = self.emb_proj.weight.dtype
        read = text.encode_text(cond, self.text, context(self.config))
        if read is not None:
            words, mask = read[0].to(dtype), read[1]
            if self.text is not None:
                encoded.append(text.pooled(words, mask))
            encoded += self.keys_and_values(words)
        for control, hint in zip(self.each_control(), cond.control):
            encoded.append(control.hint(hint.to(dtype)))
            if read is not None:
                encoded += control.keys_and_values(words)
        if not encoded:
            return cond
        return replace(cond, tokens=None, text=None, control=(), mask=mask, encoded=tuple(encoded))

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        _fits(x, 2 ** (len(self.config.channels) - 1))
        cond = self.encode(cond)
        drawn = self._drawn(cond)
        encoded = iter(cond.encoded)
        caption = next(encoded) if self.text is not None else None
        bias = score_bias(cond.mask, x.dtype) if self.depth else None
        emb, words = self.embed(time, cond, caption), self.contexts(encoded, bias)
        x = concat(x, cond, self.config.concat_channels)
        skips = self.down(self.conv_in(x), emb, words, self.run)
        h = self.mid_block(skips[-1], emb, words, self.run)
        steered: list[Tensor] = []  # what all controls together add to each skip, and to the middle
        for place, control in enumerate(self.each_control() if drawn else ()):
            hint, read = _on(x, next(encoded)), control.contexts(encoded, bias)
            residuals = control(x, time, cond, hint, caption=caption, words=read, run=self.run)
            residuals = controls.scaled(residuals, None if cond.control_scale is None else cond.control_scale[:, place])
            steered = [a + b for a, b in zip(steered, residuals)] or residuals
        if steered:
            *skips, h = [left + add for left, add in zip((*skips, h), steered, strict=True)]
        for level in self.up_blocks:
            h = level(h, skips, emb, words, self.run)
        out: Tensor = self.conv_out(group_norm(h, self.conv_norm_out, silu=True))
        return out

    def each_control(self) -> list[ControlNet]:
        return [control for control in self.controls if isinstance(control, ControlNet)]

    def run(self, part: nn.Module, *inputs: Tensor | Context | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            forgetful: Tensor = checkpoint(part, *inputs, use_reentrant=False)
            return forgetful
        out: Tensor = part(*inputs)
        return out

    def _drawn(self, cond: Cond) -> bool:
        """Whether drawings were encoded. Raises UserError for what another network encoded."""
        mine = self.depth + (self.text is not None)
        with_drawings = mine + sum(1 + control.depth for control in self.each_control())
        if len(cond.encoded) not in (mine, with_drawings):
            raise UserError(
                f"{len(cond.encoded)} tensors were encoded of this condition, this network hears {mine}, with drawings "
                f"{with_drawings}: it was encoded by another network, and has to be encoded anew"
            )
        return len(cond.encoded) > mine


class UpLevel(nn.Module):
    """A resolution on the way up. Takes from `left` the channels of the skips that its blocks are given."""

    def __init__(self, config: UNetConfig, level: int, left: list[int]) -> None:
        super().__init__()
        width, attends = config.channels[level], config.attention[level]
        below = config.channels[min(level + 1, len(config.channels) - 1)]
        self.blocks = nn.ModuleList(
            Block(config, (width if i else below) + left.pop(), level, attends) for i in range(config.blocks + 1)
        )
        self.step: nn.Module | None = None
        if level > 0:
            self.step = Residual(config, width, width, double) if config.residual_resampling else Up(width)

    def forward(
        self, h: Tensor, skips: list[Tensor], emb: Iterator[Tensor], words: Iterator[Context], run: Run
    ) -> Tensor:
        for block in self.blocks:
            h = run(block, h, next(emb), skips.pop(), next(words))
        return h if self.step is None else run(self.step, h, next(emb))


# --- what can be built and shown --------------------------------------------------------------------------------------


def check(config: UNetConfig) -> None:
    """Raises UserError for a configuration that no network has: what is wrong with which field."""
    levels = len(config.channels)
    if not levels or min(config.channels) < 1:
        raise UserError(f"channels is a width a level, the finest first, as 64,128,256; not {config.channels}")
    if len(config.attention) != levels:
        raise UserError(f"attention says yes or no a level: {levels} times here, not {len(config.attention)}")
    small = {"blocks": config.blocks, "groups": config.groups, "size": config.size}
    small |= {"in_channels": config.in_channels, "out_channels": config.out_channels}
    for name, value in small.items():
        if value < 1:
            raise UserError(f"{name} is at least 1, not {value}")
    if config.classes < 0:
        raise UserError(f"classes is 0 (unconditional) or more, not {config.classes}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"dropout is a emb_channels below 1, not {config.dropout}")
    if config.size % 2 ** (levels - 1):
        raise UserError(
            f"size {config.size} cannot be halved {levels - 1} times, as {levels} levels of channels ask: "
            "take fewer levels or another size"
        )
    for width in config.channels:
        if width % config.groups:
            raise UserError(f"channels {width} do not divide into groups of {config.groups}: change one of the two")
    if config.channels[0] % 2 or config.channels[0] < 4:
        raise UserError(
            f"the first of channels is the width of the time's sinusoid: even, 4 at least, not {config.channels[0]}"
        )
    _check_told(config)
    _check_heads(config)
    for how in config.controls:
        controls.check(how)


def _check_told(config: UNetConfig) -> None:
    for name in ("values", "vector", "value_width", "concat_channels"):
        if getattr(config, name) < 0:
            raise UserError(f"{name} is 0 (none) or more, not {getattr(config, name)}")
    if config.value_width and not (config.values and config.vector and config.value_width % 2 == 0):
        raise UserError("value_width is an even width, of values that are told beside a vector: give values and vector")
    text.check(config.text, config.context)
    if context(config) and not (any(config.attention) or config.middle_attention):
        raise UserError("words are told and no level attends to them: set attention or middle_attention")
    depths = config.transformers if isinstance(config.transformers, tuple) else (config.transformers,)
    if isinstance(config.transformers, tuple) and len(depths) != len(config.channels):
        raise UserError(f"transformers is a number, or one for each of {len(config.channels)} levels, not {depths}")
    if min(depths, default=0) < 1:
        raise UserError(f"transformers is at least 1, not {config.transformers}")


def _check_heads(config: UNetConfig) -> None:
    if config.heads is not None and config.head_width is not None:
        raise UserError("heads and head_width say the same thing twice: give one of them")
    levels = len(config.channels)
    if isinstance(config.heads, tuple) and len(config.heads) != levels:
        raise UserError(f"heads is a number, or one for each of {levels} levels, not {config.heads}")
    attending = {level for level, attends in enumerate(config.attention) if attends}
    attending |= {levels - 1} if config.middle_attention else set()
    for level in sorted(attending):
        name, number = "head_width", config.head_width
        if config.heads is not None:
            name, number = "heads", a_level(config.heads, level)
        width = config.channels[level]
        if number is not None and (number < 1 or width % number):
            raise UserError(f"{name} {number} does not divide the {width} channels of a level that attends")


def _fits(x: Tensor, multiple: int) -> None:
    if x.shape[-1] % multiple or x.shape[-2] % multiple:
        raise UserError(f"pictures of {x.shape[-1]}x{x.shape[-2]} do not fit this network: multiples of {multiple} do")


def _on(x: Tensor, hint: Tensor) -> Tensor:
    """What was encoded of a drawing, if it is of the size of x. Raises UserError."""
    if hint.shape[2:] != x.shape[2:]:
        raise UserError(
            f"a drawing for {hint.shape[3]}x{hint.shape[2]} beside an x_t of {x.shape[3]}x{x.shape[2]}: give it in the "
            "size of the picture"
        )
    return hint
