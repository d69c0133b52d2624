"""Group normalisation with the operations around it in a U-Net, as one module.

    u = x + add                             the time embedding added to the channels
    y = (u - mean_g) / sqrt(var_g + eps) * weight + bias
    y = y (1 + scale) + shift               or as a scale and a shift (AdaGN)
    y = silu(y)

Statistics are over a group's channels and all pixels of one sample (Wu & He 2018), in float32 or wider. There are two
implementations: torch's operations, for everything; and on a CPU, once `enable` was called, one compiled operation
(csrc/) for float32 and bfloat16. On a GPU the lines are operations of their own, and torch's group norm has no kernel
for channels_last there: it copies its input to contiguous memory, and the output is copied back. Laws
(tests/nn/test_norm.py): both equal the four lines above in float64, with all gradients; an addend, scale or shift of
zero changes nothing; a sample's output does not depend on its batch, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.nn.compiled import available


class Norm(nn.GroupNorm):
    """A GroupNorm, with its weights and their names, that can also add, scale, shift and activate."""

    def forward(
        self,
        input: Tensor,
        *,
        silu: bool = False,
        add: Tensor | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """The norm of `input` + add, scaled, shifted and activated, rounded once to its dtype, and in its layout.

        `input` is (B, C, H, W) in any layout; add, scale and shift are (B, C); scale and shift come together.
        """
        weight, bias = self.weight, self.bias
        if _enabled and _fits(input, weight, bias):
            y: Tensor
            y, _ = torch.ops.unnoise.group_norm(input, weight, bias, add, scale, shift, self.num_groups, self.eps, silu)
            return y
        return plain(input, weight, bias, add, scale, shift, groups=self.num_groups, eps=self.eps, silu=silu)


def plain(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    add: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    """The same by torch's own operations, for every device, dtype and layout, with derivatives of every order."""
    # On a CPU torch normalises bfloat16 channels_last with few channels a group on a path 4 to 20 times slower than
    # float32's, so that float32 is the faster choice as well as the more exact one.
    dtype = torch.float32 if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    y = x.to(dtype)
    if add is not None:
        y = y + add.to(dtype)[:, :, None, None]
    layout = torch.channels_last if y.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    weight_only = weight is not None and weight.requires_grad and not y.requires_grad
    if weight_only and torch.is_grad_enabled() and y.device.type == "cpu":
        y = y.contiguous()  # torch 2.13's channels_last kernel crashes if only the weight has a gradient
    weight, bias = (t if t is None else t.to(dtype) for t in (weight, bias))
    y = F.group_norm(y, groups, weight, bias, eps)
    if scale is not None:
        y = y * (1 + scale.to(dtype))[:, :, None, None]
    if shift is not None:
        y = y + shift.to(dtype)[:, :, None, None]
    if silu:
        y = F.silu(y)
    return y.to(x.dtype, memory_format=layout)


# --- the compiled operation ---

_enabled = False


def enable() -> bool:
    """Use the compiled operation from now on, if it is available; the first call on a machine builds it."""
    global _enabled
    _enabled = compiled()[0]
    return _enabled


def disable() -> None:
    """Use torch's operations from now on."""
    global _enabled
    _enabled = False


def compiled() -> tuple[bool, str]:
    """Whether the compiled operation is available, which builds it if necessary, and the reason if it is not."""
    return available("group_norm", _check_built, _register)


def _fits(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether the compiled operation applies: float32 or bfloat16 on a CPU, outside the transforms of torch.func."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.dim() == 4
        and x.numel() > 0
        and weight is not None
        and bias is not None
        and not torch._C._are_functorch_transforms_active()
    )


def _register() -> None:
    """Register the shapes and the gradient of the compiled operations, for autograd and torch.compile."""

    def shapes(x: Tensor, weight: Tensor, bias: Tensor, add: Any, scale: Any, shift: Any, groups: int, *_: Any) -> Any:
        return torch.empty_like(x), x.new_empty(len(x), 2, groups, dtype=torch.float32)

    def gradient_shapes(grad: Tensor, x: Tensor, stats: Tensor, weight: Tensor, *_: Any) -> Any:
        (b, c), single = x.shape[:2], torch.float32
        rows, each = [x.new_empty(c, dtype=single) for _ in range(2)], [x.new_empty(b, c, dtype=single) for _ in "123"]
        return torch.empty_like(x), *rows, *each

    torch.library.register_fake("unnoise::group_norm", shapes)
    torch.library.register_fake("unnoise::group_norm_backward", gradient_shapes)
    torch.library.register_autograd("unnoise::group_norm", _backward, setup_context=_save)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.groups, ctx.eps, ctx.silu = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    *tensors, stats = ctx.saved_tensors
    x, rest = tensors[0], tensors[1:]
    if torch.is_grad_enabled():  # for a second derivative, which torch's operations have
        needed_inputs = [t for t, needed in zip(tensors, ctx.needs_input_grad) if needed]
        y = plain(x, *rest, groups=ctx.groups, eps=ctx.eps, silu=ctx.silu)
        grads = iter(torch.autograd.grad(y, needed_inputs, grad, create_graph=True))
        return *(next(grads) if needed else None for needed in ctx.needs_input_grad[: len(tensors)]), None, None, None
    computed = torch.ops.unnoise.group_norm_backward(grad, x, stats, *rest, ctx.groups, ctx.silu)
    return *(None if t is None else g.to(t.dtype) for g, t in zip(computed, tensors)), None, None, None


def _check_built() -> None:
    """Compares the built operation with torch in float64 on small pictures. Raises AssertionError if they differ."""
    with torch.inference_mode(False), torch.enable_grad():
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
            for layout in (torch.contiguous_format, torch.channels_last):
                for name, error in _errors(dtype, layout):
                    if not error < tolerance:
                        raise AssertionError(f"{name} in {dtype} is off by {error:.1e}")


def _errors(dtype: torch.dtype, layout: torch.memory_format) -> list[tuple[str, float]]:
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(2, 36, 5, 7, generator=generator).to(dtype, memory_format=layout) for _ in range(2))
    emb = [torch.randn(shape, generator=generator) for shape in ((36,), (36,), (2, 36), (2, 36), (2, 36))]
    exact = [t.double().requires_grad_() for t in (x, *emb)]
    right = plain(*exact, groups=12, eps=1e-5, silu=True)
    y, stats = torch.ops.unnoise.group_norm(x, *emb, 12, 1e-5, True)
    computed = torch.ops.unnoise.group_norm_backward(grad, x, stats, *emb, 12, True)
    exact_results = (right, *torch.autograd.grad(right, exact, grad.double()))
    names = ("y", "dx", "dweight", "dbias", "dadd", "dscale", "dshift")
    return [
        (name, ((a.double() - b).norm() / b.norm()).item()) for name, a, b in zip(names, (y, *computed), exact_results)
    ]
