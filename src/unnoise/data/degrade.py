"""Degraded pictures that are concatenated to x_t as further channels: a downscaled picture, or one with a hole in it.

    low_res  upscale(downscale(x)),             C channels: area means of f x f pixels, each repeated f x f times
    masked   (1 - m) x  and  m,             C + 1 channels: m is 1 in the hole, which is generated

The network has it as an input at every time: super-resolution (Saharia et al. 2021, SR3, with bicubic interpolation
instead) and inpainting (Saharia et al. 2022, Palette; Rombach et al. 2022). Pixels are repeated, not interpolated, so
that training and sampling do not depend on the same choice of a filter. The hole of a training picture is a box with
sides of a quarter to three quarters of the picture's, anywhere inside it.

Laws (tests/data/test_degrade.py): downscale undoes upscale; a constant picture stays the same; the masked picture does
not depend on the pixels in the hole; all boxes are equally likely; known pixels are returned unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOX_DRAWS = ("box height", "box width", "box top", "box left")
"""Names of the four uniform numbers of a sample that determine its hole."""


def downscale(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H / factor, W / factor): the mean of each square."""
    return F.avg_pool2d(x, factor)


def upscale(x: Tensor, factor: int) -> Tensor:
    """(B, C, h, w) -> (B, C, h factor, w factor): each pixel repeated (nearest)."""
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def mask_out(x: Tensor, mask: Tensor) -> Tensor:
    """(B, C, H, W), and a mask (B, 1, H, W) that is 1 in the hole -> (B, C + 1, H, W): 0 in the hole, then the mask."""
    return torch.cat([torch.where(mask > 0.5, 0.0, x), mask.to(x)], dim=1)


def boxes(draws: Tensor, height: int, width: int) -> Tensor:
    """Masks (B, 1, height, width) float32, 1 in a box, from four uniform numbers each (B, 4), in BOX_DRAWS' order."""
    down, across = _side(draws[:, 0], height), _side(draws[:, 1], width)
    top = (draws[:, 2] * (height - down + 1)).floor()
    left = (draws[:, 3] * (width - across + 1)).floor()
    rows = _between(torch.arange(height, device=draws.device), top, top + down)  # (B, height)
    columns = _between(torch.arange(width, device=draws.device), left, left + across)
    return (rows[:, None, :, None] & columns[:, None, None, :]).float()


def _side(draw: Tensor, whole: int) -> Tensor:
    """A length from a quarter to three quarters of `whole` pixels, at least one; all lengths are equally likely."""
    least = -(-whole // 4)
    most = max(least, 3 * whole // 4)
    return least + (draw * (most - least + 1)).floor()


def _between(positions: Tensor, first: Tensor, end: Tensor) -> Tensor:
    return (positions >= first[:, None]) & (positions < end[:, None])


def paste(sample: Tensor, image: Tensor) -> Tensor:
    """`sample` (B, C, H, W) in the hole of a masked picture (B, C + 1, H, W), and around the hole that picture."""
    known, hole = image[:, :-1].to(sample), image[:, -1:].to(sample.device)
    return torch.where(hole > 0.5, sample, known)
