"""A picture that is joined to x_t as further channels: the picture made small, or with a hole in it.

    small    larger(smaller(x)),                C channels: area means of f x f pixels, each repeated f x f times
    masked   (1 - m) x  and  m,             C + 1 channels: m is 1 in the hole, which is drawn anew

The network sees it beside x_t at every time and learns what belongs to it: super-resolution (Saharia et al. 2021, SR3,
there enlarged by bicubic interpolation) and inpainting (Saharia et al. 2022, Palette; Rombach et al. 2022). Repeated
pixels are what the small picture says and nothing else: no filter on which training and drawing would have to agree.
The hole of a training picture is a box, of sides from a quarter to three quarters of the picture's, anywhere inside it.

Laws (tests/data/test_degrade.py): smaller undoes larger; a constant stays; the joined picture knows nothing of the
hole; all boxes are equally likely; what is known comes out as it went in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOX_DRAWS = ("box height", "box width", "box top", "box left")
"""What a hole is a function of: four uniform numbers of a sample, by these names."""


def downscale(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H / factor, W / factor): the mean of each square."""
    return F.avg_pool2d(x, factor)


def upscale(x: Tensor, factor: int) -> Tensor:
    """(B, C, h, w) -> (B, C, h factor, w factor): each pixel repeated (nearest)."""
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def mask_out(x: Tensor, mask: Tensor) -> Tensor:
    """(B, C, H, W) and a hole (B, 1, H, W), 1 inside, 0 outside -> (B, C + 1, H, W): 0 in the hole, and the hole."""
    return torch.cat([torch.where(mask > 0.5, 0.0, x), mask.to(x)], dim=1)


def boxes(draws: Tensor, height: int, width: int) -> Tensor:
    """Holes (B, 1, height, width) float32, from four uniform numbers each (B, 4): height, width, top and left."""
    down, across = _side(draws[:, 0], height), _side(draws[:, 1], width)
    top = (draws[:, 2] * (height - down + 1)).floor()
    left = (draws[:, 3] * (width - across + 1)).floor()
    rows = _between(torch.arange(height, device=draws.device), top, top + down)  # (B, height)
    columns = _between(torch.arange(width, device=draws.device), left, left + across)
    return (rows[:, None, :, None] & columns[:, None, None, :]).float()


def _side(draw: Tensor, whole: int) -> Tensor:
    """A quarter to three quarters of `whole` pixels, every number of pixels equally likely; at least one."""
    least = -(-whole // 4)
    most = max(least, 3 * whole // 4)
    return least + (draw * (most - least + 1)).floor()


def _between(places: Tensor, first: Tensor, end: Tensor) -> Tensor:
    return (places >= first[:, None]) & (places < end[:, None])


def paste(drawn: Tensor, image: Tensor) -> Tensor:
    """What was drawn in the hole of a masked picture (B, C + 1, H, W), and around it that picture itself."""
    known, hole = image[:, :-1].to(drawn), image[:, -1:].to(drawn.device)
    return torch.where(hole > 0.5, drawn, known)
