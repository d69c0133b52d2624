"""Networks with random weights everywhere, also where initial weights are zero."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def randomised(net: Net, tables: str | None = None) -> Net:
    """The network with random weights that keep signals at size one, so that each weight changes the output.

    Weights with `tables` in their name, whose rows are looked up, are N(0, 1).
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1 and not (tables and tables in name):
            values = values / parameter[0].numel() ** 0.5
        parameter.data = 1 + 0.3 * values if "norm" in name and name.endswith("weight") else values
    return net.eval()
