"""The U-Net of DDPM, with the options of its descendants (improved DDPM, ADM).

    in -> [blocks, step down] a level -> middle -> [blocks with skips, step up] a level -> out

A level is a resolution: `blocks` residual blocks on the way down, each followed by attention where the level attends,
and one more on the way up, where every block is also given what one part of the way down left behind. What time and
class say is added to a block between its two convolutions, or scales and shifts its second norm.
Ho et al. 2020, App. B; Nichol & Dhariwal 2021; Dhariwal & Nichol 2021, sec. 3.

Laws (tests/test_unet.py): the published parameter counts; zero output at birth; a scale and shift of zero is a plain
norm; a sample does not see its batch; what diffusers computes with these weights (tests/test_diffusers_format.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.conditions import Cond
from unnoise.errors import UserError
from unnoise.nn.attention import Attention
from unnoise.nn.embeddings import TimeEmbedding, class_rows, class_table, sinusoid
from unnoise.nn.group_norm import group_norm
from unnoise.settings import UNetConfig

Run = Callable[..., Tensor]
"""How a part is called: as it is, or so that it forgets what it computed and computes it again for its gradient."""


class UNet(nn.Module):
    """(B, C_in, H, W), time (B,), a condition -> (B, C_out, H, W), in the dtype and layout of its weights.

    While `checkpointing` is true no part keeps more than its inputs for the gradient: less memory, a third more work,
    the same numbers. Raises UserError for a configuration that no network has.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        check(config)
        self.config = config
        self.checkpointing = False
        first = config.channels[0]

        self.time_embedding = TimeEmbedding(first, 4 * first)
        self.class_embedding = class_table(config.classes, 4 * first, null_class=config.null_class)
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        left = [first]  # channels of what the way down leaves behind, in order
        self.down_blocks = nn.ModuleList(DownLevel(config, level, left) for level in range(len(config.channels)))
        self.mid_block = Middle(config)
        self.up_blocks = nn.ModuleList(UpLevel(config, level, left) for level in reversed(range(len(config.channels))))
        self.conv_norm_out = nn.GroupNorm(config.groups, first, eps=config.norm_eps)
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)

        # Each part has its own linear map of what is told. They stand in one matrix, one below the other in the order
        # in which the parts run: one product a step instead of one a block.
        self.shares = [part.share for part in self.modules() if isinstance(part, Residual | Down | Up)]
        self.tell = nn.Linear(4 * first, sum(self.shares))
        initialise(self)

    def forward(self, x: Tensor, time: Tensor, cond: Cond) -> Tensor:
        _fits(x, 2 ** (len(self.config.channels) - 1))
        told = self.told(time, cond)
        h: Tensor = self.conv_in(x)
        skips = [h]
        for level in self.down_blocks:
            skips += level(skips[-1], told, self.run)
        h = self.mid_block(skips[-1], told, self.run)
        for level in self.up_blocks:
            h = level(h, skips, told, self.run)
        out: Tensor = self.conv_out(group_norm(h, self.conv_norm_out, silu=True))
        return out

    def told(self, time: Tensor, cond: Cond) -> Iterator[Tensor]:
        """What each part is told of time (B,) and class, (B, share) a part, in the order in which they run."""
        config = self.config
        waves = sinusoid(time, config.channels[0], shift=config.frequency_shift, cosine_first=config.cosine_first)
        embedding = self.time_embedding(waves.to(self.tell.weight.dtype))
        rows = class_rows(cond, len(time), classes=config.classes, null_class=config.null_class, device=time.device)
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(rows)
        return iter(self.tell(F.silu(embedding)).split(self.shares, dim=1))

    def run(self, part: nn.Module, *inputs: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            forgetful: Tensor = checkpoint(part, *inputs, use_reentrant=False)
            return forgetful
        out: Tensor = part(*inputs)
        return out


# --- levels -----------------------------------------------------------------------------------------------------------


class DownLevel(nn.Module):
    """A resolution on the way down. Notes in `left` how many channels each of its parts leaves behind."""

    def __init__(self, config: UNetConfig, level: int, left: list[int]) -> None:
        super().__init__()
        width, attends = config.channels[level], config.attention[level]
        self.blocks = nn.ModuleList()
        for _ in range(config.blocks):
            self.blocks.append(Block(config, left[-1], width, attends))
            left.append(width)
        self.step: nn.Module | None = None
        if level < len(config.channels) - 1:
            self.step = Residual(config, width, width, halve) if config.residual_resampling else Down(config, width)
            left.append(width)

    def forward(self, h: Tensor, told: Iterator[Tensor], run: Run) -> list[Tensor]:
        """What each part leaves behind; the last of it goes on down."""
        left = [h]
        for block in self.blocks:
            left.append(run(block, left[-1], next(told)))
        if self.step is not None:
            left.append(run(self.step, left[-1], next(told)))
        return left[1:]


class Middle(nn.Module):
    """Two blocks at the lowest resolution, attention between them."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.blocks = nn.ModuleList(
            [Block(config, width, width, config.middle_attention), Block(config, width, width, attends=False)]
        )

    def forward(self, h: Tensor, told: Iterator[Tensor], run: Run) -> Tensor:
        for block in self.blocks:
            h = run(block, h, next(told))
        return h


class UpLevel(nn.Module):
    """A resolution on the way up. Takes from `left` the channels of the skips that its blocks are given."""

    def __init__(self, config: UNetConfig, level: int, left: list[int]) -> None:
        super().__init__()
        width, attends = config.channels[level], config.attention[level]
        below = config.channels[min(level + 1, len(config.channels) - 1)]
        self.blocks = nn.ModuleList(
            Block(config, (width if i else below) + left.pop(), width, attends) for i in range(config.blocks + 1)
        )
        self.step: nn.Module | None = None
        if level > 0:
            self.step = Residual(config, width, width, double) if config.residual_resampling else Up(width)

    def forward(self, h: Tensor, skips: list[Tensor], told: Iterator[Tensor], run: Run) -> Tensor:
        for block in self.blocks:
            h = run(block, h, next(told), skips.pop())
        return h if self.step is None else run(self.step, h, next(told))


# --- parts: each is called with its input and what it is told ---------------------------------------------------------


class Block(nn.Module):
    """A residual block and, where the level attends, attention over its output."""

    def __init__(self, config: UNetConfig, c_in: int, c_out: int, attends: bool) -> None:
        super().__init__()
        self.resnet = Residual(config, c_in, c_out)
        self.attention: Attention | None = None
        if attends:
            self.attention = Attention(c_out, heads=heads(config, c_out), groups=config.groups, eps=config.norm_eps)

    def forward(self, h: Tensor, told: Tensor, skip: Tensor | None = None) -> Tensor:
        h = self.resnet(h if skip is None else torch.cat([h, skip], dim=1), told)
        if self.attention is not None:
            h = self.attention(h)
        return h


class Residual(nn.Module):
    """norm, SiLU, [resample], convolution, what is told, norm, SiLU, dropout, convolution; added to the input.

    (B, C_in, H, W) and `told` (B, C_out), or (B, 2 C_out) as (scale, shift) -> (B, C_out, H', W').
    """

    def __init__(
        self, config: UNetConfig, c_in: int, c_out: int, resample: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.share = 2 * c_out if config.scale_shift else c_out
        self.dropout = config.dropout
        self.resample = resample
        self.norm1 = nn.GroupNorm(config.groups, c_in, eps=config.norm_eps)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(config.groups, c_out, eps=config.norm_eps)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = group_norm(x, self.norm1, silu=True)
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h)
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = group_norm(h, self.norm2, silu=True, scale=scale, shift=shift)
        else:
            h = group_norm(h, self.norm2, silu=True, add=told)
        h = self.conv2(F.dropout(h, self.dropout, self.training))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return torch.add(x, h)


class Down(nn.Module):
    """Half the size, by a convolution that steps by two. DDPM pads right and bottom only, as TensorFlow's "SAME"."""

    share = 0

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.asymmetric = config.asymmetric_padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if self.asymmetric else 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Up(nn.Module):
    """Twice the size: every pixel four times, then a convolution."""

    share = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        out: Tensor = self.conv(double(x))
        return out


def halve(x: Tensor) -> Tensor:
    """The mean of every 2x2 square."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Every pixel four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def heads(config: UNetConfig, channels: int) -> int:
    """How many heads attend over this many channels: as many as asked for, or as wide as asked for, or one."""
    if config.head_width is not None:
        return channels // config.head_width
    return config.heads or 1


# --- birth ------------------------------------------------------------------------------------------------------------


def initialise(net: UNet) -> None:
    """DDPM's: uniform with variance 2 / (fan in + fan out), no bias; what a branch or the net ends with is zero.

    Maps that share a matrix are drawn each with its own fan out. Classes are told softly: beside rows of N(0, 1) the
    time would not be heard.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # ours all have one
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for rows in torch.split(net.tell.weight, net.shares):
        if len(rows):
            nn.init.xavier_uniform_(rows)
    for module in net.modules():
        if isinstance(module, Attention):
            for third in module.qkv.weight.chunk(3):
                nn.init.xavier_uniform_(third)
            nn.init.zeros_(module.out.weight)
        elif isinstance(module, Residual):
            nn.init.zeros_(module.conv2.weight)
    nn.init.zeros_(net.conv_out.weight)


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
        raise UserError(f"dropout is a share below 1, not {config.dropout}")
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
    _check_heads(config)


def _check_heads(config: UNetConfig) -> None:
    if config.heads is not None and config.head_width is not None:
        raise UserError("heads and head_width say the same thing twice: give one of them")
    attending = [width for width, attends in zip(config.channels, config.attention, strict=True) if attends]
    attending += [config.channels[-1]] if config.middle_attention else []
    name, number = ("heads", config.heads) if config.head_width is None else ("head_width", config.head_width)
    for width in attending:
        if number is not None and (number < 1 or width % number):
            raise UserError(f"{name} {number} does not divide the {width} channels of a level that attends")


def _fits(x: Tensor, multiple: int) -> None:
    if x.shape[-1] % multiple or x.shape[-2] % multiple:
        raise UserError(f"pictures of {x.shape[-1]}x{x.shape[-2]} do not fit this network: multiples of {multiple} do")
