"""Placement: the device, dtype and memory format of a network, chosen to be fast on the machine at hand.

bfloat16 where the processor multiplies it (AMX and AVX512-BF16 on a CPU, compute capability 8 on CUDA), else float32;
channels_last, which those kernels need; on a CPU also the compiled norm (nn/norm.py), freed memory that stays with the
process (allocator.py), for inference packed weights (prepack.py), and for training the compiled convolution where it is
faster (nn/conv.py). A forward pass of a U-Net in bfloat16 differs from float32 by about 1 %.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from unnoise.acceleration import allocator
from unnoise.acceleration.fork import check_fork
from unnoise.acceleration.prepack import pack
from unnoise.denoiser import Diffusion
from unnoise.errors import UserError, unknown
from unnoise.nn import conv, norm
from unnoise.patch import Patch, patched, shared_copy

Module = TypeVar("Module", bound=nn.Module)
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
    """The fastest placement on this machine, or on the given device and in the given precision. Raises UserError."""
    if precision != "auto" and precision not in PRECISIONS:
        raise unknown("precision", precision, ("auto", *PRECISIONS))
    chosen = find(device)
    dtype = PRECISIONS.get(precision) or (torch.bfloat16 if fast_bfloat16(chosen) else torch.float32)
    return Placement(chosen, dtype, channels_last=not chosen.startswith("mps"))


def find(device: str) -> str:
    """The name of an available device; `auto` is CUDA, else Apple's GPU, else the CPU. Raises UserError."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not number.isdigit()):
        raise unknown("device", device, DEVICES)
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if kind == "auto":
        return "cuda" if cards else "mps" if apple else "cpu"
    if (kind == "cuda" and int(number or 0) >= cards) or (kind == "mps" and not apple):
        available = f"{cards} CUDA devices" if kind == "cuda" else "no Apple GPU"
        raise UserError(f"device {device} is not available: torch finds {available} here; use cpu or auto")
    return device


def fast_bfloat16(device: str) -> bool:
    """Whether the device has instructions for products of bfloat16 matrices."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def place(diffusion: Diffusion, placement: Placement, patches: Sequence[Patch[Any]] = ()) -> Diffusion:
    """A copy of the diffusion for inference, whose network is patched, then placed, and has no gradients.

    The original does not change. Raises ValueError for a patch that matches nothing, and UserError after a fork.
    """
    check_fork()
    diffusion = shared_copy(diffusion)
    diffusion.net = patched(diffusion.net, patches)
    placed = _placed(diffusion, placement)
    _packed(placed.net, placement)
    return placed


def place_autoencoder(net: Module, placement: Placement, *, force_upcast: bool) -> Module:
    """A copy of an autoencoder for inference on the placement's device, without gradients.

    With `force_upcast` it computes in float32: its activations overflow in half precision (Stable Diffusion XL).
    """
    check_fork()
    if force_upcast:
        placement = replace(placement, dtype=torch.float32)
    placed = _placed(net, placement)
    return _packed(placed, placement)


def _placed(module: Module, placement: Placement) -> Module:
    """A copy whose weights are those of `module`, cast and moved: no second set in float32."""
    weights = {
        id(p): nn.Parameter(p.detach().to(placement.device, placement.dtype), requires_grad=False)
        for p in module.parameters()
    }
    placed = copy.deepcopy(module, weights).eval()
    weights.clear()  # else each weight would stay in memory after it is packed
    return placed


def _packed(net: Module, placement: Placement) -> Module:
    """`net` itself in the memory format of the placement, packed where that is possible."""
    _move(net, placement).to(placement.dtype)
    if placement.device == "cpu" and placement.channels_last:
        pack(net)
    return net


def prepare(net: nn.Module, placement: Placement) -> nn.Module:
    """`net` itself, moved to the device and memory format for training; its weights keep their dtype.

    training/train_state.py casts them to `placement.dtype` for computation. On a CPU the first call on a machine may
    take a minute, in which the compiled operations are built. From then on every network of the process uses them, and
    the process keeps the memory that it frees.
    """
    if placement.device == "cpu":
        conv.enable()
    return _move(net, placement)


def _move(net: nn.Module, placement: Placement) -> nn.Module:
    net.to(placement.device)
    if placement.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if placement.device == "cpu":
        norm.enable()
        allocator.retain()
    return net
