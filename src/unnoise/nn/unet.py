"""The U-Net of DDPM, with the options of its descendants (improved DDPM, ADM, latent diffusion, ControlNet).

    in -> [blocks, step down] per level -> middle -> [blocks with skips, step up] per level -> out

A level is a resolution: on the way down `blocks` residual blocks, each followed by attention where the level has it; on
the way up one more, each of which also reads a skip: the input of the level, or the output of a block or step on the
way down. The embedding of time, class, values and pooled vector is added in each residual block between its two
convolutions, or scales and shifts its second norm. If the network reads text, attention is a transformer
(transformer.py). Control images act through control networks (controlnet.py).
Ho et al. 2020, App. B; Nichol & Dhariwal 2021; Dhariwal & Nichol 2021, sec. 3; Rombach et al. 2022; Zhang et al. 2023.

Laws (tests/nn/test_unet.py, tests/nn/test_transformer.py, tests/nn/test_controlnet.py): the published parameter counts;
zero output at initialisation; a scale and shift of zero is a plain norm; a sample's output does not depend on its
batch; a condition encoded beforehand gives the same bits; the output of diffusers with these weights
(tests/formats/test_diffusers.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.conditions import Cond, Encoded, EncodedControl
from unnoise.config.networks import UNetConfig
from unnoise.errors import UserError
from unnoise.nn import controlnet, text
from unnoise.nn.attention import Context, score_bias
from unnoise.nn.blocks import Block, Down, Residual, Up, context_width, double, heads
from unnoise.nn.controlnet import ControlNet
from unnoise.nn.embeddings import concat
from unnoise.nn.norm import Norm
from unnoise.nn.text import TextEncoder
from unnoise.nn.unet_check import check
from unnoise.nn.unet_encoder import Run, UNetEncoder

__all__ = ["Block", "Down", "Residual", "UNet", "Up", "check", "heads"]


class UNet(UNetEncoder):
    """(B, C_in, H, W), time (B,), a condition -> (B, C_out, H, W), in the dtype and layout of its weights.

    With `checkpointing` the activations inside each block are computed again for the gradient instead of stored: less
    memory, a third more work, the same numbers. Raises UserError for an invalid configuration, and for a condition that
    does not fit it.
    """

    def __init__(self, config: UNetConfig) -> None:
        check(config)
        super().__init__(config)
        self.checkpointing = False
        skips = list(self.skip_channels)
        self.up_blocks = nn.ModuleList(UpLevel(config, level, skips) for level in reversed(range(len(config.channels))))
        self.conv_norm_out = Norm(config.groups, config.channels[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(config.channels[0], config.patch**2 * config.out_channels, 3, padding=1)
        self.text = TextEncoder(config.text) if config.text is not None else None
        self.finish()
        nn.init.zeros_(self.conv_out.weight)
        self.controls = nn.ModuleList(ControlNet(config, control) for control in config.controls)
        controlnet.copy_base(self)

    def encode(self, cond: Cond) -> Cond:
        """The condition with `encoded`, all that depends on neither x nor time, in place of text and control images.

        Call this once before calling the network many times; the numbers are the same, bit for bit. Rows of encoded
        conditions can be selected, concatenated and replaced.
        """
        if text.is_encoded(cond):
            return cond
        controlnet.check_hints(cond, self.config.controls)
        embeddings, mask = text.encode_text(cond, self.text, context_width(self.config))
        pooled: Tensor | None = None
        keys_values: tuple[Tensor, ...] = ()
        if embeddings is not None:
            embeddings = embeddings.to(self.dtype)
            pooled = text.pooled(embeddings, mask) if self.text is not None else None
            keys_values = self.keys_and_values(embeddings)
        controls = tuple(
            EncodedControl(
                control.hint(image.to(self.dtype)), () if embeddings is None else control.keys_and_values(embeddings)
            )
            for control, image in zip(self.each_control(), cond.control)
        )
        if embeddings is None and not controls:
            return cond
        encoded = Encoded(pooled, keys_values, controls)
        return replace(cond, tokens=None, text=None, control=(), mask=mask, encoded=encoded)

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        _check_size(x, self.config.patch * 2 ** (len(self.config.channels) - 1))
        cond = self.encode(cond)
        encoded = cond.encoded or Encoded()
        self._check_encoded(encoded)
        bias = score_bias(cond.mask, x.dtype) if self.depth else None
        emb, contexts = self.embed(time, cond, encoded.pooled), self.contexts(encoded.keys_values, bias)
        x = concat(x, cond, self.config.concat_channels)
        skips = self.down(self.first(x), emb, contexts, self.run)
        h = self.mid_block(skips[-1], emb, contexts, self.run)
        residuals = self._control_residuals(x, time, cond, encoded, bias)
        if residuals:
            *skips, h = [skip + residual for skip, residual in zip((*skips, h), residuals, strict=True)]
        for level in self.up_blocks:
            h = level(h, skips, emb, contexts, self.run)
        out: Tensor = self.conv_out(self.conv_norm_out(h, silu=True))
        return F.pixel_shuffle(out, self.config.patch) if self.config.patch > 1 else out

    def each_control(self) -> list[ControlNet]:
        return [control for control in self.controls if isinstance(control, ControlNet)]

    def run(self, part: nn.Module, *inputs: Tensor | Context | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(part, *inputs, use_reentrant=False)
            return recomputed
        out: Tensor = part(*inputs)
        return out

    def _control_residuals(
        self, x: Tensor, time: Tensor, cond: Cond, encoded: Encoded, bias: Tensor | None
    ) -> list[Tensor]:
        """The sum over control networks of their residuals for each skip, and for the middle; [] without any."""
        total: list[Tensor] = []
        for place, (control, own) in enumerate(zip(self.each_control(), encoded.controls)):
            _check_hint(x, own.hint, self.config.patch)
            contexts = control.contexts(own.keys_values, bias)
            residuals = control(x, time, cond, own.hint, pooled=encoded.pooled, contexts=contexts, run=self.run)
            scale = None if cond.control_scale is None else cond.control_scale[:, place]
            residuals = controlnet.scaled(residuals, scale)
            total = [a + b for a, b in zip(total, residuals)] or residuals
        return total

    def _check_encoded(self, encoded: Encoded) -> None:
        """Raises UserError for what another network encoded."""
        depths = [control.depth for control in self.each_control()]
        given = [len(each.keys_values) for each in encoded.controls]
        right = len(encoded.keys_values) == self.depth and (encoded.pooled is None) == (self.text is None)
        if not right or given not in ([], depths):
            raise UserError(
                f"this condition was encoded by another network (keys and values of {len(encoded.keys_values)} "
                f"cross-attentions and {len(given)} control images, expected {self.depth} and {len(depths)}): "
                "encode it with this one"
            )


class UpLevel(nn.Module):
    """A level on the way up. Removes from `skip_channels`, from its end, those of the skips that its blocks read."""

    def __init__(self, config: UNetConfig, level: int, skip_channels: list[int]) -> None:
        super().__init__()
        width, attends = config.channels[level], config.attention[level]
        below = config.channels[min(level + 1, len(config.channels) - 1)]
        self.blocks = nn.ModuleList(
            Block(config, (width if i else below) + skip_channels.pop(), level, attends)
            for i in range(config.blocks + 1)
        )
        self.step: nn.Module | None = None
        if level > 0:
            self.step = Residual(config, width, width, double) if config.residual_resampling else Up(width)

    def forward(
        self, h: Tensor, skips: list[Tensor], emb: Iterator[Tensor], contexts: Iterator[Context], run: Run
    ) -> Tensor:
        for block in self.blocks:
            h = run(block, h, next(emb), skips.pop(), next(contexts))
        return h if self.step is None else run(self.step, h, next(emb))


def _check_size(x: Tensor, multiple: int) -> None:
    if x.shape[-1] % multiple or x.shape[-2] % multiple:
        raise UserError(
            f"pictures of {x.shape[-1]}x{x.shape[-2]} do not fit this network: width and height must be multiples of "
            f"{multiple}"
        )


def _check_hint(x: Tensor, hint: Tensor, patch: int) -> None:
    height, width = (patch * side for side in hint.shape[2:])
    if (height, width) != x.shape[2:]:
        raise UserError(
            f"a control image for pictures of {width}x{height} with an x_t of {x.shape[3]}x{x.shape[2]}: "
            "give it in the size of the picture"
        )
