"""Networks with random weights everywhere, those that are zero at birth too."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def randomised(net: Net, tables: str | None = None) -> Net:
    """Every weight drawn so that signals stay of size one: large enough that each one shows in the output.

    Those with `tables` in their name, of which rows are looked up, are drawn of size one as they are.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1 and not (tables and tables in name):
            draw = draw / parameter[0].numel() ** 0.5
        parameter.data = 1 + 0.3 * draw if "norm" in name and name.endswith("weight") else draw
    return net.eval()
