"""Weights laid out once as the processor's kernels want them, instead of at every call. For inference on a CPU.

torch reorders the weight of a convolution or a linear map each time it is called. At batch 1 this is a third of a
U-Net's time, and more at 8x8 pixels and below; packed, the same kernels find their weights ready.

    every pixel four times, then a 3x3 convolution  =  a 4x4 transposed convolution that steps by two

with 4 products a pixel and channel where the left side has 9, so that is how a packed U-Net goes up. Laws
(tests/acceleration/test_placement.py): the same numbers, to rounding, at every size; leaving `packed` restores the
network bit for bit; a packed network has its biases among its parameters, and so a dtype and a device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from unnoise.nn.unet import Up
from unnoise.patch import apply, patched

Kind = TypeVar("Kind", bound=nn.Module)
_TYPICAL = 16  # pixels: the layout is chosen for pictures of this size, and right for all


@contextmanager
def packed(net: nn.Module) -> Iterator[nn.Module]:
    """`net` with its convolutions and linear maps packed, while the block runs. It takes channels_last, no gradients.

    Where this build of torch or this processor has no such kernels, nothing changes.
    """
    with ExitStack() as stack:
        stack.enter_context(patched(net, Up, _up))
        stack.enter_context(patched(net, nn.Conv2d, _conv))
        stack.enter_context(patched(net, nn.Linear, _linear))
        yield net


def pack(net: nn.Module) -> nn.Module:
    """`net` itself, packed for good: each unpacked weight is let go as soon as it is packed."""
    apply(net, Up, _for_good(_up))
    apply(net, nn.Conv2d, _for_good(_conv))
    apply(net, nn.Linear, _for_good(_linear))
    return net


def _for_good(make: Callable[[Kind, str], nn.Module]) -> Callable[[Kind, str], nn.Module]:
    """The same, and what was packed keeps no weights."""

    def packed_alone(module: Kind, name: str) -> nn.Module:
        made = make(module, name)
        if made is not module:
            for part in module.modules():
                part._parameters.clear()
        return made

    return packed_alone


class PackedConv(nn.Module):
    """A convolution whose weight is packed: (B, C, H, W) -> (B, C', H', W'), channels_last, any size.

    The layout that the kernel wants may depend on the size of the picture. A weight in another one is rearranged at
    every call, which without AVX-512 takes ten times as long as the convolution of one small picture: so the weight is
    laid out for each size when that is met first, and sizes of one layout share it.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._how = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._channels = conv.in_channels
        with torch.no_grad():
            self.weight = self._laid_out(conv.weight.detach().to_mkldnn(), torch.Size((_TYPICAL, _TYPICAL)))
        self._met: dict[torch.Size, Tensor] = {}
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        _no_gradient(x)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = self._met.get(x.shape[2:])
        if weight is None:
            weight = self._meet(x.shape[2:])
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self._how, "none", [], "")
        return out

    def _laid_out(self, weight: Tensor, size: torch.Size) -> Tensor:
        out: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *self._how, (1, self._channels, *size))
        return out

    @torch.no_grad()
    def _meet(self, size: torch.Size) -> Tensor:
        made = self._laid_out(self.weight, size)
        there = (self.weight, *self._met.values())
        found = next((each for each in there if torch.equal(_layout(each), _layout(made))), made)
        if not self._met:
            self.weight = found  # the typical size's was a guess, and is let go
        self._met[size] = found
        return found


def _layout(weight: Tensor) -> Tensor:
    """How a packed weight lies in memory: oneDNN's description of it, without what stands between its fields."""
    told: Tensor = torch.ops.mkldnn._get_mkldnn_serialized_md(weight)
    words = told.view(torch.int32).clone()
    words[_BETWEEN] = 0
    return words


# After data_type, format_kind and inner_nblks, before a field of 8 bytes: left as the stack was, by which two
# descriptions of one layout differ. Where another oneDNN has fields there, a weight is rearranged at each call again.
_BETWEEN = [27, 79, 105]


class PackedUp(nn.Module):
    """A U-Net's step up, packed: (B, C, H, W), what it is told -> (B, C, 2H, 2W), channels_last, any size."""

    def __init__(self, up: Up) -> None:
        super().__init__()
        kernel = doubling(up.conv.weight.detach())
        size = (1, len(kernel), _TYPICAL, _TYPICAL)
        with torch.no_grad():
            self.weight: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(kernel, *_BY_TWO, size)
        self.bias = up.conv.bias

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        _no_gradient(x)
        x = x.contiguous(memory_format=torch.channels_last)
        transposed = torch.ops.mkldnn._convolution_transpose_pointwise
        out: Tensor = transposed(x, self.weight, self.bias, *_BY_TWO, "none", [], "")
        return out


_BY_TWO = ([1, 1], [0, 0], [2, 2], [1, 1], 1)  # padding, output padding, stride, dilation, groups


def doubling(weight: Tensor) -> Tensor:
    """The transposed convolution's (C, C', 4, 4) of a 3x3 convolution (C', C, 3, 3) over every pixel four times.

    A pixel reaches three rows of the result through each of its two copies: tap a of four is the sum of those of the
    three, turned round, that it reaches through one copy or the other. Columns likewise.
    """
    reach = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float32)
    return torch.einsum("ar,bs,oirs->ioab", reach, reach, weight.float()).to(weight.dtype)


class PackedLinear(nn.Module):
    """A linear map whose weight is packed: (..., D) -> (..., D')."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        with torch.no_grad():
            self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        _no_gradient(x)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


def _conv(conv: nn.Conv2d, name: str) -> nn.Module:
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return PackedConv(conv) if plain and _fits(PackedConv, conv.weight) else conv


def _up(up: Up, name: str) -> nn.Module:
    return PackedUp(up) if _fits(PackedUp, up.conv.weight) else up


def _linear(linear: nn.Linear, name: str) -> nn.Module:
    return PackedLinear(linear) if _fits(PackedLinear, linear.weight) else linear


def _fits(kind: type[nn.Module], weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    return _works(kind, weight.dtype)  # type: ignore[arg-type]  # mypy: a class of modules hashes like any class


@functools.cache
def _works(kind: type[nn.Module], dtype: torch.dtype) -> bool:
    """Whether this build of torch and this processor have the kernels: oneDNN's, whose names torch calls private."""
    with torch.device("meta"):  # no draw of chance
        conv, up, linear = nn.Conv2d(16, 16, 3), Up(16), nn.Linear(16, 16)
    small: nn.Module = {PackedConv: conv, PackedUp: up, PackedLinear: linear}[kind]
    small.to(dtype).to_empty(device="cpu")
    x = torch.linspace(-1, 1, 400, dtype=dtype).view((25, 16) if kind is PackedLinear else (1, 16, 5, 5))
    told = (x,) if kind is PackedUp else ()
    with torch.no_grad():
        for p in small.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).cos().view_as(p))
        try:
            got, right = kind(small)(x, *told), small(x, *told)
        except (AttributeError, IndexError, RuntimeError, TypeError):
            return False
        return bool((got - right).norm() < 2e-2 * right.norm())


def _no_gradient(x: Tensor) -> None:
    forward = forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]  # which oneDNN would take for zero
    if forward is not None or (torch.is_grad_enabled() and x.requires_grad):
        raise RuntimeError("a packed network has no gradient: use the network it was made from")
