"""Packed weights: laid out once as the processor's kernels need them, instead of at every call. CPU inference only.

torch reorders the weight of a convolution or a linear map each time it is called. At batch 1 this is a third of a
U-Net's time, and more at 8x8 pixels and below; packed, the same kernels find their weights ready. A step up is packed
as another operation:

    each pixel repeated 2x2, then a 3x3 convolution  =  a 4x4 transposed convolution with stride 2

with 4 products a pixel and channel where the left side has 9. On processors with AVX2 alone, 3x3 convolutions and steps
up in float32 are computed by Winograd's method where the picture is large enough (nn/winograd.py), and linear maps stay
with torch, whose kernels (MKL's) are faster there than oneDNN's packed ones. Only plain modules are packed: a module
that a patch has replaced, or a step up with a part replaced, is left as it is, so patches come first (patch.py); a
plain module inside a replacement is packed, and has to be called there: its `weight` can no longer be read. Laws
(tests/acceleration/test_placement.py): the same numbers, to rounding, at every size; a packed copy leaves the original
as it is; a packed network has its biases among its parameters, and so a dtype and a device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from unnoise.nn import winograd
from unnoise.nn.conv import Conv3x3
from unnoise.nn.unet import Up
from unnoise.patch import Patch, apply, shared_copy

Net = TypeVar("Net", bound=nn.Module)
Kind = TypeVar("Kind", bound=nn.Module)
_TYPICAL = 16  # pixels: the layout is chosen for pictures of this size, and correct for all


def packed(net: Net) -> Net:
    """A copy of `net` with its plain convolutions and linear maps packed; `net` itself does not change.

    The copy computes in channels_last and has no gradients. It holds both weights, packed and not: see `pack`. Where
    this build of torch or this processor has no such kernels, nothing is packed.
    """
    net = shared_copy(net)
    for patch in _patches(exact=False):
        if patch.matches(net):
            apply(net, patch)
    return net


def pack(net: nn.Module, *, exact: bool = False) -> nn.Module:
    """`net` itself, packed in place, for its only owner: each weight is freed as soon as it is packed.

    `exact` stays with the direct convolution where Winograd's is faster.
    """
    for patch in _patches(exact=exact):
        if patch.matches(net):
            apply(net, Patch(patch.kind, _freeing(patch.make)))
    return net


def _freeing(make: Callable[[Kind, str], nn.Module]) -> Callable[[Kind, str], nn.Module]:
    """The same, and a module that was packed keeps no weights."""

    def pack_and_free(module: Kind, name: str) -> nn.Module:
        made = make(module, name)
        if made is not module:
            for part in module.modules():
                part._parameters.clear()
        return made

    return pack_and_free


class PackedConv(nn.Module):
    """A convolution whose weight is packed: (B, C, H, W) -> (B, C', H', W'), channels_last, any size.

    The kernel and its layout may depend on the size of the picture. A weight in another layout is rearranged at every
    call, which without AVX-512 takes ten times as long as the convolution of one small picture. The weight is therefore
    laid out for each size at its first call, and sizes with the same layout use one tensor.
    """

    def __init__(self, conv: nn.Conv2d, *, exact: bool = False) -> None:
        super().__init__()
        self._options = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._channels = conv.in_channels
        simple = (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (1, 1), (1, 1), 1)
        self._winograd = not exact and simple and winograd.fits(conv.weight) and winograd.faster()
        with torch.no_grad():
            self.weight = self._laid_out(conv.weight.detach(), torch.Size((_TYPICAL, _TYPICAL)))
        self._by_size: dict[torch.Size, Tensor] = {}
        self._transformed = winograd.Transformed()
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        _no_gradient(x)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = self._by_size.get(x.shape[2:])
        if weight is None:
            weight = self._lay_out_for(x.shape[2:])
        form = self._form(x.shape[2:])
        if form is not None:
            return winograd.convolve(x, self._transformed.of(weight, x, form), self.bias, form)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self._options, "none", [], "")
        return out

    def _form(self, size: torch.Size) -> str | None:
        return winograd.form(*size) if self._winograd else None

    def _laid_out(self, weight: Tensor, size: torch.Size) -> Tensor:
        if self._form(size) is not None:
            return winograd.lay_out(weight)
        weight = weight.to_mkldnn()
        out: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *self._options, (1, self._channels, *size))
        return out

    @torch.no_grad()
    def _lay_out_for(self, size: torch.Size) -> Tensor:
        plain = self.weight.to_dense() if self.weight.is_mkldnn else winograd.laid_back(self.weight)
        made = self._laid_out(plain, size)
        held = (self.weight, *self._by_size.values())
        found = next((each for each in held if _layout(each) == _layout(made)), made)
        if not self._by_size:
            self.weight = found  # frees the layout of the typical size, which was a guess
        self._by_size[size] = found
        return found


def _layout(weight: Tensor) -> bytes:
    """How a weight lies in memory: oneDNN's description, with its padding bytes set to zero, or none for Winograd's."""
    if not weight.is_mkldnn:
        return b""
    description: Tensor = torch.ops.mkldnn._get_mkldnn_serialized_md(weight)
    fields = description.view(torch.int32).clone()
    fields[_PADDING] = 0
    return bytes(fields.numpy())


# After data_type, format_kind and inner_nblks, before a field of 8 bytes: uninitialised, so that two descriptions of
# one layout may differ there. If another oneDNN has fields at these places, a weight is rearranged at each call again.
_PADDING = [27, 79, 105]


class PackedUp(nn.Module):
    """A U-Net's step up, packed: (B, C, H, W) and an embedding, unused -> (B, C, 2H, 2W), channels_last, any size."""

    def __init__(self, up: Up, *, exact: bool = False) -> None:
        super().__init__()
        weight = up.conv.weight.detach()
        self._winograd = not exact and winograd.fits(weight) and winograd.faster()
        with torch.no_grad():
            self.weight = winograd.lay_out(weight) if self._winograd else _transposed(weight)
        self._transformed = winograd.Transformed()
        self._small: Tensor | None = None  # for pictures that are too small for Winograd's method, at the first of them
        self.bias = up.conv.bias

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        _no_gradient(x)
        x = x.contiguous(memory_format=torch.channels_last)
        form = winograd.form_up(*x.shape[2:]) if self._winograd else None
        if form is not None:
            return winograd.convolve(x, self._transformed.of(self.weight, x, form), self.bias, form)
        if self._winograd and self._small is None:
            with torch.no_grad():
                self._small = _transposed(winograd.laid_back(self.weight))
        weight = self.weight if self._small is None else self._small
        transposed = torch.ops.mkldnn._convolution_transpose_pointwise
        out: Tensor = transposed(x, weight, self.bias, *_BY_TWO, "none", [], "")
        return out


def _transposed(weight: Tensor) -> Tensor:
    kernel = doubling(weight)
    size = (1, len(kernel), _TYPICAL, _TYPICAL)
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(kernel, *_BY_TWO, size)
    return packed


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


def _conv(exact: bool, conv: nn.Conv2d, name: str) -> nn.Module:
    simple = type(conv) in (nn.Conv2d, Conv3x3) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return PackedConv(conv, exact=exact) if simple and _fits(PackedConv, conv.weight) else conv


def _up(exact: bool, up: Up, name: str) -> nn.Module:
    plain = type(up) is Up and type(up.conv) is Conv3x3
    return PackedUp(up, exact=exact) if plain and _fits(PackedUp, up.conv.weight) else up


def _linear(linear: nn.Linear, name: str) -> nn.Module:
    slower = torch.backends.cpu.get_cpu_capability() == "AVX2"  # than MKL: by a tenth, and by half at batch 1
    packs = type(linear) is nn.Linear and not slower and _fits(PackedLinear, linear.weight)
    return PackedLinear(linear) if packs else linear


def _patches(exact: bool) -> tuple[Patch[Any], ...]:
    up, conv = (functools.partial(make, exact) for make in (_up, _conv))
    return Patch(Up, up), Patch(nn.Conv2d, conv), Patch(nn.Linear, _linear)  # a step up before its convolution


def _fits(kind: type[nn.Module], weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    return _works(kind, weight.dtype)  # type: ignore[arg-type]  # mypy: a class of modules hashes like any class


@functools.cache
def _works(kind: type[nn.Module], dtype: torch.dtype) -> bool:
    """Whether this build of torch and this processor have oneDNN's kernels, which are private names of torch."""
    with torch.device("meta"):  # draws no random numbers
        conv, up, linear = nn.Conv2d(16, 16, 3, padding=2), Up(16), nn.Linear(16, 16)
    small: nn.Module = {PackedConv: conv, PackedUp: up, PackedLinear: linear}[kind]
    small.to(dtype).to_empty(device="cpu")
    x = torch.linspace(-1, 1, 400, dtype=dtype).view(
        (25, 16) if kind is PackedLinear else (25, 16, 1, 1)
    )  # small: oneDNN's
    emb = (x,) if kind is PackedUp else ()
    with torch.no_grad():
        for p in small.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).cos().view_as(p))
        try:
            got, right = kind(small)(x, *emb), small(x, *emb)
        except (AttributeError, IndexError, RuntimeError, TypeError):
            return False
        return bool((got - right).norm() < 2e-2 * right.norm())


def _no_gradient(x: Tensor) -> None:
    forward = forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]  # oneDNN would ignore it
    if forward is not None or (torch.is_grad_enabled() and x.requires_grad):
        raise RuntimeError("a packed network has no gradient: use the network that it was made from")
