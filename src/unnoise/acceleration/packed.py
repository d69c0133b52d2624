"""Weights laid out once as the processor's kernels want them, instead of at every call. For inference on a CPU.

torch reorders the weight of a convolution or a linear map each time it is called. At batch 1 this is a third of a
U-Net's time, and more at 8x8 pixels and below; packed, the same kernels find their weights ready. Laws
(tests/test_placement.py): the same numbers, to rounding, at every size; leaving `packed` restores the network bit for
bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from unnoise.patch import patched, replace

_TYPICAL = 16  # pixels: the layout is chosen for pictures of this size, and right for all


@contextmanager
def packed(net: nn.Module) -> Iterator[nn.Module]:
    """`net` with its convolutions and linear maps packed, while the block runs. It takes channels_last, no gradients.

    Where this build of torch or this processor has no such kernels, nothing changes.
    """
    with ExitStack() as stack:
        stack.enter_context(patched(net, nn.Conv2d, _conv))
        stack.enter_context(patched(net, nn.Linear, _linear))
        yield net


def pack(net: nn.Module) -> nn.Module:
    """`net` itself, packed for good: the unpacked weights are let go."""
    replace(net, nn.Conv2d, _conv)
    replace(net, nn.Linear, _linear)
    return net


class PackedConv(nn.Module):
    """A convolution whose weight is packed: (B, C, H, W) -> (B, C', H', W'), channels_last, any size."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._how = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        size = (1, conv.in_channels, _TYPICAL, _TYPICAL)
        with torch.no_grad():
            weight = conv.weight.detach().to_mkldnn()
            self.weight: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *self._how, size)
        self._bias = None if conv.bias is None else conv.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        _no_gradient(x)
        x = x.contiguous(memory_format=torch.channels_last)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self._bias, *self._how, "none", [], "")
        return out


class PackedLinear(nn.Module):
    """A linear map whose weight is packed: (..., D) -> (..., D')."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        with torch.no_grad():
            self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        _no_gradient(x)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self._bias, "none", [], "")
        return out


def _conv(conv: nn.Conv2d, name: str) -> nn.Module:
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return (
        PackedConv(conv)
        if plain and conv.weight.device.type == "cpu" and _works(PackedConv, conv.weight.dtype)
        else conv
    )


def _linear(linear: nn.Linear, name: str) -> nn.Module:
    return (
        PackedLinear(linear)
        if linear.weight.device.type == "cpu" and _works(PackedLinear, linear.weight.dtype)
        else linear
    )


@functools.cache
def _works(kind: type[nn.Module], dtype: torch.dtype) -> bool:
    """Whether this build of torch and this processor have the kernels: oneDNN's, whose names torch calls private."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    conv = kind is PackedConv
    with torch.device("meta"):  # no draw of chance
        small: nn.Module = nn.Conv2d(16, 16, 3, padding=1) if conv else nn.Linear(16, 16)
    small.to(dtype).to_empty(device="cpu")
    x = torch.linspace(-1, 1, 400, dtype=dtype).view((1, 16, 5, 5) if conv else (25, 16))
    with torch.no_grad():
        for p in small.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).cos().view_as(p))
        try:
            return bool(torch.allclose(kind(small)(x), small(x), rtol=2e-2, atol=2e-2))
        except (AttributeError, RuntimeError, TypeError):
            return False


def _no_gradient(x: Tensor) -> None:
    if torch.is_grad_enabled() and x.requires_grad:
        raise RuntimeError("a packed network has no gradient: use the network it was made from")
