"""Group normalisation, with what a U-Net does around it, in one step.

    u = x + add                             the time embedding joins the channels
    y = (u - mean_g) / sqrt(var_g + eps) * weight + bias
    y = y (1 + scale) + shift               the time embedding scales and shifts (AdaGN)
    y = silu(y)

Statistics are over a group's channels and all pixels of one sample (Wu & He 2018), in float32 or wider. Laws
(tests/test_group_norm.py): equal to the four lines above in float64; what is left out changes nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(
    x: Tensor,
    norm: nn.GroupNorm,
    *,
    silu: bool,
    add: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """`norm` of x + add, scaled, shifted and activated, rounded once to the dtype and in the layout of x.

    x is (B, C, H, W) in any layout; add, scale and shift are (B, C); scale and shift come together.
    """
    return plain(x, norm, silu=silu, add=add, scale=scale, shift=shift)


def plain(
    x: Tensor, norm: nn.GroupNorm, *, silu: bool, add: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    """The same through torch's own operations: any device, dtype and layout."""
    # On a CPU torch normalises bfloat16 channels_last with few channels a group on a path 4 to 20 times slower than
    # float32's, so that the way through float32 is the fast one as well as the exact one.
    dtype = torch.float32 if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    y = x.to(dtype)
    if add is not None:
        y = y + add.to(dtype)[:, :, None, None]
    weight = None if norm.weight is None else norm.weight.to(dtype)
    bias = None if norm.bias is None else norm.bias.to(dtype)
    y = F.group_norm(y, norm.num_groups, weight, bias, norm.eps)
    if scale is not None and shift is not None:
        y = y * (1 + scale.to(dtype))[:, :, None, None] + shift.to(dtype)[:, :, None, None]
    if silu:
        y = F.silu(y)
    return y.to(x.dtype)
