"""Copies from the CPU to a graphics card for which the host does not wait.

CUDA copies memory while both sides go on working if it is pinned, that is, never moved by the operating system. The
numbers of MPS are in the CPU's own memory. float64 stays on the CPU, because not every device has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNPINNED = ("cpu", "mps", "meta")  # types of devices whose copies need no pinned memory


def send(x: Tensor, device: torch.device | str) -> Tensor:
    """`x` on a device. From the CPU to CUDA the copy goes through pinned memory, and the host does not wait for it."""
    device = torch.device(device)
    if device.type in UNPINNED or x.device.type != "cpu":
        return x.to(device)
    return pin(x, device).to(device, non_blocking=True)


def pin(x: Tensor, device: torch.device | str) -> Tensor:
    """`x` in pinned memory, if a copy of it to this device needs that; else `x` itself."""
    if torch.device(device).type in UNPINNED or x.device.type != "cpu" or x.numel() == 0 or x.is_pinned():
        return x
    return x.pin_memory()
