"""ControlNet: a copy of a U-Net's encoder reads a control image and adds residuals to the U-Net's skips.

    h = conv_in(x_t) + hint(image);    skip_k <- skip_k + control_scale * zero_k(skip k of the copy)

and the same for the middle. Each zero_k is a 1x1 convolution whose weight and bias are zero at initialisation, so that
the U-Net's output is unchanged then; the last convolution of `hint` is zero too. Zhang et al. 2023, eq. 2; `hint` is
the released code's network (3x3 convolutions and SiLU).

Laws (tests/nn/test_controlnet.py): at initialisation, with control_scale 0 and without a control image the output of
the U-Net alone, bit for bit; one control image twice at half scale is once at scale 1; training changes first the zero
convolutions, then also the copy and the last layer of `hint`, then all of it; the output of diffusers with these
weights (tests/formats/test_stable_diffusion.py).
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
    """A control image (B, channels, s H, s W) in [0, 1], s = config.scale -> (B, width, H, W); zero at first."""

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

    def forward(self, image: Tensor) -> Tensor:
        image = image.flip(1) if self.config.order == "bgr" else image
        h = F.silu(self.conv_in(image))
        for block in self.blocks:
            h = F.silu(block(h))
        out: Tensor = self.conv_out(h)
        return out


class ControlNet(UNetEncoder):
    """x_t, time (B,), a condition, the output of `hint` -> the residual of each skip and of the middle."""

    def __init__(self, config: UNetConfig, control: ControlConfig) -> None:
        super().__init__(replace(config, controls=()))
        self.pooled = control.pooled
        self.hint = Hint(control, config.channels[0])
        self.zero_convs = nn.ModuleList(nn.Conv2d(width, width, 1) for width in self.skip_channels)
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
        pooled: Tensor | None,
        contexts: Iterator[Context],
        run: Run,
    ) -> list[Tensor]:
        """The residual of each skip, in the order of the levels down, and the middle's; `pooled` as in `embed`."""
        emb = self.embed(time, cond, pooled)
        skips = self.down(self.first(x) + hint, emb, contexts, run)
        middle = self.mid_block(skips[-1], emb, contexts, run)
        residuals = [conv(skip) for conv, skip in zip(self.zero_convs, skips, strict=True)]
        residuals.append(self.zero_middle(middle))
        return [residual.mean((2, 3), keepdim=True) for residual in residuals] if self.pooled else residuals


def copy_base(net: nn.Module) -> None:
    """Copies the encoder's weights of a U-Net to each of its control networks; `hint` and the zeros are unchanged."""
    base = net.state_dict()
    for control in net.controls:  # type: ignore[union-attr]  # a UNet, which imports this file
        assert isinstance(control, ControlNet)
        state = control.state_dict()
        for name, tensor in state.items():
            if name in base and not name.startswith("controls."):
                state[name] = base[name][: len(tensor)]  # emb_proj begins with the rows of the encoder
        control.load_state_dict(state)


def scaled(residuals: Sequence[Tensor], scale: Tensor | None) -> list[Tensor]:
    """Residuals times a scale for each row, (B,), or for each row and residual, (B, number of residuals)."""
    if scale is None:
        return list(residuals)
    each = scale.expand(len(residuals), -1) if scale.ndim == 1 else scale.t()
    return [r * s.to(r.dtype).view(-1, 1, 1, 1) for r, s in zip(residuals, each, strict=True)]


def guess_scales(scale: Tensor, residuals: int, *, decay: float = 0.825) -> Tensor:
    """Scales (B, n) as (B, n, residuals), multiplied by decay ** (last - i): the middle, which is last, is unchanged.

    The published code's "guess mode", for sampling from a control image without a prompt; unconditional rows have scale
    0 there.
    """
    depth = torch.arange(residuals - 1, -1, -1, device=scale.device)
    return scale[:, :, None] * decay**depth


def check_hints(cond: Cond, controls: Sequence[ControlConfig]) -> None:
    """Raises UserError for control images or scales that do not fit a network with these controls."""
    count = len(controls)
    if cond.control and len(cond.control) != count:
        wanted = f"{count} control{'s' * (count != 1)}" if count else "no controls"
        raise UserError(
            f"this network has {wanted} and got {len(cond.control)} control images: give one for each control"
        )
    scale = cond.control_scale
    if scale is not None and (scale.ndim not in (2, 3) or scale.shape[1] != count):
        raise UserError(
            f"control_scale must be of shape (rows, {count}) for the {count} controls, not {tuple(scale.shape)}"
        )
    for place, (image, control) in enumerate(zip(cond.control, controls)):
        channels, height, width = image.shape[1:]
        if channels != control.channels or height % control.scale or width % control.scale:
            raise UserError(
                f"control image {place} has {channels} channels and {width}x{height} pixels: its control needs "
                f"{control.channels} channels and multiples of {control.scale} pixels"
            )


def check(config: ControlConfig) -> None:
    """Raises UserError for an invalid configuration of a control."""
    if config.channels < 1 or not config.hint or min(config.hint) < 1:
        raise UserError(f"channels and hint of a control must be at least 1, not {config.channels} and {config.hint}")
    if config.scale < 1 or config.scale & (config.scale - 1):
        raise UserError(f"scale of a control must be a power of two, not {config.scale}")
    if config.scale.bit_length() - 1 > len(config.hint) - 1:
        raise UserError(
            f"scale {config.scale} of a control needs {config.scale.bit_length() - 1} halvings, but its hint of "
            f"{len(config.hint)} widths has {len(config.hint) - 1} steps: add widths to hint"
        )
