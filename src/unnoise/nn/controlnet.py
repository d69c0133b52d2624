"""ControlNet: a copy of a U-Net's way down reads a drawing and adds to what the U-Net's way up is given.

    h = conv_in(x_t) + hint(drawing);    skip_k <- skip_k + strength * zero_k(what the copy left behind, k)

and the same for the middle. Every zero_k is a 1x1 convolution that is zero at birth, weight and bias, so that the
U-Net is unchanged then; the last convolution of `hint` is zero too. Zhang et al. 2023, eq. 2; what reads the drawing is
the released code's (3x3 convolutions and SiLU).

Laws (tests/nn/test_controlnet.py): at birth, at strength 0 and without a drawing the U-Net's numbers, bit for bit; two
of one at half strength are one; learning wakes in three stages: the zero convolutions, then the copy and the last layer
of `hint`, then all of it; what diffusers computes with these weights (tests/formats/test_stable_diffusion.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.conditions import Cond
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.errors import UserError
from unnoise.nn.attention import Context
from unnoise.nn.unet_encoder import Run, UNetEncoder


class Hint(nn.Module):
    """A drawing (B, channels, s H, s W) in [0, 1] -> (B, width, H, W), s = config.scale; zero at birth."""

    def __init__(self, config: ControlConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.conv_in = nn.Conv2d(config.channels, config.hint[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        halvings = config.scale.bit_length() - 1
        for step, (a, b) in enumerate(zip(config.hint, config.hint[1:])):
            self.blocks.append(nn.Conv2d(a, a, 3, padding=1))
            self.blocks.append(nn.Conv2d(a, b, 3, padding=1, stride=2 if step < halvings else 1))
        self.conv_out = nn.Conv2d(config.hint[-1], width, 3, padding=1)

    def forward(self, drawing: Tensor) -> Tensor:
        drawing = drawing.flip(1) if self.config.order == "bgr" else drawing
        h = F.silu(self.conv_in(drawing))
        for block in self.blocks:
            h = F.silu(block(h))
        out: Tensor = self.conv_out(h)
        return out


class ControlNet(UNetEncoder):
    """x_t, time (B,), a condition, what `hint` made of a drawing -> what is added to each skip and to the middle."""

    def __init__(self, config: UNetConfig, how: ControlConfig) -> None:
        super().__init__(replace(config, controls=()))
        self.pooled = how.pooled
        self.hint = Hint(how, config.channels[0])
        self.zero_convs = nn.ModuleList(nn.Conv2d(width, width, 1) for width in self.left)
        self.zero_middle = nn.Conv2d(config.channels[-1], config.channels[-1], 1)
        self.finish()
        for conv in (self.hint.conv_out, *self.zero_convs, self.zero_middle):
            nn.init.zeros_(conv.weight)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Cond,
        hint: Tensor,
        *,
        caption: Tensor | None,
        words: Iterator[Context],
        run: Run,
    ) -> list[Tensor]:
        """A residual for each skip, in the order of the way down, and the middle's; `caption` as in
        `UNetEncoder.embed`."""
        emb = self.embed(time, cond, caption)
        skips = self.down(self.conv_in(x) + hint, emb, words, run)
        middle = self.mid_block(skips[-1], emb, words, run)
        residuals = [conv(skip) for conv, skip in zip(self.zero_convs, skips, strict=True)]
        residuals.append(self.zero_middle(middle))
        return [residual.mean((2, 3), keepdim=True) for residual in residuals] if self.pooled else residuals


def copy_base(net: nn.Module) -> None:
    """Give every control of a U-Net the U-Net's own weights, as training begins; `hint` and the zeros stay."""
    base = net.state_dict()
    for control in net.controls:  # type: ignore[union-attr]  # a UNet, which imports this file
        assert isinstance(control, ControlNet)
        state = control.state_dict()
        for name, tensor in state.items():
            if name in base and not name.startswith("controls."):
                state[name] = base[name][: len(tensor)]  # the map of what is told begins with the way down's rows
        control.load_state_dict(state)


def scaled(residuals: Sequence[Tensor], strength: Tensor | None) -> list[Tensor]:
    """Residuals times a strength for each row, (B,), or for each row and depth, (B, number of residuals)."""
    if strength is None:
        return list(residuals)
    each = strength.expand(len(residuals), -1) if strength.ndim == 1 else strength.t()
    return [r * s.to(r.dtype).view(-1, 1, 1, 1) for r, s in zip(residuals, each, strict=True)]


def guess_scales(strength: Tensor, residuals: int, *, decay: float = 0.825) -> Tensor:
    """Strengths (B, n) as (B, n, residuals) that fade from the middle, the last, to the first: decay ** (last - i).

    The published code's "guess mode", for drawing from a drawing without words; rows that are told nothing are given
    strength 0 there.
    """
    depth = torch.arange(residuals - 1, -1, -1, device=strength.device)
    return strength[:, :, None] * decay**depth


def check_hints(cond: Cond, controls: Sequence[ControlConfig]) -> None:
    """Raises UserError for drawings, or strengths, that a network with these controls cannot take."""
    count = len(controls)
    if cond.control and len(cond.control) != count:
        wanted = f"{count} control{'s' * (count != 1)}" if count else "no controls"
        raise UserError(f"this network has {wanted} and is shown {len(cond.control)} drawings: give it one a control")
    if cond.control_scale is not None and (
        cond.control_scale.ndim not in (2, 3) or cond.control_scale.shape[1] != count
    ):
        raise UserError(
            f"strengths are (rows, {count}) for the {count} controls, not {tuple(cond.control_scale.shape)}"
        )
    for place, (hint, how) in enumerate(zip(cond.control, controls)):
        channels, height, width = hint.shape[1:]
        if channels != how.channels or height % how.scale or width % how.scale:
            raise UserError(
                f"drawing {place} has {channels} channels and {width}x{height} pixels; its control reads "
                f"{how.channels} channels and multiples of {how.scale} pixels"
            )


def check(config: ControlConfig) -> None:
    """Raises UserError for a control that cannot be."""
    if config.channels < 1 or not config.hint or min(config.hint) < 1:
        raise UserError(f"channels and hint of a control are at least 1, not {config.channels} and {config.hint}")
    if config.scale < 1 or config.scale & (config.scale - 1):
        raise UserError(f"scale of a control is a power of two, not {config.scale}")
    if config.scale.bit_length() - 1 > len(config.hint) - 1:
        raise UserError(
            f"scale {config.scale} of a control is {config.scale.bit_length() - 1} halvings, and hint of "
            f"{len(config.hint)} widths has {len(config.hint) - 1} steps: give more widths"
        )
