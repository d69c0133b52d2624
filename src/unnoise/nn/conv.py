"""The 3x3 convolution of a network, with gradients: torch's, or the compiled one of winograd.py where that is faster.

    dL/dx = w' * dL/dy        w' is w turned by 180 degrees, with inputs and outputs exchanged: the same operation
    dL/dw                     by the transposes of the transforms, at every size of the picture

Law (tests/nn/test_conv.py): the output, all gradients and second derivatives are those of torch in float64.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn import winograd


class Conv3x3(nn.Conv2d):
    """A Conv2d, with its weights and their names, of kernel 3, stride 1 and padding 1: the size stays."""

    def __init__(self, channels: int, outs: int) -> None:
        super().__init__(channels, outs, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        if _enabled and _fits(input, self.weight):
            y: Tensor = torch.ops.unnoise.conv3x3(input, self.weight, self.bias)
            return y
        return super().forward(input)


_enabled = False


def enable() -> bool:
    """Use the compiled convolution from now on, where it is faster; the first call on a machine builds it."""
    global _enabled
    _enabled = winograd.faster()
    return _enabled


def disable() -> None:
    """Use torch's convolution from now on."""
    global _enabled
    _enabled = False


def _fits(x: Tensor, weight: Tensor) -> bool:
    supported = winograd.fits(weight) and x.dtype == torch.float32 and x.device.type == "cpu" and x.dim() == 4
    return supported and not torch.is_autocast_enabled("cpu") and not torch._C._are_functorch_transforms_active()


@torch.library.custom_op(
    "unnoise::conv3x3", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor"
)
def _conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _apply(x, weight, bias)


def _apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    form = winograd.form(*x.shape[2:])
    if form is None:
        return F.conv2d(x, weight, bias, padding=1).contiguous(memory_format=torch.channels_last)
    return winograd.convolve(x, winograd.lay_out(weight), bias, form)


@_conv3x3.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.new_empty(len(x), len(weight), *x.shape[2:])
    return y.to(memory_format=torch.channels_last)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    of_x, of_weight, of_bias = ctx.needs_input_grad
    if torch.is_grad_enabled():  # for a second derivative, which torch's operation has
        needed = [t for t, wanted in zip((x, weight, bias), ctx.needs_input_grad) if wanted]
        y = F.conv2d(x, weight, bias, padding=1)
        grads = iter(torch.autograd.grad(y, needed, grad, create_graph=True))
        return tuple(next(grads) if wanted else None for wanted in ctx.needs_input_grad)
    dx = _input_gradient(grad, x, weight) if of_x else None
    dw = winograd.weight_gradient(grad, x) if of_weight else None
    return dx, dw, grad.sum((0, 2, 3)) if of_bias else None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    turned = weight.flip(2, 3).transpose(0, 1)
    if winograd.fits(turned):
        return _apply(grad, turned, None)
    zeros, ones = (0, 0), (1, 1)
    dx: Tensor = torch.ops.aten.convolution_backward(
        grad, x, weight, None, ones, ones, ones, False, zeros, 1, (True, False, False)
    )[0]
    return dx


_conv3x3.register_autograd(_backward, setup_context=_save)
