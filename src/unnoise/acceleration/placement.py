"""Where a network computes, in which dtype and memory format: what is fast on the machine at hand.

bfloat16 where the processor multiplies it (AMX and AVX512-BF16 on a CPU, compute capability 8 on CUDA), else float32;
channels_last, which is how those kernels want pictures; on a CPU also the compiled norm (nn/norm.py), memory
that is kept (memory.py), and for inference packed weights (packed.py). Two bfloat16 forwards of a U-Net differ from
float32 by about 1 %.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from unnoise.acceleration import allocator
from unnoise.acceleration.prepack import pack
from unnoise.denoiser import Diffusion
from unnoise.errors import UserError, unknown
from unnoise.nn import norm

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Placement:
    """A device, a dtype, a memory format."""

    device: str = "cpu"  # cpu, cuda, cuda:1, mps
    dtype: torch.dtype = torch.float32
    channels_last: bool = True

    @property
    def precision(self) -> str:
        """The name of the dtype: float32, bfloat16."""
        return str(self.dtype).removeprefix("torch.")


def best(device: str = "auto", precision: str = "auto") -> Placement:
    """The fastest placement of this machine, or of this device, in this precision. Raises UserError."""
    if precision != "auto" and precision not in PRECISIONS:
        raise unknown("precision", precision, ("auto", *PRECISIONS))
    chosen = find(device)
    dtype = PRECISIONS.get(precision) or (torch.bfloat16 if fast_bfloat16(chosen) else torch.float32)
    return Placement(chosen, dtype, channels_last=not chosen.startswith("mps"))


def find(device: str) -> str:
    """The device that is meant and is there. Raises UserError where it is not."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not number.isdigit()):
        raise unknown("device", device, DEVICES)
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if kind == "auto":
        return "cuda" if cards else "mps" if apple else "cpu"
    if (kind == "cuda" and int(number or 0) >= cards) or (kind == "mps" and not apple):
        seen = f"{cards} CUDA devices" if kind == "cuda" else "no Apple GPU"
        raise UserError(f"device {device}: torch sees {seen} here; use cpu or auto")
    return device


def fast_bfloat16(device: str) -> bool:
    """Whether matrices of bfloat16 are multiplied by the hardware."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def place(diffusion: Diffusion, placement: Placement) -> Diffusion:
    """A copy of the diffusion whose network is placed so, to draw with: no gradients. The original stays as it is."""
    weights = {
        id(p): nn.Parameter(p.detach().to(placement.device, placement.dtype), requires_grad=False)
        for p in diffusion.net.parameters()
    }
    placed = copy.deepcopy(diffusion, weights).eval()  # with these weights, never with a second set in float32
    prepare(placed.net, placement).to(placement.dtype)
    if placement.device == "cpu" and placement.channels_last:
        pack(placed.net)
    return placed


def prepare(net: nn.Module, placement: Placement) -> nn.Module:
    """`net` itself, on its device and in its memory format, to be trained: its weights keep their dtype.

    What computes in `placement.dtype` is made of them by training/train_state.py. On a CPU the first call on a
    machine may take a minute: it builds the compiled norm; and this process keeps the memory that it frees.
    """
    net.to(placement.device)
    if placement.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if placement.device == "cpu":
        norm.enable()
        allocator.keep()
    return net
