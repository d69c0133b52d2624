"""Random inputs and weights of group norms."""

from __future__ import annotations

import torch
from torch import nn

from unnoise.nn.norm import Norm


def draw(shape, dtype=torch.float32, layout=torch.contiguous_format, seed=0, options=("add", "scale", "shift")):
    torch.manual_seed(seed)
    b, c = shape[:2]
    x = (1.5 * torch.randn(shape) + 0.7).to(dtype).contiguous(memory_format=layout)
    added = {name: torch.randn(b, c) for name in options}
    return x, added


def norm_of(c: int, groups: int) -> Norm:
    norm = Norm(groups, c, eps=1e-5)
    nn.init.normal_(norm.weight, 1.0, 0.5)
    nn.init.normal_(norm.bias)
    return norm
