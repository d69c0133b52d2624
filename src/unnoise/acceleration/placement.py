"""Placement: the device, dtype and memory format of a network, chosen to be fast on the machine at hand.

bfloat16 where the processor multiplies it (AMX and AVX512-BF16 on a CPU, compute capability 8 on CUDA), else float32,
unless another precision was measured to be faster for the network (choices.py);
channels_last, which those kernels need; on a CPU also the compiled norm (nn/norm.py), freed memory that stays with the
process (allocator.py), for inference packed weights (prepack.py), and for training the compiled convolution where it is
faster (nn/conv.py). A forward pass of a U-Net in bfloat16 differs from float32 by about 1 %. `exact` is float32 by the
formula itself, where float32 takes Winograd's convolution for its speed. float32 on CUDA is so in convolutions too,
unless `tf32` is chosen; the network that is placed last decides.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from unnoise.acceleration import allocator, choices
from unnoise.acceleration.fork import check_fork
from unnoise.acceleration.prepack import pack
from unnoise.denoiser import Diffusion
from unnoise.errors import UserError, unknown
from unnoise.nn import conv, norm
from unnoise.patch import Patch, patched, shared_copy

Module = TypeVar("Module", bound=nn.Module)
PRECISIONS = {"float32": torch.float32, "exact": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Placement:
    """A device, a dtype, a memory format."""

    device: str = "cpu"  # cpu, cuda, cuda:1, mps
    dtype: torch.dtype = torch.float32
    channels_last: bool = True
    exact: bool = False  # of float32: the direct convolution, also where Winograd's is faster
    tf32: bool = False  # on CUDA, of float32: products round their factors to 10 bits, and are several times as fast

    @property
    def precision(self) -> str:
        """The name of the precision: float32, exact, tf32, bfloat16."""
        return "exact" if self.exact else "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of pictures that the network computes with."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def best(device: str = "auto", precision: str = "auto", net: nn.Module | None = None) -> Placement:
    """The fastest placement on this machine, or on the given device and in the given precision. Raises UserError.

    The precision `auto` is the one that `unnoise bench` measured to be fastest for the architecture of `net`, where
    there is such a measurement (choices.py); else bfloat16 where the device has instructions for it.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise unknown("precision", precision, ("auto", *PRECISIONS))
    chosen = find(device)
    if precision == "tf32" and not chosen.startswith("cuda"):
        raise UserError(f"precision tf32 is a number format of NVIDIA's graphics cards, not of {chosen}: use float32")
    if precision == "auto":
        choice = None if net is None else choices.find(net, chosen)[0]
        precision = choice.precision if choice else "bfloat16" if fast_bfloat16(chosen) else "float32"
    last, exact, tf32 = not chosen.startswith("mps"), precision == "exact", precision == "tf32"
    return Placement(chosen, PRECISIONS[precision], channels_last=last, exact=exact, tf32=tf32)


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
        pack(net, exact=placement.exact)
    if placement.device == "cpu":
        allocator.retain()  # after packing, whose large blocks would leave holes in the heap
    return net


def prepare(net: nn.Module, placement: Placement) -> nn.Module:
    """`net` itself, moved to the device and memory format for training; its weights keep their dtype.

    training/train_state.py casts them to `placement.dtype` for computation. On a CPU the first call on a machine may
    take a minute, in which the compiled operations are built. From then on every network of the process uses them, and
    the process keeps the memory that it frees.
    """
    if placement.device == "cpu":
        conv.disable() if placement.exact else conv.enable()
        allocator.retain()
    return _move(net, placement)


def allow_tf32(allowed: bool) -> None:
    """Whether convolutions and products in float32 may use TF32 on CUDA, in the whole process.

    PyTorch allows it in convolutions, and then float32 has errors of 1e-3, not 1e-6.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _move(net: nn.Module, placement: Placement) -> nn.Module:
    if placement.device not in ("cpu", "mps"):
        allow_tf32(placement.tf32)
    net.to(placement.device)
    if placement.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if placement.device == "cpu":
        norm.enable()
    return net
